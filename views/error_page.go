package views

import (
	"net/http"

	"tollgate/views/ui"
)

// Error is the page shown instead of a page that could not be shown.
type Error struct {
	Frame ui.Frame
	// Status is the HTTP status. 403, 404, 500 and 503 have their own texts.
	Status int
	// Title and Detail replace the texts of the status; empty to use those.
	Title, Detail string
	// SignIn offers to sign in.
	SignIn bool
	// RequestID identifies the request in the log.
	RequestID string
	// Admins are the people who can help with a 403; empty if there are none.
	Admins []Person
}

// Person is a name and an email address.
type Person struct{ Name, Email string }

func (d *Error) title() string {
	if d.Title != "" {
		return d.Title
	}
	switch d.Status {
	case http.StatusForbidden:
		return "This page is for admins"
	case http.StatusNotFound:
		return "Page not found"
	case http.StatusServiceUnavailable:
		return "Temporarily unavailable"
	case http.StatusInternalServerError:
		return "Something went wrong"
	}
	return http.StatusText(d.Status)
}

func (d *Error) text() string {
	if d.Detail != "" {
		return d.Detail
	}
	switch d.Status {
	case http.StatusForbidden:
		return "You can see your own usage. This page shows the usage of other members."
	case http.StatusNotFound:
		return "It may have moved, or it belongs to another organization."
	case http.StatusServiceUnavailable:
		return "The database is not responding. Try again in a few seconds. If you sent a form, first check whether the change was saved."
	case http.StatusInternalServerError:
		return "This is an error on our side, and it was logged. Try again. If it happens again, send the request ID to your operator."
	}
	return "The request could not be answered."
}
