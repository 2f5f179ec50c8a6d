package billing

import (
	"errors"
	"slices"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
)

// A database restored from a backup does not know what was sent after the backup. Units that Stripe
// already has are not sent again.
func TestRestored(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.stripe.AddCustomer("cus_2", nil)
		d.stripe.AddCustomer("cus_3", nil)
		hour := d.now.Add(-3 * time.Hour)
		d.use("cus_1", 3, hour) // sealed and sent after the backup
		d.use("cus_2", 4, hour) // sealed in the backup, sent after it
		d.use("cus_3", 5, hour) // never sent
		// What the lost database had sent, by identifiers that this one never made.
		d.foreign("cus_1", 3, hour)
		_, err := d.sealCustomers(d.ctx, []string{"cus_2"})
		d.must(err)
		d.foreign("cus_2", 4, d.reports()[0].Minute)
		held := func() {
			t.Helper()
			c := d.reconcileCleanly(true)
			d.deliver()
			if got := d.stripe.Total("cus_3", d.now.Add(-48*time.Hour), d.now); got != 0 || c.Restored.Again.IsZero() {
				t.Errorf("%d units were sent while totals may lag; the result is %+v", got, c.Restored)
			}
		}
		held()
		d.now = d.now.Add(summarySettles) // the last request may have taken effect an hour later
		held()
		d.now = d.now.Add(requestSettles)
		if again := d.reconcileCleanly(true).Restored.Again; !again.IsZero() {
			t.Errorf("it has to run again at %s", again)
		}
		d.deliver()
		for customer, want := range map[string]int64{"cus_1": 3, "cus_2": 4, "cus_3": 5} {
			if got := d.stripe.Total(customer, d.now.Add(-48*time.Hour), d.now); got != want {
				t.Errorf("%s has %d units at Stripe, want %d", customer, got, want)
			}
		}
		// If Stripe has units in an hour that match no report, an operator has to decide.
		d.use("cus_3", 6, hour.Add(-time.Hour))
		d.foreign("cus_3", 2, hour.Add(-time.Hour))
		if c := d.reconcile(true); c.Clean() {
			t.Error("reconcile reported no difference for a conflict")
		}
		d.deliver()
		if failed, err := Failures(d.ctx, d.db); err != nil || len(failed) != 1 || failed[0].State != models.ReportConflict ||
			failed[0].Value != 6 {
			t.Errorf("the failed reports are %+v, %v", failed, err)
		}
		if got := d.stripe.Total("cus_3", d.now.Add(-48*time.Hour), d.now); got != 7 {
			t.Errorf("cus_3 has %d units at Stripe, want 7", got)
		}
	})
}

// lostReport stores three units, which the lost database has just sent. Stripe's totals lag.
func (d *reporterFixture) lostReport() {
	d.use("cus_1", 3, d.now.Add(-2*time.Hour))
	d.stripe.SetLag(stripetest.Uniform(time.Hour))
	d.must(d.client.sendMeterEvent(d.ctx, &models.StripeReport{
		Identifier: "test:x:lost", StripeCustomerID: "cus_1", MeterEventName: d.meter(), Minute: d.now.Add(-2 * time.Hour).
				Truncate(time.Minute), Value: 3, Counts: models.CountsOverage, Attempts: 1,
	}))
}

// Units that were sent just before the database was lost are not in Stripe's totals yet. They are
// not sent again.
func TestRestoredWhileTotalsLag(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.lostReport()
		d.now = d.now.Add(time.Minute)
		for range 2 {
			d.reconcileCleanly(true)
			d.deliver()
			d.now = d.now.Add(25 * time.Hour)
		}
		if got := d.stripe.Total("cus_1", d.now.Add(-72*time.Hour), d.now); got != 3 {
			t.Errorf("%d units are billed, want 3", got)
		}
	})
}

// An operator cannot resume sending while Stripe's totals may lack what the lost database sent last:
// its units would be sent again. What else stopped sending can be resumed.
func TestAnOperatorCannotResumeAfterARestore(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.lostReport()
		d.must(Pause(d.ctx, d.db, d.now, "op"))
		d.now = d.now.Add(time.Minute)
		d.reconcileCleanly(true)
		if err := Resume(d.ctx, d.db, d.now, "op"); !errors.Is(err, ErrUnchanged) {
			t.Errorf("resumed after a restore: %v", err)
		}
		_, err := d.db.NewUpdate().Model((*models.StripeState)(nil)).Set("stopped = 'wrong key', stopped_at = ?", d.now).
			Where("id = 1").Exec(d.ctx)
		d.must(err)
		d.must(Resume(d.ctx, d.db, d.now, "op"))
		if s := d.status().State; s.Stopped != nil || s.PausedKind != models.PausedRestored || s.PausedAt == nil {
			t.Errorf("after resuming, the state is %+v", s)
		}
		d.seal()
		d.deliver()
		d.now = d.now.Add(25 * time.Hour)
		d.reconcileCleanly(true)
		d.deliver()
		if got := d.stripe.Total("cus_1", d.now.Add(-72*time.Hour), d.now); got != 3 {
			t.Errorf("%d units are billed, want 3", got)
		}
	})
}

// Only the lost database may have known a customer's usage of a plan or in a billing period. Stripe
// has the units, and they are shown as a difference.
func TestRestoredWithoutAReport(t *testing.T) {
	onBothInvoices(t, func(t *testing.T, o *invoiceFixture) {
		starter := o.catalogue.MeterOf("starter")
		before := o.period.Previous()
		o.stripe.AddForeign(starter, "cus_1", 7, o.now.Add(-26*time.Hour))
		o.foreign("cus_1", 4, before.End.Add(-time.Hour))
		for range 2 {
			o.reconcile(true)
			o.now = o.now.Add(25 * time.Hour)
		}
		_, err := o.Totals(o.ctx, false)
		o.must(err)
		var totals []models.StripeTotal
		o.must(o.db.NewSelect().Model(&totals).Where("difference <> 0").Order("difference").Scan(o.ctx))
		if len(totals) != 2 || totals[0].Difference != 4 || !totals[0].PeriodStart.Equal(before.Start) || totals[1].Difference != 7 ||
			totals[1].MeterEventName != starter {
			t.Errorf("the differences are %+v", totals)
		}
		balances, err := Balances(o.ctx, o.db, time.Time{})
		o.must(err)
		if !slices.ContainsFunc(balances, func(b models.OverageBalance) bool { return b.MeterEventName == starter && b.Counted.Units == 7 }) {
			t.Errorf("the balances are %+v", balances)
		}
	})
}

// Stripe may have the units of lost reports in other minutes than those of the restored database's
// reports. The restored reports stay verified, although Stripe has nothing in their minutes.
func TestRestoredStaysVerified(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		hour := d.now.Add(-3 * time.Hour).Truncate(time.Hour)
		d.use("cus_1", 3, hour.Add(20*time.Minute))
		d.foreign("cus_1", 3, hour.Add(50*time.Minute)) // sent by the lost database
		d.reconcileCleanly(true)
		for range 3 * 24 {
			d.now = d.now.Add(time.Hour)
			d.must(d.dailyTotals(d.ctx))
			d.read()
		}
		if r := d.reports()[0]; r.State != models.ReportVerified {
			t.Errorf("the report is %s: %s", r.State, text(r.LastError))
		}
		if s := d.status(); s.Drift != 0 {
			t.Errorf("the drift is %d", s.Drift)
		}
	})
}
