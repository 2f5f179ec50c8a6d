package enforcement_test

import (
	"fmt"
	"testing"
	"time"

	"tollgate/models"
)

// periodsOf is a person with 15 units in each of four billing periods of a subscription, and deleted
// events in some of them.
type periodsOf struct {
	*past
	start        time.Time
	subscription *models.Subscription
}

const adaPays = "ada@example.com"

func newPeriodsOf(t *testing.T, f *fixture) *periodsOf {
	t.Helper()
	p := payers{f, t}
	o := &periodsOf{past: &past{fixture: f}, start: time.Date(2024, 1, 10, 0, 0, 0, 0, time.UTC)}
	f.now = o.start.Add(time.Hour)
	o.subscription = p.subscribe(adaPays, nil, "starter", "cus_ada", o.start)
	for month := range 4 {
		f.now = o.start.AddDate(0, month, 3)
		p.change(o.subscription, func() {
			o.subscription.CurrentPeriodStart = new(o.start.AddDate(0, month, 0))
			o.subscription.CurrentPeriodEnd = new(o.start.AddDate(0, month+1, 0))
		})
		for day := range 3 {
			f.now = o.start.AddDate(0, month, 3+10*day)
			if a := f.consume(t, adaPays, 5, fmt.Sprint(month, "-", day)); !a.Verdict.Allowed {
				t.Fatalf("refused: %+v", a)
			}
		}
	}
	f.now = o.start.AddDate(0, 7, 0)
	o.later(t, 0)
	return o
}

// records returns the person's ended records as texts.
func (o *periodsOf) records(t *testing.T) (texts []string) {
	t.Helper()
	var all []models.UsageRecord
	must(t, o.db.NewSelect().Model(&all).Where("billing_period_end <= ?", o.start.AddDate(0, 4, 0)).Order("billing_period_start").Scan(o.ctx))
	for _, r := range all {
		texts = append(texts, fmt.Sprint(r.Period(), r.SuggestionsUsed))
	}
	return texts
}

// learn makes a billing period known, instead of those before its end, and prepares the records.
func (o *periodsOf) learn(t *testing.T, from, till time.Time) {
	t.Helper()
	o.exec(t, "DELETE FROM subscription_periods WHERE period_start < ?", till)
	_, err := o.db.NewInsert().Model(&models.SubscriptionPeriod{
		SubscriptionID: o.subscription.ID, StripeCustomerID: "cus_ada", PeriodStart: from, PeriodEnd: till, SaidAt: o.now, LearnedAt: o.now,
	}).Exec(o.ctx)
	must(t, err)
	must(t, models.PrepareRecords(o.ctx, o.db, o.catalogue, o.now, []models.RecordKey{{Email: adaPays, At: o.start.AddDate(0, 1, 5)}}))
	o.clean(t)
}

// TestPrunedRecordsAreFixed changes the billing periods of records whose events are deleted. No unit
// may be lost or move, whatever Stripe says.
func TestPrunedRecordsAreFixed(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		o := newPeriodsOf(t, f)
		if deleted := o.pass(t, "180d"); deleted["usage_events"] != 3 { // of the first period
			t.Fatalf("deleted %s", deleted)
		}
		first := o.records(t)[0]
		for _, change := range []struct {
			name       string
			from, till time.Time
			records    int
		}{
			{"longer: the second record would join", o.start, o.start.AddDate(0, 2, 0), 4},
			{"shorter: its last event would move", o.start, o.start.AddDate(0, 0, 15), 4},
			{"earlier start", o.start.AddDate(0, 0, -7), o.start.AddDate(0, 0, 20), 4},
			{"the next one begins earlier", o.start.AddDate(0, 0, 20), o.start.AddDate(0, 2, 0), 4},
			{"others still join", o.start.AddDate(0, 2, 0), o.start.AddDate(0, 4, 0), 3},
		} {
			o.learn(t, change.from, change.till)
			if got := o.records(t); got[0] != first || len(got) != change.records {
				t.Errorf("%s: the records are %q; the first one was %q", change.name, got, first)
			}
		}
	})
}

// TestPrunedRecordJoinsNone makes a period known that contains a record without deleted events and
// the next one, which has some.
func TestPrunedRecordJoinsNone(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		o := newPeriodsOf(t, f)
		report := o.insertReport(t, "cus_ada", 15, models.CountsQuantity, models.ReportAccepted)
		o.exec(t, "UPDATE usage_events SET stripe_report_id = ? WHERE idempotency_key LIKE '0-%'", report)
		if deleted := o.pass(t, "150d"); deleted["usage_events"] != 3 { // of the second period
			t.Fatalf("deleted %s", deleted)
		}
		before := o.records(t)
		o.learn(t, o.start, o.start.AddDate(0, 2, 0))
		same(t, o.records(t), before)
	})
}
