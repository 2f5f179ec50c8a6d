package web

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// Decision is the answer of check, consume, holds and usage, as the API's document describes it.
// appendDecision writes the answers themselves; a test checks that both agree.
type Decision struct {
	Allowed          bool          `json:"allowed" doc:"Whether the quantity is allowed; true after a settlement, release, void or grant."`
	Reason           *string       `json:"reason" doc:"Null if allowed."`
	WarningLevel     string        `json:"warning_level" enum:"safe,warning,critical,exceeded"`
	Email            string        `json:"email"`
	Plan             string        `json:"plan" doc:"The ID of the person's plan."`
	Used             int64         `json:"used" doc:"Units used in the period."`
	Held             int64         `json:"held" doc:"Units on hold."`
	Included         int64         `json:"included" doc:"Units that the plan covers, and granted units."`
	Remaining        int64         `json:"remaining" doc:"Included units that are neither used nor on hold."`
	PercentUsed      int64         `json:"percent_used"`
	Overage          int64         `json:"overage" doc:"Billed units beyond the included units."`
	OverageRateCents int64         `json:"overage_rate_cents"`
	OverageCents     int64         `json:"overage_cents" doc:"The estimated price of the overage so far, in cents before tax."`
	SpendLimitCents  *int64        `json:"spend_limit_cents"`
	MemberLimit      *int64        `json:"member_limit" doc:"An admin's limit on this person's units per period; null means no limit."`
	Period           period        `json:"period"`
	UsageURL         string        `json:"usage_url" format:"uri" doc:"The person's usage page."`
	Notice           *string       `json:"notice" doc:"What to say to the person; null if the call is allowed and the level is safe."`
	Slack            *slackMessage `json:"slack"`
}

type period struct {
	Start time.Time `json:"start" doc:"In UTC, inclusive."`
	End   time.Time `json:"end" doc:"In UTC, exclusive."`
}

// ConsumeAnswer is the answer of consume.
type ConsumeAnswer struct {
	Decision
	EventID  *string `json:"event_id" format:"uuid" doc:"The event that was recorded or reversed; null if refused."`
	Replayed bool    `json:"replayed" doc:"Whether this is the answer to an earlier call for the same key or hold."`
}

type holdAnswer struct {
	Decision
	Hold *holdBody `json:"hold" doc:"The hold; null if refused."`
}

type settleAnswer struct {
	ConsumeAnswer
	Hold *holdBody `json:"hold"`
}

type holdBody struct {
	ID        string    `json:"id" format:"uuid"`
	Quantity  int64     `json:"quantity" doc:"Units set aside."`
	State     string    `json:"state" enum:"open,settled,released,expired"`
	ExpiresAt time.Time `json:"expires_at"`
}

// TransformSchema adds the descriptions that are too long for struct tags, lists the reasons, and
// marks the fields that may be null. huma cannot see this from the type.
func (Decision) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["warning_level"].Description = "How much of the included units is used, after the decision: \"warning\" from 80%, " +
		"\"critical\" from 95%, \"exceeded\" from 100%."
	s.Properties["overage_rate_cents"].Description = "Cents per unit beyond the included ones. If it is 0, calls that need such units " +
		"are refused. /v1/events still records such units, but they are not billed."
	s.Properties["percent_used"].Description = "Used units in percent of the included ones, rounded down; can exceed 100. " +
		"Overage is not counted while included units are left, such as after a grant. If none are included: 0 before the first unit, " +
		"100 after it."
	s.Properties["spend_limit_cents"].Description = "The person's own limit on overage per period, in cents; null means that they " +
		"have none. The organization's spend limit is not included here, and can also refuse a call."
	s.Properties["slack"].Description = "A Slack message, ready to send; null if the person gets none. See notify. " +
		"Always null after a void, a grant or a release."
	reasons := s.Properties["reason"]
	for _, r := range models.Reasons {
		reasons.Enum = append(reasons.Enum, string(r))
	}
	reasons.Enum = append(reasons.Enum, nil)
	return nullable(s, "slack")
}

// TransformSchema marks the nullable fields of Decision, and the field hold.
func (holdAnswer) TransformSchema(r huma.Registry, s *huma.Schema) *huma.Schema {
	return nullable(Decision{}.TransformSchema(r, s), "hold")
}

func nullable(s *huma.Schema, names ...string) *huma.Schema {
	for _, name := range names {
		of := s.Properties[name]
		s.Properties[name] = &huma.Schema{Description: of.Description, OneOf: []*huma.Schema{{Ref: of.Ref}, {Type: "null"}}}
	}
	return s
}

// appendDecision writes a decision without the closing brace, so that a call can add its own
// fields. It does not use encoding/json because callers wait for this answer, and it needs no
// reflection.
func (s *Server) appendDecision(b []byte, a *enforcement.Answer, notify models.Notify) []byte {
	return appendDecision(b, s.catalogue, s.messages, a, s.usageURL, notify)
}

func appendDecision(
	b []byte, c *models.Catalogue, m *slackMessages, a *enforcement.Answer, usageURL string, notify models.Notify,
) []byte {
	s := &a.Standing
	b = append(b, `{"allowed":`...)
	b = strconv.AppendBool(b, a.Verdict.Allowed)
	b = append(b, `,"reason":`...)
	b = appendOptional(b, string(a.Verdict.Reason))
	b = append(b, `,"warning_level":"`...)
	b = append(b, s.Level()...)
	b = append(b, `","email":`...)
	b = appendString(b, s.Email)
	b = append(b, `,"plan":`...)
	b = appendString(b, string(s.Plan))
	b = appendInt(b, `,"used":`, s.Used)
	b = appendInt(b, `,"held":`, s.Held)
	b = appendInt(b, `,"included":`, s.Included)
	b = appendInt(b, `,"remaining":`, s.Remaining())
	b = appendInt(b, `,"percent_used":`, s.PercentUsed())
	b = appendInt(b, `,"overage":`, s.Overage)
	b = appendInt(b, `,"overage_rate_cents":`, s.OverageRateCents)
	b = appendInt(b, `,"overage_cents":`, s.OverageCents)
	b = append(b, `,"spend_limit_cents":`...)
	b = appendOptionalInt(b, s.SpendLimitCents)
	b = append(b, `,"member_limit":`...)
	b = appendOptionalInt(b, s.MemberLimit)
	b = append(b, `,"period":{"start":"`...)
	b = appendTime(b, s.Period.Start)
	b = append(b, `","end":"`...)
	b = appendTime(b, s.Period.End)
	b = append(b, `"},"usage_url":`...)
	b = appendString(b, usageURL)
	b = append(b, `,"notice":`...)
	notice := c.Notice(*s, a.Verdict)
	b = appendOptional(b, notice)
	b = append(b, `,"slack":`...)
	if notice == "" || !hasMessage(a, notify) {
		return append(b, "null"...)
	}
	return m.append(b, s, a.Verdict, notice)
}

// hasMessage reports whether an answer with a notice also has a message.
func hasMessage(a *enforcement.Answer, notify models.Notify) bool {
	switch notify {
	case models.NotifyAlways:
		return true
	case models.NotifyNever:
		return false
	}
	return !a.Verdict.Allowed || a.Message
}

func appendInt(b []byte, name string, v int64) []byte {
	return strconv.AppendInt(append(b, name...), v, 10)
}

func appendTime(b []byte, t time.Time) []byte { return t.UTC().AppendFormat(b, time.RFC3339Nano) }

// appendString writes one of our own strings or one that was read from valid JSON. Both are valid.
func appendString(b []byte, s string) []byte {
	b, err := jsontext.AppendQuote(b, s)
	if err != nil {
		panic(err)
	}
	return b
}

func appendOptionalInt(b []byte, v *int64) []byte {
	if v == nil {
		return append(b, "null"...)
	}
	return strconv.AppendInt(b, *v, 10)
}

func appendOptional(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return appendString(b, s)
}

func appendEvent(b []byte, a *enforcement.Answer) []byte {
	b = append(b, `,"event_id":`...)
	if a.EventID == (uuid.UUID{}) {
		b = append(b, "null"...)
	} else {
		b = append(b, '"')
		b = appendUUID(b, a.EventID)
		b = append(b, '"')
	}
	return appendReplayed(b, a)
}

func appendReplayed(b []byte, a *enforcement.Answer) []byte {
	return strconv.AppendBool(append(b, `,"replayed":`...), a.Replayed)
}

func appendUUID(b []byte, id uuid.UUID) []byte {
	for i, part := range [][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return b
}

func appendHold(b []byte, h *models.UsageHold) []byte {
	b = append(b, `,"hold":`...)
	if h == nil {
		return append(b, "null"...)
	}
	b = append(b, `{"id":"`...)
	b = appendUUID(b, h.ID)
	b = appendInt(b, `","quantity":`, h.Quantity)
	b = append(b, `,"state":"`...)
	b = append(b, h.State...)
	b = append(b, `","expires_at":"`...)
	b = appendTime(b, h.ExpiresAt)
	return append(b, `"}`...)
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

// answer sends a decision, followed by the given parts.
func (s *Server) answer(
	c echo.Context, a *enforcement.Answer, notify models.Notify, parts ...func([]byte, *enforcement.Answer) []byte,
) error {
	into := buffers.Get().(*[]byte)
	defer buffers.Put(into)
	b := s.appendDecision((*into)[:0], a, notify)
	for _, part := range parts {
		b = part(b, a)
	}
	b = append(b, '}', '\n')
	*into = b
	h := c.Response().Header()
	h["Content-Type"] = jsonContentType
	c.Response().WriteHeader(http.StatusOK)
	_, err := c.Response().Write(b)
	return err
}

var jsonContentType = []string{echo.MIMEApplicationJSON}

func writeJSON(c echo.Context, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, append(b, '\n'))
}
