package views

import (
	"time"

	"tollgate/models"
	"tollgate/views/ui"
)

// Settings is a person's own page: their profile, their current notice and their sessions.
type Settings struct {
	Frame     ui.Frame
	Catalogue *models.Catalogue
	Role      models.Role
	Plan      models.Plan
	// Notice is the text that the Slack app shows the person at present, from models.Catalogue.Notice;
	// empty at the level safe.
	Notice Widget[string]
	// Sessions are the person's sessions, including the current one.
	Sessions Widget[[]Session]
}

// Session is a browser in which the person is signed in.
type Session struct {
	// ID identifies the session in the form that ends it. It is not the session's token.
	ID string
	// Browser is a readable name: "Firefox on Linux".
	Browser string
	// SignedInAt is when the session began. SeenAt is when it was last used.
	SignedInAt, SeenAt time.Time
	// Current means that the page was requested with it.
	Current bool
}

// levelStart is the percentage of the included units at which a level begins.
type levelStart struct {
	level   models.WarningLevel
	percent int64
}

// levelStarts finds where each level begins by calling the rule itself, so that the page always
// agrees with it.
func levelStarts() []levelStart {
	var starts []levelStart
	last := models.Safe
	for percent := range int64(101) {
		level := models.Standing{Used: percent, Included: 100}.Level()
		if level != last {
			starts = append(starts, levelStart{level, percent})
			last = level
		}
	}
	return starts
}

// others returns the number of sessions other than the current one.
func others(sessions []Session) int {
	n := 0
	for _, s := range sessions {
		if !s.Current {
			n++
		}
	}
	return n
}
