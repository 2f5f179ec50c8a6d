package views

import "tollgate/views/ui"

// SignIn is the page that leads in.
type SignIn struct {
	Frame ui.Frame
	// Unavailable means that sign-in through the issuer is not configured.
	Unavailable bool
	// Issuer is what people know the issuer by, such as "Slack".
	Issuer string
	// Next is the path of ours that the person wanted; empty for /usage.
	Next string
	// Away says that the issuer cannot be reached.
	Away bool
}

// SignInLink is the page of a one-time link. Opening it changes nothing, as mail programs open links too.
type SignInLink struct {
	Frame ui.Frame
	// Email is who it signs in.
	Email string
	// Instead is who is signed in so far, when that is somebody else; else empty.
	Instead string
	// Next is the path of ours that the person wanted; empty for /usage.
	Next string
}
