package billing

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
)

// reporterFixture returns a reporter on the fixture's database, with its clock.
func (f *webhookFixture) reporterFixture() *reporterFixture {
	f.Helper()
	d := &reporterFixture{t: f.T, ctx: f.Context(), db: f.db, catalogue: f.hook.catalogue}
	clock := func() time.Time { return f.at }
	d.stripe = stripetest.New(stripetest.Options{Now: clock, Rand: rand.New(rand.NewPCG(1, 1))})
	d.stripe.AddMeter(d.meter())
	d.stripe.AddCustomer("cus_1", nil)
	c, err := NewClient(ClientOptions{Key: "sk_test_desk", Transport: d.stripe.Transport()})
	f.must(err)
	d.Reporter = NewReporter(ReporterOptions{DB: f.db, Client: c, Catalogue: d.catalogue, Now: clock,
		Log: slog.New(slog.DiscardHandler), Every: time.Minute, Rate: 1e9})
	return d
}

// use decides and records as the gate does, at a time that may be in the past.
func (f *webhookFixture) use(email string, at time.Time, units int64) {
	f.Helper()
	f.must(models.PrepareRecords(f.Context(), f.db, f.hook.catalogue, f.at, []models.RecordKey{{Email: email, At: at}}))
	var r models.UsageRecord
	f.must(f.db.NewSelect().Model(&r).Where("email = ? AND billing_period_start <= ? AND billing_period_end > ?", email, at, at).
		Scan(f.Context()))
	s, _ := f.hook.catalogue.Standing(&r, f.at)
	v := models.Decide(s, units)
	if !v.Allowed {
		f.Fatalf("%d units of %s at %v are refused: %s", units, email, at, v.Reason)
	}
	s.Add(units, v)
	key := uuid.NewString()
	e := models.UsageEvent{
		ID: uuid.New(), UserID: r.UserID, RecordID: r.ID, Email: email, Quantity: units, OverageQuantity: v.Overage,
		OverageCents: v.OverageCents, IdempotencyKey: &key,
		OccurredAt: at, RecordedAt: f.at, Figures: s.Figures(), StripeCustomerID: r.StripeCustomerID,
	}
	_, err := f.db.NewInsert().Model(&e).Exec(f.Context())
	f.must(err)
	r.SuggestionsUsed, r.OverageUsed, r.OverageCents = s.Used, s.Overage, s.OverageCents
	r.Daily = r.Daily.Add(models.DayOf(r.BillingPeriodStart, at), units)
	_, err = f.db.NewUpdate().Model(&r).Column("suggestions_used", "overage_used", "overage_cents", "daily").WherePK().Exec(f.Context())
	f.must(err)
}

// wantRecords compares ada's records, each as start, end, used and overage.
func (f *webhookFixture) wantRecords(want ...string) {
	f.Helper()
	var records []models.UsageRecord
	f.must(f.db.NewSelect().Model(&records).Where("email = 'ada@example.com'").Order("billing_period_start").Scan(f.Context()))
	var got []string
	for _, r := range records {
		p := r.Period()
		got = append(got, fmt.Sprintf("%s %s %d %d", p.Start.Format("01-02 15:04:05"), p.End.Format("01-02 15:04:05"), r.SuggestionsUsed,
			r.OverageUsed))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		f.Errorf("the records are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	f.must(models.Verify(f.Context(), f.db, func(found models.Difference) { f.Errorf("verify: %s", found) }))
}

// wantReports compares the reports, each as minute, value and "no minute" if its period has no
// whole minute.
func (f *webhookFixture) wantReports(want ...string) {
	f.Helper()
	var got []string
	var reports []models.StripeReport
	f.must(f.db.NewSelect().Model(&reports).Order("minute").Scan(f.Context()))
	for _, r := range reports {
		text := fmt.Sprintf("%s %d", r.Minute.UTC().Format("01-02 15:04"), r.Value)
		if r.NoMinute {
			text += " no minute"
		}
		got = append(got, text)
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		f.Errorf("the reports are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// wantTotals compares the totals, each as start, used, waiting, sent, confirmed, difference,
// misplaced and reason.
func (f *webhookFixture) wantTotals(d *reporterFixture, want ...string) {
	f.Helper()
	totals, err := d.Totals(f.Context(), true)
	f.must(err)
	var got []string
	for _, t := range totals {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s: %d %d %d %d, %+d %+d %s", t.PeriodStart.UTC().Format("01-02 15:04:05"),
			t.Used, t.Waiting, t.Sent, t.Confirmed,
			t.Difference, t.Misplaced, t.Reason)))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		f.Errorf("the totals are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// clock returns a time on the day that the tests of this file use.
func clock(hour, minute, second int) time.Time {
	return time.Date(2026, 11, 23, hour, minute, second, 0, time.UTC)
}

// bought gives ada a plan from November 10, and uses its included units.
func (f *webhookFixture) bought() {
	f.Helper()
	f.at = time.Date(2026, 11, 10, 0, 0, 0, 0, time.UTC)
	f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
	f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at, 1))
	f.sendEvent("customer.subscription.created", "cus_1")
	f.at = f.at.Add(time.Hour)
	f.use("ada@example.com", f.at, 75)
}

// snapshot receives the event of a change, with the period at its time, as Stripe sends it.
func (f *webhookFixture) snapshot(id string, at, start, end time.Time) {
	f.Helper()
	f.receive(event(id, "customer.subscription.updated", at, object{
		"id": "sub_1", "object": "subscription", "customer": "cus_1", "current_period_start": start.Unix(), "current_period_end": end.Unix(),
	}))
}

// restart starts another period at Stripe.
func (f *webhookFixture) restart(start time.Time) {
	f.stub.set("sub_1", object{"billing_cycle_anchor": start.Unix(), "current_period_start": start.Unix(),
		"current_period_end": start.AddDate(0, 1, 0).Unix()})
}

// A new period from 07:30 becomes known at 09:00, without another call for the person. The units
// since 07:30 are then in the new record. The report of both periods, which was never attempted, is
// replaced by one for each.
func TestAPeriodLearnedLateIsSealedAgain(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.bought()
		d := f.reporterFixture()
		for _, use := range []struct {
			at    time.Time
			units int64
		}{{clock(7, 10, 0), 5}, {clock(7, 50, 0), 7}} {
			f.at = use.at
			f.use("ada@example.com", f.at, use.units)
		}
		f.at = clock(8, 30, 0)
		d.seal()
		f.wantReports("11-23 07:50 12")
		f.at = clock(9, 0, 0)
		f.restart(clock(7, 30, 0))
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.wantRecords("11-10 00:00:00 11-23 07:30:00 80 5", "11-23 07:30:00 12-23 07:30:00 7 7")
		f.wantReports()
		d.seal()
		f.wantReports("11-23 07:29 5", "11-23 07:50 7")
		d.deliver()
		f.wantTotals(d, "11-10 00:00:00: 5 0 5 5, +0 +0", "11-23 07:30:00: 7 0 7 7, +0 +0")
		f.wantRecords("11-10 00:00:00 11-23 07:30:00 80 5", "11-23 07:30:00 12-23 07:30:00 7 7")
	})
}

// The same, after an attempt that Stripe did not accept because it was busy with the customer.
func TestAPeriodLearnedAfterABusyAnswerIsSealedAgain(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.bought()
		d := f.reporterFixture()
		f.at = clock(7, 50, 30)
		f.use("ada@example.com", f.at, 7)
		f.at = clock(8, 30, 0)
		d.seal()
		d.stripe.SetFault(func(r *http.Request, _ url.Values) stripetest.Fault {
			if r.Method == http.MethodPost {
				return stripetest.Conflict
			}
			return stripetest.None
		})
		d.deliver()
		d.stripe.SetFault(nil)
		if r := d.reports(); len(r) != 1 || r[0].Attempts == 0 || r[0].State != models.ReportSealed {
			t.Fatalf("the reports are %+v", r)
		}
		f.at = clock(9, 0, 0)
		f.restart(clock(7, 50, 15))
		f.sendEvent("customer.subscription.updated", "cus_1")
		d.seal()
		f.wantReports("11-23 07:51 7")
	})
}

// The same, after the report of both periods was sent: reconcile and /ops show the exact difference
// of each period.
func TestAPeriodLearnedAfterItsReportWasSent(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.bought()
		d := f.reporterFixture()
		for _, use := range []struct {
			at    time.Time
			units int64
		}{{clock(7, 10, 0), 5}, {clock(7, 50, 0), 7}} {
			f.at = use.at
			f.use("ada@example.com", f.at, use.units)
		}
		f.at = clock(8, 30, 0)
		d.seal()
		d.deliver()
		f.wantTotals(d, "11-10 00:00:00: 12 0 12 12, +0 +0")
		f.at = clock(9, 0, 0)
		f.restart(clock(7, 30, 0))
		f.sendEvent("customer.subscription.updated", "cus_1")
		d.seal()
		f.wantReports("11-23 07:50 12")
		f.wantRecords("11-10 00:00:00 11-23 07:30:00 80 5", "11-23 07:30:00 12-23 07:30:00 7 7")
		f.wantTotals(d, "11-10 00:00:00: 5 0 0 0, -5 -5 learned_late", "11-23 07:30:00: 7 0 12 12, +5 +5 learned_late")
		if s := d.status(); s.Drift != 10 || len(s.Differences) != 2 {
			t.Errorf("a drift of %d in %d periods, want 10 in 2", s.Drift, len(s.Differences))
		}
		c := d.reconcile(false)
		if len(c.Periods) != 2 || c.Periods[0].Difference != -5 || c.Periods[1].Difference != 5 || c.Clean() {
			t.Errorf("the compared periods are %+v", c.Periods)
		}
		if len(c.Totals) != 2 || c.Totals[0].Reason != models.LearnedLate || c.Totals[1].Reason != models.LearnedLate {
			t.Errorf("the totals are %+v", c.Totals)
		}
	})
}

// Two periods begin within 35 seconds, and only the events show the first one. It has no whole
// minute, so its overage is billed in the first minute of the following period. The totals of both
// periods say so.
func TestAPeriodWithoutAWholeMinute(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.bought()
		d := f.reporterFixture()
		first, second := clock(10, 0, 5), clock(10, 0, 40)
		for at, units := range map[time.Time]int64{clock(10, 0, 3): 1, clock(10, 0, 20): 2, clock(10, 0, 50): 4} {
			f.at = at
			f.use("ada@example.com", at, units)
		}
		f.at = clock(10, 0, 55)
		f.restart(second)
		f.snapshot("evt_second", second, second, second.AddDate(0, 1, 0))
		f.snapshot("evt_first", first, first, first.AddDate(0, 1, 0))
		f.must(f.hook.applyDue(f.Context()))
		f.wantRecords("11-10 00:00:00 11-23 10:00:05 76 1", "11-23 10:00:05 11-23 10:00:40 2 2", "11-23 10:00:40 12-23 10:00:40 4 4")
		d.seal() // the following period has no whole minute yet
		f.wantReports("11-23 10:00 1")
		if s := d.status(); s.UnsealedUnits != 6 {
			t.Errorf("%d units wait, want 6", s.UnsealedUnits)
		}
		f.at = clock(10, 1, 1)
		d.seal()
		f.wantReports("11-23 10:00 1", "11-23 10:01 2 no minute")
		f.at = clock(11, 2, 0)
		d.seal()
		d.deliver()
		f.wantReports("11-23 10:00 1", "11-23 10:01 2 no minute", "11-23 10:02 4")
		f.wantTotals(d, "11-10 00:00:00: 1 0 1 1, +0 +0", "11-23 10:00:05: 2 0 0 0, +0 -2 no_minute", "11-23 10:00:40: 4 0 6 6, +0 +2 no_minute")
		if s := d.status(); s.Drift != 0 || len(s.Differences) != 2 {
			t.Errorf("a drift of %d in %d periods, want 0 in 2", s.Drift, len(s.Differences))
		}
		f.wantRecords("11-10 00:00:00 11-23 10:00:05 76 1", "11-23 10:00:05 11-23 10:00:40 2 2", "11-23 10:00:40 12-23 10:00:40 4 4")
	})
}

// A process ends after it stored a change of a period and before it updated the records. Another
// one updates them.
func TestAnotherProcessUpdatesTheRecords(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.bought()
		f.at = clock(8, 0, 0)
		f.use("ada@example.com", f.at, 3)
		f.at = clock(9, 0, 0)
		f.restart(clock(7, 0, 0))
		f.hook.preparing.Lock() // this process does not get to it
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.wantDue(1)
		f.must(f.process().applyDue(f.Context()))
		f.wantDue(0)
		f.wantRecords("11-10 00:00:00 11-23 07:00:00 75 0", "11-23 07:00:00 12-23 07:00:00 3 3")
	})
}

func (f *webhookFixture) wantDue(want int) {
	f.Helper()
	n, err := f.db.NewSelect().TableExpr("records_due").Count(f.Context())
	if f.must(err); int(n) != want {
		f.Errorf("the records of %d people are due, want %d", n, want)
	}
}

// A webhook of an organization's subscription updates the records of all its members, and of people
// who left. A person without usage in a period gets no record for it.
func TestAllPeopleOfAnOrganizationArePrepared(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.at = time.Date(2026, 11, 10, 0, 0, 0, 0, time.UTC)
		acme, err := models.CreateOrganization(f.Context(), f.db, f.at, "Acme", []string{"T1"})
		f.must(err)
		var links []models.Link
		for i := range dueAtOnce + 3 {
			links = append(links, models.Link{Email: fmt.Sprintf("m%d@example.com", i), Slack: models.SlackIdentity{TeamID: "T1",
				UserID: fmt.Sprintf("U%d", i)}})
		}
		f.link(links...)
		f.stub.customer("cus_1", object{"tollgate_organization": acme.ID.String()})
		f.stub.set("sub_1", subscription("cus_1", "team", "active", f.at, 100))
		f.sendEvent("customer.subscription.created", "cus_1")
		for _, l := range links[1:] {
			f.at = clock(6, 0, 0)
			f.use(l.Email, f.at, 2)
			f.at = clock(8, 0, 0)
			f.use(l.Email, f.at, 1)
		}
		_, err = models.SetUser(f.Context(), f.db, clock(8, 30, 0), links[1].Email, models.UserChange{Leaves: true})
		f.must(err)
		f.at = clock(9, 0, 0)
		f.restart(clock(7, 0, 0))
		f.sendEvent("customer.subscription.updated", "cus_1")
		var used []struct {
			Start   time.Time
			Records int
			Units   int64
		}
		f.must(f.db.NewRaw(`SELECT billing_period_start AS start, COUNT(*) AS records, CAST(SUM(suggestions_used) AS bigint) AS units
			FROM usage_records
			GROUP BY 1 ORDER BY 1`).Scan(f.Context(), &used))
		people := len(links) - 1
		if len(used) < 2 || used[0].Records != people || used[0].Units != int64(2*people) || used[1].Records != people ||
			used[1].Units != int64(people) {
			f.Errorf("the records are %+v, want %d people with 2 units and then 1", used, people)
		}
		f.wantDue(0)
		f.must(models.Verify(f.Context(), f.db, func(found models.Difference) { f.Errorf("verify: %s", found) }))
	})
}

// The past periods that events and invoices show are stored. An older event never overrides a newer
// one.
func TestPeriodsOfWebhooksAreStored(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.bought()
		day := func(month time.Month, day int) time.Time { return time.Date(2026, month, day, 0, 0, 0, 0, time.UTC) }
		f.at = time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC)
		f.stub.set("sub_1", object{"trial_start": day(10, 1).Unix(), "trial_end": day(10, 8).Unix()})
		f.restart(day(12, 28).AddDate(0, 1, 0))
		f.snapshot("evt_long", day(12, 1), day(11, 10), day(12, 20))
		f.snapshot("evt_short", day(11, 10), day(11, 10), day(12, 10))
		f.receive(event("evt_prev", "customer.subscription.updated", day(12, 28), object{
			"id": "sub_1", "object": "subscription", "customer": "cus_1",
			"items": object{"data": []object{{"current_period_start": day(12, 28).Unix(), "current_period_end": day(12, 28).AddDate(0, 1, 0).
				Unix()}}},
		}))
		for i, start := range []time.Time{day(10, 8), day(11, 20)} { // the second one would divide a known period
			f.receive(event(fmt.Sprint("evt_invoice", i), "invoice.created", f.at, object{
				"id": "in_1", "object": "invoice", "customer": "cus_1", "billing_reason": "subscription_cycle", "period_start": start.Unix(),
				"period_end": day(11, 10).AddDate(0, i, 0).Unix(),
				"parent":     object{"subscription_details": object{"subscription": "sub_1"}},
			}))
		}
		f.must(f.hook.applyDue(f.Context()))
		var rows []models.SubscriptionPeriod
		f.must(f.db.NewSelect().Model(&rows).Order("period_start").Scan(f.Context()))
		var got []string
		for _, r := range rows {
			got = append(got, r.PeriodStart.UTC().Format("01-02")+" "+r.PeriodEnd.UTC().Format("01-02"))
		}
		if want := "10-01 10-08, 10-08 11-10, 11-10 12-20, 12-28 01-28, 01-28 02-28"; strings.Join(got, ", ") != want {
			f.Errorf("the stored periods are %s, want %s", strings.Join(got, ", "), want)
		}
		f.snapshot("evt_stale", day(11, 11), day(11, 10), day(12, 11))
		f.must(f.hook.applyDue(f.Context()))
		n, err := f.db.NewSelect().Model((*models.SubscriptionPeriod)(nil)).Where("period_end = ?", day(12, 20)).Count(f.Context())
		if f.must(err); n != 1 {
			f.Error("an older event changed the end of a period")
		}
	})
}

// Another process may seal a report while a period becomes known. The next sealing takes that
// report back. A report that an operator or a loss replaced keeps its units.
func TestSealingTakesBackReportsOfChangedPeriods(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.bought()
		d := f.reporterFixture()
		f.at = clock(7, 50, 0)
		f.use("ada@example.com", clock(7, 10, 0), 5)
		f.use("ada@example.com", f.at, 7)
		f.at = clock(8, 30, 0)
		d.seal()
		d.knows("cus_1", models.Period{Start: clock(7, 30, 0), End: clock(7, 30, 0).AddDate(0, 1, 0)})
		_, err := f.db.NewUpdate().Model((*models.SubscriptionPeriod)(nil)).Set("learned_at = ?", f.at).
			Where("period_start = ?", clock(7, 30, 0)).Exec(f.Context())
		f.must(err)
		d.seal()
		f.wantReports("11-23 07:29 5", "11-23 07:50 7")
		f.must(f.db.InTx(f.Context(), func(ctx context.Context, tx bun.Tx) error { return unseal(ctx, tx, []string{"cus_1"}, true) }))
		f.wantReports("11-23 07:29 5", "11-23 07:50 7")
	})
}
