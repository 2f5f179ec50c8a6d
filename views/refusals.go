package views

import (
	"fmt"
	"strings"

	"tollgate/models"
	"tollgate/views/ui"
)

// RefusedMembers are the members of an organization who were refused.
type RefusedMembers struct {
	// Top are those who were refused most often, and Total is the number of all of them.
	Top   []models.RefusedMember
	Total int64
}

// reasonText describes a reason for a refusal: "Not enough included suggestions left".
func reasonText(c *models.Catalogue, r models.Reason) string {
	switch r {
	case models.MemberLimitReached:
		return "Member limit reached"
	case models.IncludedExhausted:
		return "Not enough included " + c.UnitPlural + " left"
	case models.PaymentPastDue:
		return "Last payment failed"
	case models.SpendLimitReached:
		return "Spend limit reached"
	case models.OrganizationSpendLimitReached:
		return "Organization's spend limit reached"
	}
	return string(r)
}

// refusalsText says how often a person was refused and why; empty without refusals.
func refusalsText(c *models.Catalogue, counts []models.RefusalCount) string {
	if len(counts) == 0 {
		return ""
	}
	var total int64
	reasons := make([]string, len(counts))
	for i, r := range counts {
		total += r.Count
		text := reasonText(c, r.Reason)
		reasons[i] = fmt.Sprintf("%s%s (%s)", strings.ToLower(text[:1]), text[1:], ui.Count(r.Count, "time", "times"))
	}
	return fmt.Sprintf("Refused %s in this billing period: %s.", ui.Count(total, "time", "times"), strings.Join(reasons, ", "))
}
