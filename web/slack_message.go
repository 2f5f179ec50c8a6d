package web

import (
	"strconv"
	"strings"

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

type slackText struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

// slackMark returns the icon of a decision: whether work stops or continues, and how close the
// limit is. Words accompany it, because not everyone can see differences in color.
func slackMark(s *models.Standing, v models.Verdict) string {
	switch {
	case !v.Allowed, s.Remaining() == 0 && !models.Decide(*s, 1).Allowed:
		return ":octagonal_sign:"
	case s.Overage > 0, s.Level() == models.Exceeded:
		return ":information_source:"
	case s.Level() == models.Critical:
		return ":rotating_light:"
	}
	return ":warning:"
}

func appendSlackMessage(b []byte, c *models.Catalogue, s *models.Standing, v models.Verdict, notice string) []byte {
	text := slackEscape.Replace(notice)
	b = append(b, `{"response_type":"ephemeral","text":`...)
	b = appendString(b, text)
	b = append(b, `,"blocks":[{"type":"section","text":{"type":"mrkdwn","text":`...)
	b = appendString(b, slackMark(s, v)+" *"+slackEscape.Replace(c.NoticeTitle(*s, v))+"*\n"+text)
	b = append(b, `}},{"type":"context","elements":[{"type":"mrkdwn","text":`...)
	percent := s.PercentUsed()
	b = appendString(b, slackEscape.Replace(c.PlanOf(s.Plan).Name)+" plan  "+slackBar(percent)+"  "+strconv.FormatInt(percent, 10)+"% used")
	return append(b, `}]}]}`...)
}

// slackEscape escapes text for mrkdwn.
// Source: https://api.slack.com/reference/surfaces/formatting#escaping
var slackEscape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// slackBar draws a percentage in ten steps.
func slackBar(percent int64) string {
	full := int(min(percent, 100)) / 10
	return strings.Repeat("▰", full) + strings.Repeat("▱", 10-full)
}
