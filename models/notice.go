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
	var b strings.Builder
	fmt.Fprintf(&b, "You have used %s of %s (%d%%).", FormatCount(s.Used), c.Units(s.Included), s.PercentUsed())
	if s.Held > 0 {
		fmt.Fprintf(&b, " %s more are set aside for work under way.", FormatCount(s.Held))
	}
	if cents := s.OverageCents(); cents > 0 {
		fmt.Fprintf(&b, " The %s beyond your plan cost %s so far.", c.Units(s.Overage()), c.FormatMoney(cents))
	} else if s.OverageRateCents > 0 && s.Used >= s.Included && v.Allowed {
		fmt.Fprintf(&b, " Each further one costs %s.", c.FormatMoney(s.OverageRateCents))
	}
	switch v.Reason {
	case IncludedExhausted:
		b.WriteString(" This one did not fit.")
	case SpendLimitReached:
		fmt.Fprintf(&b, " This one would have passed your spend limit of %s.", c.FormatMoney(*s.SpendLimitCents))
	}
	fmt.Fprintf(&b, " They reset on %s.", FormatReset(s.Period.End))
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
