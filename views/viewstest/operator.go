package viewstest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/a-h/templ"
	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
)

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
	pages := map[string]templ.Component{
		"people":      views.OpsPeoplePage(views.OpsPeople{Frame: operator, Search: "example", People: views.Loaded(people), More: true}),
		"people-none": views.OpsPeoplePage(views.OpsPeople{Frame: operator, Search: "<b>missing"}),
		"people-failed": views.OpsPeoplePage(views.OpsPeople{
			Frame: operator, People: views.Widget[[]models.UserEntry]{Failed: requestID},
		}),
	}
	maps.Copy(pages, personPages(t, operator, people[1], people[0]))
	maps.Copy(pages, voidPages(t, operator, people[1]))
	return pages
}

// personPages returns the states of a person's page: a member of an organization, and a person
// without one.
func personPages(t testing.TB, operator ui.Frame, bruno, alma models.UserEntry) map[string]templ.Component {
	t.Helper()
	bruno.Role = models.Admin
	own := Member(t, "business", 118, 100)
	own.Frame, own.ReadOnly = operator, true
	business := models.Subscription{
		ID: uuid.NewSHA1(uuid.NameSpaceURL, []byte("business")), OrganizationID: bruno.OrganizationID, PlanID: "business",
		Status: models.StatusActive, CreatedAt: Now.AddDate(0, -4, 0),
	}
	pro := models.Subscription{
		ID: uuid.NewSHA1(uuid.NameSpaceURL, []byte("pro")), UserID: &bruno.ID, PlanID: "pro", Status: models.StatusPastDue,
		StripeSubscriptionID: new("sub_1MadeUpForThisPicture00"), CreatedAt: Now.AddDate(-1, 0, 0),
	}
	d := views.OpsPerson{
		Person: bruno, Usage: own, Subscriptions: views.Loaded([]models.Subscription{business, pro}), OnlyAdmin: true,
		Identities: models.Identities{
			Email: bruno.Email, UserID: bruno.ID, Slack: models.SlackIdentity{TeamID: "T0LANTERN", UserID: "U0BRUNO"},
		},
		GrantForm: views.GrantForm{Token: "0199f1d2-0000-7000-8000-000000000031"}, //nolint:gosec // not a secret
		Grants: views.Loaded([]models.UsageGrant{
			{
				Quantity: 1000, Reason: "Outage on Nov 3", GrantedBy: "hugo.umbrella@example.com", CreatedAt: Now.AddDate(0, 0, -19),
				ExpiresAt: new(Now.AddDate(0, 0, -9)), EndedAt: new(Now.AddDate(0, 0, -9)), TakenBack: 982,
			},
			{Quantity: 5, Reason: strings.Repeat("Apology ", 12), GrantedBy: models.ActorShell, CreatedAt: Now.AddDate(0, 0, -2)},
			{
				Quantity: 25, Reason: "Pilot", GrantedBy: "API key Support", CreatedAt: Now,
				ExpiresAt: new(Now.AddDate(0, 0, 5)),
			},
		}),
	}
	d.Usage.Frame.Notices = []ui.Notice{{Kind: ui.Done, Title: "Grant added"}}
	pages := map[string]templ.Component{"person": views.OpsPersonPage(d)}

	d.Usage.Frame.Notices = nil
	d.GrantForm.Quantity, d.GrantForm.LastDay = "-5", "2026-12-24"
	d.EnteredPlan, d.EnteredRole = "team", "member"
	d.Usage.Frame.Errors = []ui.FormError{
		{Field: views.FieldIDGrantQuantity, Message: "Enter a whole number from 1 to 1,000,000."},
		{Field: views.FieldIDGrantReason, Message: "Enter a reason of 1 to 255 printable characters."},
		{Field: views.FieldIDGrantLastDay, Message: "A grant ends with the billing period. Enter 2026-11-30 or earlier."},
		{Field: views.FieldIDPlan, Message: "Someone else changed this plan in the meantime. Check it and try again."},
		{Field: views.FieldIDOpsRole, Message: "Someone else changed this role in the meantime. Check it and try again."},
	}
	pages["person-errors"] = views.OpsPersonPage(d)

	alone := Member(t, "free", 2, 5)
	alone.Frame, alone.ReadOnly, alone.Organization = operator, true, ""
	pages["person-alone"] = views.OpsPersonPage(views.OpsPerson{
		Person: alma, Usage: alone, Identities: models.Identities{Email: alma.Email, UserID: alma.ID},
	})
	alone.Standing.Failed = requestID
	pages["person-failed"] = views.OpsPersonPage(views.OpsPerson{
		Person: alma, Usage: alone, Grants: views.Widget[[]models.UsageGrant]{Failed: requestID},
		Subscriptions: views.Widget[[]models.Subscription]{Failed: requestID},
	})
	end := views.PlanEnd{Frame: operator, Plan: plan(t, "business"), Person: bruno, Subscription: business}
	end.Frame.Prefix = "Confirm: "
	pages["person-plan-end"] = views.PlanEndPage(end)
	return pages
}

// voidPages returns the operator's list of a person's events, and the page that asks for
// confirmation.
func voidPages(t testing.TB, operator ui.Frame, bruno models.UserEntry) map[string]templ.Component {
	t.Helper()
	list := Activity(t, operator)
	list.Path, list.Back = views.PathOpsActivity(bruno.ID), views.PathOpsPerson(bruno.ID)
	list.Name, list.Email = bruno.Name, bruno.Email
	list.Operator = &views.OpsActivity{Person: bruno.ID, Voids: map[uuid.UUID]models.UsageVoid{}}
	events := slices.Clone(list.Page.Value.Events)
	states := []models.UsageVoid{
		{State: models.VoidNotReported}, {State: models.VoidReported},
		{State: models.VoidCredited, CreditNoteID: new("cn_1MadeUp")}, {State: models.VoidNotBilled},
		{State: models.VoidWaiting}, {State: models.VoidWaiting, LastError: new(refusedCredit)},
	}
	for i := range events {
		events[i].ID = uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "event %d", i))
		events[i].IdempotencyKey = new(fmt.Sprintf("message %d", i))
		if i < len(states) {
			events[i].VoidedAt, events[i].VoidReason = new(Now.Add(-time.Hour)), new("sent twice")
		}
		if events[i].VoidedAt != nil {
			v := states[i%len(states)]
			v.VoidedBy = []string{"hugo.umbrella@example.com", models.ActorShell}[i%2]
			list.Operator.Voids[events[i].ID] = v
		}
	}
	list.Page.Value.Events = events
	list.Frame.Notices = []ui.Notice{{Kind: ui.Done, Title: "Event voided"}}
	d := views.OpsVoid{
		Frame: operator, Catalogue: list.Catalogue, Person: bruno,
		Event: models.UsageEvent{
			Quantity: 3, OverageQuantity: 2, OverageCents: 40, OccurredAt: Now.AddDate(0, 0, -3),
			IdempotencyKey: new("message " + strings.Repeat("0123456789", 12)), StripeReportID: &bruno.ID,
		},
	}
	d.Frame.Prefix = "Confirm: "
	pages := map[string]templ.Component{"person-activity": views.ActivityPage(list), "person-void": views.OpsVoidPage(d)}
	d.Frame.Errors = []ui.FormError{{Field: views.FieldIDVoidReason, Message: "Enter a reason of 1 to 255 printable characters."}}
	d.Event.IdempotencyKey, d.Event.HoldID, d.Event.StripeReportID, d.Event.Quantity = nil, &bruno.ID, nil, 1
	d.Event.OverageQuantity, d.Event.OverageCents = 1, 20
	pages["person-void-error"] = views.OpsVoidPage(d)
	d.Frame.Errors, d.Event.StripeCustomerID = nil, new("cus_example")
	pages["person-void-unreported"] = views.OpsVoidPage(d)
	return pages
}
