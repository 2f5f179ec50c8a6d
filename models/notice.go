package models

import (
	"fmt"
	"strings"
	"time"
)

// Notice returns the plain text of a decision for the person, a few sentences long. It is empty if
// the decision allows and the level is safe. A refusal always has a notice.
func (c *Catalogue) Notice(s Standing, v Verdict) string {
	text := c.NoticeUntilReset(s, v)
	if text == "" {
		return ""
	}
	return text + FormatReset(s.Period.End) + "."
}

// NoticeUntilReset returns Notice without its end, which is the time of the reset and a period. A
// channel can format that time as it likes.
func (c *Catalogue) NoticeUntilReset(s Standing, v Verdict) string {
	if v.Allowed && s.Level() == Safe {
		return ""
	}
	var b strings.Builder
	switch {
	case s.Overage > 0 && s.Included <= 0:
		fmt.Fprintf(&b, "You've used %s (%s so far).", c.Units(s.Used), c.FormatMoney(s.OverageCents))
	case s.Overage > 0 && s.Used-s.Overage >= s.Included:
		fmt.Fprintf(&b, "You've used all %s included %s and %s extra (%s so far).", FormatCount(s.Included), c.unit(s.Included),
			FormatCount(s.Overage), c.FormatMoney(s.OverageCents))
	case s.Overage > 0:
		fmt.Fprintf(&b, "You've used %s of %s (%d%%) and %s extra (%s so far).", FormatCount(s.Used-s.Overage), c.Units(s.Included),
			(s.Used-s.Overage)*100/s.Included, FormatCount(s.Overage), c.FormatMoney(s.OverageCents))
	default:
		fmt.Fprintf(&b, "You've used %s of %s (%d%%).", FormatCount(s.Used), c.Units(s.Included), s.PercentUsed())
	}
	more := c.consequence(s, v)
	b.WriteString(more)
	switch {
	case s.Included == 0:
		b.WriteString(" A new billing period begins on ")
	case more == "" && s.Overage == 0:
		b.WriteString(" They reset on ")
	default:
		b.WriteString(" Your included " + c.UnitPlural + " reset on ")
	}
	return b.String()
}

// consequence returns what the decision means for the person; empty if it has no effect yet.
func (c *Catalogue) consequence(s Standing, v Verdict) string {
	var b strings.Builder
	if s.Held > 0 {
		verb := "are"
		if s.Held == 1 {
			verb = "is"
		}
		fmt.Fprintf(&b, " %s more %s on hold for work in progress.", FormatCount(s.Held), verb)
	}
	switch {
	case s.nextIsRefused(MemberLimitReached) && *s.MemberLimit == 0:
		fmt.Fprintf(&b, " Your member limit is 0, so new %s are paused until an admin raises it.", c.UnitPlural)
	case v.Reason == MemberLimitReached && *s.MemberLimit > s.Used+s.Held:
		fmt.Fprintf(&b, " This request would exceed your member limit of %s.", c.Units(*s.MemberLimit))
	case v.Reason == MemberLimitReached, s.nextIsRefused(MemberLimitReached):
		fmt.Fprintf(&b, " You've reached your member limit of %s.", c.Units(*s.MemberLimit))
	case v.Reason == IncludedExhausted && s.Remaining() == 0:
		b.WriteString(" None are left.")
	case v.Reason == IncludedExhausted:
		fmt.Fprintf(&b, " This request needs more than the remaining %s.", FormatCount(s.Remaining()))
	case v.Reason == SpendLimitReached && !s.nextIsRefused(SpendLimitReached):
		fmt.Fprintf(&b, " This request would exceed your spend limit of %s.", c.FormatMoney(*s.SpendLimitCents))
	case v.Reason == PaymentPastDue, s.nextIsRefused(PaymentPastDue):
		fmt.Fprintf(&b, " The last payment failed, so extra %s are paused until it succeeds.", c.UnitPlural)
	case v.Reason == OrganizationSpendLimitReached && !s.nextIsRefused(OrganizationSpendLimitReached):
		b.WriteString(" This request would exceed your organization's spend limit.")
	case v.Reason == OrganizationSpendLimitReached, s.nextIsRefused(OrganizationSpendLimitReached):
		fmt.Fprintf(&b, " Your organization has reached its spend limit, so extra %s are paused.", c.UnitPlural)
	case s.nextIsRefused(SpendLimitReached):
		fmt.Fprintf(&b, " Your spend limit of %s does not allow another extra %s.", c.FormatMoney(*s.SpendLimitCents), c.UnitSingular)
	case s.OverageRateCents > 0 && s.Remaining() == 0:
		fmt.Fprintf(&b, " Each extra %s costs %s.", c.UnitSingular, c.FormatMoney(s.OverageRateCents))
	}
	return b.String()
}

// nextIsRefused reports whether one more unit would be refused for the reason.
func (s Standing) nextIsRefused(r Reason) bool { return s.nextRefusal() == r }

// NoticeTitle returns a summary in two or three words of a decision that has a notice.
func (c *Catalogue) NoticeTitle(s Standing, v Verdict) string {
	switch {
	case !v.Allowed && s.nextIsRefused(nextAllowed):
		return "Not enough left"
	case v.Reason == MemberLimitReached, v.Allowed && s.nextIsRefused(MemberLimitReached):
		return "Member limit reached"
	case v.Reason == OrganizationSpendLimitReached, v.Allowed && s.nextIsRefused(OrganizationSpendLimitReached):
		return "Organization limit reached"
	case v.Reason == SpendLimitReached, v.Allowed && s.nextIsRefused(SpendLimitReached):
		return "Spend limit reached"
	case v.Reason == PaymentPastDue, v.Allowed && s.nextIsRefused(PaymentPastDue):
		return "Payment failed"
	case !v.Allowed, s.Remaining() == 0 && s.OverageRateCents == 0:
		return "No " + c.UnitPlural + " left"
	case s.Overage > 0, s.Remaining() == 0:
		return "Extra " + c.UnitPlural + " are billed"
	case s.Level() == Critical:
		return "Almost used up"
	}
	return "Running low"
}

// FormatReset formats an instant: "Dec 1, 2026, 00:00 UTC".
func FormatReset(t time.Time) string { return t.UTC().Format("Jan 2, 2006, 15:04") + " UTC" }
