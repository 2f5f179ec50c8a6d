package billing

import (
	"bytes"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/models"
)

// What somebody lost, doubled or added at Stripe is seen in the totals and in what `stripe reconcile` prints.
func TestPlantedDifferences(t *testing.T) {
	plant := map[string]struct {
		do   func(d *desk)
		want int64
	}{
		"nothing": {func(*desk) {}, 0},
		"lost":    {func(d *desk) { d.stripe.Lose(d.reports()[0].Identifier) }, -3},
		"doubled": {func(d *desk) { d.stripe.Double(d.reports()[1].Identifier) }, 4},
		"foreign": {func(d *desk) { d.stripe.AddForeign("cus_1", 7, d.now.Add(-5*time.Hour)) }, 7},
	}
	for name, p := range plant {
		t.Run(name, func(t *testing.T) {
			onBoth(t, nil, func(t *testing.T, d *desk) {
				d.use("cus_1", 3, d.now.Add(-3*time.Hour))
				d.use("cus_1", 4, d.now.Add(-2*time.Hour))
				d.use("cus_1", 5, d.now.Add(-time.Minute)) // not due yet
				_, err := d.Seal(d.ctx)
				d.must(err)
				d.deliver()
				p.do(d)
				var out, notes bytes.Buffer
				err = d.PrintReconciliation(d.ctx, &out, &notes, false)
				if (err != nil) != (p.want != 0) {
					t.Errorf("the error is %v", err)
				}
				lines := strings.Split(strings.TrimSpace(out.String()), "\n")
				if len(lines) != 2 {
					t.Fatalf("printed:\n%s", out.String())
				}
				confirmed := 7 + p.want
				got := strings.Join(strings.Fields(lines[1]), " ")
				sign := "+"
				if p.want < 0 {
					sign = ""
				}
				want := "cus_1 2026-11-01T00:00:00Z 2026-12-01T00:00:00Z 12 5 7 " + strconv.FormatInt(confirmed, 10) + " " + sign + strconv.FormatInt(p.want, 10)
				if got != want {
					t.Errorf("printed %q, want %q", got, want)
				}
				if s := d.status(); s.Drift != max(p.want, -p.want) || s.Compared != 1 {
					t.Errorf("the drift is %d of %d periods", s.Drift, s.Compared)
				}
				// The report that Stripe lacks is found by reading each again, a day later when it is surely lost.
				if name == "lost" {
					for range 60 {
						d.now = d.now.Add(time.Hour)
						_, err := d.Reconcile(d.ctx)
						d.must(err)
					}
					if r := d.reports()[0]; r.State != models.ReportRejected {
						t.Errorf("the lost report is %s", r.State)
					}
					d.must(d.Retry(d.ctx, "op@example.com", d.reports()[0].ID))
					d.deliver()
					if got := d.stripe.Total("cus_1", d.now.Add(-200*time.Hour), d.now); got != 7 {
						t.Errorf("after a retry Stripe has %d units, want 7", got)
					}
				}
			})
		})
	}
}

// A database that came back from a backup does not know what was sent since. What Stripe has already is not sent again.
func TestRestored(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		d.stripe.AddCustomer("cus_2", nil)
		d.stripe.AddCustomer("cus_3", nil)
		hour := d.now.Add(-3 * time.Hour)
		d.use("cus_1", 3, hour) // sealed and sent after the backup
		d.use("cus_2", 4, hour) // sealed in the backup, sent after it
		d.use("cus_3", 5, hour) // never sent
		// What the lost database had sent, by identifiers that this one never made.
		d.stripe.AddForeign("cus_1", 3, hour)
		_, err := d.sealCustomers(d.ctx, []string{"cus_2"})
		d.must(err)
		d.stripe.AddForeign("cus_2", 4, d.reports()[0].Minute)
		var out, notes bytes.Buffer
		d.must(d.PrintReconciliation(d.ctx, &out, &notes, true))
		d.deliver()
		if got := d.stripe.Total("cus_3", d.now.Add(-24*time.Hour), d.now); got != 0 || !strings.Contains(notes.String(), "again from") {
			t.Errorf("%d units were sent while totals may lag, and it said: %s", got, &notes)
		}
		d.now = d.now.Add(24 * time.Hour)
		d.must(d.PrintReconciliation(d.ctx, &out, &notes, true))
		d.deliver()
		for customer, want := range map[string]int64{"cus_1": 3, "cus_2": 4, "cus_3": 5} {
			if got := d.stripe.Total(customer, d.now.Add(-48*time.Hour), d.now); got != want {
				t.Errorf("%s has %d units at Stripe, want %d", customer, got, want)
			}
		}
		// What cannot be told apart is left to a person.
		d.use("cus_3", 6, hour.Add(-time.Hour))
		d.stripe.AddForeign("cus_3", 2, hour.Add(-time.Hour))
		if err := d.PrintReconciliation(d.ctx, &out, &notes, true); err == nil {
			t.Error("a conflict is no difference")
		}
		d.deliver()
		if failed, err := Failures(d.ctx, d.db); err != nil || len(failed) != 1 || failed[0].State != models.ReportConflict || failed[0].Value != 6 {
			t.Errorf("what cannot be told apart is %+v, %v", failed, err)
		}
		if got := d.stripe.Total("cus_3", d.now.Add(-48*time.Hour), d.now); got != 7 {
			t.Errorf("cus_3 has %d units at Stripe, want 7", got)
		}
	})
}

// A report that Stripe counted once and lost later is found by its period's total, and ends in a visible state.
func TestLostAfterItWasVerified(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.use("cus_1", 4, d.now.Add(-2*time.Hour))
		_, err := d.Seal(d.ctx)
		d.must(err)
		d.deliver()
		d.now = d.now.Add(3 * time.Hour)
		_, err = d.Reconcile(d.ctx)
		d.must(err)
		lost := d.reports()[1]
		if lost.State != models.ReportVerified || lost.Value != 4 {
			t.Fatalf("the report is %+v", lost)
		}
		d.stripe.Lose(lost.Identifier)
		for range 30 {
			d.now = d.now.Add(time.Hour)
			_, err := d.Reconcile(d.ctx)
			d.must(err)
		}
		if state := d.reports()[1].State; state != models.ReportVerified {
			t.Errorf("nobody asked, and it is %s", state)
		}
		d.must(d.dailyTotals(d.ctx))
		if drift := d.status().Drift; drift != 4 {
			t.Errorf("the drift is %d, want 4", drift)
		}
		for range 26 {
			_, err := d.Reconcile(d.ctx)
			d.must(err)
			d.now = d.now.Add(time.Hour)
		}
		if all := d.reports(); all[0].State != models.ReportVerified || all[1].State != models.ReportRejected {
			t.Errorf("the reports are %s and %s", all[0].State, all[1].State)
		}
	})
}

// A day whose totals could not be compared is not lost.
func TestTotalsAreTriedAgain(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		compared := func() int64 { return d.status().Compared }
		d.stripe.SetOutage(true)
		if err := d.dailyTotals(d.ctx); err == nil {
			t.Error("totals were compared with nobody")
		}
		d.stripe.SetOutage(false)
		d.now = d.now.Add(totalsRetry - time.Minute)
		d.must(d.dailyTotals(d.ctx))
		if n := compared(); n != 0 {
			t.Errorf("%d periods were compared too soon", n)
		}
		d.now = d.now.Add(time.Minute)
		d.must(d.dailyTotals(d.ctx))
		if n := compared(); n != 1 {
			t.Errorf("%d periods were compared, want 1", n)
		}
		calls := func() int { return d.stripe.Calls()["GET /v1/billing/meters/{id}/event_summaries"] }
		before := calls()
		d.now = d.now.Add(24*time.Hour - time.Minute)
		d.must(d.dailyTotals(d.ctx))
		if calls() != before {
			t.Error("totals were compared twice in a day")
		}
		d.now = d.now.Add(time.Minute)
		d.must(d.dailyTotals(d.ctx))
		if calls() == before {
			t.Error("totals were not compared on the next day")
		}
	})
}

// A report that never arrived is replaced by one of another identifier and minute, with the same events, once nothing can be late any more.
func TestAReportThatNeverArrived(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.use("cus_1", 4, d.now.Add(-3*time.Hour))
		_, err := d.Seal(d.ctx)
		d.must(err)
		d.stripe.SetOutage(true)
		hours := func(n int) {
			t.Helper()
			for range n {
				d.deliver()
				_, err := d.Reconcile(d.ctx)
				d.must(err)
				d.now = d.now.Add(time.Hour)
			}
		}
		hours(23)
		d.stripe.SetOutage(false)
		attempts := d.reports()[0].Attempts
		hours(24)
		if all := d.reports(); len(all) != 1 || all[0].State != models.ReportUnknown || all[0].Attempts != attempts {
			t.Fatalf("before it is sure: %+v", all)
		}
		hours(6)
		all := d.reports()
		if len(all) != 2 || all[0].State != models.ReportMissing || all[1].Value != 7 || all[0].ReplacedBy == nil || *all[0].ReplacedBy != all[1].ID {
			t.Fatalf("after it is sure: %+v", all)
		}
		if a, b := all[0], all[1]; a.Identifier == b.Identifier || a.Minute.Equal(b.Minute) || !a.Minute.Truncate(time.Hour).Equal(b.Minute.Truncate(time.Hour)) {
			t.Errorf("it is replaced by one at %v, and was at %v", b.Minute, a.Minute)
		}
		if got := d.stripe.Total("cus_1", d.now.Add(-100*time.Hour), d.now); got != 7 {
			t.Errorf("Stripe has %d units, want 7", got)
		}
		d.must(models.Verify(d.ctx, d.db, d.catalogue, func(f models.Difference) {
			if f.Customer != "" {
				t.Error(f)
			}
		}))
	})
}

// What was accepted a moment ago and is in no total yet is no difference to the daily comparison, and one to somebody who asks now.
func TestTotalsThatLag(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		d.stripe.SetLag(func(*rand.Rand) time.Duration { return time.Hour })
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		_, err := d.Seal(d.ctx)
		d.must(err)
		d.deliver()
		d.must(d.dailyTotals(d.ctx))
		if s := d.status(); s.Compared != 1 || s.Drift != 0 {
			t.Errorf("a drift of %d in %d periods", s.Drift, s.Compared)
		}
		if all, err := d.Totals(d.ctx, true); err != nil || len(all) != 1 || all[0].Difference != -3 {
			t.Errorf("asked now: %+v, %v", all, err)
		}
		// More than what was accepted is a difference at once.
		d.stripe.AddForeign("cus_1", 9, d.now.Add(-5*time.Hour))
		if all, err := d.Totals(d.ctx, false); err != nil || len(all) != 1 || all[0].Difference != 6 {
			t.Errorf("with somebody else's: %+v, %v", all, err)
		}
	})
}
