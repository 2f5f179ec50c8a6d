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
		// Percentages that are no whole number of units: four of five are 80 %, and 95 % is never met exactly.
		{3, 5, 60, models.Safe},
		{4, 5, 80, models.Warning},
		{5, 5, 100, models.Exceeded},
		{19, 25, 76, models.Safe},
		{20, 25, 80, models.Warning},
		{23, 25, 92, models.Warning},
		{24, 25, 96, models.Critical},
		{71, 75, 94, models.Warning},
		{72, 75, 96, models.Critical},
		// Nothing included: no division.
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

func TestDecide(t *testing.T) {
	for _, test := range []struct {
		name                 string
		used, held, included int64
		rate                 int64
		limit                *int64
		quantity             int64
		want                 models.Reason // empty: allowed
	}{
		{"the first", 0, 0, 5, 0, nil, 1, ""},
		{"the last", 4, 0, 5, 0, nil, 1, ""},
		{"one too many", 5, 0, 5, 0, nil, 1, models.IncludedExhausted},
		{"all at once", 0, 0, 5, 0, nil, 5, ""},
		{"more than all", 0, 0, 5, 0, nil, 6, models.IncludedExhausted},
		{"more than the rest: none of it", 3, 0, 5, 0, nil, 3, models.IncludedExhausted},
		{"the rest", 3, 0, 5, 0, nil, 2, ""},
		{"held units are taken", 2, 3, 5, 0, nil, 1, models.IncludedExhausted},
		{"beside held units", 2, 2, 5, 0, nil, 1, ""},
		{"nothing included", 0, 0, 0, 0, nil, 1, models.IncludedExhausted},
		{"nothing included, paid", 0, 0, 0, 25, nil, 1, ""},
		{"paid overage", 75, 0, 75, 30, nil, 1, ""},
		{"paid overage, far", 10_000, 0, 75, 30, nil, 10_000, ""},
		{"partly overage", 74, 0, 75, 30, ptr(int64(30)), 2, ""},
		{"partly overage, one unit over the limit", 74, 0, 75, 30, ptr(int64(30)), 3, models.SpendLimitReached},
		{"up to the limit", 75, 0, 75, 30, ptr(int64(90)), 3, ""},
		{"a cent over the limit", 75, 0, 75, 30, ptr(int64(89)), 3, models.SpendLimitReached},
		{"held units may cost too", 75, 2, 75, 30, ptr(int64(60)), 1, models.SpendLimitReached},
		{"a limit of nothing within the included", 74, 0, 75, 30, ptr(int64(0)), 1, ""},
		{"a limit of nothing beyond", 75, 0, 75, 30, ptr(int64(0)), 1, models.SpendLimitReached},
		{"a limit without overage", 5, 0, 5, 0, ptr(int64(1000)), 1, models.IncludedExhausted},
		{"over the limit by an earlier plan, still within", 10, 0, 75, 30, ptr(int64(0)), 65, ""},
		{"numbers as large as a catalogue may have", 1_000_000_000, 0, 1_000_000_000, 100_000_000, ptr(int64(999_999_999_999)), 10_000, models.SpendLimitReached},
	} {
		s := models.Standing{Used: test.used, Held: test.held, Included: test.included, OverageRateCents: test.rate, SpendLimitCents: test.limit}
		got := models.Decide(s, test.quantity)
		if want := (models.Verdict{Allowed: test.want == "", Reason: test.want}); got != want {
			t.Errorf("%s: %+v, want %+v", test.name, got, want)
		}
	}
}

func TestFigures(t *testing.T) {
	for _, test := range []struct {
		used, held, included, rate int64
		remaining, overage, cents  int64
	}{
		{60, 0, 75, 30, 15, 0, 0},
		{60, 10, 75, 30, 5, 0, 0},
		{60, 20, 75, 30, 0, 0, 0},
		{75, 0, 75, 30, 0, 0, 0},
		{78, 5, 75, 30, 0, 3, 90},
		{7, 0, 5, 0, 0, 2, 0},
		{2, 0, 0, 25, 0, 2, 50},
	} {
		s := models.Standing{Used: test.used, Held: test.held, Included: test.included, OverageRateCents: test.rate}
		if s.Remaining() != test.remaining || s.Overage != test.overage || s.OverageCents != test.cents {
			t.Errorf("%+v: %d remaining, %d over for %d cents; want %d, %d, %d", s, s.Remaining(), s.Overage, s.OverageCents,
				test.remaining, test.overage, test.cents)
		}
	}
}

// standings are mostly small, so that their edges meet.
func standings() *rapid.Generator[models.Standing] {
	return rapid.Custom(func(t *rapid.T) models.Standing {
		most := rapid.SampledFrom([]int64{3, 120, 1_000_000_000}).Draw(t, "most")
		s := models.Standing{
			Used: rapid.Int64Range(0, most).Draw(t, "used"), Held: rapid.Int64Range(0, most).Draw(t, "held"),
			Included: rapid.Int64Range(0, most).Draw(t, "included"), OverageRateCents: rapid.Int64Range(0, 40).Draw(t, "rate"),
		}
		if rapid.Bool().Draw(t, "limited") {
			s.SpendLimitCents = ptr(rapid.Int64Range(0, 4000).Draw(t, "limit"))
		}
		return s
	})
}

var quantities = rapid.Int64Range(1, 10_000)

func TestDecideNeverOvershoots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, quantity := standings().Draw(t, "standing"), quantities.Draw(t, "quantity")
		v := models.Decide(s, quantity)
		if v.Allowed != (v.Reason == "") {
			t.Fatalf("allowed %v with the reason %q", v.Allowed, v.Reason)
		}
		after := s
		after.Used += s.Held + quantity // as if all that is held were settled in full
		switch {
		case !v.Allowed:
			if after.Used <= s.Included {
				t.Fatalf("refused although %d fit: %+v", quantity, s)
			}
			if (v.Reason == models.IncludedExhausted) != (s.OverageRateCents == 0) {
				t.Fatalf("refused with %q at a rate of %d", v.Reason, s.OverageRateCents)
			}
		case s.OverageRateCents == 0 && after.Overage > 0:
			t.Fatalf("%d granted beyond the included ones: %+v", after.Overage, s)
		case s.SpendLimitCents != nil && after.OverageCents > *s.SpendLimitCents:
			t.Fatalf("%d cents granted over a limit of %d: %+v", after.OverageCents, *s.SpendLimitCents, s)
		}
	})
}

// Who may have more may have less; and more used, held or asked for never turns a refusal into a grant.
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

// One by one, a person gets exactly what they get at once: with a hard cap, the included units.
func TestDecideOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := models.Standing{Included: rapid.Int64Range(0, 60).Draw(t, "included"), OverageRateCents: rapid.SampledFrom([]int64{0, 7}).Draw(t, "rate")}
		limit := rapid.Int64Range(0, 100).Draw(t, "limit")
		s.SpendLimitCents = &limit
		want := s.Included
		if s.OverageRateCents > 0 {
			want += limit / s.OverageRateCents
		}
		for models.Decide(s, 1).Allowed {
			s.Used++
		}
		if s.Used != want {
			t.Fatalf("%d were granted, want %d", s.Used, want)
		}
	})
}

// The level and the percentage tell the same story, for any figures: the one never jumps ahead of the other.
func TestLevelAgreesWithPercent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := standings().Draw(t, "standing")
		want := models.Safe
		switch p := s.PercentUsed(); {
		case p >= 100:
			want = models.Exceeded
		case p >= 95:
			want = models.Critical
		case p >= 80:
			want = models.Warning
		}
		if s.Level() != want {
			t.Fatalf("%d of %d are %d %% and %q", s.Used, s.Included, s.PercentUsed(), s.Level())
		}
	})
}
