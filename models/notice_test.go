package models_test

import (
	"testing"
	"time"

	"tollgate/models"
)

func TestNotice(t *testing.T) {
	c := embedded(t)
	period := models.Period{Start: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), End: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)}
	const they = " They reset on Dec 1, 2026, 00:00 UTC."
	const yours = " Your included suggestions reset on Dec 1, 2026, 00:00 UTC."
	const begins = " A new billing period begins on Dec 1, 2026, 00:00 UTC."
	allowed, exhausted, limited := models.Verdict{Allowed: true}, models.Verdict{Reason: models.IncludedExhausted},
		models.Verdict{Reason: models.SpendLimitReached}
	organization := models.Verdict{Reason: models.OrganizationSpendLimitReached}
	spent := func(cents int64) models.OrganizationSpend {
		return models.OrganizationSpend{Cents: cents, LimitCents: ptr(int64(100))}
	}
	for _, test := range []struct {
		standing models.Standing
		verdict  models.Verdict
		want     string
	}{
		{models.Standing{Used: 59, Included: 75, OverageRateCents: 30}, allowed, ""},
		{models.Standing{Used: 60, Included: 75, OverageRateCents: 30}, allowed, "You've used 60 of 75 suggestions (80%)." + they},
		{models.Standing{Used: 4, Included: 5}, allowed, "You've used 4 of 5 suggestions (80%)." + they},
		{models.Standing{Used: 5, Included: 5}, exhausted, "You've used 5 of 5 suggestions (100%). None are left." + yours},
		{models.Standing{Used: 4, Included: 5}, exhausted,
			"You've used 4 of 5 suggestions (80%). This request needs more than the remaining 1." + yours},
		{models.Standing{Used: 4, Held: 1, Included: 5}, exhausted,
			"You've used 4 of 5 suggestions (80%). 1 more is on hold for work in progress. None are left." + yours},
		// Refused at the level safe: too many requested, or all on hold.
		{models.Standing{Included: 5}, exhausted, "You've used 0 of 5 suggestions (0%). This request needs more than the remaining 5." + yours},
		{models.Standing{Held: 5, Included: 5}, exhausted,
			"You've used 0 of 5 suggestions (0%). 5 more are on hold for work in progress. None are left." + yours},
		{models.Standing{Used: 59, Included: 75, Held: 16}, exhausted,
			"You've used 59 of 75 suggestions (78%). 16 more are on hold for work in progress. None are left." + yours},
		{models.Standing{Used: 10, Included: 75, OverageRateCents: 30, SpendLimitCents: ptr(int64(0))}, limited,
			"You've used 10 of 75 suggestions (13%). This request would exceed your spend limit of $0.00." + yours},
		{models.Standing{Used: 3, Included: 50, MemberLimit: ptr(int64(0))}, models.Verdict{Reason: models.MemberLimitReached},
			"You've used 3 of 50 suggestions (6%). Your member limit is 0, so new suggestions are paused until an admin raises it." + yours},
		{models.Standing{}, exhausted, "You've used 0 of 0 suggestions (0%). None are left." + begins},
		{models.Standing{Used: 72, Held: 1200, Included: 75, OverageRateCents: 30}, allowed,
			"You've used 72 of 75 suggestions (96%). 1,200 more are on hold for work in progress. Each extra suggestion costs $0.30." + yours},
		{models.Standing{Used: 75, Included: 75, OverageRateCents: 30}, allowed,
			"You've used 75 of 75 suggestions (100%). Each extra suggestion costs $0.30." + yours},
		{models.Standing{Used: 76, Included: 75, OverageRateCents: 30}, allowed,
			"You've used all 75 included suggestions and 1 extra ($0.30 so far). Each extra suggestion costs $0.30." + yours},
		{models.Standing{Used: 76, Included: 75, OverageRateCents: 30, SpendLimitCents: ptr(int64(59))}, allowed,
			"You've used all 75 included suggestions and 1 extra ($0.30 so far). " +
				"Your spend limit of $0.59 does not allow another extra suggestion." + yours},
		{models.Standing{Used: 76, Included: 75, OverageRateCents: 30, SpendLimitCents: ptr(int64(60))}, allowed,
			"You've used all 75 included suggestions and 1 extra ($0.30 so far). Each extra suggestion costs $0.30." + yours},
		{models.Standing{Used: 75, Included: 75, OverageRateCents: 30, SpendLimitCents: ptr(int64(0))}, allowed,
			"You've used 75 of 75 suggestions (100%). Your spend limit of $0.00 does not allow another extra suggestion." + yours},
		{models.Standing{Used: 4075, Included: 75, OverageRateCents: 30, SpendLimitCents: ptr(int64(120_000))}, limited,
			"You've used all 75 included suggestions and 4,000 extra ($1,200.00 so far). " +
				"Your spend limit of $1,200.00 does not allow another extra suggestion." + yours},
		// The request was too large for the organization's limit, or one more unit would be, too.
		{models.Standing{Used: 75, Included: 75, OverageRateCents: 30, Organization: spent(60)}, organization,
			"You've used 75 of 75 suggestions (100%). This request would exceed your organization's spend limit." + yours},
		{models.Standing{Used: 75, Included: 75, OverageRateCents: 30, Organization: spent(90)}, organization,
			"You've used 75 of 75 suggestions (100%). Your organization has reached its spend limit, so extra suggestions are paused." + yours},
		// The plan includes nothing, or work in progress holds what is left.
		{models.Standing{Used: 3, OverageRateCents: 30}, allowed,
			"You've used 3 suggestions ($0.90 so far). Each extra suggestion costs $0.30." + begins},
		{models.Standing{Used: 71, Held: 5, Overage: 1, OverageCents: 30, Included: 75}, allowed,
			"You've used 70 of 75 suggestions (93%) and 1 extra ($0.30 so far). 5 more are on hold for work in progress." + yours},
		// More units were granted after some were billed.
		{models.Standing{Used: 70, Overage: 3, OverageCents: 90, Included: 75}, allowed,
			"You've used 67 of 75 suggestions (89%) and 3 extra ($0.90 so far)." + yours},
		{models.Standing{Used: 8, Included: 5}, allowed, "You've used 8 of 5 suggestions (160%)." + they},
	} {
		test.standing = billed(test.standing)
		test.standing.Period = period
		if got := c.Notice(test.standing, test.verdict); got != test.want {
			t.Errorf("%+v:\n%q, want\n%q", test.standing, got, test.want)
		}
	}
}

// billed returns the standing with the units beyond the included ones billed, if there is a rate.
func billed(s models.Standing) models.Standing {
	if s.OverageRateCents > 0 {
		s.Overage = max(0, s.Used-s.Included)
		s.OverageHeld = max(0, s.Used+s.Held-s.Included) - s.Overage
		s.OverageCents, s.OverageCentsHeld = s.Overage*s.OverageRateCents, s.OverageHeld*s.OverageRateCents
	}
	return s
}

// The title agrees with the decision: a call that is allowed and billed reached no limit.
func TestNoticeTitle(t *testing.T) {
	c := embedded(t)
	for _, test := range []struct {
		standing models.Standing
		quantity int64
		want     string
	}{
		{models.Standing{Used: 60, Included: 75, OverageRateCents: 30}, 0, "Running low"},
		{models.Standing{Used: 74, Included: 75, OverageRateCents: 30}, 0, "Almost used up"},
		{models.Standing{Used: 75, Included: 75, OverageRateCents: 30}, 0, "Extra suggestions are billed"},
		{models.Standing{Used: 80, Included: 75, OverageRateCents: 30}, 0, "Extra suggestions are billed"},
		{models.Standing{Used: 80, Included: 75, OverageRateCents: 30, SpendLimitCents: ptr(int64(160))}, 0, "Spend limit reached"},
		{models.Standing{Used: 80, Included: 75, OverageRateCents: 30, SpendLimitCents: ptr(int64(160))}, 1, "Spend limit reached"},
		{models.Standing{Used: 5, Included: 5}, 0, "No suggestions left"},
		{models.Standing{Used: 5, Included: 5}, 1, "No suggestions left"},
		{models.Standing{Held: 5, Included: 5}, 1, "No suggestions left"},
		{models.Standing{Used: 75, Included: 75, OverageRateCents: 30, SpendLimitCents: ptr(int64(60))}, 3, "Not enough left"},
		{models.Standing{Used: 58, Included: 75, MemberLimit: ptr(int64(60))}, 5, "Not enough left"},
		{models.Standing{Used: 60, Included: 75, MemberLimit: ptr(int64(60))}, 5, "Member limit reached"},
		{models.Standing{Used: 2, Included: 5}, 4, "Not enough left"},
		{models.Standing{Included: 5}, 6, "Not enough left"},
	} {
		test.standing = billed(test.standing)
		verdict := models.Verdict{Allowed: true}
		if test.quantity > 0 {
			verdict = models.Decide(test.standing, test.quantity)
		}
		if got := c.NoticeTitle(test.standing, verdict); got != test.want {
			t.Errorf("%+v, %d more: %q, want %q", test.standing, test.quantity, got, test.want)
		}
	}
}

func TestFormatReset(t *testing.T) {
	for instant, want := range map[time.Time]string{
		time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC):                                            "Dec 1, 2026, 00:00 UTC",
		time.Date(2027, 2, 28, 9, 5, 59, 0, time.UTC):                                           "Feb 28, 2027, 09:05 UTC",
		time.Date(2026, 12, 31, 23, 30, 0, 0, time.FixedZone("UTC-5", -5*60*60)):                "Jan 1, 2027, 04:30 UTC",
		time.Date(2027, 1, 1, 0, 30, 0, 0, time.FixedZone("UTC+1", int(time.Hour/time.Second))): "Dec 31, 2026, 23:30 UTC",
	} {
		if got := models.FormatReset(instant); got != want {
			t.Errorf("%v: %q, want %q", instant, got, want)
		}
	}
}
