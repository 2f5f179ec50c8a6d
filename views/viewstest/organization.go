package viewstest

import (
	"maps"
	"slices"
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
		Subscription: views.Subscription{Plan: business, Status: models.StatusActive, Manageable: true, ForMembers: true, StripeConnected: true},
		Summary:      views.Loaded(summary), Cost: views.Loaded(views.OrgCost{
			Seats: 42, Subscribed: true, Overage: models.Overage{Units: 36, Cents: 720}, People: 3,
			Forecast: &models.Overage{Units: 97, Cents: 1940},
		}),
		Days:   views.Loaded(charts.Daily{Period: november, Now: Now, Used: spread(1804, 23), Previous: spread(1990, 31), Included: 4200}),
		Months: views.Loaded(Months(4200, 1804, 1, 0, 51, 44, 60, 47)),
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
	quiet.Summary = views.Loaded(models.OrganizationSummary{
		Name: summary.Name, Plan: "business", Period: november, HasPlan: true, TotalUsers: 1,
	})
	quiet.Cost, quiet.Subscription.StripeConnected = views.Loaded(views.OrgCost{Seats: 1, Subscribed: true}), false
	quiet.Refused = views.Loaded(views.RefusedMembers{})
	quiet.Days.Value.Used, quiet.Days.Value.Previous = nil, nil
	quiet.Months = views.Loaded(Months(100, 0, 5))
	pages["org-new"] = views.OrgPage(quiet)
	given := org
	given.Subscription = views.Subscription{Plan: business, Status: models.StatusActive, ByHand: true, ForMembers: true}
	given.Cost.Value.Seats, given.Cost.Value.Subscribed = 37, false
	pages["org-by-hand"] = views.OrgPage(given)
	trying := org
	trial(&trying.Subscription)
	trying.Cost = views.Loaded(views.OrgCost{Seats: 42, Subscribed: true, Forecast: &models.Overage{}})
	trying.Months = views.Loaded(Months(4200, 1804, 5))
	trying.Days = views.Loaded(charts.Daily{Period: trialPeriod, Now: Now, Used: spread(1804, 15), Included: 4200})
	trying.Summary.Value.Period, trying.Summary.Value.TopUsers = trialPeriod, slices.Clone(summary.TopUsers[3:])
	trying.Summary.Value.OverageRateCents = 0
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
	none.Page.Value.DeletedBefore = &november.Start
	pages["activity-deleted"] = views.ActivityPage(none)
	member := views.OrgMember{
		Frame: admin, Catalogue: c, Organization: summary.Name, Name: "Alma Teapot", Email: "alma.teapot@example.com",
		Role: models.Admin, SignedUp: Now.AddDate(-1, 0, 0), Plan: business, HasPlan: true,
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
		saved := ui.Notice{Kind: ui.Done, Title: "Spend limit saved", Text: views.SpendConsequence(d.Catalogue, d.Summary.Value, 5000)}
		d.Frame.Notices = []ui.Notice{saved}
	})
	add("limit-applying", fifty, &models.OrganizationRecord{}, nothing)
	reached := new(int64(730))
	add("limit-paused", reached, &models.OrganizationRecord{OverageCents: 720, Counted: true, SpendLimitCents: reached}, nothing)
	add("limit-past-due", reached, &models.OrganizationRecord{OverageCents: 720, Counted: true, SpendLimitCents: reached}, func(d *views.Org) {
		d.Summary.Value.PastDue, d.Subscription.Status = true, models.StatusPastDue
	})
	add("limit-confirm", reached, &models.OrganizationRecord{OverageCents: 720, OverageCentsHeld: 60, Counted: true}, func(d *views.Org) {
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
		d.Plan, d.Subscription = d.Catalogue.Free(), views.Subscription{Plan: d.Catalogue.Free(), ForMembers: true}
		d.Summary.Value.HasPlan, d.Summary.Value.OverageRateCents, d.Summary.Value.OverageCents = false, 0, 0
		d.MemberForm = views.LimitForm{Sent: true, Choice: views.ChoiceNone, Entered: "60"}
		d.Frame.Errors = []ui.FormError{{
			Field:   views.FieldIDOrgMemberLimit,
			Message: "You entered a limit, but selected the first option. Select the second option, or clear the field.",
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
