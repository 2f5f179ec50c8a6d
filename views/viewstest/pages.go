// Package viewstest draws every page in every state for tests, from made-up figures and with a
// fixed clock.
package viewstest

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/a-h/templ"
	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/views"
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

// NoneIncluded returns the catalog, but Pro includes no units. The test's package is in a folder at the
// top level.
func NoneIncluded(t testing.TB) *models.Catalogue {
	t.Helper()
	plans, err := os.ReadFile("../models/plans.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "plans.yaml")
	changed := bytes.Replace(plans, []byte("    included: 75\n"), []byte("    included: 0\n"), 1)
	if err := os.WriteFile(file, changed, 0o600); err != nil { //nolint:gosec // the path is the test's own
		t.Fatal(err)
	}
	c, err := models.LoadCatalogue(file)
	if err != nil || !c.IncludesNone("pro") {
		t.Fatalf("the catalog: %v", err)
	}
	return c
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

// trialPeriod is a trial of 30 days. In Stripe, a trial is one billing period.
var trialPeriod = models.Period{
	Start: time.Date(2026, 11, 9, 15, 20, 0, 0, time.UTC), End: time.Date(2026, 12, 9, 15, 20, 0, 0, time.UTC),
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

var names = strings.Fields(`
	Alma_Teapot Bruno_Paperclip Cora_Lamplight Dario_Windowsill Elsa_Buttonhole Felix_Doormat Greta_Inkpot Hugo_Umbrella
	Ida_Candlestick Jonas_Wheelbarrow Klara_Matchbox Leo_Birdhouse Mira_Thimble Nico_Hammock Olga_Snowglobe
	Paul_Weathervane Quinn_Bookend Rosa_Kettledrum Sami_Lighthouse Tilda_Wristwatch Ugo_Pinecone Vera_Hourglass
	Wim_Gingerbread Xenia_Clothespin Yara_Tambourine`)

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
	d.MayBuyTeam, d.Manages = true, true
	add := func(name string, d views.Plans) {
		own := d.Current
		d.Own = &own
		pages[name] = views.PlansPage(d)
	}
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
	add("plans-paid", d)
	d.Team = &views.Subscription{Plan: plan(t, "team"), Status: models.StatusUnpaid, Suspended: true, Shared: true, Manageable: true}
	add("plans-unpaid-team", d)
	d.Team = nil
	given := d
	given.Current = views.Subscription{
		Plan: plan(t, "business"), Status: models.StatusActive, Organization: "Lantern and Kettle", Shared: true, ByHand: true, OwnPlan: "Pro",
	}
	given.Own = &views.Subscription{Plan: plan(t, "pro"), Status: models.StatusActive, Manageable: true}
	pages["plans-by-hand"] = views.PlansPage(given)
	d.Current.EndsAt = new(november.End)
	add("plans-ending", d)
	d.Current.EndsAt = nil
	trying := d
	trial(&trying.Current)
	add("plans-trial", trying)
	d.StripeConnected = false
	d.Costs = views.Widget[*views.PlanCosts]{Failed: requestID}
	add("plans-no-stripe", d)
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
			"You would pay for two plans, so nothing was bought.",
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
		Notices: views.Loaded(views.NoticesForm{
			Channels: []views.ChannelChoice{
				{Channel: models.ChannelSlack, On: true}, {Channel: models.ChannelMail, Hint: "To quinn.bookend.of.the.lantern@example.com"},
			},
			On: models.NoticesCritical | models.NoticesLimit, Admin: true,
		}),
	}
	settings.Frame.Notices = []ui.Notice{{Kind: ui.Done, Title: "Session ended"}}
	pages := map[string]templ.Component{"settings": views.SettingsPage(settings)}
	settings.Frame.Notices = nil
	settings.Frame.Errors = []ui.FormError{{
		Field: views.FieldIDLevel, Message: "Select at least one level, or clear all channels to get no notices.",
	}}
	settings.Notices.Value.On = 0
	pages["settings-no-level"] = views.SettingsPage(settings)
	pages["unsubscribe"] = views.UnsubscribePage(views.Unsubscribe{Action: views.PathUnsubscribe + "?token=made-up"})
	pages["unsubscribed"] = views.UnsubscribePage(views.Unsubscribe{Done: true})
	settings.Notices = views.Loaded(views.NoticesForm{})
	settings.Frame = frame(ui.Viewer{})
	settings.Notice, settings.Sessions = views.Loaded(""), views.Loaded(sessions[:1])
	pages["settings-alone"] = views.SettingsPage(settings)
	settings.Notice.Failed, settings.Sessions.Failed, settings.Notices.Failed = requestID, requestID, requestID
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
		e := models.AuditEntry{
			At: Now.Add(time.Duration(-i*7) * time.Hour), Actor: models.ActorShell, Action: "user.set",
			Subject: "alma.teapot@example.com", Detail: "role admin",
		}
		if i%3 == 1 {
			e.Actor, e.Action, e.Subject = "hugo.umbrella@example.com", "event.void", "0199f1d2-0000-7000-8000-000000000041"
			e.Detail = "3 units, $0.60, of quinn.bookend@example.com: recorded for the wrong person"
		}
		if i%3 == 2 {
			e.Actor, e.Subject = "hugo.umbrella@example.com", "quinn.bookend.of.the.lantern@example.com"
			e.Detail = "member limit from the organization's default to 1,200, role from member to admin"
		}
		entries = append(entries, e)
	}
	operator := frame(ui.Viewer{Organization: "Lantern and Kettle", Admin: true, Operator: true})
	ops := views.Ops{
		Frame: operator, Catalogue: Catalogue(t),
		Refusals: views.Loaded([]models.RefusalCount{
			{Reason: models.IncludedExhausted, Count: 1204}, {Reason: models.SpendLimitReached, Count: 3},
		}),
		Keys: views.Loaded(keys), Audit: views.Loaded(views.AuditLog{Entries: entries, Page: 2, Last: 5})}
	ops.Unit, ops.Stripe = c.UnitPlural, views.Loaded(opsStripe())
	ops.Notices = views.Loaded(opsNotices())
	pages["ops"] = views.OpsPage(ops)
	pages["ops-stopped"] = views.OpsPage(opsStopped(ops))
	ops.NewKey = "tg_live_made0up0for0this0picture0only00000x7Ab"
	pages["ops-new-key"] = views.OpsPage(ops)
	ops.NewKey, ops.NewSecret = "", "whsec_made0up0for0this0picture0only000000000000000"
	pages["ops-new-webhook"] = views.OpsPage(ops)
	pages["ops-webhook-remove"] = views.WebhookRemovePage(views.WebhookRemove{Frame: operator, Endpoint: opsNotices().Endpoints[1]})
	ops.NewSecret, ops.Notices = "", views.Loaded(views.OpsNotices{})
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
	ops.Keys.Failed, ops.Audit.Failed, ops.Stripe.Failed, ops.Notices.Failed = requestID, requestID, requestID, requestID
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
		Admins: []views.Person{
			{Name: "Alma Teapot", Email: "alma.teapot@example.com"}, {Email: "bruno.paperclip@example.com"}, {Email: "u7@t1.slack.invalid"},
		},
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
		Errors: []views.DocsError{
			{Code: "invalid_request", Status: "422", Meaning: "Some fields are invalid. See errors in the response, which lists at most 100."},
		},
	})
	return pages
}
