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
	"tollgate/models/billing/stripetest"
)

// hours lets some pass, in each of which what is due is delivered and read.
func (d *desk) hours(n int) {
	for range n {
		d.deliver()
		_, err := d.Reconcile(d.ctx)
		d.must(err)
		d.now = d.now.Add(time.Hour)
	}
}

// meterEvents carries calls to the desk's Stripe, but for what answers meter events in its place; n counts these from 1.
func meterEvents(d **desk, instead func(n int, r *http.Request) (*http.Response, error)) (transport http.RoundTripper, again func()) {
	n := 0
	return carry(func(r *http.Request) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/meter_events") {
			n++
			if response, err := instead(n, r); response != nil || err != nil {
				return response, err
			}
		}
		return (*d).stripe.Transport().RoundTrip(r)
	}), func() { n = 0 }
}

// What Stripe surely did not take is sent however long sending was off since.
func TestRefusedWithoutEffectIsSentAnyTimeLater(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		d.use("cus_gone", 4, d.now.Add(-3*time.Hour))
		_, err := d.Seal(d.ctx)
		d.must(err)
		d.deliver() // there is no such customer
		d.stripe.SetKey("sk_test_other")
		d.use("cus_1", 5, d.now.Add(-2*time.Hour))
		_, err = d.Seal(d.ctx)
		d.must(err)
		d.deliver() // the key is revoked
		d.now = d.now.Add(48 * time.Hour)
		d.stripe.SetKey("sk_test_desk")
		d.stripe.AddCustomer("cus_gone", nil)
		d.must(Resume(d.ctx, d.db, d.now, "op"))
		d.must(Unblock(d.ctx, d.db, d.now, "op", "cus_gone"))
		d.hours(30)
		for _, r := range d.reports() {
			if r.State != models.ReportVerified {
				t.Errorf("the report of %s is %s after %d attempts", r.StripeCustomerID, r.State, r.Attempts)
			}
		}
	})
}

func TestPausedForTwoDaysAfterTooManyRequests(t *testing.T) {
	var d *desk
	transport, again := meterEvents(&d, func(n int, r *http.Request) (*http.Response, error) {
		if n == 1 {
			return answer(429, `{"error": {"type": "invalid_request_error", "code": "rate_limit", "message": "Too many requests"}}`)(r)
		}
		return nil, nil
	})
	onBoth(t, transport, func(t *testing.T, of *desk) {
		d = of
		again()
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		_, err := d.Seal(d.ctx)
		d.must(err)
		d.deliver()
		d.must(Pause(d.ctx, d.db, d.now, "op"))
		d.now = d.now.Add(48 * time.Hour)
		d.must(Resume(d.ctx, d.db, d.now, "op"))
		d.hours(30)
		if r := d.reports()[0]; r.State != models.ReportVerified {
			t.Errorf("the report is %s after %d attempts", r.State, r.Attempts)
		}
	})
}

// wrongAccount is a process with the key of another account, which knows some of the customers as well.
func (d *desk) wrongAccount(customers ...string) (*Reporter, *stripetest.Stripe) {
	other := stripetest.New(stripetest.Options{Now: d.clock, Account: "acct_wrong", Rand: rand.New(rand.NewPCG(9, 9))})
	other.AddMeter(d.catalogue.MeterEventName)
	for _, c := range customers {
		other.AddCustomer(c, nil)
	}
	client, err := NewClient(ClientOptions{Key: "sk_test_wrong", Transport: other.Transport()})
	d.must(err)
	o := d.Options
	o.Client = client
	return NewReporter(o), other
}

// A process of another account sends nothing and reads nothing, whoever goes on with sending.
func TestAnotherAccountStaysRefused(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		d.must(d.contact(d.ctx))
		wrong, other := d.wrongAccount("cus_1")
		wrong.started = true
		if err := wrong.contact(d.ctx); !errors.Is(err, errOtherAccount) || d.status().State.Stopped == nil {
			t.Errorf("%v, and sending is not stopped", err)
		}
		d.must(Resume(d.ctx, d.db, d.now, "op"))
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		_, err := d.Seal(d.ctx)
		d.must(err)
		if err := wrong.contact(d.ctx); !errors.Is(err, errOtherAccount) || d.status().State.Stopped != nil {
			t.Errorf("the second time: %v", err)
		}
		d.deliver()
		d.now = d.now.Add(25 * time.Hour)
		var out, notes bytes.Buffer
		shell, _ := d.wrongAccount("cus_1")
		if err := shell.PrintReconciliation(d.ctx, &out, &notes, false); !errors.Is(err, errOtherAccount) || d.status().State.Stopped != nil {
			t.Errorf("reconciled with another account: %v", err)
		}
		if r := d.reports()[0]; r.State != models.ReportAccepted || len(other.Events()) != 0 {
			t.Errorf("the report is %s, and the other account has %+v", r.State, other.Events())
		}
	})
}

// A customer that Stripe does not know hides nothing of the others.
func TestTotalsBesideAnUnknownCustomer(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		d.use("cus_0gone", 3, d.now.Add(-3*time.Hour))
		d.use("cus_1", 4, d.now.Add(-2*time.Hour))
		_, err := d.Seal(d.ctx)
		d.must(err)
		d.deliver()
		d.stripe.AddForeign("cus_1", 7, d.now.Add(-5*time.Hour))
		var out, notes bytes.Buffer
		if err := d.PrintReconciliation(d.ctx, &out, &notes, false); err == nil || !strings.Contains(out.String(), "cus_0gone") || !strings.Contains(out.String(), "+7") {
			t.Errorf("%v\n%s", err, &out)
		}
		d.must(d.dailyTotals(d.ctx))
		if drift := d.status().Drift; drift != 7 {
			t.Errorf("the drift is %d, want 7", drift)
		}
	})
}

// What is said to be on a subscriber's invoice by somebody else is seen, though they used nothing here.
func TestForeignUsageAlone(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		u, err := models.SetUser(d.ctx, d.db, d.now, "ada@example.com", models.UserChange{})
		d.must(err)
		start, end, sub, customer := d.now.Add(-100*time.Hour), d.now.Add(600*time.Hour), "sub_1", "cus_1"
		_, err = d.db.NewInsert().Model(&models.Subscription{
			ID: d.NewID(), UserID: &u.ID, PlanID: "pro", Status: models.StatusActive, StripeSubscriptionID: &sub, StripeCustomerID: &customer,
			CurrentPeriodStart: &start, CurrentPeriodEnd: &end, CreatedAt: d.now, UpdatedAt: d.now,
		}).Exec(d.ctx)
		d.must(err)
		d.stripe.AddForeign("cus_1", 700, d.now.Add(-5*time.Hour))
		var out, notes bytes.Buffer
		if err := d.PrintReconciliation(d.ctx, &out, &notes, false); err == nil || !strings.Contains(out.String(), "+700") {
			t.Errorf("%v\n%s", err, &out)
		}
	})
}

// What was sent just before the database was lost is not in Stripe's totals yet, and is not sent again.
func TestRestoredWhileTotalsLag(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		d.use("cus_1", 3, d.now.Add(-2*time.Hour))
		d.stripe.SetLag(stripetest.Uniform(time.Hour))
		d.must(d.Client.sendMeterEvent(d.ctx, &models.StripeReport{
			Identifier: "test:x:lost", StripeCustomerID: "cus_1", MeterEventName: d.catalogue.MeterEventName, Minute: d.now.Add(-2 * time.Hour).Truncate(time.Minute), Value: 3, Attempts: 1,
		}))
		d.now = d.now.Add(time.Minute)
		for range 2 {
			var out, notes bytes.Buffer
			d.must(d.PrintReconciliation(d.ctx, &out, &notes, true))
			d.deliver()
			d.now = d.now.Add(25 * time.Hour)
		}
		if got := d.stripe.Total("cus_1", d.now.Add(-72*time.Hour), d.now); got != 3 {
			t.Errorf("%d units are billed, want 3", got)
		}
	})
}

// A report stays with the meter that it was sealed for.
func TestTheMeterIsRenamed(t *testing.T) {
	var d *desk
	lose := true
	transport := carry(func(r *http.Request) (*http.Response, error) {
		response, err := d.stripe.Transport().RoundTrip(r)
		if lose && strings.HasSuffix(r.URL.Path, "/meter_events") {
			return nil, errors.New("the answer was lost")
		}
		return response, err
	})
	onBoth(t, transport, func(t *testing.T, of *desk) {
		d, lose = of, true
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		_, err := d.Seal(d.ctx)
		d.must(err)
		d.deliver()
		lose = false
		renamed := *d.catalogue
		renamed.MeterEventName = "suggestions_v2"
		d.stripe.AddMeter("suggestions_v2")
		o := d.Options
		o.Catalogue = &renamed
		d.Reporter = NewReporter(o)
		d.now = d.now.Add(24 * time.Hour)
		d.hours(60)
		d.use("cus_1", 1, d.now.Add(-3*time.Hour))
		_, err = d.Seal(d.ctx)
		d.must(err)
		d.deliver()
		var sum int64
		for _, e := range d.stripe.Events() {
			sum += e.Value
		}
		if sum != 4 || d.reports()[0].State != models.ReportVerified {
			t.Errorf("Stripe was told of %d units, used were 4; the first report is %s", sum, d.reports()[0].State)
		}
	})
}

// The units of a report that an earlier attempt may have brought are not sent anew before totals have settled, however often somebody asks.
func TestRetryWaitsForTotals(t *testing.T) {
	var d *desk
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
	onBoth(t, transport, func(t *testing.T, of *desk) {
		d = of
		again()
		d.stripe.SetLag(func(*rand.Rand) time.Duration { return time.Hour })
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		_, err := d.Seal(d.ctx)
		d.must(err)
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
			_, err = d.Reconcile(d.ctx)
			d.must(err)
		}
		d.hours(5)
		if got := d.stripe.Total("cus_1", d.now.Add(-48*time.Hour), d.now); got != 3 {
			t.Errorf("%d units are billed, want 3", got)
		}
	})
}

// The report of a customer that Stripe does not know any more, sent without an answer, ends where somebody sees it.
func TestUnknownReportOfAnUnknownCustomer(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		d.use("cus_nobody", 3, d.now.Add(-3*time.Hour))
		_, err := d.Seal(d.ctx)
		d.must(err)
		d.stripe.SetOutage(true)
		d.deliver()
		d.now = d.now.Add(24 * time.Hour)
		d.stripe.SetOutage(false)
		d.hours(60)
		if s := d.status(); d.reports()[0].State == models.ReportUnknown || len(s.Blocked) != 1 {
			t.Errorf("it is %s, and blocked is %+v", d.reports()[0].State, s.Blocked)
		}
	})
}

// A missing meter is one fault: what it blocked goes on together, and is counted in full.
func TestAMissingMeterIsOneFault(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		const customers = listed + 20
		for i := range customers {
			c := fmt.Sprintf("cus_%03d", i)
			d.stripe.AddCustomer(c, nil)
			d.use(c, 1, d.now.Add(-3*time.Hour))
		}
		_, err := d.Seal(d.ctx)
		d.must(err)
		found, err := d.Client.findMeter(d.ctx, d.catalogue.MeterEventName)
		d.must(err)
		_, err = d.Client.BillingMeters.Deactivate(found.ID, nil)
		d.must(err)
		d.deliver()
		if n := d.status().BlockedStreams; n != customers {
			t.Errorf("%d streams are blocked, want %d", n, customers)
		}
		_, err = d.Client.BillingMeters.Reactivate(found.ID, nil)
		d.must(err)
		d.must(Resume(d.ctx, d.db, d.now, "op"))
		d.must(Unblock(d.ctx, d.db, d.now, "op", "cus_007"))
		d.hours(1)
		if n := len(d.stripe.Events()); n != customers || d.status().BlockedStreams != 0 {
			t.Errorf("%d of %d reports were sent", n, customers)
		}
		for _, e := range d.stripe.Events() {
			d.stripe.Lose(e.Identifier)
		}
		d.hours(30)
		var out, notes bytes.Buffer
		if err := d.PrintReconciliation(d.ctx, &out, &notes, false); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%d differences, %d failed", customers, customers)) {
			t.Errorf("reconciled: %v", err)
		}
		if drift := d.status().Drift; drift != customers {
			t.Errorf("the drift is %d, want %d", drift, customers)
		}
	})
}

// A doubled report that is given up is still at Stripe.
func TestGivingUpTakesNothingBack(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		d.use("cus_1", 4, d.now.Add(-3*time.Hour))
		_, err := d.Seal(d.ctx)
		d.must(err)
		d.deliver()
		d.stripe.Double(d.reports()[0].Identifier)
		d.now = d.now.Add(3 * time.Hour)
		_, err = d.Reconcile(d.ctx)
		d.must(err)
		d.must(d.GiveUp(d.ctx, "op", d.reports()[0].ID, "credited by hand"))
		totals, err := d.Totals(d.ctx, true)
		d.must(err)
		if len(totals) != 1 || totals[0].Difference != 4 {
			t.Errorf("the totals are %+v", totals)
		}
	})
}

// A question from the shell leaves no alarm behind, and neither does what nobody can mend any more.
func TestAlarmsEnd(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		d.stripe.SetLag(func(*rand.Rand) time.Duration { return time.Hour })
		d.must(d.dailyTotals(d.ctx))
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		_, err := d.Seal(d.ctx)
		d.must(err)
		d.deliver()
		var out, notes bytes.Buffer
		if err := d.PrintReconciliation(d.ctx, &out, &notes, false); err == nil {
			t.Error("what is not there yet is no difference to who asks")
		}
		d.now = d.now.Add(totalsRetry)
		d.must(d.dailyTotals(d.ctx))
		if drift := d.status().Drift; drift != 0 {
			t.Errorf("an hour later the drift is %d", drift)
		}
		d.stripe.AddForeign("cus_1", 7, d.now.Add(-5*time.Hour))
		d.now = d.now.Add(25 * time.Hour)
		d.must(d.dailyTotals(d.ctx))
		if drift := d.status().Drift; drift != 7 {
			t.Errorf("the drift is %d, want 7", drift)
		}
		d.now = d.now.Add(90 * 24 * time.Hour)
		d.must(d.dailyTotals(d.ctx))
		if drift := d.status().Drift; drift != 0 {
			t.Errorf("three months later the drift is %d", drift)
		}
	})
}
