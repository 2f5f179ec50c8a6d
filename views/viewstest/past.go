package viewstest

import (
	"testing"
	"time"

	"github.com/a-h/templ"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/charts"
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
	d = Past(t, "pro", 96, 75)
	d.Usage.Value.Standing.Included += 50 // a grant after the overage
	add("granted", d)
	d = Past(t, "business", 118, 100)
	d.Title, d.About, d.Path, d.Section = "Hugo Umbrella", "hugo.umbrella@example.com", "/org/members/1", ""
	d.Usage.Value.Standing.MemberLimit = new(int64(120))
	add("member", d)
	d = Past(t, "pro", 43, 75)
	d.Trial, d.Usage.Value.Standing.OverageRateCents = true, 0
	add("trial", d)
	d = Past(t, "business", 118, 100)
	d.Usage.Value.SeveralPayers = true
	add("several-payers", d)
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

// PastOrgPages returns the states of the pages about past periods of an organization.
func PastOrgPages(t testing.TB) map[string]templ.Component {
	t.Helper()
	admin := frame(ui.Viewer{Organization: "Lantern and Kettle", Admin: true})
	u := models.OrganizationPeriod{Founded: true, Months: Months(4200, 1804, 1, 0, 51, 44, 60, 47)}
	u.Plan, u.Period, u.Included = "business", october, 4100
	u.TotalUsers, u.ActiveUsers, u.TotalSuggestions, u.AverageHundredths = 41, 36, 1974, 4815
	u.OverageUnits, u.OverageCents, u.OveragePeople = 141, 2820, 6
	u.Months[4].Overage, u.Months[4].OverageCents = u.OverageUnits, u.OverageCents
	u.SpendLimitCents, u.Spent = new(int64(5000)), &models.OrganizationRecord{OverageCents: 2820}
	for i, row := range memberRows(t)[:10] {
		s := &row.Standing
		u.TopUsers = append(u.TopUsers, models.RankedUser{
			Rank: i + 1, Email: s.Email, Name: row.Name, Used: s.Used, Included: 100, PercentUsed: s.PercentUsed(), WarningLevel: s.Level(),
		})
	}
	org := views.PastOrg{
		Frame: admin, Catalogue: Catalogue(t), Name: "Lantern and Kettle", Usage: views.Loaded(u),
		Days: views.Loaded(charts.Daily{Period: october, Now: Now, Used: spread(1974, 31), Previous: spread(2520, 30), Included: 4100}),
		Refused: views.Loaded(views.RefusedMembers{Total: 1, Top: []models.RefusedMember{
			{
				Email: "alma.teapot@example.com", Name: "Alma Teapot", Count: 31, Reason: models.MemberLimitReached,
				LastAt: october.End.Add(-time.Hour),
			},
		}}),
	}
	pages := map[string]templ.Component{"past-org": views.PastOrgPage(org)}
	unused := org
	unused.Usage.Value = models.OrganizationPeriod{Founded: true, Months: u.Months}
	unused.Usage.Value.Period, unused.Usage.Value.TotalUsers = october, 41
	unused.Days.Value.Used, unused.Days.Value.Included, unused.Refused.Value = nil, 0, views.RefusedMembers{}
	pages["past-org-unused"] = views.PastOrgPage(unused)
	unused.Usage.Value.Founded = false
	pages["past-org-before"] = views.PastOrgPage(unused)
	org.Usage.Failed = requestID
	pages["past-org-failed"] = views.PastOrgPage(org)

	rows := memberRows(t)
	for i := range rows {
		rows[i].Standing.Period = october
	}
	rows[24].Standing = models.Standing{Email: rows[24].Standing.Email, Period: october} // without a record
	pages["past-members"] = views.OrgMembersPage(views.Members{
		Frame: admin, Catalogue: Catalogue(t), Organization: "Lantern and Kettle", Billed: true,
		Query: views.MembersQuery{Sort: models.SortUsed, Descending: true, Page: 1, Past: &october},
		List:  views.Loaded(views.MembersList{Rows: rows, Found: 41, Total: 41}),
	})
	return pages
}
