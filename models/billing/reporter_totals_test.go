package billing

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
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
				var out, notes bytes.Buffer
				err := d.PrintReconciliation(d.ctx, &out, &notes, false)
				if (err != nil) != (p.want != 0) {
					t.Errorf("reconcile returned %v", err)
				}
				lines := strings.Split(strings.TrimSpace(out.String()), "\n")
				if len(lines) != 2 {
					t.Fatalf("printed:\n%s", out.String())
				}
				counted := 7 + p.want
				got := strings.Join(strings.Fields(lines[1]), " ")
				want := fmt.Sprintf("cus_1 2026-11-01T00:00:00Z 2026-12-01T00:00:00Z 12 7 %d %+d 0 slack_speak_suggestions_pro waiting 12 "+
					"($0.00)", counted, p.want)
				if got != want {
					t.Errorf("printed %q, want %q", got, want)
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
		var out, notes bytes.Buffer
		if err := d.PrintReconciliation(d.ctx, &out, &notes, false); err == nil || !strings.Contains(out.String(), "cus_0gone") ||
			!strings.Contains(out.String(), "+7") {
			t.Errorf("%v\n%s", err, &out)
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
		var out, notes bytes.Buffer
		if err := d.PrintReconciliation(d.ctx, &out, &notes, false); !errors.Is(err, errTotalsUnread) ||
			!strings.Contains(err.Error(), "cus_0") || !strings.Contains(out.String(), "+7") {
			t.Errorf("%v\n%s", err, &out)
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
			ID: d.NewID(), UserID: &u.ID, PlanID: "pro", Status: models.StatusActive, StripeSubscriptionID: &sub, StripeCustomerID: &customer,
			CurrentPeriodStart: &start, CurrentPeriodEnd: &end, CreatedAt: d.now, UpdatedAt: d.now,
		}).Exec(d.ctx)
		d.must(err)
		d.foreign("cus_1", 700, d.now.Add(-5*time.Hour))
		var out, notes bytes.Buffer
		if err := d.PrintReconciliation(d.ctx, &out, &notes, false); err == nil || !strings.Contains(out.String(), "+700") {
			t.Errorf("%v\n%s", err, &out)
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
		var out, notes bytes.Buffer
		if err := d.PrintReconciliation(d.ctx, &out, &notes, false); err == nil {
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
