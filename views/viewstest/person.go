package viewstest

import (
	"fmt"
	"testing"
	"time"

	"github.com/a-h/templ"
	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/charts"
	"tollgate/views/ui"
)

// Used returns the standing after the use of more units.
func Used(s models.Standing, units int64) models.Standing {
	s.Add(units, models.Classify(s, units))
	return s
}

// Member returns the usage page of a person with a plan and usage.
func Member(t testing.TB, id models.PlanID, used, included int64) views.Usage {
	t.Helper()
	c, p := Catalogue(t), plan(t, id)
	d := views.Usage{
		Frame: frame(ui.Viewer{Organization: "Lantern and Kettle"}), Catalogue: c, Organization: "Lantern and Kettle",
		Subscription: views.Subscription{Plan: p, StripeConnected: true},
		Standing: views.Loaded(Used(models.Standing{
			Email: "hugo.umbrella@example.com", Plan: id, Included: included, OverageRateCents: p.OverageRateCents, Period: november,
		}, used)),
		Days: views.Loaded(charts.Daily{
			Period: november, Now: Now, Used: spread(used, 23), Previous: spread(used*9/10, 31), Included: included,
		}),
		Months:     views.Loaded(Months(included, used, 0, 64, 90, 0, 124, 71)),
		Comparison: views.Loaded(models.Comparison{Days: 23, Used: used, Before: new(used * 8 / 10)}),
	}
	if used >= included && p.OverageRateCents == 0 {
		d.Refusals = views.Loaded([]models.RefusalCount{{Reason: models.IncludedExhausted, Count: 12}})
	}
	if units, ok := d.Standing.Value.Forecast(Now); ok {
		d.Forecast = &units
	}
	if at, ok := d.Standing.Value.RunsOut(Now); ok {
		d.RunsOut = &at
	}
	if p.Type == models.Team {
		d.Subscription.Organization, d.Subscription.Shared = "Lantern and Kettle", true
	} else if p.BasePriceCents > 0 {
		d.Subscription.Status, d.Subscription.Manageable = models.StatusActive, true
	}
	for i := range d.Months.Value {
		m := &d.Months.Value[i]
		m.OverageCents = m.Overage * p.OverageRateCents
		if p.OverageRateCents == 0 {
			m.Used, m.Overage = min(m.Used, m.Included), 0
		}
	}
	return d
}

// trial turns the subscription into a trial that ends in 16 days.
func trial(s *views.Subscription) {
	s.Status, s.Trial, s.TrialEnd = models.StatusTrialing, true, &trialPeriod.End
}

// UsagePages returns the states of the usage page, by name.
func UsagePages(t testing.TB) map[string]templ.Component {
	t.Helper()
	pages := map[string]templ.Component{}
	add := func(name string, d views.Usage) { pages["usage-"+name] = views.UsagePage(d) }

	add("safe", Member(t, "pro", 43, 75))
	add("warning", Member(t, "pro", 62, 75))
	add("critical", Member(t, "pro", 73, 75))

	d := Member(t, "pro", 62, 75)
	d.Standing.Value.Held = 3
	add("held", d)

	add("free", Member(t, "free", 2, 5))
	add("free-paused", Member(t, "free", 5, 5))

	add("billed", Member(t, "pro", 96, 75))
	d = Member(t, "pro", 84, 75)
	d.Standing.Value.SpendLimitCents, d.Standing.Value.Held = new(int64(600)), 4
	add("billed-with-limit", d)
	d = Member(t, "pro", 85, 75)
	d.Standing.Value.SpendLimitCents = new(int64(300))
	add("spend-limit-reached", d)
	d = Member(t, "pro", 96, 75)
	d.Limit = views.SpendLimit{Entered: "2.5", Sent: true, Confirm: new(int64(250))}
	d.Frame.Prefix = "Confirm: "
	add("spend-limit-confirm", d)
	d = Member(t, "pro", 43, 75)
	d.Limit = views.SpendLimit{Entered: "-5", Sent: true}
	d.Frame.Errors = []ui.FormError{{
		Field: views.FieldIDAmount, Message: "The limit must be an amount such as 25 or 12.50, from 0 to 1,000,000.",
	}}
	add("spend-limit-error", d)
	d = Member(t, "pro", 43, 75)
	d.Standing.Value.SpendLimitCents = new(int64(500))
	d.Frame.Notices = []ui.Notice{{
		Kind: ui.Done, Title: "Spend limit saved", Text: "Extra suggestions are paused when one more would exceed $5.00 in a billing period.",
	}}
	add("spend-limit-saved", d)

	d = Member(t, "free", 0, 5)
	d.Frame.Viewer.Organization, d.Organization = "", ""
	d.Months = views.Loaded(Months(5, 0, 5))
	d.Days.Value.Used, d.Days.Value.Previous = nil, nil
	d.Comparison = views.Loaded(models.Comparison{Days: 1})
	add("new", d)

	d = Member(t, "starter", 11, 25)
	d.Months = views.Loaded(Months(25, 11, 5))
	d.Days.Value.Previous = nil
	d.Comparison.Value.Before = nil
	add("first-month", d)

	add("team", Member(t, "business", 88, 100))
	d = Member(t, "business", 88, 100)
	d.Subscription.OwnPlan, d.Subscription.OwnManageable = "Pro", true
	add("own-plan", d)
	limited := func(used, limit int64) views.Usage {
		d := Member(t, "business", used, 100)
		d.Standing.Value.MemberLimit = &limit
		d.RunsOut = nil
		if at, ok := d.Standing.Value.RunsOut(Now); ok {
			d.RunsOut = &at
		}
		return d
	}
	add("member-limit", limited(51, 60))
	d = limited(60, 60)
	d.Refusals = views.Loaded([]models.RefusalCount{{Reason: models.MemberLimitReached, Count: 3}})
	add("member-limit-reached", d)
	d = Member(t, "business", 118, 100)
	d.Standing.Value.Organization = models.OrganizationSpend{Cents: 4990, LimitCents: new(int64(5000))}
	d.Refusals = views.Loaded([]models.RefusalCount{{Reason: models.OrganizationSpendLimitReached, Count: 2}})
	add("organization-limit-reached", d)
	add("beyond-hard-cap", Member(t, "free", 8, 5)) // recorded through /v1/events

	d = Member(t, "pro", 40, 75)
	d.Subscription.Status = models.StatusPastDue
	add("past-due", d)
	d = Member(t, "pro", 80, 75)
	d.Subscription.Status, d.Standing.Value.PastDue = models.StatusPastDue, true
	add("past-due-paused", d)
	d = Member(t, "free", 3, 5)
	d.Subscription.Status, d.Subscription.Suspended, d.Subscription.Manageable = models.StatusUnpaid, true, true
	add("unpaid", d)
	d = Member(t, "pro", 40, 75)
	d.Subscription.EndsAt = new(november.End)
	add("canceled-at-end", d)
	trying := func(d views.Usage) views.Usage {
		trial(&d.Subscription)
		d.Standing.Value.OverageRateCents, d.Standing.Value.Period = 0, trialPeriod
		d.Days.Value.Period, d.Days.Value.Previous, d.Forecast = trialPeriod, nil, nil
		used := d.Standing.Value.Used
		d.Days.Value.Used, d.Comparison.Value = spread(used, 15), models.Comparison{Days: 15, Used: used}
		return d
	}
	d = trying(Member(t, "pro", 40, 75))
	add("trial", d)
	d.Subscription.EndsAt = d.Subscription.TrialEnd
	add("trial-canceled", d)
	add("trial-team", trying(Member(t, "business", 40, 100)))
	d = Member(t, "free", 1, 5)
	d.Subscription.Status, d.Subscription.EndsAt = models.StatusCanceled, new(november.Start)
	add("canceled", d)
	d = Member(t, "free", 1, 5)
	d.Subscription.Status, d.Subscription.Manageable = models.StatusIncomplete, true
	add("never-paid", d)
	d = Member(t, "free", 3, 5)
	d.Subscription.StripeConnected = false
	add("no-stripe", d)

	d = Member(t, "pro", 43, 75)
	d.Standing.Failed, d.Days.Failed, d.Months.Failed, d.Comparison.Failed = requestID, requestID, requestID, requestID
	add("failed", d)

	d = Member(t, "pro", 61, 75)
	d.Standing.Value.Period = models.AnchoredMonth(time.Date(2026, 1, 14, 15, 20, 0, 0, time.UTC), Now)
	d.Days.Value.Period = d.Standing.Value.Period
	d.Comparison.Value.Days = 10
	units, _ := d.Standing.Value.Forecast(Now)
	d.Forecast = &units
	add("anchored", d)
	return pages
}

// Activity returns the page with a member's events: with and without overage, and a voided one.
func Activity(t testing.TB, f ui.Frame) views.Activity {
	t.Helper()
	page := models.ActivityPage{Period: november, Next: &models.ActivityCursor{}}
	for i := range int64(12) {
		e := models.ActivityEvent{
			ID: uuid.MustParse(fmt.Sprintf("0192aaaa-bbbb-7ccc-8ddd-%012d", i)), OccurredAt: Now.Add(-time.Duration(i) * 97 * time.Minute),
			Quantity: 1 + i%3, UsedAfter: 110 - 2*i, Workspace: "Lantern and Kettle",
		}
		switch {
		case i < 4:
			e.OverageQuantity, e.OverageCents = e.Quantity, 20*e.Quantity
		case i == 5:
			e.VoidedAt, e.VoidReason = new(Now.Add(-time.Hour)), new("recorded for the wrong person")
		case i == 7:
			e.Workspace = ""
		}
		page.Events = append(page.Events, e)
	}
	return views.Activity{
		Frame: f, Catalogue: Catalogue(t), Path: "/org/members/1/activity", Back: "/org/members/1", Name: "Hugo Umbrella",
		Email: "hugo.umbrella@example.com", Page: views.Loaded(page),
	}
}
