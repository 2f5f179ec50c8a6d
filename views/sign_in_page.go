package views

import "tollgate/views/ui"

// SignIn is the sign-in page.
type SignIn struct {
	Frame ui.Frame
	// Unavailable means that sign-in through the issuer is not configured.
	Unavailable bool
	// Issuer is the name that people know the issuer by, such as "Slack".
	Issuer string
	// Next is the local path to open after signing in; empty for /usage.
	Next string
	// Away means that the issuer cannot be reached.
	Away bool
}

// SignInLink is the page of a one-time link. Opening it changes nothing, because mail programs also
// open links.
type SignInLink struct {
	Frame ui.Frame
	// Email is the address of the person that the link signs in.
	Email string
	// Instead is the address of the person who is signed in now, if that is a different person.
	Instead string
	// Next is the local path to open after signing in; empty for /usage.
	Next string
}
