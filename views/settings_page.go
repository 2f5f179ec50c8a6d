package views

import (
	"fmt"
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
	// Notices is the form for channels and levels.
	Notices Widget[NoticesForm]
	// Sessions are the person's sessions, including the current one.
	Sessions Widget[[]Session]
}

// NoticesForm is the form in which a person chooses the channels and levels of their notices.
type NoticesForm struct {
	// Channels are the channels of this server: Slack, mail, both or neither.
	Channels []ChannelChoice
	// On are the selected levels.
	On models.NoticeLevels
	// Admin means that the person gets the admins' daily summary.
	Admin bool
}

// ChannelChoice is a channel that the person can select.
type ChannelChoice struct {
	Channel models.NoticeChannel
	On      bool
	// Hint says where the messages go, or why none can be sent.
	Hint string
}

// The IDs of the form's fields: the first checkbox of each group.
const (
	FieldIDChannel = "notice-channel"
	FieldIDLevel   = "notice-level"
)

func channelName(c models.NoticeChannel) string {
	if c == models.ChannelSlack {
		return "Direct message in Slack"
	}
	return "Email"
}

// levelChoice is a level that the person can select.
type levelChoice struct {
	// Value is what the form sends.
	value string
	level models.NoticeLevels
	label string
}

// ParseNoticeLevel returns the level of a checkbox; 0 if there is none.
func ParseNoticeLevel(value string) models.NoticeLevels {
	for _, c := range levelChoices(true, "") {
		if c.value == value {
			return c.level
		}
	}
	return 0
}

func levelChoices(admin bool, units string) []levelChoice {
	choices := []levelChoice{
		{"warning", models.NoticesWarning, "Warning: 80% of the included " + units + " are used"},
		{"critical", models.NoticesCritical, "Critical: 95% are used"},
		{"limit", models.NoticesLimit, "Limits: all are used, extra " + units + " are billed, or a limit is reached"},
	}
	if admin {
		choices = append(choices, levelChoice{"digest", models.NoticesDigest, "Daily summary, for admins: members who used 80% or more"})
	}
	return choices
}

// fieldNumber returns the ID of a group's checkbox. An error links to the first one.
func fieldNumber(group string, i int) string {
	if i == 0 {
		return group
	}
	return fmt.Sprintf("%s-%d", group, i)
}

// Unsubscribe is the page of a mail's unsubscribe link.
type Unsubscribe struct {
	Frame ui.Frame
	// Action is the form's action. It contains the token.
	Action string
	// Done means that mail is off now.
	Done bool
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
