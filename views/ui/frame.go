// Package ui holds the pieces that pages are made of: the frame, cards, badges, forms. It draws what it is given.
package ui

import "time"

// Viewer is the person who looks at a page.
type Viewer struct {
	Email string
	// Name may be empty.
	Name string
	// Organization is the name of the viewer's; empty when they belong to none.
	Organization string
	// Admin opens the organization's pages, Operator the installation's.
	Admin    bool
	Operator bool
}

// Called is the viewer's name, or the email of somebody who has none.
func (v *Viewer) Called() string {
	if v.Name != "" {
		return v.Name
	}
	return v.Email
}

// Frame is what every page has around it.
type Frame struct {
	// Viewer is nil when nobody is signed in.
	Viewer *Viewer
	// Now is when the page's figures were read. It is its "updated" line, and what "in 8 days" counts from.
	Now time.Time
	// Notices say what the last form did. They are above everything else.
	Notices []Notice
	// Errors say why a form was refused. The page begins with them, and its title with "Error: ".
	Errors []FormError
	// Prefix begins the title of a page that asks or says something before anything else, such as "Confirm: ".
	Prefix string
}

// FormError is one reason why a form was refused.
type FormError struct {
	// Field is the ID of the invalid field, which gets the focus; empty if no field is invalid.
	Field   string
	Message string
}

// invalid returns the message of the field with the ID; empty if it is valid.
func (f *Frame) invalid(id string) string {
	for _, e := range f.Errors {
		if e.Field == id {
			return e.Message
		}
	}
	return ""
}

// focused says whether the field with the ID is the first invalid one.
func (f *Frame) focused(id string) bool {
	return len(f.Errors) > 0 && f.Errors[0].Field == id
}

// title returns the title of the page with what comes before it.
func (f *Frame) title(title string) string {
	if len(f.Errors) > 0 {
		return "Error: " + title
	}
	return f.Prefix + title
}

// Check marks a field that is invalid: it gets its message, and the first one the focus.
func (f *Frame) Check(field Field) Field {
	field.Error, field.Focus = f.invalid(field.ID), f.focused(field.ID)
	return field
}

// Kind says what sort of thing a notice tells, and so its icon and colour.
type Kind string

// The kinds of notice.
const (
	Info    Kind = "info"
	Done    Kind = "done"
	Caution Kind = "caution"
	Fault   Kind = "fault"
)

// Notice is one message above a page.
type Notice struct {
	Kind  Kind
	Title string
	// Text may be empty.
	Text string
	// Focus gives the notice the focus, for one that must not be missed.
	Focus bool
}

// link is one entry of the navigation.
type link struct{ path, label string }

// navigation is what the viewer may open. A page that would answer 403 is not offered.
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
