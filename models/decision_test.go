package models_test

import (
	"testing"

	"pgregory.net/rapid"

	"tollgate/models"
)

func TestLevels(t *testing.T) {
	for _, test := range []struct {
		used, included, percent int64
		level                   models.WarningLevel
	}{
		{0, 500, 0, models.Safe},
		{399, 500, 79, models.Safe},
		{400, 500, 80, models.Warning},
		{474, 500, 94, models.Warning},
		{475, 500, 95, models.Critical},
		{499, 500, 99, models.Critical},
		{500, 500, 100, models.Exceeded},
		{501, 500, 100, models.Exceeded},
		{1000, 500, 200, models.Exceeded},
		// Percentages that are not a whole number of units: four of five are 80%, and exactly 95% is
		// impossible.
		{3, 5, 60, models.Safe},
		{4, 5, 80, models.Warning},
		{5, 5, 100, models.Exceeded},
		{19, 25, 76, models.Safe},
		{20, 25, 80, models.Warning},
		{23, 25, 92, models.Warning},
		{24, 25, 96, models.Critical},
		{71, 75, 94, models.Warning},
		{72, 75, 96, models.Critical},
		// Nothing is included: the division by zero is avoided.
		{0, 0, 0, models.Safe},
		{1, 0, 100, models.Exceeded},
		{7, 0, 100, models.Exceeded},
		{1_000_000_000, 1_000_000_000, 100, models.Exceeded},
		{799_999_999, 1_000_000_000, 79, models.Safe},
	} {
		s := models.Standing{Used: test.used, Included: test.included}
		if s.Level() != test.level || s.PercentUsed() != test.percent {
			t.Errorf("%d of %d: %s at %d %%, want %s at %d %%", test.used, test.included, s.Level(), s.PercentUsed(), test.level, test.percent)
		}
	}
}

// While included units are left, billed units do not count: they were decided in another part of
// the period, or before a grant.
func TestLevelsWithOverage(t *testing.T) {
	for _, test := range []struct {
		name    string
		s       models.Standing
		percent int64
		level   models.WarningLevel
	}{
		{"units left", models.Standing{Used: 105, Overage: 30, Included: 100}, 75, models.Safe},
		{"one unit left", models.Standing{Used: 129, Overage: 30, Included: 100}, 99, models.Critical},
		{"no unit left", models.Standing{Used: 130, Overage: 30, Included: 100}, 130, models.Exceeded},
		{"the rest is on hold", models.Standing{Used: 105, Overage: 30, Held: 25, Included: 100}, 105, models.Exceeded},
		{"overage is on hold", models.Standing{Used: 105, Overage: 30, Held: 25, OverageHeld: 1, Included: 100}, 75, models.Safe},
		{"few used, and the rest is on hold", models.Standing{Used: 10, Held: 90, Included: 100}, 10, models.Safe},
		{"nothing included", models.Standing{Used: 2, Overage: 2}, 100, models.Exceeded},
	} {
		if test.s.Level() != test.level || test.s.PercentUsed() != test.percent {
			t.Errorf("%s: %s at %d %%, want %s at %d %%", test.name, test.s.Level(), test.s.PercentUsed(), test.level, test.percent)
		}
	}
}

func TestDecide(t *testing.T) {
	limit := func(cents int64) *int64 { return &cents }
	for _, test := range []struct {
		name                 string
		used, held, included int64
		rate                 int64
		limit                *int64
		quantity             int64
		over                 int64
		want                 models.Reason // empty: allowed
	}{
		{"the first", 0, 0, 5, 0, nil, 1, 0, ""},
		{"the last", 4, 0, 5, 0, nil, 1, 0, ""},
		{"one too many", 5, 0, 5, 0, nil, 1, 0, models.IncludedExhausted},
		{"all at once", 0, 0, 5, 0, nil, 5, 0, ""},
		{"more than all", 0, 0, 5, 0, nil, 6, 0, models.IncludedExhausted},
		{"more than the rest: none of it", 3, 0, 5, 0, nil, 3, 0, models.IncludedExhausted},
		{"the rest", 3, 0, 5, 0, nil, 2, 0, ""},
		{"held units are taken", 2, 3, 5, 0, nil, 1, 0, models.IncludedExhausted},
		{"next to held units", 2, 2, 5, 0, nil, 1, 0, ""},
		{"nothing included", 0, 0, 0, 0, nil, 1, 0, models.IncludedExhausted},
		{"nothing included, paid", 0, 0, 0, 25, nil, 1, 1, ""},
		{"paid overage", 75, 0, 75, 30, nil, 1, 1, ""},
		{"paid overage, far beyond", 10_000, 0, 75, 30, nil, 10_000, 10_000, ""},
		{"partly overage", 74, 0, 75, 30, limit(30), 2, 1, ""},
		{"partly overage, one unit over the limit", 74, 0, 75, 30, limit(30), 3, 0, models.SpendLimitReached},
		{"up to the limit", 75, 0, 75, 30, limit(90), 3, 3, ""},
		{"a cent over the limit", 75, 0, 75, 30, limit(89), 3, 0, models.SpendLimitReached},
		{"held units may cost too", 75, 2, 75, 30, limit(60), 1, 0, models.SpendLimitReached},
		{"a limit of zero within the included", 74, 0, 75, 30, limit(0), 1, 0, ""},
		{"a limit of zero beyond the included", 75, 0, 75, 30, limit(0), 1, 0, models.SpendLimitReached},
		{"a limit without overage", 5, 0, 5, 0, limit(1000), 1, 0, models.IncludedExhausted},
		{"the largest numbers that a catalog may have", 1_000_000_000, 0, 1_000_000_000, 100_000_000, limit(999_999_999_999), 10_000, 0,
			models.SpendLimitReached},
	} {
		// All units beyond the included ones are overage at today's rate.
		s := models.Standing{
			Used: test.used, Overage: max(0, test.used-test.included), Held: test.held, Included: test.included, OverageRateCents: test.rate,
			SpendLimitCents: test.limit,
		}
		s.OverageHeld = max(0, test.used+test.held-test.included) - s.Overage
		s.OverageCents, s.OverageCentsHeld = s.Overage*test.rate, s.OverageHeld*test.rate
		want := models.Verdict{Allowed: test.want == "", Reason: test.want, Overage: test.over, OverageCents: test.over * test.rate}
		if got := models.Decide(s, test.quantity); got != want {
			t.Errorf("%s: %+v, want %+v", test.name, got, want)
		}
	}
}

// Cases in which earlier decisions matter.
func TestDecideUponEarlierDecisions(t *testing.T) {
	cents := ptr(int64(1000))
	for _, test := range []struct {
		name     string
		s        models.Standing
		quantity int64
		want     models.Verdict
	}{
		{"past due, within the included", models.Standing{Used: 4, Included: 5, OverageRateCents: 30, PastDue: true}, 1,
			models.Verdict{Allowed: true}},
		{"past due, beyond the included", models.Standing{Used: 4, Included: 5, OverageRateCents: 30, PastDue: true}, 2,
			models.Verdict{Reason: models.PaymentPastDue}},
		{"past due without a rate", models.Standing{Used: 5, Included: 5, PastDue: true}, 1, models.Verdict{Reason: models.IncludedExhausted}},
		{"past due and at the limit", models.Standing{Used: 5, Included: 5, OverageRateCents: 30, PastDue: true,
			SpendLimitCents: ptr(int64(0))}, 1,
			models.Verdict{Reason: models.PaymentPastDue}},
		{"billed units do not use included ones", models.Standing{Used: 30, Overage: 27, OverageCents: 810, Included: 5,
			OverageRateCents: 30}, 2, models.Verdict{Allowed: true}},
		{"unbilled units use included ones", models.Standing{Used: 30, Overage: 3, OverageCents: 90, Included: 5, OverageRateCents: 30}, 2,
			models.Verdict{Allowed: true, Overage: 2, OverageCents: 60}},
		{"earlier overage counts as charged", models.Standing{Used: 25, Overage: 20, OverageCents: 980, Included: 5,
			OverageRateCents: 10, SpendLimitCents: cents}, 2,
			models.Verdict{Allowed: true, Overage: 2, OverageCents: 20}},
		{"earlier overage reaches the limit", models.Standing{Used: 25, Overage: 20, OverageCents: 980, Included: 5, OverageRateCents: 10,
			SpendLimitCents: cents}, 3,
			models.Verdict{Reason: models.SpendLimitReached}},
		{"overage on hold counts as it would be charged", models.Standing{Used: 5, Held: 20, OverageHeld: 20, OverageCentsHeld: 990,
			Included: 5, OverageRateCents: 10,
			SpendLimitCents: cents}, 2, models.Verdict{Reason: models.SpendLimitReached}},
		{"over the limit, and still within the included", models.Standing{Used: 10, Overage: 5, OverageCents: 150, Included: 75,
			OverageRateCents: 30, SpendLimitCents: ptr(int64(0))}, 70,
			models.Verdict{Allowed: true}},
	} {
		if got := models.Decide(test.s, test.quantity); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestRemaining(t *testing.T) {
	for _, test := range []struct {
		used, overage, held, overageHeld, included, want int64
	}{
		{60, 0, 0, 0, 75, 15},
		{60, 0, 10, 0, 75, 5},
		{60, 0, 20, 5, 75, 0},
		{75, 0, 0, 0, 75, 0},
		{78, 3, 5, 5, 75, 0},
		{78, 10, 5, 5, 75, 7},
		{7, 0, 0, 0, 5, 0},
		{2, 2, 0, 0, 0, 0},
	} {
		s := models.Standing{Used: test.used, Overage: test.overage, Held: test.held, OverageHeld: test.overageHeld, Included: test.included}
		if got := s.Remaining(); got != test.want {
			t.Errorf("%+v: %d remaining, want %d", s, got, test.want)
		}
	}
}

// A settlement is charged as its hold was decided, unless included units became free in the
// meantime.
func TestSettle(t *testing.T) {
	hold := models.UsageHold{Quantity: 5, OverageQuantity: 3, OverageCents: 120, Figures: models.Figures{OverageRateCents: 40}}
	for _, test := range []struct {
		name                 string
		used, held, included int64
		quantity, over       int64
	}{
		{"all of it", 3, 0, 5, 5, 3},
		{"its included part", 3, 0, 5, 2, 0},
		{"one unit more", 3, 0, 5, 3, 1},
		{"another hold released two units", 1, 0, 5, 5, 1},
		{"another hold released all units", 0, 0, 5, 5, 0},
		{"another hold took more", 3, 2, 5, 5, 3},
		{"units that are not billed used its included part", 9, 0, 5, 2, 0},
		{"units that are not billed used all included units", 9, 0, 5, 5, 3},
	} {
		// Today's rate differs. A limit or a payment is not checked again.
		s := models.Standing{Used: test.used, Held: test.held, Included: test.included, OverageRateCents: 25, PastDue: true,
			SpendLimitCents: ptr(int64(0))}
		if got, want := models.Settle(s, &hold, test.quantity),
			(models.Verdict{Allowed: true, Overage: test.over, OverageCents: 40 * test.over}); got != want {
			t.Errorf("%s: %+v, want %+v", test.name, got, want)
		}
	}
}

func TestClassify(t *testing.T) {
	for _, test := range []struct {
		name           string
		s              models.Standing
		quantity, over int64
	}{
		{"included", models.Standing{Used: 3, Included: 5, OverageRateCents: 30}, 2, 0},
		{"partly overage", models.Standing{Used: 3, Included: 5, OverageRateCents: 30}, 9, 7},
		{"beyond a hard cap", models.Standing{Used: 3, Included: 5}, 9, 0},
		{"while past due", models.Standing{Used: 3, Included: 5, OverageRateCents: 30, PastDue: true}, 9, 0},
		{"partly beyond the limit", models.Standing{Used: 3, Included: 5, OverageRateCents: 30, SpendLimitCents: ptr(int64(119))}, 9, 3},
		{"all beyond the limit", models.Standing{Used: 5, Included: 5, OverageRateCents: 30, SpendLimitCents: ptr(int64(29))}, 9, 0},
		{"holds come first", models.Standing{Used: 5, Held: 2, OverageHeld: 2, OverageCentsHeld: 60, Included: 5, OverageRateCents: 30,
			SpendLimitCents: ptr(int64(100))}, 9, 1},
		{"far over the limit", models.Standing{Used: 50, Overage: 45, OverageCents: 1350, Included: 5, OverageRateCents: 30,
			SpendLimitCents: ptr(int64(100))}, 9, 0},
	} {
		if got, want := models.Classify(test.s, test.quantity),
			(models.Verdict{Allowed: true, Overage: test.over, OverageCents: test.s.OverageRateCents * test.over}); got != want {
			t.Errorf("%s: %+v, want %+v", test.name, got, want)
		}
	}
}

// standings are mostly small, so that limits are often reached.
func standings() *rapid.Generator[models.Standing] {
	return rapid.Custom(func(t *rapid.T) models.Standing {
		most := rapid.SampledFrom([]int64{3, 120, 1_000_000_000}).Draw(t, "most")
		s := models.Standing{
			Used: rapid.Int64Range(0, most).Draw(t, "used"), Held: rapid.Int64Range(0, most).Draw(t, "held"),
			Included: rapid.Int64Range(0, most).Draw(t, "included"), OverageRateCents: rapid.Int64Range(0, 40).Draw(t, "rate"),
			PastDue: rapid.Bool().Draw(t, "past due"),
		}
		s.Overage, s.OverageHeld = rapid.Int64Range(0, s.Used).Draw(t, "overage"), rapid.Int64Range(0, s.Held).Draw(t, "overage held")
		s.OverageCents = s.Overage * rapid.Int64Range(0, 40).Draw(t, "earlier rate")
		s.OverageCentsHeld = s.OverageHeld * rapid.Int64Range(0, 40).Draw(t, "rate of the holds")
		if rapid.Bool().Draw(t, "limited") {
			s.SpendLimitCents = ptr(s.OverageCents + s.OverageCentsHeld + rapid.Int64Range(-100, 4000).Draw(t, "left to spend"))
		}
		if rapid.Bool().Draw(t, "limited member") {
			s.MemberLimit = ptr(max(0, s.Used+s.Held+rapid.Int64Range(-3, 200).Draw(t, "left of the member limit")))
		}
		s.Organization.Cents = s.OverageCents + s.OverageCentsHeld + rapid.Int64Range(0, 500).Draw(t, "spent by others")
		if rapid.Bool().Draw(t, "limited organization") {
			s.Organization.LimitCents = ptr(max(0, s.Organization.Cents+rapid.Int64Range(-100, 4000).Draw(t, "left for the organization")))
		}
		return s
	})
}

var quantities = rapid.Int64Range(1, 10_000)

// letters has the variables of the formulas: used, overage, held and held overage units, included
// units, the overage rate, and the cents of the overage, of the held overage and of the whole
// organization.
type letters struct{ U, O, H, HO, I, R, C, HC, OC int64 }

func lettersOf(s models.Standing) letters {
	return letters{s.Used, s.Overage, s.Held, s.OverageHeld, s.Included, s.OverageRateCents, s.OverageCents, s.OverageCentsHeld,
		s.Organization.Cents}
}

func (l letters) over(q int64) int64 {
	free := max(0, l.I-(l.U-l.O)-(l.H-l.HO))
	return max(0, q-free)
}

func (l letters) decide(q int64, s models.Standing) models.Reason {
	over := l.over(q)
	if s.MemberLimit != nil && l.U+l.H+q > *s.MemberLimit {
		return "member_limit_reached"
	}
	if over > 0 && l.R == 0 {
		return "included_exhausted"
	}
	if over > 0 && s.PastDue {
		return "payment_past_due"
	}
	if over > 0 && s.SpendLimitCents != nil && l.C+l.HC+over*l.R > *s.SpendLimitCents {
		return "spend_limit_reached"
	}
	if over > 0 && s.Organization.LimitCents != nil && l.OC+over*l.R > *s.Organization.LimitCents {
		return "organization_spend_limit_reached"
	}
	return ""
}

func TestDecideFollowsTheContract(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, q := standings().Draw(t, "standing"), quantities.Draw(t, "quantity")
		l := lettersOf(s)
		want := models.Verdict{Reason: l.decide(q, s)}
		if want.Reason == "" {
			want.Allowed, want.Overage, want.OverageCents = true, l.over(q), l.over(q)*l.R
		}
		got := models.Decide(s, q)
		if got != want {
			t.Fatalf("%d units of %+v: %+v, want %+v", q, s, got, want)
		}
		if got.Allowed {
			s.Add(q, got)
			if after := lettersOf(s); after.U != l.U+q || after.O != l.O+l.over(q) || after.C != l.C+l.over(q)*l.R || after.H != l.H ||
				after.HO != l.HO || after.HC != l.HC || after.OC != l.OC+l.over(q)*l.R {
				t.Fatalf("%+v became %+v", l, after)
			}
		}
		h := models.Standing{Held: l.H, OverageHeld: l.HO, OverageCentsHeld: l.HC}
		h.Hold(q, models.Verdict{Overage: 1, OverageCents: l.R})
		if held := lettersOf(h); held.H != l.H+q || held.HO != l.HO+1 || held.HC != l.HC+l.R || held.U != 0 || held.O != 0 ||
			held.C != 0 || held.OC != l.R {
			t.Fatalf("a hold of %d made %+v", q, held)
		}
	})
}

// Units that were already used are billed as if each had been requested on its own. Refused units
// count as used too.
func TestClassifyFollowsTheContract(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, q := standings().Draw(t, "standing"), rapid.Int64Range(1, 300).Draw(t, "quantity")
		l := lettersOf(s)
		for range q {
			if l.decide(1, s) == "" {
				over := l.over(1)
				l.O, l.C, l.OC = l.O+over, l.C+over*l.R, l.OC+over*l.R
			}
			l.U++
		}
		v := models.Classify(s, q)
		s.Add(q, v)
		if got := lettersOf(s); !v.Allowed || got != l {
			t.Fatalf("%d: %+v, want %+v", q, got, l)
		}
	})
}

// A hold and its settlement, with other decisions between them.
func TestSettleFollowsTheContract(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := standings().Draw(t, "standing")
		h := models.UsageHold{Quantity: quantities.Draw(t, "held quantity"),
			Figures: models.Figures{OverageRateCents: rapid.Int64Range(0, 40).Draw(t, "rate of the hold")}}
		h.OverageQuantity = rapid.Int64Range(0, h.Quantity).Draw(t, "overage of the hold")
		h.OverageCents = h.OverageQuantity * h.OverageRateCents
		q := rapid.Int64Range(1, h.Quantity).Draw(t, "quantity")
		over := min(max(0, q-(h.Quantity-h.OverageQuantity)), lettersOf(s).over(q))
		if got, want := models.Settle(s, &h, q), (models.Verdict{Allowed: true, Overage: over,
			OverageCents: over * h.OverageRateCents}); got != want {
			t.Fatalf("%d units of a hold of %d with overage %d in %+v: %+v, want %+v", q, h.Quantity, h.OverageQuantity, s, got, want)
		}
	})
}

// Using, holding or requesting more, or having less included, never turns a refusal into a grant.
func TestDecideIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, quantity := standings().Draw(t, "standing"), quantities.Draw(t, "quantity")
		more := s
		switch rapid.IntRange(0, 2).Draw(t, "of") {
		case 0:
			more.Used += rapid.Int64Range(0, 100).Draw(t, "more used")
		case 1:
			more.Held += rapid.Int64Range(0, 100).Draw(t, "more held")
		case 2:
			more.Included -= rapid.Int64Range(0, more.Included).Draw(t, "less included")
		}
		asked := quantity + rapid.Int64Range(0, 100).Draw(t, "more asked for")
		if models.Decide(more, asked).Allowed && !models.Decide(s, quantity).Allowed {
			t.Fatalf("%d of %+v are refused, and %d of %+v allowed", quantity, s, asked, more)
		}
	})
}

// Requested one by one, a person gets exactly as many units as in one request: with a hard cap, the
// included ones.
func TestDecideOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := models.Standing{Included: rapid.Int64Range(0, 60).Draw(t, "included"), OverageRateCents: rapid.SampledFrom([]int64{0, 7}).
			Draw(t, "rate")}
		limit := rapid.Int64Range(0, 100).Draw(t, "limit")
		s.SpendLimitCents = &limit
		want, over := s.Included, int64(0)
		if s.OverageRateCents > 0 {
			over = limit / s.OverageRateCents
		}
		for v := models.Decide(s, 1); v.Allowed && s.Used <= 200; v = models.Decide(s, 1) {
			s.Add(1, v)
		}
		if s.Used != want+over || s.Overage != over || s.OverageCents != over*s.OverageRateCents {
			t.Fatalf("%d were granted, %d of them billed for %d cents; want %d, %d", s.Used, s.Overage, s.OverageCents, want+over, over)
		}
	})
}

// The level and the percentage agree for any figures, and both follow the contract's ratio.
func TestLevelAgreesWithPercent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := standings().Draw(t, "standing")
		want := models.Safe
		if l := lettersOf(s); l.I > 0 {
			ratio := l.U * 100 / l.I
			if l.I-(l.U-l.O)-(l.H-l.HO) > 0 {
				ratio = (l.U - l.O) * 100 / l.I
			}
			if s.PercentUsed() != ratio {
				t.Fatalf("%+v: %d %%, want %d", l, s.PercentUsed(), ratio)
			}
		}
		switch p := s.PercentUsed(); {
		case p >= 100:
			want = models.Exceeded
		case p >= 95:
			want = models.Critical
		case p >= 80:
			want = models.Warning
		}
		if s.Level() != want {
			t.Fatalf("%d of %d used: %d %% and level %q", s.Used, s.Included, s.PercentUsed(), s.Level())
		}
	})
}
