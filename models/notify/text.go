package notify

import (
	"context"
	"fmt"
	"strings"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// message is the text of a notice for one recipient.
type message struct {
	// subject is the person's email or the organization's name.
	subject    string
	title      string
	paragraphs []string
	step       step
	// usage is the URL of the page with the figures. base is the server's URL.
	usage, base string
}

// step is the one thing that the recipient can do. Without a URL, Text is a sentence.
type step struct{ Text, URL string }

// plain returns the message as plain text.
func (m *message) plain() string {
	parts := append([]string{m.title + "."}, m.paragraphs...)
	switch {
	case m.step.URL != "":
		parts = append(parts, m.step.Text+": "+m.step.URL)
	case m.step.Text != "":
		parts = append(parts, m.step.Text)
	}
	if m.step.URL != m.usage {
		parts = append(parts, "Usage: "+m.usage)
	}
	return strings.Join(parts, "\n\n")
}

// slackEscaper escapes what Slack's markup treats as special.
// Source: https://docs.slack.dev/messaging/formatting-message-text#escaping
var slackEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// slack returns the message in Slack's markup.
func (m *message) slack() string {
	link := func(url, text string) string { return "<" + url + "|" + slackEscaper.Replace(text) + ">" }
	lines := []string{"*" + slackEscaper.Replace(m.title) + "*"}
	for _, p := range m.paragraphs {
		lines = append(lines, slackEscaper.Replace(p))
	}
	var links []string
	if m.step.URL != "" {
		links = append(links, link(m.step.URL, m.step.Text))
	} else if m.step.Text != "" {
		lines = append(lines, slackEscaper.Replace(m.step.Text))
	}
	if m.step.URL != m.usage {
		links = append(links, link(m.usage, "View usage"))
	}
	return strings.Join(append(lines, strings.Join(links, "  ·  ")), "\n")
}

// subject is what a text needs to know about the person or organization of a notice.
type subject struct {
	// name is the person's email or the organization's name.
	name string
	// situation is what the person's next step depends on; nil for an organization.
	situation *models.Situation
}

// subject reads the subject of a notice.
func (w *Worker) subject(ctx context.Context, tx bun.Tx, n *models.DueNotice) (s subject, err error) {
	if n.SubjectKind == models.SubjectOrganization {
		var names []string
		err := tx.NewSelect().Model((*models.Organization)(nil)).Column("name").Where("id = ?", n.Subject).Scan(ctx, &names)
		return subject{name: strings.Join(names, "")}, err
	}
	in, err := models.SituationOf(ctx, tx, n.Subject)
	if err != nil || in == nil {
		return s, err
	}
	return subject{name: in.Email, situation: in}, nil
}

// message returns the text of a notice.
func (w *Worker) message(n *models.DueNotice, about subject) message {
	c, f := w.Catalogue, &n.Facts
	m := message{subject: about.name, base: w.BaseURL, usage: w.BaseURL + "/usage"}
	link := func(text, path string) step { return step{Text: text, URL: w.BaseURL + path} }
	switch n.Kind {
	case models.NoticeOrganizationSpendLimit:
		m.usage = w.BaseURL + "/org"
		m.title = "Organization limit reached"
		m.paragraphs = []string{fmt.Sprintf("Extra %s are paused for everyone in %s: %s of the spend limit of %s is used, and one "+
			"more extra %s would exceed it. Included %s reset on %s.",
			c.UnitPlural, about.name, c.FormatMoney(f.OrganizationSpendCents), c.FormatMoney(orZero(f.OrganizationLimitCents)),
			c.UnitSingular, c.UnitPlural, models.FormatReset(f.PeriodEnd))}
		m.step = link("Raise the organization's spend limit", "/org#spend-limit")
	case models.NoticeTrialEnding:
		m.title = "Your trial ends soon"
		plan, whose := c.PlanOf(f.Plan), "Your trial"
		if n.SubjectKind == models.SubjectOrganization {
			m.title, whose = "The trial of "+about.name+" ends soon", "The trial"
			m.usage = w.BaseURL + "/org"
		}
		m.paragraphs = []string{fmt.Sprintf("%s of %s ends on %s. The subscription is billed from then on, unless you cancel it. "+
			"To cancel, open the page with the plans and select “Invoices and payment”.",
			whose, plan.Name, models.FormatReset(f.TrialEnd))}
		if in := about.situation; in != nil && in.PaidByOrganization {
			m.paragraphs = []string{fmt.Sprintf("Your trial of %s ends on %s. Your plan comes from %s, so %s has no effect, but it is billed "+
				"from then on, unless you cancel it. You can cancel it on the page with the plans.",
				plan.Name, models.FormatReset(f.TrialEnd), in.Organization, plan.Name)}
		}
		m.step = link("Open the page with the plans", "/plans")
	case models.NoticePaymentPastDue:
		m.title = "Payment failed"
		failed, who := "The last payment failed.", "you"
		if f.OverageRateCents > 0 {
			failed = fmt.Sprintf("The last payment failed, so extra %s are paused until it succeeds.", c.UnitPlural)
		}
		if n.SubjectKind == models.SubjectOrganization {
			m.title, m.usage, who = "A payment by "+about.name+" failed", w.BaseURL+"/org", "members without a plan of their own"
		}
		m.paragraphs = []string{fmt.Sprintf("%s The included %s that are left still work. If no payment succeeds, %s move to the free plan.",
			failed, c.UnitPlural, who)}
		m.step = link("Update the payment method", "/usage")
		if in := about.situation; in != nil && in.PaidByOrganization {
			own := c.PlanOf(f.Plan).Name
			m.paragraphs = []string{fmt.Sprintf("The last payment for your own subscription to %s failed. Your plan comes from %s, so %s has "+
				"no effect. You can cancel it on the page with the plans.", own, in.Organization, own)}
			m.step = link("Open the page with the plans", "/plans")
		}
	case models.NoticeDigest:
		m.usage = w.BaseURL + "/org"
		m.title = "Members near or over their included " + c.UnitPlural
		m.paragraphs = digestText(c, about.name, f)
		m.step = link("Open the list of members", "/org/members")
	default:
		s := standingOf(n)
		m.title, m.paragraphs = w.usageText(n, s)
		next := c.NextStep(s, models.Verdict{Allowed: n.Kind.Limit() == "", Reason: n.Kind.Limit()}, about.situation)
		if m.step.Text = next.Text; next.Path != "" {
			m.step = link(next.Text, next.Path)
		}
	}
	return m
}

// standingOf returns a person's standing at the decision that a notice is about.
func standingOf(n *models.DueNotice) models.Standing {
	f := &n.Facts
	s := models.Standing{
		Plan: f.Plan, Period: models.Period{Start: n.PeriodStart, End: f.PeriodEnd}, Used: f.Used, Overage: f.Overage,
		OverageCents: f.OverageCents, Included: f.Included, OverageRateCents: f.OverageRateCents, SpendLimitCents: f.SpendLimitCents,
		MemberLimit: f.MemberLimit, PastDue: f.NextRefusal == models.PaymentPastDue,
	}
	if f.NextRefusal == models.OrganizationSpendLimitReached {
		s.Organization.LimitCents = new(int64) // the amounts of the organization are not among the facts
	}
	return s
}

// usageText returns the title and the sentences of a notice about a person's usage. They are those of
// a decision with the notice's figures.
func (w *Worker) usageText(n *models.DueNotice, s models.Standing) (title string, paragraphs []string) {
	v := models.Verdict{Allowed: true}
	if n.Kind == models.NoticeMemberLimit && s.MemberLimit != nil && s.Level() == models.Safe {
		v = models.Verdict{Reason: models.MemberLimitReached} // an allowed decision has no notice at this level
	}
	text := w.Catalogue.Notice(s, v)
	if text == "" { // the threshold was reached with units on hold, which are not among the facts
		text = fmt.Sprintf("You've used %s of %s.", models.FormatCount(s.Used), w.Catalogue.Units(s.Included))
	}
	return w.Catalogue.NoticeTitle(s, v), []string{text}
}

func orZero(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}
