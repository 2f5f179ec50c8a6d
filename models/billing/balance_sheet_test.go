package billing

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tollgate/models"
)

// The decided overage always equals the invoiced overage plus all reasons, in units and in cents.
func TestBalancesAddUp(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	month := models.CalendarMonth(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	sum := func() models.OverageSum {
		n := r.Int64N(9)
		return models.OverageSum{Units: n, Cents: n * (20 + r.Int64N(20))}
	}
	flip := func() bool { return r.IntN(2) == 0 }
	for n := range 20_000 {
		s := balanceSheet{
			payer: "cus_1", period: month, now: month.Start.Add(time.Duration(r.IntN(60*24)) * time.Hour), unsealed: sum(),
			invoiced: sum(), voided: sum(),
			uncollectible: sum(), counted: r.Int64N(30), drafted: flip(), blocked: r.IntN(9) == 0,
			noPrice: flip(), noItem: r.IntN(4) == 0, otherCurrency: r.IntN(9) == 0,
			held: []models.OveragePart{"", "", models.OverageTwoSubscriptions, models.OverageByTiers}[r.IntN(4)],
		}
		if flip() {
			s.canceled = month.End.Add(-time.Duration(r.IntN(100)) * time.Hour)
		}
		if flip() {
			s.final = month.End.Add(time.Hour)
		}
		for range r.IntN(6) {
			all := sum()
			share := reportShare{
				State: models.ReportStates[r.IntN(len(models.ReportStates))], Counts: models.CountsOverage, Value: all.Units,
				Confirmed: r.Int64N(12), All: all, Here: all,
				Minute: month.End.Add(time.Duration(r.IntN(120)-100) * time.Hour),
				SentAt: month.End.Add(time.Duration(r.IntN(240)-120) * time.Minute),
			}
			switch {
			case share.State == models.ReportMissing:
				share.Here, share.All = models.OverageSum{}, models.OverageSum{} // another report has its events
			case r.IntN(4) == 0:
				share.Here = part(all, r.Int64N(all.Units+1), all.Units)
			}
			if r.IntN(9) == 0 {
				share.Counts = models.CountsQuantity
			}
			s.reports = append(s.reports, share)
		}
		b := s.balance()
		decided, total := s.unsealed, b.Invoiced
		for _, share := range s.reports {
			decided = decided.Plus(share.Here)
		}
		for _, reason := range b.Reasons {
			total = total.Plus(reason.OverageSum)
			if !slices.Contains(models.OverageReasons, reason.Part) {
				t.Errorf("the reason %q is not listed", reason.Part)
			}
		}
		if b.Decided != decided || total != decided {
			t.Fatalf("%d: decided %v, and the balance has %v of %v: %+v", n, decided, total, b.Decided, s)
		}
	}
}

// Usage that reached Stripe while an invoice became final may be on it or not. Both are explained.
func TestUsageThatMeetsItsInvoice(t *testing.T) {
	month := models.CalendarMonth(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	final := month.End.Add(time.Hour)
	twelve := models.OverageSum{Units: 12, Cents: 360}
	for _, c := range []struct {
		name     string
		sentAt   time.Time
		invoiced models.OverageSum
		reason   models.OveragePart
		want     models.OverageSum
	}{
		{"just before, on the invoice", final.Add(-time.Second), twelve, models.OverageLate, models.OverageSum{}},
		{"just before, not on the invoice", final.Add(-time.Second), models.OverageSum{}, models.OverageLate, twelve},
		{"just after, not on the invoice", final.Add(time.Second), models.OverageSum{}, models.OverageLate, twelve},
		{"just after by our clock, on the invoice", final.Add(time.Second), twelve, models.OverageLate, models.OverageSum{}},
		{"long before, not on the invoice", final.Add(-2 * time.Hour), models.OverageSum{}, models.OverageUnexplained, twelve},
		{"long after, on the invoice", final.Add(2 * time.Hour), twelve, models.OverageUnexplained, models.OverageSum{Units: -12, Cents: -360}},
	} {
		s := balanceSheet{
			period: month, now: final.Add(3 * time.Hour), final: final, invoiced: c.invoiced, counted: 12,
			reports: []reportShare{{State: models.ReportVerified, Counts: models.CountsOverage, Minute: month.Start, Value: 12,
				SentAt: c.sentAt, Here: twelve, All: twelve}},
		}
		b := s.balance()
		if got := b.NotInvoiced(c.reason); got != c.want {
			t.Errorf("%s: %s has %v, want %v", c.name, c.reason, got, c.want)
		}
		if unexplained := b.NotInvoiced(models.OverageUnexplained); c.reason != models.OverageUnexplained &&
			unexplained != (models.OverageSum{}) {
			t.Errorf("%s: unexplained %v", c.name, unexplained)
		}
	}
}

// Units that only an invoice in another currency has are shown without an amount.
func TestUnexplainedUnitsInAnotherCurrency(t *testing.T) {
	month := models.CalendarMonth(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	unexplained := models.OverageShare{Part: models.OverageUnexplained, OverageSum: models.OverageSum{Units: -50}}
	for currency, want := range map[string][]models.OverageShare{
		"jpy": {unexplained, {Part: models.OverageOtherCurrency}}, "usd": {unexplained},
	} {
		s := balanceSheet{
			period: month, now: month.End.AddDate(0, 0, 5), final: month.End, invoiced: models.OverageSum{Units: 50},
			otherCurrency: currency == "jpy",
		}
		b := s.balance()
		if amount := b.HasAmount(unexplained); !slices.Equal(b.Reasons, want) || amount != (currency == "usd") {
			t.Errorf("%s: %v, with an amount: %t; want %v", currency, b.Reasons, amount, want)
		}
	}
}

// Parts of a known period are not periods of their own, and a later period ends an earlier one.
func TestMergeSpans(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }
	known := func(from, to int) span { return span{models.Period{Start: day(from), End: day(to)}, true} }
	label := func(from, to int) span { return span{models.Period{Start: day(from), End: day(to)}, false} }
	for name, c := range map[string]struct {
		spans []span
		want  []int // days of starts and ends
	}{
		"none":                                   {nil, nil},
		"one":                                    {[]span{known(1, 31), label(1, 31)}, []int{1, 31}},
		"a member who joined and left":           {[]span{label(1, 12), known(1, 31), label(20, 31)}, []int{1, 31}},
		"a member who joined, no known period":   {[]span{label(1, 31), label(20, 31)}, []int{1, 31}},
		"a period that starts within another":    {[]span{label(1, 31), known(15, 45)}, []int{1, 15, 15, 45}},
		"two consecutive periods":                {[]span{known(1, 31), known(31, 61)}, []int{1, 31, 31, 61}},
		"a label past the known end":             {[]span{known(1, 15), label(1, 31)}, []int{1, 15, 15, 31}},
		"a label from before the period was cut": {[]span{known(1, 15), label(1, 31), known(15, 45)}, []int{1, 15, 15, 45}},
		"a label from within past the end":       {[]span{known(1, 15), label(10, 31)}, []int{1, 15, 15, 31}},
		"a label shorter than the known period":  {[]span{label(1, 15), known(1, 31)}, []int{1, 31}},
	} {
		var got []int
		for _, p := range mergeSpans(c.spans) {
			for _, at := range []time.Time{p.Start, p.End} {
				got = append(got, int(at.Sub(day(1))/(24*time.Hour))+1)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// A subscription is canceled immediately, and its last invoice bills the usage before that. Usage
// after it, which Tollgate learned of late, is late however early it was sent.
func TestUsageAfterACancellation(t *testing.T) {
	month := models.CalendarMonth(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	canceled := month.Start.AddDate(0, 0, 9)
	report := func(minute time.Time, units int64) reportShare {
		o := models.OverageSum{Units: units, Cents: 30 * units}
		return reportShare{
			State: models.ReportVerified, Counts: models.CountsOverage, Minute: minute, Value: units, SentAt: minute.Add(time.Minute),
			Here: o, All: o,
		}
	}
	s := balanceSheet{
		period: month, now: canceled.AddDate(0, 0, 1), canceled: canceled, final: canceled.Add(3 * time.Hour), counted: 17,
		invoiced: models.OverageSum{Units: 12, Cents: 360},
		reports:  []reportShare{report(canceled.Add(-time.Minute), 12), report(canceled.Add(time.Hour), 5)},
	}
	b := s.balance()
	if want := []models.OverageShare{{Part: models.OverageLate, OverageSum: models.OverageSum{Units: 5,
		Cents: 150}}}; !slices.Equal(b.Reasons, want) {
		t.Errorf("the reasons are %v, want %v", b.Reasons, want)
	}
}

// A subscription that was canceled immediately does not affect the next subscription's period,
// which ended normally.
func TestACancellationIsOfItsOwnPeriod(t *testing.T) {
	day := func(n int) *time.Time { return new(time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC)) }
	c := billedCustomer{subscriptions: []models.Subscription{
		{Status: models.StatusCanceled, CurrentPeriodStart: day(1), CurrentPeriodEnd: day(31), InactiveSince: day(3)},
		{Status: models.StatusCanceled, CurrentPeriodStart: day(5), CurrentPeriodEnd: day(35), InactiveSince: day(35)},
	}}
	if got := c.canceled(models.Period{Start: *day(1), End: *day(5)}); !got.Equal(*day(3)) {
		t.Errorf("the first period was canceled at %v, want %v", got, day(3))
	}
	if got := c.canceled(models.Period{Start: *day(5), End: *day(35)}); !got.IsZero() {
		t.Errorf("the second period was canceled at %v, want never", got)
	}
}
