// Package ui holds the pieces that pages are made of: the frame, cards, badges and forms.
package ui

import "time"

// Viewer is the person who views a page.
type Viewer struct {
	Email string
	// Name may be empty.
	Name string
	// Organization is the name of the viewer's organization; empty if there is none.
	Organization string
	// Admin gives access to the organization's pages, Operator to those of the installation.
	Admin    bool
	Operator bool
}

// Called returns the viewer's name, or the email if there is no name.
func (v *Viewer) Called() string {
	if v.Name != "" {
		return v.Name
	}
	return v.Email
}

// Frame holds what every page has around its content.
type Frame struct {
	// Viewer is nil if the viewer is not signed in.
	Viewer *Viewer
	// Now is when the page's figures were read. The "Updated" line shows it, and times such as
	// "in 8 days" count from it.
	Now time.Time
	// Notices say what the last form did. They are shown above the page's content.
	Notices []Notice
	// Errors say why a form was refused. The page begins with them, and its title begins with "Error".
	Errors []FormError
	// Prefix is prepended to the title, such as "Confirm: " on a page that first asks a question.
	Prefix string
}

// FormError is one reason why a form was refused.
type FormError struct {
	// Field is the ID of the invalid field, which gets the focus; empty if no field is invalid.
	Field   string
	Message string
}

// invalid returns the error message of the field; empty if the field is valid.
func (f *Frame) invalid(id string) string {
	for _, e := range f.Errors {
		if e.Field == id {
			return e.Message
		}
	}
	return ""
}

// focused reports whether the field is the first invalid one.
func (f *Frame) focused(id string) bool {
	return len(f.Errors) > 0 && f.Errors[0].Field == id
}

// title returns the page's title with its prefix.
func (f *Frame) title(title string) string {
	if len(f.Errors) > 0 {
		return "Error: " + title
	}
	return f.Prefix + title
}

// Check adds the error message to an invalid field. The first invalid field also gets the focus.
func (f *Frame) Check(field Field) Field {
	field.Error, field.Focus = f.invalid(field.ID), f.focused(field.ID)
	return field
}

// Kind is the kind of a notice. It decides the icon and the color.
type Kind string

// The kinds of notice.
const (
	Info    Kind = "info"
	Done    Kind = "done"
	Caution Kind = "caution"
	Failure Kind = "failure"
)

// Notice is one message above a page.
type Notice struct {
	Kind  Kind
	Title string
	// Text may be empty.
	Text string
	// Focus gives the notice the focus, so that it is not missed.
	Focus bool
}

// link is one entry of the navigation.
type link struct{ path, label string }

// navigation returns links to the pages that the viewer may open.
func navigation(v *Viewer) []link {
	if v == nil {
		return []link{{"/plans", "Plans"}, {"/docs", "API"}}
	}
	links := []link{{"/usage", "Usage"}}
	if v.Admin {
		links = append(links, link{"/org", "Organization"}, link{"/org/members", "Members"})
	}
	links = append(links, link{"/plans", "Plans"}, link{"/settings", "Settings"})
	if v.Operator {
		links = append(links, link{"/ops", "Operations"})
	}
	return links
}
