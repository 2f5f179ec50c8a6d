package billing

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// `make soak` runs more and longer schedules than the suite, and a seed that failed is run again with -seed and the same -days.
var (
	days      = flag.Int("days", 3, "how many days a schedule has, and then as many as it takes to settle")
	schedules = flag.Int("schedules", 1, "how many schedules are simulated, on each database")
	seedFlag  = flag.Uint64("seed", 0, "simulate this schedule alone")
)

// faults says what is billed wrongly. Units of reports in a visible state, which only asynchronous drops lead to, are no fault.
func (w *world) faults() (faults []string) {
	note := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	var reports []models.StripeReport
	w.must(w.db.NewSelect().Model(&reports).Order("minute").Scan(w.ctx))
	type hour struct {
		customer string
		start    time.Time
	}
	visible := map[hour]int64{}
	for _, r := range reports {
		switch {
		case r.State == models.ReportVerified, r.State == models.ReportMissing:
		case r.State == models.ReportRejected && w.s.dropped > 0:
			visible[hour{r.StripeCustomerID, r.Minute.UTC().Truncate(time.Hour)}] += r.Value
		default:
			text := ""
			if r.LastError != nil {
				text = *r.LastError
			}
			note("report %s of %d units at %s is %s after %d attempts: %s", r.Identifier, r.Value, r.Minute.UTC().Format(time.DateTime), r.State, r.Attempts, text)
		}
	}
	for _, e := range w.stripe.Events() {
		if e.Times != 1 {
			note("%s was counted %d times", e.Identifier, e.Times)
		}
	}
	for customer, most := range w.stripe.MaxConcurrent() {
		if most > 1 {
			note("%s had %d calls at a time", customer, most)
		}
	}
	var events []models.UsageEvent
	w.must(w.db.NewSelect().Model(&events).Scan(w.ctx))
	if len(events) < 50**days {
		note("only %d events were recorded", len(events))
	}
	ledger := map[hour]int64{}
	byID := map[uuid.UUID]*models.StripeReport{}
	type minute struct {
		stream
		start time.Time
	}
	taken := map[minute]bool{}
	for i := range reports {
		r := &reports[i]
		byID[r.ID] = r
		taken[minute{stream{r.StripeCustomerID, r.MeterEventName}, r.Minute.UTC()}] = true
		if plan := strings.TrimPrefix(r.MeterEventName, w.catalogue.MeterOf("")); r.Counts != models.CountsOverage || !slices.Contains(plans, models.PlanID(plan)) {
			note("report %s counts the %s of %s", r.Identifier, r.Counts, plan)
		}
	}
	for _, e := range events {
		h := hour{*e.StripeCustomerID, e.OccurredAt.UTC().Truncate(time.Hour)}
		if (e.OverageQuantity == 0) != (e.StripeReportID == nil) || e.OverageQuantity == 0 && e.StripeReportedAt != nil {
			note("an event with %d units of overage is in the report %v, reported at %v", e.OverageQuantity, e.StripeReportID, e.StripeReportedAt)
		}
		if e.StripeReportID != nil {
			if report := byID[*e.StripeReportID]; report.MeterEventName != w.catalogue.MeterOf(e.PlanID) {
				note("an event of %s is in a report to %s", e.PlanID, report.MeterEventName)
			}
			// A report that never arrived is replaced in another minute. Where a billing period has none left of the hour up to the event, that is
			// another hour's: a minute after it may lie in the next period.
			reported := hour{h.customer, byID[*e.StripeReportID].Minute.UTC().Truncate(time.Hour)}
			if reported != h && w.noMinuteBefore(h.customer, e.OccurredAt.UTC(), func(t time.Time) bool {
				return taken[minute{stream{h.customer, w.catalogue.MeterOf(e.PlanID)}, t}]
			}) {
				h = reported
			}
		}
		ledger[h] += e.OverageQuantity
	}
	for _, p := range w.customers {
		for _, period := range p.periods {
			var used, hidden int64
			for _, e := range events {
				if at := e.OccurredAt.UTC(); *e.StripeCustomerID == p.id && period.Contains(at) {
					used += e.OverageQuantity
				}
			}
			for _, r := range reports {
				if r.StripeCustomerID == p.id && r.State == models.ReportRejected && period.Contains(r.Minute.UTC()) {
					hidden += r.Value
				}
			}
			if got := w.stripe.Total(p.id, ceilMinute(period.Start), ceilMinute(period.End)); got != used-hidden {
				note("%s used %d units from %s to %s, of which %d are visible as not counted, and Stripe has %d", p.id, used,
					period.Start.Format(time.DateTime), period.End.Format(time.DateTime), hidden, got)
			}
		}
	}
	for h, used := range ledger {
		if got := w.stripe.Total(h.customer, h.start, h.start.Add(time.Hour)); got != used-visible[h] {
			note("%s used %d units in the hour of %s, and Stripe has %d", h.customer, used, h.start.Format(time.DateTime), got)
		}
	}
	w.must(models.Verify(w.ctx, w.db, func(d models.Difference) {
		if d.Customer != "" || strings.Contains(d.Fault, "report") {
			note("verify: %s", d)
		}
	}))
	slices.Sort(faults)
	if n := len(faults); n > 10 {
		faults = append(faults[:10], fmt.Sprintf("and %d more", n-10))
	}
	return faults
}

// simulate runs a schedule and returns what went wrong.
func simulate(t testing.TB, address string, s schedule) []string {
	t.Helper()
	w := newWorld(t, address, s)
	w.run()
	return w.faults()
}

var databases = map[string]func(testing.TB) string{"sqlite": modelstest.SQLite, "postgres": modelstest.Postgres}

// noMinuteBefore says that each minute is taken that begins in the hour of at, before at, and in the customer's billing period that at is in.
func (w *world) noMinuteBefore(customer string, at time.Time, taken func(time.Time) bool) bool {
	start := at.Truncate(time.Hour)
	for _, p := range w.customers {
		for _, period := range p.periods {
			if p.id == customer && period.Contains(at) {
				start = slices.MaxFunc([]time.Time{start, ceilMinute(period.Start)}, time.Time.Compare)
			}
		}
	}
	for t := start; !t.After(at); t = t.Add(time.Minute) {
		if !taken(t) {
			return false
		}
	}
	return true
}

// seeds are those of the schedules to run.
func seeds() []uint64 {
	if *seedFlag != 0 {
		return []uint64{*seedFlag}
	}
	all := make([]uint64, *schedules)
	for i := range all {
		all[i] = uint64(i + 1)
	}
	return all
}

// Some days with a quarter of the calls faulted, crashes, an outage, late events, period ends and upgrades: whatever happens, Stripe has what the ledger has, of
// each customer, in each hour and billing period.
func TestSimulation(t *testing.T) {
	for name, address := range databases {
		t.Run(name, func(t *testing.T) {
			for _, seed := range seeds() {
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					if faults := simulate(t, address(t), schedule{seed: seed}); len(faults) > 0 {
						t.Errorf("run it again with -args -seed=%d -days=%d\n%s", seed, *days, strings.Join(faults, "\n"))
					}
				})
			}
		})
	}
}

// The same, and one in a hundred events is taken by Stripe and never counted: each is in a visible state with its amount.
func TestSimulationWithDrops(t *testing.T) {
	for name, address := range databases {
		t.Run(name, func(t *testing.T) {
			for _, seed := range seeds() {
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					if faults := simulate(t, address(t), schedule{seed: seed, dropped: 0.01}); len(faults) > 0 {
						t.Errorf("run it again with -args -seed=%d -days=%d\n%s", seed, *days, strings.Join(faults, "\n"))
					}
				})
			}
		})
	}
}

// What the design consists of is needed: without each part in turn, the simulation finds wrong bills.
func TestSimulationNoticesWhatIsLeftOut(t *testing.T) {
	for name, without := range map[string]fault{"identifier": noIdentifier, "guard": noGuard, "private minute": noPrivateMinute, "freeze": noFreeze} {
		t.Run(name, func(t *testing.T) {
			for i := range uint64(12) {
				seed := (i+7)%12 + 1 // the eighth is the first that finds each of them
				if faults := simulate(t, modelstest.SQLite(t), schedule{seed: seed, without: without}); len(faults) > 0 {
					t.Logf("seed %d: %d faults, such as: %s", seed, len(faults), faults[0])
					return
				}
			}
			t.Errorf("12 schedules without the %s, and none was found to bill wrongly", name)
		})
	}
}
