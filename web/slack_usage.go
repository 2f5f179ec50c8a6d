package web

import (
	"fmt"
	"strings"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
)

const (
	// maxOrganizationName is the maximum number of characters of an organization's name in a message.
	maxOrganizationName = 120
	// topInSlack is the number of members that a message about an organization names.
	topInSlack = 3
)

// usage is a person's usage: the answer to /usage, and the content of the App Home.
func (m *slackMessages) usage(s *models.Standing, v models.Verdict, in *models.Situation) slackMessage {
	c := m.catalogue
	mark, percent := ":white_check_mark:", s.PercentUsed()
	if s.Overage > 0 {
		percent = min(percent, 100) // extra units are in the cost, not in this sentence
	}
	if !v.Allowed || s.Level() != models.Safe {
		mark = slackMark(s, v)
	}
	left := models.FormatCount(s.Remaining()) + " left"
	if under, limited := s.LeftUnderMemberLimit(); limited {
		left = fmt.Sprintf("%s left under your member limit of %s", models.FormatCount(under), models.FormatCount(*s.MemberLimit))
	}
	used := fmt.Sprintf("%s of %s used (%d%%), %s.", models.FormatCount(s.Used-s.Overage), c.Units(s.Included), percent, left)
	if s.Included == 0 && c.IncludesNone(s.Plan) {
		used = c.Units(s.Used) + " used. The plan includes none."
	}
	if s.Held > 0 {
		used += fmt.Sprintf(" %s on hold for work in progress.", models.FormatCount(s.Held))
	}
	level := "Level: " + ui.LevelWord(s.Level())
	if !v.Allowed {
		if s.Level() == models.Safe {
			level = "Paused"
		}
		level += " · " + c.NoticeTitle(*s, v)
	}
	cost := m.cost(s, in)
	step := c.NextStep(*s, v, in)
	used, level = slackEscape.Replace(used), slackEscape.Replace(level)
	return slackMessage{
		ResponseType: "ephemeral",
		Text: cut(used + " " + level + ". Resets " + models.FormatReset(s.Period.End) + ". " + slackEscape.Replace(cost) + " " +
			m.stepText(step)),
		Blocks: []slackBlock{
			section(mrkdwn(mark + " *" + level + "*\n" + slackBar(percent) + "  " + used + "\nResets " + slackDate(s.Period.End) + ".")),
			section(plainText(cost)),
			m.stepBlock(step),
			m.footer(s, percent),
		},
	}
}

// cost says what extra units cost, and what they have cost so far.
func (m *slackMessages) cost(s *models.Standing, in *models.Situation) string {
	c := m.catalogue
	if s.OverageRateCents <= 0 && s.Overage == 0 {
		return "Extra " + c.UnitPlural + " are not available, so nothing is billed beyond the plan."
	}
	text := fmt.Sprintf("Overage so far: %s, %s.", c.Units(s.Overage), c.FormatMoney(s.OverageCents))
	switch {
	case s.PastDue && s.OverageRateCents > 0:
		text += " Extra " + c.UnitPlural + " are paused until the payment succeeds."
	case s.OverageRateCents > 0:
		text += fmt.Sprintf(" Each extra %s costs %s.", c.UnitSingular, c.FormatMoney(s.OverageRateCents))
	}
	if s.SpendLimitCents != nil {
		text += " Your spend limit is " + c.FormatMoney(*s.SpendLimitCents) + "."
	}
	if in.PaidByOrganization {
		text += " Billed to " + models.OneLine(in.Organization, maxOrganizationName) + "."
	}
	return text + " Estimate, before tax; the invoice is authoritative."
}

// organization is an organization's usage, for its admins.
func (m *slackMessages) organization(o *models.OrganizationSummary) slackMessage {
	c := m.catalogue
	name := models.OneLine(o.Name, maxOrganizationName)
	total := fmt.Sprintf("%s used by %s of %s. Average per member: %.2f.", c.Units(o.TotalSuggestions), models.FormatCount(o.ActiveUsers),
		ui.Count(o.TotalUsers, "member", "members"), o.AveragePerUser())
	cost := fmt.Sprintf("Overage so far: %s, %s.", c.Units(o.OverageUnits), c.FormatMoney(o.OverageCents))
	if !o.HasPlan {
		cost = fmt.Sprintf("The organization has no active plan. Overage of members so far: %s, %s.", c.Units(o.OverageUnits),
			c.FormatMoney(o.OverageCents))
	}
	step := models.NextStep{Text: "Set a spend limit for the organization", Path: "/org#spend-limit"}
	if o.SpendLimitCents != nil && o.HasPlan {
		cost += " Spend limit: " + c.FormatMoney(*o.SpendLimitCents) + "."
		if o.SpentCents() != o.OverageCents {
			cost += " " + strings.TrimSpace(views.SpentText(c, *o)+" "+views.SpentNote(c, *o))
		}
	}
	switch {
	case o.PastDue:
		if o.OverageRateCents > 0 {
			cost += " Extra " + c.UnitPlural + " are paused until the payment succeeds."
		}
		step = models.NextStep{Text: "Update the payment method", Path: "/usage"}
	case o.SpendLimitCents != nil && o.HasPlan:
		step.Text = "Change the organization's spend limit"
		if o.OverageRateCents > 0 && o.Exceeds(*o.SpendLimitCents) {
			cost += " One more extra " + c.UnitSingular + " would exceed the limit, so extra " + c.UnitPlural + " are paused."
			step.Text = "Raise the organization's spend limit"
		}
	case !o.HasPlan, o.Trial: // no larger plan can be bought during a trial
		step = models.NextStep{Text: "Compare plans", Path: "/plans"}
	case o.OverageRateCents <= 0:
		step = models.NextStep{Text: "Upgrade the plan", Path: "/plans"}
	}
	cost += " Estimate, before tax; the invoice is authoritative."
	blocks := []slackBlock{
		section(plainText(name)),
		section(mrkdwn(m.orgBar(o) + slackEscape.Replace(total) + "\nResets " + slackDate(o.Period.End) + ".")),
	}
	if len(o.TopUsers) > 0 {
		var top []string
		for _, u := range o.TopUsers[:min(topInSlack, len(o.TopUsers))] {
			who := models.OneLine(u.Name, maxOrganizationName)
			if who == "" {
				who = u.Email
			}
			top = append(top, fmt.Sprintf("%d. %s: %s of %s (%s)", u.Rank, who, models.FormatCount(u.Used), c.Units(u.Included),
				ui.LevelWord(u.WarningLevel)))
		}
		blocks = append(blocks, section(plainText(strings.Join(top, "\n"))))
	}
	blocks = append(blocks, section(plainText(cost)), m.stepBlock(step),
		contextBlock(plainText(views.OrgPlan(c, o)), mrkdwn(m.link("/org", "Organization page"))))
	return slackMessage{
		ResponseType: "ephemeral", Blocks: blocks,
		Text: cut(slackEscape.Replace(name+": "+total) + " Resets " + models.FormatReset(o.Period.End) + ". " + slackEscape.Replace(cost) + " " +
			m.stepText(step)),
	}
}

// orgBar draws the members' included units that are used.
func (m *slackMessages) orgBar(o *models.OrganizationSummary) string {
	if o.Included <= 0 {
		return ""
	}
	percent := (o.TotalSuggestions - o.OverageUnits) * 100 / o.Included
	return fmt.Sprintf("%s  %d%% of the included %s\n", slackBar(max(0, percent)), percent, slackEscape.Replace(m.catalogue.UnitPlural))
}
