package billing

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"tollgate/models"
)

// Units that were lost, doubled or added at Stripe are shown in the totals and by
// `stripe reconcile`.
func TestPlantedDifferences(t *testing.T) {
	plant := map[string]struct {
		do   func(d *reporterFixture)
		want int64
	}{
		"nothing": {func(*reporterFixture) {}, 0},
		"lost":    {func(d *reporterFixture) { d.stripe.Lose(d.reports()[0].Identifier) }, -3},
		"doubled": {func(d *reporterFixture) { d.stripe.Double(d.reports()[1].Identifier) }, 4},
		"foreign": {func(d *reporterFixture) { d.foreign("cus_1", 7, d.now.Add(-5*time.Hour)) }, 7},
	}
	for name, p := range plant {
		t.Run(name, func(t *testing.T) {
			onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
				d.use("cus_1", 3, d.now.Add(-3*time.Hour))
				d.use("cus_1", 4, d.now.Add(-2*time.Hour))
				d.use("cus_1", 5, d.now.Add(-time.Minute)) // not due yet
				d.seal()
				d.deliver()
				p.do(d)
				c := d.reconcile(false)
				if c.Clean() != (p.want == 0) {
					t.Errorf("the comparison is clean: %t", c.Clean())
				}
				want := []ReconciledPeriod{{Difference: p.want, OverageBalance: models.OverageBalance{
					Payer: "cus_1", MeterEventName: "slack_speak_suggestions_pro",
					Period:  models.CalendarMonth(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)),
					Decided: models.OverageSum{Units: 12}, Sent: models.OverageSum{Units: 7}, Counted: models.OverageSum{Units: 7 + p.want},
					Reasons:   []models.OverageShare{{Part: models.OverageWaiting, OverageSum: models.OverageSum{Units: 12}}},
					CheckedAt: d.now,
				}}}
				if !reflect.DeepEqual(c.Periods, want) {
					t.Errorf("the periods are %+v, want %+v", c.Periods, want)
				}
				if s := d.status(); s.Drift != max(p.want, -p.want) || s.Compared != 1 {
					t.Errorf("the drift is %d of %d periods", s.Drift, s.Compared)
				}
				// The missing report is found when each report is read again, a day later, when its loss is
				// certain.
				if name == "lost" {
					for range 60 {
						d.now = d.now.Add(time.Hour)
						d.read()
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

// differencesOf returns the differences of a comparison by payer.
func differencesOf(c *Reconciliation) map[string]int64 {
	differences := map[string]int64{}
	for _, p := range c.Periods {
		differences[p.Payer] += p.Difference
	}
	return differences
}

// If the totals cannot be compared, they are compared again later on the same day.
func TestTotalsAreTriedAgain(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		compared := func() int64 { return d.status().Compared }
		d.stripe.SetOutage(true)
		if err := d.dailyTotals(d.ctx); err == nil {
			t.Error("totals were compared without Stripe")
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

// A report that was accepted just now and is in no total yet is not a difference in the daily
// comparison. It is one if an operator asks now.
func TestTotalsThatLag(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.stripe.SetLag(func(*rand.Rand) time.Duration { return time.Hour })
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.seal()
		d.deliver()
		d.must(d.dailyTotals(d.ctx))
		if s := d.status(); s.Compared != 1 || s.Drift != 0 {
			t.Errorf("a drift of %d in %d periods", s.Drift, s.Compared)
		}
		if all, err := d.Totals(d.ctx, true); err != nil || len(all) != 1 || all[0].Difference != -3 {
			t.Errorf("the totals are %+v, %v", all, err)
		}
		// More units than were accepted are a difference immediately.
		d.foreign("cus_1", 9, d.now.Add(-5*time.Hour))
		if all, err := d.Totals(d.ctx, false); err != nil || len(all) != 1 || all[0].Difference != 6 {
			t.Errorf("with units of another source, the totals are %+v, %v", all, err)
		}
	})
}

// The daily comparison finds a lost report, even if another source added exactly its units and no
// total differs.
func TestTheDailyComparisonReadsVerifiedReportsAgain(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.use("cus_1", 4, d.now.Add(-2*time.Hour))
		d.seal()
		d.hours(4)
		lost := d.reports()[1]
		if lost.State != models.ReportVerified {
			t.Fatalf("the report is %s", lost.State)
		}
		d.stripe.Lose(lost.Identifier)
		d.foreign("cus_1", lost.Value, d.now.Add(-5*time.Hour))
		before := d.stripe.Calls()["GET /v1/billing/meters/{id}/event_summaries"]
		for range 72 {
			d.must(d.dailyTotals(d.ctx))
			d.read()
			d.now = d.now.Add(time.Hour)
		}
		if all := d.reports(); all[0].State != models.ReportVerified || all[1].State != models.ReportRejected {
			t.Errorf("the reports are %s and %s", all[0].State, all[1].State)
		}
		if s := d.status(); s.Drift != 0 {
			t.Errorf("the drift is %d", s.Drift)
		}
		// In three days: one total and one reading of each verified report a day, and the readings that
		// make the loss certain.
		if calls := d.stripe.Calls()["GET /v1/billing/meters/{id}/event_summaries"] - before; calls > 12 {
			t.Errorf("%d calls in three days", calls)
		}
	})
}

// A customer that Stripe does not know does not hide the others' differences.
func TestTotalsNextToAnUnknownCustomer(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.use("cus_0gone", 3, d.now.Add(-3*time.Hour))
		d.use("cus_1", 4, d.now.Add(-2*time.Hour))
		d.seal()
		d.deliver()
		d.foreign("cus_1", 7, d.now.Add(-5*time.Hour))
		c := d.reconcile(false)
		if got := differencesOf(c); c.Clean() || len(got) != 2 || got["cus_1"] != 7 {
			t.Errorf("the differences are %v", got)
		}
		d.must(d.dailyTotals(d.ctx))
		if drift := d.status().Drift; drift != 7 {
			t.Errorf("the drift is %d, want 7", drift)
		}
	})
}

// If Stripe refuses the totals of one customer, reconcile says so and still shows the others'. They
// are asked for once a day.
func TestTotalsThatStripeRefuses(t *testing.T) {
	var d *reporterFixture
	asked := 0
	onBoth(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Query().Get("customer") == "cus_0" {
			asked++
			return answer(400, problem("invalid_request_error", "", "Summaries of this customer cannot be listed.", ""))(r)
		}
		return d.stripe.Transport().RoundTrip(r)
	}), func(t *testing.T, of *reporterFixture) {
		d, asked = of, 0
		d.stripe.AddCustomer("cus_0", nil)
		d.use("cus_0", 3, d.now.Add(-3*time.Hour))
		d.use("cus_1", 4, d.now.Add(-3*time.Hour))
		d.foreign("cus_1", 7, d.now.Add(-5*time.Hour))
		c := d.reconcile(false)
		if got := differencesOf(c); !errors.Is(c.Unread, errTotalsUnread) || !strings.Contains(c.Unread.Error(), "cus_0") ||
			got["cus_1"] != 7 {
			t.Errorf("%v; the differences are %v", c.Unread, got)
		}
		for asked = 0; asked < 2; d.now = d.now.Add(2 * time.Hour) {
			begin := asked
			d.must(d.dailyTotals(d.ctx))
			d.must(d.dailyTotals(d.ctx))
			if asked > begin+1 {
				t.Fatalf("the totals were requested %d times at once", asked-begin)
			}
		}
		if days := d.now.Sub(time.Date(2026, 11, 20, 12, 5, 0, 0, time.UTC)); days < 24*time.Hour {
			t.Errorf("the totals were requested twice within %s", days)
		}
	})
}

// Units from another source are on a subscriber's invoice. The comparison finds them, even if the
// subscriber used nothing here.
func TestForeignUsageAlone(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		u, err := models.SetUser(d.ctx, d.db, d.now, "ada@example.com", models.UserChange{})
		d.must(err)
		start, end, sub, customer := d.now.Add(-100*time.Hour), d.now.Add(600*time.Hour), "sub_1", "cus_1"
		_, err = d.db.NewInsert().Model(&models.Subscription{
			ID: d.newID(), UserID: &u.ID, PlanID: "pro", Status: models.StatusActive, StripeSubscriptionID: &sub, StripeCustomerID: &customer,
			CurrentPeriodStart: &start, CurrentPeriodEnd: &end, CreatedAt: d.now, UpdatedAt: d.now,
		}).Exec(d.ctx)
		d.must(err)
		d.foreign("cus_1", 700, d.now.Add(-5*time.Hour))
		c := d.reconcile(false)
		if got := differencesOf(c); c.Clean() || got["cus_1"] != 700 {
			t.Errorf("the differences are %v", got)
		}
	})
}

// A doubled report that an operator gave up is still counted at Stripe.
func TestGivingUpChangesNothingAtStripe(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.use("cus_1", 4, d.now.Add(-3*time.Hour))
		d.seal()
		d.deliver()
		d.stripe.Double(d.reports()[0].Identifier)
		d.now = d.now.Add(3 * time.Hour)
		d.read()
		d.must(d.GiveUp(d.ctx, "op", d.reports()[0].ID, "credited by hand"))
		totals, err := d.Totals(d.ctx, true)
		d.must(err)
		if len(totals) != 1 || totals[0].Difference != 4 {
			t.Errorf("the totals are %+v", totals)
		}
	})
}

// A comparison that an operator started leaves no alarm. An alarm about a difference that can no
// longer be fixed ends.
func TestAlarmsEnd(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.stripe.SetLag(func(*rand.Rand) time.Duration { return time.Hour })
		d.must(d.dailyTotals(d.ctx))
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.seal()
		d.deliver()
		if c := d.reconcile(false); c.Clean() {
			t.Error("reconcile found no difference while totals lag")
		}
		d.now = d.now.Add(totalsRetry)
		d.must(d.dailyTotals(d.ctx))
		if drift := d.status().Drift; drift != 0 {
			t.Errorf("an hour later, the drift is %d", drift)
		}
		d.foreign("cus_1", 7, d.now.Add(-5*time.Hour))
		d.now = d.now.Add(25 * time.Hour)
		d.must(d.dailyTotals(d.ctx))
		if drift := d.status().Drift; drift != 7 {
			t.Errorf("the drift is %d, want 7", drift)
		}
		d.stripe.SetOutage(true)
		for range 10 {
			d.now = d.now.Add(25 * time.Hour)
			if err := d.dailyTotals(d.ctx); err == nil {
				t.Error("totals were compared without Stripe")
			}
		}
		if drift := d.status().Drift; drift != 7 {
			t.Errorf("with Stripe down for ten days, the drift is %d, want 7", drift)
		}
		d.stripe.SetOutage(false)
		d.now = d.now.Add(90 * 24 * time.Hour)
		d.must(d.dailyTotals(d.ctx))
		if drift := d.status().Drift; drift != 0 {
			t.Errorf("three months later, the drift is %d", drift)
		}
	})
}
