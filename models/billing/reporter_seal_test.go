package billing

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// subscribe gives a customer a subscription with the given current period.
func (d *reporterFixture) subscribe(customer string, current models.Period) {
	d.t.Helper()
	user := models.User{ID: uuid.New(), Email: customer + "@example.com", Role: models.Member, CreatedAt: d.now}
	_, err := d.db.NewInsert().Model(&user).Exec(d.ctx)
	d.must(err)
	_, err = d.db.NewInsert().Model(&models.Subscription{
		ID: uuid.New(), UserID: &user.ID, PlanID: "pro", Status: models.StatusActive, StripeCustomerID: &customer,
		CurrentPeriodStart: &current.Start, CurrentPeriodEnd: &current.End, CreatedAt: d.now, UpdatedAt: d.now,
	}).Exec(d.ctx)
	d.must(err)
}

// knows stores a period of a customer's subscription, which may be long over.
func (d *reporterFixture) knows(customer string, period models.Period) {
	d.t.Helper()
	var s models.Subscription
	d.must(d.db.NewSelect().Model(&s).Where("stripe_customer_id = ?", customer).Scan(d.ctx))
	_, err := d.db.NewInsert().Model(&models.SubscriptionPeriod{
		SubscriptionID: s.ID, StripeCustomerID: customer, PeriodStart: period.Start, PeriodEnd: period.End, SaidAt: d.now, LearnedAt: d.now,
	}).Exec(d.ctx)
	d.must(err)
}

// The end of a billing period divides the reports of its hour, as it divides the invoices. It does
// so for the start of the current period and of an earlier one. The period that the events name
// does not matter.
func TestReportsDoNotCrossAPeriod(t *testing.T) {
	hour := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	for _, boundary := range []time.Duration{20 * time.Second, 30*time.Minute + 20*time.Second, 30 * time.Minute, 59*time.Minute +
		30*time.Second} {
		for _, current := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v, current %v", boundary, current), func(t *testing.T) {
				onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
					turn := hour.Add(boundary)
					month := models.CalendarMonth(turn)
					if d.subscribe("cus_1", models.Period{Start: turn, End: turn.AddDate(0, 1, 0)}); !current {
						next := hour.Add(2 * time.Hour)
						_, err := d.db.NewUpdate().Model((*models.Subscription)(nil)).Set("current_period_start = ?", next).
							Set("current_period_end = ?", next.AddDate(0, 1, 0)).Where("1 = 1").Exec(d.ctx)
						d.must(err)
					}
					var before, after int64
					for i, offset := range []time.Duration{-time.Minute, -time.Microsecond, 0, time.Microsecond, 10 * time.Second} {
						at, units := turn.Add(offset), int64(1)<<i
						if at.Before(turn) {
							d.useIn(month, "cus_1", units, at)
							before += units
						} else {
							d.useIn(month, "cus_1", units, at)
							after += units
						}
					}
					d.seal()
					for _, r := range d.reports() {
						if r.Minute.Before(turn) {
							before -= r.Value
						} else {
							after -= r.Value
						}
					}
					if before != 0 || after != 0 {
						t.Errorf("%d units are missing before the boundary and %d after it: %+v", before, after, d.reports())
					}
				})
			})
		}
	}
}

// A subscription is canceled immediately in the middle of an hour, with an invoice for its usage. A
// report has the minute of its last event, so usage before and after the end is in two reports.
func TestReportsDoNotCrossACancellation(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		end := time.Date(2026, 11, 20, 9, 44, 54, 0, time.UTC)
		month := models.CalendarMonth(end)
		d.subscribe("cus_1", month)
		_, err := d.db.NewUpdate().Model((*models.Subscription)(nil)).Set("status = ?, inactive_since = ?", models.StatusCanceled, end).
			Where("1 = 1").Exec(d.ctx)
		d.must(err)
		d.useIn(month, "cus_1", 3, end.Add(-time.Minute))
		d.useIn(month, "cus_1", 5, end.Add(3*time.Minute))
		d.seal()
		var before, after int64
		for _, r := range d.reports() {
			if r.Minute.Before(end) {
				before += r.Value
			} else {
				after += r.Value
			}
		}
		if before != 3 || after != 5 {
			t.Errorf("%d units are reported before the end and %d after it, want 3 and 5: %+v", before, after, d.reports())
		}
	})
}

// In the hour in which a subscription begins, the part before it has nothing to report, and nothing
// is logged about it.
func TestTheFirstHourOfASubscription(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		var log bytes.Buffer
		d.log = slog.New(slog.NewTextHandler(&log, nil))
		begin := time.Date(2026, 11, 20, 9, 0, 20, 0, time.UTC)
		period := models.Period{Start: begin, End: begin.AddDate(0, 1, 0)}
		d.subscribe("cus_1", period)
		d.useIn(period, "cus_1", 3, begin.Add(10*time.Minute))
		d.seal()
		if got := d.reports(); len(got) != 1 || got[0].Value != 3 || got[0].Minute.Before(begin) {
			t.Errorf("the reports are %+v", got)
		}
		if log.Len() > 0 {
			t.Errorf("the log says %s", &log)
		}
	})
}

// Each report has a minute that no other report of its customer has. If there are more reports than
// minutes in the hour, they use other hours of the billing period, but never minutes outside of it.
func TestEachReportHasItsMinute(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.now = time.Date(2026, 11, 1, 1, 30, 0, 0, time.UTC)
		at := time.Date(2026, 11, 1, 0, 20, 0, 0, time.UTC)
		for range 80 {
			d.use("cus_1", 1, at)
			d.seal()
		}
		seen := map[time.Time]bool{}
		month := models.CalendarMonth(at)
		for _, r := range d.reports() {
			minute := r.Minute.UTC()
			if seen[minute] || !month.Contains(minute) || minute.After(d.now) || !minute.Equal(minute.Truncate(time.Minute)) {
				t.Errorf("a report is at %v", minute)
			}
			seen[minute] = true
		}
		inHour := 0
		for minute := range seen {
			if minute.Before(at.Truncate(time.Hour).Add(time.Hour)) {
				inHour++
			}
		}
		if len(seen) != 80 || inHour != 60 {
			t.Errorf("%d reports, %d of them in the events' hour", len(seen), inHour)
		}
		// When all minutes so far are taken, the events wait and are not lost.
		for range 20 {
			d.use("cus_1", 1, at)
			d.seal()
		}
		if s := d.status(); s.UnsealedUnits != 10 {
			t.Errorf("%d units wait, want 10", s.UnsealedUnits)
		}
	})
}

// Overage goes to the meter of the plan that it was decided under. Each plan has its own reports.
// Included units are in no report.
func TestReportsGoToTheMeterOfTheirPlan(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		at := d.now.Add(-3 * time.Hour)
		month := models.CalendarMonth(at)
		d.useBy("pro", month, "cus_1", 3, at)
		d.useBy("starter", month, "cus_1", 4, at.Add(time.Second))
		d.useBy("pro", month, "cus_1", 5, at.Add(2*time.Second))
		d.useBy("pro", month, "cus_1", 0, at.Add(3*time.Second))
		d.useBy("starter", month, "cus_2", 0, at)
		d.stripe.AddCustomer("cus_2", nil)
		d.seal()
		d.hours(30)
		got := map[string]int64{}
		for _, e := range d.stripe.Events() {
			got[e.Customer+" "+e.EventName] += e.Value * int64(e.Times)
		}
		if want := map[string]int64{"cus_1 slack_speak_suggestions_pro": 8, "cus_1 slack_speak_suggestions_starter": 4}; !maps.Equal(got, want) {
			t.Errorf("Stripe has %v, want %v", got, want)
		}
		var included []models.UsageEvent
		d.must(d.db.NewSelect().Model(&included).Where("overage_quantity = 0").Scan(d.ctx))
		for _, e := range included {
			if e.StripeReportID != nil || e.StripeReportedAt != nil {
				t.Errorf("an event without overage was reported: %+v", e)
			}
		}
		totals, err := d.Totals(d.ctx, true)
		d.must(err)
		for _, total := range totals {
			if total.Difference != 0 || total.Used != got["cus_1 "+total.MeterEventName] {
				t.Errorf("the totals are %+v", total)
			}
		}
		if s := d.status(); len(included) != 2 || len(totals) != 2 || s.UnsealedEvents != 0 {
			t.Errorf("%d events without overage, %d totals, %d unsealed events", len(included), len(totals), s.UnsealedEvents)
		}
		d.must(models.Verify(d.ctx, d.db, func(found models.Difference) {
			if found.Customer != "" {
				t.Errorf("verify: %s", found)
			}
		}))
	})
}

// If all minutes of the hour up to the last event are taken, a report gets a later minute only if
// that minute is surely billed in the events' period: the subscription was updated since, and no
// other period began in between.
func TestALaterMinuteIsInTheSamePeriod(t *testing.T) {
	hour := time.Date(2026, 11, 20, 11, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name    string
		updated time.Duration // after the hour began
		turns   bool          // a period that has since been replaced began in the hour
		want    time.Duration // the minute of the second report
	}{
		{"updated since", time.Hour, false, time.Minute},
		{"not updated since", 30 * time.Minute, false, -time.Minute},
		{"a period began", time.Hour, true, -time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
				start := hour.AddDate(0, 0, -10)
				old := models.Period{Start: start, End: start.AddDate(0, 1, 0)}
				user := models.User{ID: uuid.New(), Email: "cus_1@example.com", Role: models.Member, CreatedAt: d.now}
				_, err := d.db.NewInsert().Model(&user).Exec(d.ctx)
				d.must(err)
				_, err = d.db.NewInsert().Model(&models.Subscription{
					ID: uuid.New(), UserID: &user.ID, PlanID: "pro", Status: models.StatusActive, StripeCustomerID: new("cus_1"),
					CurrentPeriodStart: &old.Start, CurrentPeriodEnd: &old.End, CreatedAt: old.Start, UpdatedAt: hour.Add(c.updated),
				}).Exec(d.ctx)
				d.must(err)
				d.useIn(old, "cus_1", 1, hour.Add(10*time.Second))
				if c.turns {
					turn := hour.Add(25 * time.Second)
					d.knows("cus_1", models.Period{Start: turn, End: turn.AddDate(0, 1, 0)})
					d.useIn(old, "cus_1", 4, hour.Add(30*time.Minute))
				}
				d.seal()
				d.useIn(old, "cus_1", 2, hour.Add(20*time.Second))
				d.seal()
				for _, r := range d.reports() {
					if want := hour.Add(c.want); r.Value == 2 && !r.Minute.Equal(want) {
						t.Errorf("the report is at %s, want %s", r.Minute.UTC(), want)
					}
				}
			})
		})
	}
}
