package views

import (
	"time"

	"tollgate/models"
	"tollgate/views/ui"
)

// Settings is a person's own: who they are here, what they are told, where they are signed in.
type Settings struct {
	Frame     ui.Frame
	Catalogue *models.Catalogue
	Role      models.Role
	Plan      models.Plan
	// Notice is what the app tells the person in Slack now: models.Catalogue.Notice; empty at the level safe.
	Notice Widget[string]
	// Sessions are the person's, this one among them.
	Sessions Widget[[]Session]
}

// Session is a browser that somebody is signed in with.
type Session struct {
	// ID names the session in the form that ends it. It is not the session's token.
	ID string
	// Browser is a name for people: "Firefox on Linux".
	Browser string
	// SignedInAt and SeenAt are when it began and was last used.
	SignedInAt, SeenAt time.Time
	// Current marks the one that asks.
	Current bool
}

// levelStart is the percentage of the included units at which a level begins.
type levelStart struct {
	level   models.WarningLevel
	percent int64
}

// levelStarts asks the rule itself where its levels begin, so that the page cannot say otherwise.
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

// others is how many sessions there are beside this one.
func others(sessions []Session) int {
	n := 0
	for _, s := range sessions {
		if !s.Current {
			n++
		}
	}
	return n
}
