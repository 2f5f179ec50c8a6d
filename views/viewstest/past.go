package viewstest

import (
	"testing"
	"time"

	"github.com/a-h/templ"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
)

var october = models.CalendarMonth(november.Start.Add(-time.Hour))

// Past returns the page of a person's October.
func Past(t testing.TB, id models.PlanID, used, included int64) views.Past {
	t.Helper()
	p := plan(t, id)
	u := models.PastUsage{Recorded: true, Months: Months(included, 20, 0, 64, 90, 0, 124, used*100/included)}
	u.Standing = Used(models.Standing{
		Email: "hugo.umbrella@example.com", Plan: id, Included: included, OverageRateCents: p.OverageRateCents, Period: october,
	}, used)
	u.Days = models.Days{Period: october, Used: spread(used, 31), Previous: spread(used*8/10, 30), Known: true}
	for i := range u.Months {
		m := &u.Months[i]
		m.Plan, m.OverageCents = id, m.Overage*p.OverageRateCents
	}
	return views.Past{
		Frame: frame(ui.Viewer{Organization: "Lantern and Kettle"}), Catalogue: Catalogue(t), Title: "Usage", Path: "/usage", Section: "/usage",
		Activity: "/usage/activity", File: "/usage.csv", Selected: "2026-10", Usage: views.Loaded(u),
	}
}

// PastPages returns the states of the pages about past periods.
func PastPages(t testing.TB) map[string]templ.Component {
	t.Helper()
	pages := map[string]templ.Component{}
	add := func(name string, d views.Past) { pages["past-"+name] = views.PastPage(d) }
	add("safe", Past(t, "pro", 43, 75))
	d := Past(t, "pro", 96, 75)
	d.Usage.Value.Standing.SpendLimitCents = new(int64(1000))
	d.Refusals = views.Loaded([]models.RefusalCount{{Reason: models.SpendLimitReached, Count: 12}})
	add("billed", d)
	d = Past(t, "business", 118, 100)
	d.Title, d.About, d.Path, d.Section = "Hugo Umbrella", "hugo.umbrella@example.com", "/org/members/1", ""
	d.Usage.Value.Standing.MemberLimit = new(int64(120))
	add("member", d)
	d = Past(t, "pro", 43, 75)
	d.Trial, d.Usage.Value.Standing.OverageRateCents = true, 0
	add("trial", d)
	d = Past(t, "free", 5, 5)
	add("free", d)
	d = Past(t, "pro", 0, 75)
	d.Usage.Value.Recorded, d.Usage.Value.Standing = false, models.Standing{Period: october}
	add("unused", d)
	d.Usage.Value.BeforeSignUp, d.Usage.Value.Months = true, Months(75, 20, 5)
	add("before-sign-up", d)
	d.Usage.Failed = requestID
	add("failed", d)
	return pages
}
