package web

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"golang.org/x/sync/singleflight"

	"tollgate/models"
)

// slackMessage is a message in the format of Slack's response_url.
type slackMessage struct {
	ResponseType string       `json:"response_type" enum:"ephemeral" doc:"Only the person sees it."`
	Text         string       `json:"text" doc:"The message for notifications and screen readers."`
	Blocks       []slackBlock `json:"blocks" doc:"The message in Slack's Block Kit." nullable:"false"`
}

type slackBlock struct {
	Type     string      `json:"type"`
	Text     *slackText  `json:"text,omitempty"`
	Elements []slackText `json:"elements,omitempty" nullable:"false"`
}

// slackText is a text object. The type "mrkdwn" has Slack's formatting and links. Names that people
// chose are in texts of the type "plain_text", because mrkdwn has no escape for *, _, ~ and `.
type slackText struct {
	Type  string `json:"type"`
	Text  string `json:"text"`
	Emoji *bool  `json:"emoji,omitempty" doc:"Always false, and only in plain_text, so that :wave: is shown as written."`
}

// maxSlackText is the maximum number of characters of a section's text.
// Source: https://docs.slack.dev/reference/block-kit/blocks/section-block
const maxSlackText = 3000

func mrkdwn(text string) slackText { return slackText{Type: "mrkdwn", Text: cut(text)} }

func plainText(text string) slackText {
	return slackText{Type: "plain_text", Text: cut(slackEscape.Replace(text)), Emoji: new(false)}
}

func section(t slackText) slackBlock         { return slackBlock{Type: "section", Text: &t} }
func contextBlock(t ...slackText) slackBlock { return slackBlock{Type: "context", Elements: t} }

// cut shortens a text to what a section may have. Only a plan catalog with very long names needs it.
func cut(text string) string {
	if letters := []rune(text); len(letters) > maxSlackText {
		return string(letters[:maxSlackText-1]) + "…"
	}
	return text
}

// slackEscape escapes text for Slack.
// Source: https://docs.slack.dev/messaging/formatting-message-text#escaping
var slackEscape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// slackDate returns a time that Slack shows in the reader's time zone. A client that cannot do so
// shows the time as a notice has it.
func slackDate(t time.Time) string {
	return fmt.Sprintf("<!date^%d^{date_short}, {time}|%s>", t.Unix(), models.FormatReset(t))
}

// slackBar draws a percentage in ten steps.
func slackBar(percent int64) string {
	full := int(min(percent, 100)) / 10
	return strings.Repeat("▰", full) + strings.Repeat("▱", 10-full)
}

// slackMark returns the icon of a decision: whether work stops or continues, and how close the
// limit is. Words accompany it, because not everyone can see differences in color.
func slackMark(s *models.Standing, v models.Verdict) string {
	switch {
	case !v.Allowed, s.Remaining() == 0 && s.Paused():
		return ":octagonal_sign:"
	case s.Overage > 0, s.Level() == models.Exceeded:
		return ":information_source:"
	case s.Level() == models.Critical:
		return ":rotating_light:"
	}
	return ":warning:"
}

// slackMessages writes the Slack messages of answers.
type slackMessages struct {
	catalogue *models.Catalogue
	baseURL   string
	// signIn means that people can sign in with Slack.
	signIn bool
	// situation returns what a person's next step depends on; nil if that is unknown.
	situation func(user uuid.UUID) *models.Situation
}

// append writes the message of an answer with a notice. It never fails, and waits at most
// situationPatience for the database.
func (m *slackMessages) append(b []byte, s *models.Standing, v models.Verdict, notice string) []byte {
	var in *models.Situation
	if s.UserID != uuid.Nil {
		in = m.situation(s.UserID)
	} else {
		in = &models.Situation{} // a new person, who belongs to no organization
	}
	text, err := json.Marshal(m.message(s, v, notice, in))
	if err != nil { // cannot happen: it has only valid strings
		return append(b, "null"...)
	}
	return append(b, text...)
}

func (m *slackMessages) message(s *models.Standing, v models.Verdict, notice string, in *models.Situation) slackMessage {
	step := m.catalogue.NextStep(*s, v, in)
	until := m.catalogue.NoticeUntilReset(*s, v)
	return slackMessage{
		ResponseType: "ephemeral",
		Text:         cut(slackEscape.Replace(notice) + " " + m.stepText(step)),
		Blocks: []slackBlock{
			section(mrkdwn(slackMark(s, v) + " *" + slackEscape.Replace(m.catalogue.NoticeTitle(*s, v)) + "*\n" + slackEscape.Replace(until) +
				slackDate(s.Period.End) + ".")),
			m.stepBlock(step),
			m.footer(s, s.PercentUsed()),
		},
	}
}

// footer shows the plan, the meter with this percentage, and a link to the usage page.
func (m *slackMessages) footer(s *models.Standing, percent int64) slackBlock {
	return contextBlock(plainText(m.catalogue.PlanOf(s.Plan).Name+" plan"),
		mrkdwn(fmt.Sprintf("%s  %d%% used", slackBar(percent), percent)), mrkdwn(m.link("/usage", "Usage page")))
}

// link links to a page. It is a link in the text and not a button, because Slack reports each click
// on a button to the app, even on one with an address, and shows a warning if the app does not answer.
// Source: https://docs.slack.dev/reference/block-kit/block-elements/button-element
func (m *slackMessages) link(path, text string) string {
	return "<" + m.baseURL + path + "|" + slackEscape.Replace(text) + ">"
}

func (m *slackMessages) stepBlock(step models.NextStep) slackBlock {
	if step.Path == "" {
		return section(plainText(step.Text))
	}
	return section(mrkdwn(m.link(step.Path, step.Text)))
}

// stepText is the step in a message's text.
func (m *slackMessages) stepText(step models.NextStep) string {
	if step.Path == "" {
		return slackEscape.Replace(step.Text)
	}
	return step.Text + ": " + m.baseURL + step.Path
}

const (
	// situationPatience is how long an answer waits for a situation.
	situationPatience = 250 * time.Millisecond
	// situationFresh is how long a situation is cached, and situationRetry how long an error is.
	situationFresh, situationRetry = 10 * time.Second, time.Second
	// maxSituations limits the cache, and maxSituationReads the number of reads at the same time.
	maxSituations, maxSituationReads = 10_000, 32
)

// situations caches the situations of people for a short time, because a person who is at their
// limit often makes several calls.
type situations struct {
	read  func(context.Context, uuid.UUID) (*models.Situation, error)
	log   *slog.Logger
	reads singleflight.Group
	slots chan struct{}

	mu    sync.Mutex
	known map[uuid.UUID]knownSituation
}

type knownSituation struct {
	situation *models.Situation
	until     time.Time
}

func newSituations(db *models.DB, log *slog.Logger) *situations {
	return &situations{
		read: func(ctx context.Context, user uuid.UUID) (*models.Situation, error) {
			return models.SituationOf(ctx, db, user)
		},
		log: log, slots: make(chan struct{}, maxSituationReads), known: map[uuid.UUID]knownSituation{},
	}
}

// of returns a person's situation; nil if it cannot be read in time. A read that takes longer
// continues, for the next message.
func (c *situations) of(user uuid.UUID) *models.Situation {
	c.mu.Lock()
	known, ok := c.known[user]
	c.mu.Unlock()
	if ok && time.Now().Before(known.until) {
		return known.situation
	}
	done := c.reads.DoChan(user.String(), func() (any, error) {
		select {
		case c.slots <- struct{}{}:
			defer func() { <-c.slots }()
		default: // the database is slow
			return (*models.Situation)(nil), nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
		defer cancel()
		situation, err := c.read(ctx, user)
		fresh := situationFresh
		if err != nil {
			c.log.Warn("could not read what a person can do about their limit; the message is less specific", "error", err)
			fresh = situationRetry
		}
		c.store(user, knownSituation{situation, time.Now().Add(fresh)})
		return situation, nil
	})
	timeout := time.NewTimer(situationPatience)
	defer timeout.Stop()
	select {
	case r := <-done:
		return r.Val.(*models.Situation)
	case <-timeout.C:
		return nil
	}
}

func (c *situations) store(user uuid.UUID, known knownSituation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxSituations {
		clear(c.known)
	}
	c.known[user] = known
}
