package billing

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/models"
)

// While sending is paused, nothing is sent and nothing is lost.
func TestPauseAndUnblock(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.use("cus_gone", 4, d.now.Add(-3*time.Hour))
		d.must(Pause(d.ctx, d.db, d.now, "op@example.com"))
		d.seal()
		d.deliver()
		if n := len(d.stripe.Events()); n != 0 {
			t.Errorf("%d events were sent while sending was paused", n)
		}
		d.must(Resume(d.ctx, d.db, d.now, "op@example.com"))
		d.deliver()
		if s := d.status(); len(d.stripe.Events()) != 1 || len(s.Blocked) != 1 || s.Blocked[0].StripeCustomerID != "cus_gone" {
			t.Errorf("%d events were sent, and the blocked streams are %+v", len(d.stripe.Events()), s.Blocked)
		}
		d.stripe.AddCustomer("cus_gone", nil)
		d.must(Unblock(d.ctx, d.db, d.now, "op@example.com", "cus_gone"))
		d.deliver()
		if n := len(d.stripe.Events()); n != 2 {
			t.Errorf("%d events were sent after unblocking, want 2", n)
		}
	})
}

// An earlier attempt of a report may have reached Stripe. Its units are not sent again before the
// totals have settled, however often an operator asks for a retry.
func TestRetryWaitsForTotals(t *testing.T) {
	var d *reporterFixture
	transport, again := meterEvents(&d, func(n int, r *http.Request) (*http.Response, error) {
		switch {
		case n == 1:
			_, _ = d.stripe.Transport().RoundTrip(r)
			return nil, errors.New("the answer was lost")
		case n <= 4:
			return answer(400, `{"error": {"type": "invalid_request_error", "message": "Your account cannot do this now."}}`)(r)
		}
		return nil, nil
	})
	onBoth(t, transport, func(t *testing.T, of *reporterFixture) {
		d = of
		again()
		d.stripe.SetLag(func(*rand.Rand) time.Duration { return time.Hour })
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.seal()
		for range 20 {
			d.deliver()
			d.now = d.now.Add(time.Minute)
		}
		r := d.reports()[0]
		if r.State != models.ReportDead {
			t.Fatalf("the report is %s", r.State)
		}
		for range 3 {
			d.must(d.Retry(d.ctx, "op", r.ID))
			d.read()
		}
		d.hours(5)
		if got := d.stripe.Total("cus_1", d.now.Add(-48*time.Hour), d.now); got != 3 {
			t.Errorf("%d units are billed, want 3", got)
		}
	})
}

// A customer that Stripe does not have blocks only its own reports, although Stripe gives the same
// answer for another such customer.
func TestUnblockOfOneCustomer(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.use("cus_8", 1, d.now.Add(-3*time.Hour))
		d.use("cus_9", 1, d.now.Add(-3*time.Hour))
		d.seal()
		d.deliver()
		if n := d.status().BlockedStreams; n != 2 {
			t.Fatalf("%d streams are blocked, want 2", n)
		}
		_, err := d.db.NewUpdate().Model((*models.StripeStream)(nil)).Set("blocked = 'No such customer'").Where("TRUE").Exec(d.ctx)
		d.must(err)
		d.must(Unblock(d.ctx, d.db, d.now, "op", "cus_8"))
		if s := d.status(); s.BlockedStreams != 1 || s.Blocked[0].StripeCustomerID != "cus_9" ||
			s.Blocked[0].BlockedKind != models.BlockedByCustomer {
			t.Errorf("after unblocking cus_8, %+v are blocked", s.Blocked)
		}
	})
}

// A pause after a restore ends on its own, however its reason is worded.
func TestARewordedPauseEnds(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		_, again, err := d.Restored(d.ctx)
		d.must(err)
		_, err = d.db.NewUpdate().Model((*models.StripeState)(nil)).Set("paused = 'reworded'").Where("id = 1").Exec(d.ctx)
		d.must(err)
		d.now = again.Add(time.Minute)
		if _, again, err = d.Restored(d.ctx); err != nil || !again.IsZero() || d.status().State.Paused != nil {
			t.Errorf("sending is paused until %s, %v: %+v", again, err, d.status().State)
		}
	})
}

// A missing meter is one problem: the streams that it blocked continue together, and their units
// are counted in full.
func TestAMissingMeterIsOneProblem(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		const customers = listed + 20
		for i := range customers {
			c := fmt.Sprintf("cus_%03d", i)
			d.stripe.AddCustomer(c, nil)
			d.use(c, 1, d.now.Add(-3*time.Hour))
		}
		d.seal()
		all, err := d.client.meters(d.ctx)
		d.must(err)
		found := all[d.meter()]
		_, err = d.client.api.BillingMeters.Deactivate(found[0].ID, nil)
		d.must(err)
		d.deliver()
		if n := d.status().BlockedStreams; n != customers {
			t.Errorf("%d streams are blocked, want %d", n, customers)
		}
		_, err = d.client.api.BillingMeters.Reactivate(found[0].ID, nil)
		d.must(err)
		if err := Resume(d.ctx, d.db, d.now, "op"); !errors.Is(err, ErrUnchanged) {
			t.Errorf("resume without a pause: %v", err)
		}
		d.must(Unblock(d.ctx, d.db, d.now, "op", "cus_007"))
		d.hours(1)
		if n := len(d.stripe.Events()); n != customers || d.status().BlockedStreams != 0 {
			t.Errorf("%d of %d reports were sent", n, customers)
		}
		for _, e := range d.stripe.Events() {
			d.stripe.Lose(e.Identifier)
		}
		d.hours(30)
		if c := d.reconcile(false); c.Clean() || c.Differences() != customers || c.FailedReports != customers {
			t.Errorf("%d differences and %d failed reports, want %d", c.Differences(), c.FailedReports, customers)
		}
		if drift := d.status().Drift; drift != customers {
			t.Errorf("the drift is %d, want %d", drift, customers)
		}
	})
}

// The metrics show the figures of /ops.
func TestMetrics(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.use("cus_gone", 4, d.now.Add(-3*time.Hour))
		d.use("cus_1", 5, d.now)
		d.seal()
		d.deliver()
		d.foreign("cus_1", 7, d.now.Add(-5*time.Hour))
		_, err := d.Totals(d.ctx, true)
		d.must(err)
		d.must(Pause(d.ctx, d.db, d.now, "op@example.com"))
		for id, age := range map[string]time.Duration{"evt_1": 30 * time.Second, "evt_2": 90 * time.Second, "evt_applied": time.Hour} {
			e := models.StripeWebhookEvent{ID: id, Type: "a", Payload: "{}", ReceivedAt: d.now.Add(-age)}
			if id == "evt_applied" {
				e.AppliedAt = &d.now
			}
			_, err := d.db.NewInsert().Model(&e).Exec(d.ctx)
			d.must(err)
		}
		registry := prometheus.NewRegistry()
		d.must(RegisterMetrics(registry, d.db, func() bool { return true }, d.clock, slog.New(slog.DiscardHandler)))
		want := map[string]string{
			"tollgate_stripe_reports": "accepted 1, conflict 0, dead 0, expired 0, given_up 0, missing 0, rejected 0, " +
				"sealed 1, unknown 0, verified 0",
			"tollgate_stripe_report_units": "accepted 3, conflict 0, dead 0, expired 0, given_up 0, missing 0, rejected 0, " +
				"sealed 4, unknown 0, verified 0",
			"tollgate_stripe_unsealed_units":         "5",
			"tollgate_stripe_oldest_unsent_seconds":  "10800",
			"tollgate_stripe_drift_units":            "7",
			"tollgate_stripe_blocked_streams":        "1",
			"tollgate_stripe_held_customers":         "0",
			"tollgate_stripe_sending":                "0",
			"tollgate_stripe_webhooks_waiting":       "2",
			"tollgate_stripe_oldest_webhook_seconds": "90",
			"tollgate_overage_units":                 "counted 10, decided 12, invoiced 0, sent 3",
			"tollgate_overage_cents":                 "decided 0, invoiced 0, sent 0",
			"tollgate_overage_not_invoiced_units": "blocked 4, by_hand 0, conflict 0, credited 0, dead 0, discarded 0, expired 0, " +
				"given_up 0, late 0, " +
				"no_item 0, no_overage_price 0, not_billed 0, not_counted 0, other_currency 0, " +
				"other_period 0, other_source 0, rejected 0, tiered 0, to_credit 0, two_subscriptions 0, uncollectible 0, unexplained 0, unknown 0, " +
				"voided 0, waiting 8",
			"tollgate_overage_not_invoiced_cents": "blocked 0, by_hand 0, conflict 0, credited 0, dead 0, discarded 0, expired 0, " +
				"given_up 0, late 0, " +
				"no_item 0, no_overage_price 0, not_billed 0, not_counted 0, other_currency 0, " +
				"other_period 0, other_source 0, rejected 0, tiered 0, to_credit 0, two_subscriptions 0, uncollectible 0, unexplained 0, unknown 0, " +
				"voided 0, waiting 0",
		}
		families, err := registry.Gather()
		d.must(err)
		if len(families) != len(want) {
			t.Errorf("%d metrics, want %d", len(families), len(want))
		}
		for _, f := range families {
			var parts []string
			for _, m := range f.Metric {
				text := strconv.FormatFloat(m.Gauge.GetValue(), 'f', -1, 64)
				for _, l := range m.Label {
					text = l.GetValue() + " " + text
				}
				parts = append(parts, text)
			}
			if got := strings.Join(parts, ", "); got != want[f.GetName()] {
				t.Errorf("%s is %s, want %s", f.GetName(), got, want[f.GetName()])
			}
		}
		d.must(Resume(d.ctx, d.db, d.now, "op@example.com"))
		for _, sends := range []bool{true, false} {
			registry := prometheus.NewRegistry()
			d.started.Store(sends)
			d.must(RegisterMetrics(registry, d.db, d.Sends, d.clock, slog.New(slog.DiscardHandler)))
			families, err := registry.Gather()
			d.must(err)
			for _, f := range families {
				if f.GetName() == "tollgate_stripe_sending" && f.Metric[0].Gauge.GetValue() == 1 != sends {
					t.Errorf("a process that sends (%t) has %s %v", sends, f.GetName(), f.Metric[0].Gauge.GetValue())
				}
			}
		}
	})
}
