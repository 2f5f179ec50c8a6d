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
	// Notices tell of what the last form did; they stand above everything else.
	Notices []Notice
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
