package billing

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// A report that Stripe counted once and lost later is found by the total of its period, and ends in
// a visible state.
func TestLostAfterItWasVerified(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.use("cus_1", 4, d.now.Add(-2*time.Hour))
		d.seal()
		d.deliver()
		d.now = d.now.Add(3 * time.Hour)
		d.read()
		lost := d.reports()[1]
		if lost.State != models.ReportVerified || lost.Value != 4 {
			t.Fatalf("the report is %+v", lost)
		}
		d.stripe.Lose(lost.Identifier)
		for range 30 {
			d.now = d.now.Add(time.Hour)
			d.read()
		}
		if state := d.reports()[1].State; state != models.ReportVerified {
			t.Errorf("the report is %s before the comparison", state)
		}
		d.must(d.dailyTotals(d.ctx))
		if drift := d.status().Drift; drift != 4 {
			t.Errorf("the drift is %d, want 4", drift)
		}
		for range 26 {
			d.read()
			d.now = d.now.Add(time.Hour)
		}
		if all := d.reports(); all[0].State != models.ReportVerified || all[1].State != models.ReportRejected {
			t.Errorf("the reports are %s and %s", all[0].State, all[1].State)
		}
	})
}

// A report that never arrived is replaced once it can no longer arrive late. The new report has the
// same events, and another identifier and minute.
func TestAReportThatNeverArrived(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.use("cus_1", 4, d.now.Add(-3*time.Hour))
		d.seal()
		d.stripe.SetOutage(true)
		hours := func(n int) {
			t.Helper()
			for range n {
				d.deliver()
				d.read()
				d.now = d.now.Add(time.Hour)
			}
		}
		hours(23)
		d.stripe.SetOutage(false)
		attempts := d.reports()[0].Attempts
		hours(24)
		if all := d.reports(); len(all) != 1 || all[0].State != models.ReportUnknown || all[0].Attempts != attempts {
			t.Fatalf("before the loss is certain, the reports are %+v", all)
		}
		hours(6)
		all := d.reports()
		if len(all) != 2 || all[0].State != models.ReportMissing || all[1].Value != 7 || all[0].ReplacedBy == nil ||
			*all[0].ReplacedBy != all[1].ID {
			t.Fatalf("after the loss is certain, the reports are %+v", all)
		}
		if a, b := all[0], all[1]; a.Identifier == b.Identifier || a.Minute.Equal(b.Minute) || !a.Minute.Truncate(time.Hour).
			Equal(b.Minute.Truncate(time.Hour)) {
			t.Errorf("the report of %v is replaced by one at %v", a.Minute, b.Minute)
		}
		if got := d.stripe.Total("cus_1", d.now.Add(-100*time.Hour), d.now); got != 7 {
			t.Errorf("Stripe has %d units, want 7", got)
		}
		d.must(models.Verify(d.ctx, d.db, func(f models.Difference) {
			if f.Customer != "" {
				t.Error(f)
			}
		}))
	})
}

// A report's minute may be in another hour than its events. The report that replaces it takes a
// free minute in the hour of the events.
func TestAReportOfAnotherHourThatNeverArrived(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		at := d.now.Add(-3 * time.Hour)
		d.use("cus_1", 3, at)
		d.seal()
		before := at.Truncate(time.Hour).Add(-time.Hour)
		_, err := d.db.NewUpdate().Model((*models.StripeReport)(nil)).Set("minute = ?", before).Where("TRUE").Exec(d.ctx)
		d.must(err)
		d.use("cus_1", 4, at)
		d.seal() // the minute of the event is free again
		d.stripe.SetOutage(true)
		d.hours(2)
		d.stripe.SetOutage(false)
		yesterday := d.now.Add(-24 * time.Hour)
		_, err = d.db.NewUpdate().Model((*models.StripeReport)(nil)).Set("first_attempt_at = ?, last_attempt_at = ?", yesterday, yesterday).
			Where("value = 3").Exec(d.ctx)
		d.must(err)
		d.hours(60)
		all := d.reports()
		if len(all) != 3 || all[0].State != models.ReportMissing || all[2].State != models.ReportVerified {
			t.Fatalf("the reports are %+v", all)
		}
		if fresh := all[2]; fresh.Value != 3 || fresh.Minute.Hour() != at.Hour() {
			t.Errorf("the reports are %+v", all)
		}
	})
}

// An error in one report does not prevent the others from being read.
func TestAnErrorAtOneReport(t *testing.T) {
	d := newReporterFixture(t, modelstest.SQLite(t), nil)
	for i := range 3 {
		d.use("cus_1", int64(i+1), d.now.Add(-time.Duration(i+2)*time.Hour))
	}
	d.seal()
	d.deliver()
	_, err := d.db.ExecContext(d.ctx, `CREATE TRIGGER spoiled BEFORE UPDATE OF verified_at ON stripe_reports WHEN NEW.value = 3
		BEGIN SELECT RAISE(ABORT, 'spoiled'); END`)
	d.must(err)
	d.now = d.now.Add(3 * time.Hour)
	if _, err := d.Reconcile(d.ctx); err == nil || !strings.Contains(err.Error(), "spoiled") {
		t.Errorf("reconcile returned %v", err)
	}
	verified := slices.DeleteFunc(d.reports(), func(r models.StripeReport) bool { return r.State != models.ReportVerified })
	if len(verified) != 2 {
		t.Errorf("%d reports are verified, want the other two", len(verified))
	}
}
