package views

import (
	"net/url"

	"tollgate/views/ui"
)

// SignIn is the page that leads in.
type SignIn struct {
	Frame ui.Frame
	// Missing names the settings that signing in lacks; empty when it is configured.
	Missing []string
	// Issuer is what people know the issuer by, such as "Slack".
	Issuer string
	// Next is the path of ours that the person wanted; empty for /usage.
	Next string
	// Fault says, to the person, why the last try failed; empty at the first one.
	Fault string
}

// SignInLink is the page of a one-time link. Opening it changes nothing, as mail programs open links too.
type SignInLink struct {
	Frame ui.Frame
	// Token is the link's; empty when it was used, is too old or never was.
	Token string
	// Email is who it signs in.
	Email string
}

func slackURL(d SignIn) string {
	if d.Next == "" {
		return PathSignInSlack
	}
	return PathSignInSlack + "?" + url.Values{FieldNext: {d.Next}}.Encode()
}
