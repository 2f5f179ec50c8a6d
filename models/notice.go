package models

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Notice is what a person is told about a standing, in one or two sentences of plain text. It is empty at the level
// safe. A refusal and a paid overage are named as what they are.
func (c *Catalogue) Notice(s Standing, v Verdict) string {
	if s.Level() == Safe {
		return ""
	}
	used := fmt.Sprintf("You have used %s of %s (%d%%).", FormatCount(s.Used), c.Units(s.Included), s.PercentUsed())
	more := c.consequence(s, v)
	if more == "" {
		return used + " They reset on " + FormatReset(s.Period.End) + "."
	}
	return used + more + " Your included " + c.UnitPlural + " reset on " + FormatReset(s.Period.End) + "."
}

// consequence says what being near or over the included units means for this person; empty when it means nothing yet.
func (c *Catalogue) consequence(s Standing, v Verdict) string {
	var b strings.Builder
	if s.Held > 0 {
		fmt.Fprintf(&b, " %s more set aside for work under way.", FormatCount(s.Held))
	}
	if cents := s.OverageCents(); cents > 0 {
		fmt.Fprintf(&b, " The %s beyond your plan cost %s so far.", c.Units(s.Overage()), c.FormatMoney(cents))
	}
	switch {
	case v.Reason == IncludedExhausted && s.Remaining() == 0:
		b.WriteString(" None are left.")
	case v.Reason == IncludedExhausted:
		fmt.Fprintf(&b, " This needed more than the %s left.", FormatCount(s.Remaining()))
	case v.Reason == SpendLimitReached:
		fmt.Fprintf(&b, " This would pass your spend limit of %s.", c.FormatMoney(*s.SpendLimitCents))
	case s.OverageRateCents > 0 && !Decide(s, 1).Allowed:
		fmt.Fprintf(&b, " Your spend limit of %s allows no further one.", c.FormatMoney(*s.SpendLimitCents))
	case s.OverageRateCents > 0 && s.Remaining() == 0:
		fmt.Fprintf(&b, " Each further one costs %s.", c.FormatMoney(s.OverageRateCents))
	}
	return b.String()
}

// FormatReset writes an instant as people read it: "1 Dec 2026, 00:00 UTC".
func FormatReset(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04") + " UTC" }

// FormatCount writes a number with thousands apart: 1,804.
func FormatCount(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// FormatMoney writes cents in the catalogue's currency: "$1.50", "1.50 EUR".
func (c *Catalogue) FormatMoney(cents int64) string {
	amount := fmt.Sprintf("%s.%02d", FormatCount(cents/100), cents%100)
	if c.Currency == "usd" {
		return "$" + amount
	}
	return amount + " " + strings.ToUpper(c.Currency)
}
