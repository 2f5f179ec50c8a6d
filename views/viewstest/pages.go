// Package viewstest draws every page in every state for tests, from made-up figures and with a
// fixed clock.
package viewstest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/a-h/templ"
	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/charts"
	"tollgate/views/ui"
)

// Now is the current time of all pages.
var Now = time.Date(2026, 11, 23, 14, 5, 0, 0, time.UTC)

// requestID is the ID of requests that fail.
const requestID = "9f2c41d07be84a55"

var november = models.CalendarMonth(Now)

// Catalogue returns the embedded catalog.
func Catalogue(t testing.TB) *models.Catalogue {
	t.Helper()
	c, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func plan(t testing.TB, id models.PlanID) models.Plan {
	t.Helper()
	p, ok := Catalogue(t).Plan(id)
	if !ok {
		t.Fatalf("the catalog has no plan %q", id)
	}
	return p
}

func frame(v ui.Viewer) ui.Frame {
	v.Email, v.Name = "hugo.umbrella@example.com", "Hugo Umbrella"
	return ui.Frame{Viewer: &v, Now: Now}
}

// Render draws a page into a string.
func Render(t testing.TB, page templ.Component) string {
	t.Helper()
	var b strings.Builder
	if err := page.Render(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// spread distributes a sum over days, unevenly but always in the same way.
func spread(sum int64, days int) []int64 {
	used := make([]int64, days)
	for i := int64(0); sum > 0; i++ {
		day := (i*i*3 + i*5) % int64(days)
		n := min(sum, max(1, sum/int64(2*days))+i%3)
		used[day] += n
		sum -= n
	}
	return used
}

// Months returns six months, of which the first ones are before sign-up. nowUsed is the usage of
// the current month, and shares are the usage of the other months in percent of included.
func Months(included, nowUsed int64, before int, shares ...int64) []models.PastPeriod {
	var list []models.PastPeriod
	for i := range 6 {
		month := time.Date(2026, time.Month(6+i), 15, 0, 0, 0, 0, time.UTC)
		m := models.PastPeriod{Period: models.CalendarMonth(month), BeforeSignUp: i < before}
		switch {
		case i == 5:
			m.Used, m.Included, m.Current = nowUsed, included, true
		case i >= before:
			m.Used, m.Included = shares[i]*included/100, included
		}
		m.Overage = max(0, m.Used-m.Included)
		list = append(list, m)
	}
	return list
}

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
		Subscription: views.Subscription{Plan: p}, StripeConnected: true,
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
		d.Subscription.Organization = "Lantern and Kettle"
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

// trialPeriod is a trial of 30 days. In Stripe, a trial is one billing period.
var trialPeriod = models.Period{
	Start: time.Date(2026, 11, 9, 15, 20, 0, 0, time.UTC), End: time.Date(2026, 12, 9, 15, 20, 0, 0, time.UTC),
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
		Kind: ui.Done, Title: "Spend limit saved", Text: "Overage stops at $5.00 per billing period. This applies immediately.",
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

	d = Member(t, "pro", 40, 75)
	d.Subscription.Status = models.StatusPastDue
	add("past-due", d)
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
	d = Member(t, "free", 3, 5)
	d.StripeConnected = false
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

// Pages returns all pages in all states.
func Pages(t testing.TB) map[string]templ.Component {
	t.Helper()
	pages := map[string]templ.Component{}
	for _, some := range []map[string]templ.Component{
		UsagePages(t), PastPages(t), OrgPages(t), PastOrgPages(t), PlanPages(t), OtherPages(t), peoplePages(t),
	} {
		maps.Copy(pages, some)
	}
	return pages
}

// peoplePages returns the operator's pages about people.
func peoplePages(t testing.TB) map[string]templ.Component {
	t.Helper()
	operator := frame(ui.Viewer{Operator: true})
	var people []models.UserEntry
	for i, row := range memberRows(t) {
		u := models.UserEntry{User: models.User{ID: row.ID, Email: row.Standing.Email, Name: row.Name, Role: row.Role}}
		if i%3 > 0 {
			u.OrganizationID, u.Organization = &row.ID, "Lantern and Kettle"
		}
		people = append(people, u)
	}
	own := Member(t, "business", 118, 100)
	own.Frame, own.ReadOnly = operator, true
	return map[string]templ.Component{
		"people":      views.OpsPeoplePage(views.OpsPeople{Frame: operator, Search: "example", People: views.Loaded(people), More: true}),
		"people-none": views.OpsPeoplePage(views.OpsPeople{Frame: operator, Search: "<b>missing"}),
		"people-failed": views.OpsPeoplePage(views.OpsPeople{
			Frame: operator, People: views.Widget[[]models.UserEntry]{Failed: requestID},
		}),
		"person": views.OpsPersonPage(views.OpsPerson{
			Person: people[1], Usage: own, Identities: []string{"Slack user U0BRUNO in team T0LANTERN"},
		}),
	}
}

var names = strings.Fields(`
	Alma_Teapot Bruno_Paperclip Cora_Lamplight Dario_Windowsill Elsa_Buttonhole Felix_Doormat Greta_Inkpot Hugo_Umbrella
	Ida_Candlestick Jonas_Wheelbarrow Klara_Matchbox Leo_Birdhouse Mira_Thimble Nico_Hammock Olga_Snowglobe
	Paul_Weathervane Quinn_Bookend Rosa_Kettledrum Sami_Lighthouse Tilda_Wristwatch Ugo_Pinecone Vera_Hourglass
	Wim_Gingerbread Xenia_Clothespin Yara_Tambourine`)

// memberRows returns a page of members, most used first.
func memberRows(t testing.TB) []views.MemberRow {
	t.Helper()
	var rows []views.MemberRow
	for i, name := range names {
		row := views.MemberRow{
			MemberUsage: models.MemberUsage{
				ID: uuid.NewSHA1(uuid.NameSpaceURL, []byte(name)), Name: strings.ReplaceAll(name, "_", " "),
				Role: models.Member, LastPeriod: new(int64(90 - 3*i)),
				Standing: Used(models.Standing{
					Email: strings.ToLower(strings.ReplaceAll(name, "_", ".")) + "@example.com", Plan: "business",
					Included: 100, OverageRateCents: 20, Period: november,
				}, max(0, int64(118-6*i))),
			},
			Months: Months(100, max(0, int64(118-6*i)), 0, int64(20+3*i), 60, int64(130-5*i), 80, int64(90-3*i)),
		}
		switch i {
		case 0:
			row.Role = models.Admin
		case 22:
			row.Name = ""
		case 24:
			row.LastPeriod, row.Months = nil, Months(100, 0, 5)
		}
		rows = append(rows, row)
	}
	return rows
}

// OrgPages returns the pages for an organization's admins.
func OrgPages(t testing.TB) map[string]templ.Component {
	t.Helper()
	c, business := Catalogue(t), plan(t, "business")
	admin := frame(ui.Viewer{Organization: "Lantern and Kettle", Admin: true})
	summary := models.OrganizationSummary{
		Name: "Lantern and Kettle", Plan: "business", Period: november,
		TotalUsers: 42, ActiveUsers: 37, TotalSuggestions: 1804, AverageHundredths: 4295,
		OverageUnits: 36, OverageCents: 720, OverageRateCents: 20, HasPlan: true,
	}
	for i, row := range memberRows(t)[:10] {
		summary.TopUsers = append(summary.TopUsers, models.RankedUser{
			Rank: i + 1, Email: row.Standing.Email, Name: row.Name, Used: row.Standing.Used, Included: 100,
			PercentUsed: row.Standing.PercentUsed(), WarningLevel: row.Standing.Level(),
		})
	}
	org := views.Org{
		Frame: admin, Catalogue: c, Name: summary.Name, Plan: business,
		Subscription: views.Subscription{Plan: business, Status: models.StatusActive, Manageable: true},
		Summary:      views.Loaded(summary), Cost: views.Loaded(views.OrgCost{
			Seats: 42, Subscribed: true, Overage: models.Overage{Units: 36, Cents: 720}, People: 3,
			Forecast: &models.Overage{Units: 97, Cents: 1940},
		}),
		Days:   views.Loaded(charts.Daily{Period: november, Now: Now, Used: spread(1804, 23), Previous: spread(1990, 31), Included: 4200}),
		Months: views.Loaded(Months(4200, 1804, 1, 0, 51, 44, 60, 47)), StripeConnected: true,
	}
	for i, units := range []int64{0, 0, 0, 141, 0, 36} { // single members' overage; their total is below their limits
		m := &org.Months.Value[i]
		m.Overage, m.OverageCents = units, units*business.OverageRateCents
	}
	org.Refused = views.Loaded(views.RefusedMembers{Total: 2, Top: []models.RefusedMember{
		{Email: "alma.teapot@example.com", Name: "Alma Teapot", Count: 31, Reason: models.MemberLimitReached, LastAt: Now.Add(-time.Hour)},
		{Email: "ida.candlestick@example.com", Name: "Ida Candlestick", Count: 1, Reason: models.OrganizationSpendLimitReached, LastAt: Now},
	}})
	pages := map[string]templ.Component{"org": views.OrgPage(org)}
	quiet := org
	quiet.Summary = views.Loaded(models.OrganizationSummary{Name: summary.Name, Plan: "business", Period: november, TotalUsers: 1})
	quiet.Cost, quiet.StripeConnected = views.Loaded(views.OrgCost{Seats: 1, Subscribed: true}), false
	quiet.Refused = views.Loaded(views.RefusedMembers{})
	quiet.Days.Value.Used, quiet.Days.Value.Previous = nil, nil
	quiet.Months = views.Loaded(Months(100, 0, 5))
	pages["org-new"] = views.OrgPage(quiet)
	given := org
	given.Subscription, given.StripeConnected = views.Subscription{Plan: business, Status: models.StatusActive, ByHand: true}, false
	given.Cost.Value.Seats, given.Cost.Value.Subscribed = 37, false
	pages["org-by-hand"] = views.OrgPage(given)
	trying := org
	trial(&trying.Subscription)
	trying.Cost = views.Loaded(views.OrgCost{Seats: 42, Subscribed: true, Forecast: &models.Overage{}})
	trying.Months = views.Loaded(Months(4200, 1804, 5))
	trying.Days = views.Loaded(charts.Daily{Period: trialPeriod, Now: Now, Used: spread(1804, 15), Included: 4200})
	trying.Summary.Value.Period, trying.Summary.Value.TopUsers = trialPeriod, slices.Clone(summary.TopUsers[3:])
	for i := range trying.Summary.Value.TopUsers {
		trying.Summary.Value.TopUsers[i].Rank = i + 1
	}
	pages["org-trial"] = views.OrgPage(trying)
	maps.Copy(pages, orgLimits(org))
	failed := org
	failed.Summary.Failed, failed.Cost.Failed, failed.Days.Failed, failed.Months.Failed = requestID, requestID, requestID, requestID
	failed.Changes.Failed = requestID
	pages["org-failed"] = views.OrgPage(failed)

	members := views.Members{
		Frame: admin, Catalogue: c, Organization: summary.Name, Query: views.ParseMembersQuery(nil), Billed: true,
		List: views.Loaded(views.MembersList{Rows: memberRows(t), Found: 42, Total: 42}),
	}
	pages["members"] = views.OrgMembersPage(members)
	narrowed := members
	narrowed.Query = views.MembersQuery{Search: "example", Level: models.Safe, Sort: models.SortName, Page: 2}
	narrowed.List = views.Loaded(views.MembersList{Rows: memberRows(t)[7:19], Found: 37, Total: 42})
	pages["members-narrowed"] = views.OrgMembersPage(narrowed)
	narrowed.Query.Search, narrowed.List = "<b>missing", views.Loaded(views.MembersList{Total: 42})
	pages["members-none"] = views.OrgMembersPage(narrowed)
	narrowed.List.Failed = requestID
	pages["members-failed"] = views.OrgMembersPage(narrowed)

	own := Member(t, "business", 118, 100)
	pages["activity"] = views.ActivityPage(Activity(t, admin))
	none := Activity(t, admin)
	none.Page, none.Continued = views.Loaded(models.ActivityPage{Period: november}), true
	pages["activity-none"] = views.ActivityPage(none)
	member := views.OrgMember{
		Frame: admin, Catalogue: c, Organization: summary.Name, Name: "Alma Teapot", Email: "alma.teapot@example.com",
		Role: models.Admin, SignedUp: Now.AddDate(-1, 0, 0), Plan: business,
		Standing: own.Standing, Days: own.Days, Months: own.Months, Comparison: own.Comparison,
	}
	pages["member"] = views.OrgMemberPage(member)
	maps.Copy(pages, memberForms(member))
	return pages
}

// orgLimits returns the states of the organization's limits and their forms.
func orgLimits(org views.Org) map[string]templ.Component {
	pages := map[string]templ.Component{}
	add := func(name string, limit *int64, spent *models.OrganizationRecord, change func(*views.Org)) {
		d := org
		d.Summary.Value.SpendLimitCents, d.Summary.Value.Spent = limit, spent
		change(&d)
		pages["org-"+name] = views.OrgPage(d)
	}
	nothing := func(*views.Org) {}
	fifty := new(int64(5000))
	partly := &models.OrganizationRecord{OverageCents: 1240, OverageCentsHeld: 40, Counted: true, SpendLimitCents: fifty}
	add("limits", fifty, partly, func(d *views.Org) {
		d.Summary.Value.MemberLimit = new(int64(120))
		d.ID = uuid.NewSHA1(uuid.NameSpaceURL, []byte(d.Name))
		d.Changes = views.Loaded([]models.AuditEntry{
			{At: Now, Actor: "hugo.umbrella@example.com", Subject: d.ID.String(), Detail: "spend limit from no limit to $50.00"},
			{At: Now.Add(-time.Hour), Actor: "hugo.umbrella@example.com", Subject: "alma.teapot@example.com", Detail: "role from member to admin"},
			{At: Now.AddDate(0, 0, -3), Actor: models.ActorShell, Subject: "hugo.umbrella@example.com", Detail: "role from member to admin"},
		})
		d.Frame.Notices = []ui.Notice{{Kind: ui.Done, Title: "Spend limit saved", Text: views.SpendConsequence(d.Catalogue, 20, 5000)}}
	})
	add("limit-applying", fifty, &models.OrganizationRecord{}, nothing)
	reached := new(int64(730))
	add("limit-paused", reached, &models.OrganizationRecord{OverageCents: 720, Counted: true, SpendLimitCents: reached}, nothing)
	add("limit-confirm", nil, nil, func(d *views.Org) {
		d.SpendForm = views.LimitForm{Sent: true, Choice: views.ChoiceLimit, Entered: "5", Confirm: new(int64(500))}
		d.Frame.Prefix = "Confirm: "
	})
	add("limit-error", fifty, &models.OrganizationRecord{OverageCents: 720, Counted: true, SpendLimitCents: fifty}, func(d *views.Org) {
		d.SpendForm = views.LimitForm{Sent: true, Choice: views.ChoiceLimit, Entered: "-5"}
		d.Frame.Errors = []ui.FormError{{
			Field: views.FieldIDOrgSpendLimit, Message: "The limit must be an amount such as 25 or 12.50, from 0 to 1,000,000.",
		}}
	})
	add("no-plan", nil, nil, func(d *views.Org) {
		d.Plan, d.Subscription = d.Catalogue.Free(), views.Subscription{Plan: d.Catalogue.Free()}
		d.Summary.Value.HasPlan, d.Summary.Value.OverageRateCents, d.Summary.Value.OverageCents = false, 0, 0
		d.MemberForm = views.LimitForm{Sent: true, Choice: views.ChoiceNone, Entered: "60"}
		d.Frame.Errors = []ui.FormError{{
			Field: views.FieldIDOrgMemberLimit, Message: "You entered a limit, but chose another answer above. Change one of them.",
		}}
	})
	return pages
}

// memberForms returns the states of the forms about a member.
func memberForms(d views.OrgMember) map[string]templ.Component {
	pages := map[string]templ.Component{"member-remove": views.MemberRemovePage(d)}
	d.OwnLimit, d.DefaultLimit = new(int64(60)), new(int64(120))
	d.LimitForm = views.LimitForm{Sent: true, Choice: views.ChoiceLimit, Entered: "a lot"}
	d.EnteredRole = "member"
	d.Frame.Errors = []ui.FormError{
		{Field: views.FieldIDMemberLimit, Message: "The limit must be a whole number from 0 to 1,000,000,000."},
		{Field: views.FieldIDRole, Message: "Someone else changed this role in the meantime. Check it and try again."},
	}
	pages["member-errors"] = views.OrgMemberPage(d)
	d.Self, d.OnlyAdmin, d.OwnLimit, d.LimitForm, d.EnteredRole = true, true, nil, views.LimitForm{}, ""
	d.Frame.Errors = []ui.FormError{{Message: views.OnlyAdmin}}
	pages["member-only-admin"] = views.OrgMemberPage(d)
	pages["member-remove-refused"] = views.MemberRemovePage(d)
	return pages
}

// PlanPages returns the pricing page as different people see it, and the pages after a purchase.
func PlanPages(t testing.TB) map[string]templ.Component {
	t.Helper()
	costs := views.Loaded(&views.PlanCosts{Months: 6, Plans: map[models.PlanID]views.PlanCost{
		"free": {Refused: 393}, "starter": {Cents: 12905}, "pro": {Cents: 11430},
	}})
	d := views.Plans{
		Frame: frame(ui.Viewer{Organization: "Lantern and Kettle"}), Catalogue: Catalogue(t),
		Current: views.Subscription{Plan: plan(t, "free")}, Costs: costs, StripeConnected: true, Organization: "Lantern and Kettle",
	}
	pages := map[string]templ.Component{"plans": views.PlansPage(d)}
	d.MayBuyTeam, d.BecomesAdmin = true, true
	pages["plans-first-admin"] = views.PlansPage(d)
	d.BecomesAdmin = false
	d.Current = views.Subscription{Plan: plan(t, "pro"), Status: models.StatusActive, Manageable: true}
	d.MayBuyTeam = true
	d.Invoices = []views.Invoice{
		{Status: "draft", Total: 2130, Currency: "usd", Created: Now.AddDate(0, 0, -1)},
		{
			Number: "LK-0003", Status: "open", Total: 1800, Currency: "usd", Created: Now.AddDate(0, -1, 0),
			URL: "https://invoice.example.com/i/3",
		},
		{
			Number: "LK-0002", Status: "paid", Total: 123456, Currency: "eur", Created: Now.AddDate(0, -2, 0),
			URL: "https://invoice.example.com/i/2",
		},
		{Number: "LK-0001", Status: "void", Total: -500, Currency: "usd", Created: Now.AddDate(0, -3, 0)},
		{Number: "LK-0000", Status: "paid", Total: 1500, Currency: "jpy", Created: Now.AddDate(0, -4, 0)},
	}
	pages["plans-paid"] = views.PlansPage(d)
	d.Current.EndsAt = new(november.End)
	pages["plans-ending"] = views.PlansPage(d)
	d.Current.EndsAt = nil
	trying := d
	trial(&trying.Current)
	pages["plans-trial"] = views.PlansPage(trying)
	d.StripeConnected = false
	d.Costs = views.Widget[*views.PlanCosts]{Failed: requestID}
	pages["plans-no-stripe"] = views.PlansPage(d)
	d = views.Plans{Frame: ui.Frame{Now: Now}, Catalogue: Catalogue(t), StripeConnected: true}
	pages["plans-signed-out"] = views.PlansPage(d)
	d = views.Plans{
		Frame: frame(ui.Viewer{Organization: "Lantern and Kettle"}), Catalogue: Catalogue(t), StripeConnected: true,
		Current: views.Subscription{Plan: plan(t, "business"), Status: models.StatusActive, Organization: "Lantern and Kettle"},
	}
	pages["plans-team"] = views.PlansPage(d)
	buyer := frame(ui.Viewer{Organization: "Lantern and Kettle", Admin: true})
	pages["purchase-waiting"] = views.PurchasePage(views.Purchase{
		Frame: buyer, Title: "One moment", Waiting: true, Next: "/plans/return?plan=pro&try=2",
		Lines: []string{
			"Stripe has your order. Pro starts as soon as Stripe confirms it, usually within seconds. This page updates automatically.",
		},
	})
	pages["purchase-late"] = views.PurchasePage(views.Purchase{
		Frame: buyer, Title: "This is taking longer than usual", Reference: "cs_test_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V2w3X4y5Z6",
		Lines: []string{
			"Stripe has not confirmed your order yet. Nothing is lost: Pro starts automatically when it does.",
			"Check the Plans page again in a few minutes. If nothing has changed in an hour, contact the operator of this service " +
				"and give the reference below. Do not buy the plan again.",
		},
	})
	pages["purchase-has-plan"] = views.PurchasePage(views.Purchase{
		Frame: buyer, Title: "You already have a subscription", Portal: true, Lines: []string{
			"You would pay for both, so nothing was bought.",
			"You can cancel your subscription in Stripe's portal. It stays active until the paid period ends. Then you can buy Pro.",
		},
	})
	return pages
}

// OtherPages returns the pages of settings, operations, sign-in, errors and the API.
func OtherPages(t testing.TB) map[string]templ.Component {
	t.Helper()
	c := Catalogue(t)
	sessions := []views.Session{
		{ID: "1", Browser: "Firefox on Linux", SignedInAt: Now.AddDate(0, 0, -2), SeenAt: Now, Current: true},
		{ID: "2", Browser: "Safari on an iPhone", SignedInAt: Now.AddDate(0, 0, -9), SeenAt: Now.Add(-5 * time.Hour)},
	}
	settings := views.Settings{
		Frame: frame(ui.Viewer{Organization: "Lantern and Kettle"}), Catalogue: c, Role: models.Member, Plan: plan(t, "pro"),
		Sessions: views.Loaded(sessions),
		Notice:   views.Loaded("You have used 62 of 75 suggestions (82%). They reset on Dec 1, 2026, 00:00 UTC."),
	}
	settings.Frame.Notices = []ui.Notice{{Kind: ui.Done, Title: "Session ended"}}
	pages := map[string]templ.Component{"settings": views.SettingsPage(settings)}
	settings.Frame = frame(ui.Viewer{})
	settings.Notice, settings.Sessions = views.Loaded(""), views.Loaded(sessions[:1])
	pages["settings-alone"] = views.SettingsPage(settings)
	settings.Notice.Failed, settings.Sessions.Failed = requestID, requestID
	pages["settings-failed"] = views.SettingsPage(settings)

	keys := []models.APIKey{
		{
			ID: uuid.NewSHA1(uuid.NameSpaceURL, []byte("1")), Name: "Slack app, production", Hint: "tg_live_8fQ2",
			Scopes: "check,consume", CreatedAt: Now.AddDate(0, -4, 0), LastUsedAt: new(Now.Add(-3 * time.Minute)),
		},
		{
			ID: uuid.NewSHA1(uuid.NameSpaceURL, []byte("2")), Name: "Reports", Hint: "tg_live_Zk01",
			Scopes: "read", CreatedAt: Now.AddDate(0, -2, 0),
		},
		{
			ID: uuid.NewSHA1(uuid.NameSpaceURL, []byte("3")), Name: "Old laptop", Hint: "tg_live_c9Lm",
			Scopes: "check,consume,read", CreatedAt: Now.AddDate(-1, 0, 0), RevokedAt: new(Now.AddDate(0, -6, 0)),
		},
	}
	var entries []models.AuditEntry
	for i := range 8 {
		entries = append(entries, models.AuditEntry{
			At: Now.Add(time.Duration(-i*7) * time.Hour), Actor: models.ActorShell, Action: "user.set",
			Subject: "alma.teapot@example.com", Detail: "role admin",
		})
	}
	operator := frame(ui.Viewer{Organization: "Lantern and Kettle", Admin: true, Operator: true})
	ops := views.Ops{
		Frame: operator, Catalogue: Catalogue(t),
		Refusals: views.Loaded([]models.RefusalCount{
			{Reason: models.IncludedExhausted, Count: 1204}, {Reason: models.SpendLimitReached, Count: 3},
		}),
		Keys: views.Loaded(keys), Audit: views.Loaded(views.AuditLog{Entries: entries, Page: 2, Last: 5})}
	ops.Unit, ops.Stripe = c.UnitPlural, views.Loaded(opsStripe())
	pages["ops"] = views.OpsPage(ops)
	pages["ops-stopped"] = views.OpsPage(opsStopped(ops))
	ops.NewKey = "tg_live_made0up0for0this0picture0only00000x7Ab"
	pages["ops-new-key"] = views.OpsPage(ops)
	ops.NewKey, ops.Form = "", views.KeyForm{Token: "0199f1d2-0000-7000-8000-000000000021", Sent: true} //nolint:gosec // not a secret
	ops.Frame.Errors = []ui.FormError{
		{Field: views.FieldIDKeyName, Message: "Enter a name of 1 to 100 printable characters."},
		{Field: views.FieldIDScope, Message: "Select at least one scope."},
	}
	ops.Keys, ops.Audit = views.Loaded[[]models.APIKey](nil), views.Loaded(views.AuditLog{Page: 1, Last: 1})
	pages["ops-new"] = views.OpsPage(ops)
	ops.Form, ops.Frame.Errors = views.KeyForm{Name: "Reports", Scopes: []models.Scope{models.ScopeRead}, Sent: true}, nil
	ops.Frame.Notices = []ui.Notice{{
		Kind: ui.Caution, Focus: true, Title: "No second API key was created", Text: "This form already created the key “Slack app”.",
	}}
	ops.Keys, ops.Audit = views.Loaded(keys), views.Loaded(views.AuditLog{Entries: entries, Page: 1, Last: 1})
	pages["ops-key-exists"] = views.OpsPage(ops)
	ops.Frame.Notices = nil
	pages["ops-key-revoke"] = views.KeyRevokePage(views.KeyRevoke{Frame: operator, Key: keys[0]})
	ops.Keys.Failed, ops.Audit.Failed, ops.Stripe.Failed = requestID, requestID, requestID
	pages["ops-failed"] = views.OpsPage(ops)

	out := ui.Frame{Now: Now}
	pages["landing"] = views.LandingPage(views.Landing{Frame: out, Catalogue: c, SignIn: views.SignIn{Issuer: "Slack"}})
	locked := views.SignIn{Issuer: "Slack", Unavailable: true}
	pages["landing-locked"] = views.LandingPage(views.Landing{Frame: out, Catalogue: c, SignIn: locked})
	pages["sign-in"] = views.SignInPage(views.SignIn{Frame: out, Issuer: "Slack", Next: "/org/members?q=a&level=safe"})
	pages["sign-in-away"] = views.SignInPage(views.SignIn{Frame: out, Issuer: "Slack", Away: true})
	pages["sign-in-locked"] = views.SignInPage(views.SignIn{Frame: out, Issuer: "Slack", Unavailable: true})
	pages["sign-in-link"] = views.SignInLinkPage(views.SignInLink{
		Frame: out, Email: "hugo.umbrella@example.com", Instead: "alma.teapot@example.com",
	})
	pages["sign-in-link-used"] = views.ErrorPage(views.Error{
		Frame: out, Status: 404, Title: "This link does not work", SignIn: true, RequestID: requestID,
		Detail: "This link was used before, is older than 10 minutes, or is not complete. Ask whoever sent it for a new one.",
	})

	pages["error-403"] = views.ErrorPage(views.Error{
		Frame: frame(ui.Viewer{Organization: "Lantern and Kettle"}), Status: 403, RequestID: requestID,
		Admins: []views.Person{{Name: "Alma Teapot", Email: "alma.teapot@example.com"}, {Email: "bruno.paperclip@example.com"}},
	})
	for _, status := range []int{404, 500, 503} {
		pages["error-"+strconv.Itoa(status)] = views.ErrorPage(views.Error{Frame: out, Status: status, RequestID: requestID})
	}
	check := views.DocsOperation{
		ID: "check", Method: "POST", Path: "/v1/check", Summary: "Check whether a person may use more",
		Description: "Returns the decision and records nothing.", Scope: "check",
		Example:  "curl https://tollgate.example/v1/check \\\n  -H 'Authorization: Bearer tg_live_…'",
		Request:  []views.DocsField{{Name: "email", Type: "string"}},
		Response: []views.DocsField{{Name: "allowed", Type: "boolean", Description: "Whether the person may use the units.", Required: true}},
	}
	consume := check
	consume.ID, consume.Path, consume.Summary, consume.Scope = "consume", "/v1/consume", "Decide and record", "consume"
	pages["docs"] = views.DocsPage(views.Docs{
		Operations: []views.DocsOperation{check, consume},
		Errors:     []views.DocsError{{Code: "invalid_request", Status: "422", Title: "The request is not valid"}},
	})
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
