package web

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/models/billing/stripetest"
	"tollgate/models/modelstest"
	"tollgate/views"
)

// withStripe runs a test with a server that is connected to a stand-in for Stripe, which is set up.
func withStripe(t *testing.T, test func(t *testing.T, f *fixture, stand *stripetest.Stripe)) {
	t.Helper()
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		var stand *stripetest.Stripe
		f := newFixture(t, address, func(o *Options) {
			stand = stripetest.New(stripetest.Options{Now: o.Now, Rand: rand.New(rand.NewPCG(1, 2))})
			client, err := billing.NewClient(billing.ClientOptions{Key: "sk_test_1", Transport: stand.Transport()})
			must(t, err)
			log := slog.New(slog.DiscardHandler)
			_, err = billing.Setup(t.Context(), billing.SetupOptions{
				DB: o.DB, Client: client, Catalogue: o.Catalogue, Now: o.Now, BaseURL: o.BaseURL,
			})
			must(t, err)
			o.Shop = billing.NewShop(billing.ShopOptions{
				DB: o.DB, Client: client, Catalogue: o.Catalogue, Now: o.Now, BaseURL: o.BaseURL, Log: log,
			})
			o.Webhooks = billing.NewWebhooks(billing.WebhookOptions{
				DB: o.DB, Client: client, Catalogue: o.Catalogue, Secret: webhookSecret, Now: o.Now, Random: func() float64 { return 0.5 }, Log: log,
			})
			o.Webhooks.Start(context.Background())
			t.Cleanup(o.Webhooks.Stop)
		})
		test(t, f, stand)
	})
}

// receiveWebhook sends the server a webhook about an object of the stand-in.
func (f *fixture) receiveWebhook(stand *stripetest.Stripe, kind, id string) {
	f.t.Helper()
	body, _ := stand.SignedEvent(webhookSecret, f.clock(), kind, stand.Object(id))
	f.webhook(string(body), f.clock()).want(f.t, 200, nil)
}

// buys buys a plan and returns the ID of its subscription.
func (b *browser) buys(stand *stripetest.Stripe, plan string) (bought string) {
	b.f.t.Helper()
	address := b.post(views.PathCheckout, url.Values{"plan": {plan}}).left(b.f.t)
	bought = stand.CompleteCheckout(address[strings.LastIndex(address, "/")+1:])
	b.f.receiveWebhook(stand, "customer.subscription.created", bought)
	return bought
}

// left returns the external address that a page redirects to.
func (p page) left(t testing.TB) string {
	t.Helper()
	address := p.header.Get("Location")
	if p.status != http.StatusSeeOther || address == "" {
		t.Fatalf("it does not redirect to another site: %s %v %s", p.kind(), p.header, p.main())
	}
	return address
}

// buttons returns the labels of a page's forms that post to an address.
func (p page) buttons(action string) (labels []string) {
	for form := range elements(p.document(), "form") {
		if attribute(form, "action") == action {
			labels = append(labels, textOf(form))
		}
	}
	return labels
}

func has(n *html.Node, text string) bool { return strings.Contains(textOf(n), text) }

func TestBuyingAPlan(t *testing.T) {
	withStripe(t, func(t *testing.T, f *fixture, stand *stripetest.Stripe) {
		b := f.signedIn("ada@example.com")
		if p := b.get("/plans"); strings.Contains(p.main(), "not connected") || len(p.buttons(views.PathCheckout)) != 2 ||
			len(p.buttons(views.PathPortal)) != 0 {
			t.Errorf("before: %v %s", p.buttons(views.PathCheckout), p.main())
		}
		if p := f.browser().post(views.PathCheckout, url.Values{"plan": {"pro"}}); p.kind() != "See Other /sign-in" {
			t.Errorf("signed out: %s", p.kind())
		}
		for _, plan := range []string{"", "free", "gold"} {
			if p := b.post(views.PathCheckout, url.Values{"plan": {plan}}); p.status != http.StatusBadRequest {
				t.Errorf("the plan %q: %s", plan, p.kind())
			}
		}
		if p := b.post(views.PathPortal, nil); p.status != http.StatusNotFound || !strings.Contains(p.main(), "Nothing to manage") {
			t.Errorf("the portal without a customer: %s %s", p.kind(), p.main())
		}
		address := b.post(views.PathCheckout, url.Values{"plan": {"pro"}}).left(t)
		if again := b.post(views.PathCheckout, url.Values{"plan": {"pro"}}).left(t); again != address {
			t.Errorf("a double click redirects to %s and %s", address, again)
		}
		session := address[strings.LastIndex(address, "/")+1:]
		back := views.PathReturn + "?plan=pro&session_id=" + session
		// Before the webhook, the page waits by itself. In the end, it explains what to do.
		p := b.get(back)
		for range returnTries - 1 {
			next, ok := strings.CutPrefix(p.header.Get("Refresh"), "2; url=")
			if p.status != http.StatusOK || !ok || p.find("a", "href", next) == nil || !strings.Contains(p.main(), "One moment") {
				t.Fatalf("it waits: %s %v %s", p.kind(), p.header, p.main())
			}
			p = b.get(next)
		}
		if p.header.Get("Refresh") != "" || !strings.Contains(p.main(), "This is taking longer than usual") ||
			!strings.Contains(p.main(), session) {
			t.Errorf("at last: %v %s", p.header, p.main())
		}
		bought := stand.CompleteCheckout(session)
		if p := b.post(views.PathCheckout, url.Values{"plan": {"starter"}}); p.kind() != "See Other https://tollgate.example.com"+back {
			t.Errorf("another plan before the webhook: %s %s", p.kind(), p.main())
		}
		f.receiveWebhook(stand, "customer.subscription.created", bought)
		if p := b.get(back); p.kind() != "See Other /plans" {
			t.Errorf("after the webhook: %s %s", p.kind(), p.main())
		}
		customer := stand.Object(bought)["customer"].(string)
		stand.AddInvoice(stripetest.Invoice{
			Customer: customer, Number: "A-1", Status: "paid", Currency: "usd", Total: 1800, Created: f.clock(),
			HostedURL: "https://invoice.example.com/1",
		})
		p = b.get("/plans")
		if !strings.Contains(p.main(), "Your plan is now Pro.") || len(p.buttons(views.PathPortal)) == 0 ||
			len(p.buttons(views.PathCheckout)) != 0 {
			t.Errorf("bought: %s", p.main())
		}
		if rows := table(p.section("invoices")); len(rows) != 2 || strings.Join(rows[1], " ") != "A-1 Nov 23, 2026 $18.00 Paid" ||
			p.find("a", "href", "https://invoice.example.com/1") == nil {
			t.Errorf("the invoices: %q", rows)
		}
		if p := b.get("/usage"); len(p.buttons(views.PathPortal)) != 1 || strings.Contains(p.main(), "not connected") {
			t.Errorf("/usage: %s", p.main())
		}
		p = b.post(views.PathCheckout, url.Values{"plan": {"starter"}})
		if p.status != http.StatusConflict || !strings.Contains(p.main(), "You already have a subscription") ||
			len(p.buttons(views.PathPortal)) != 1 {
			t.Errorf("a second one: %s %s", p.kind(), p.main())
		}
		if address := b.post(views.PathPortal, nil).left(t); stand.Object(address[strings.LastIndex(address, "/")+1:])["customer"] != customer {
			t.Errorf("the portal is at %s", address)
		}
		// The page shows a past due payment and the end of the plan.
		stand.ChangeSubscription(bought, func(s *stripetest.Subscription) { s.Status = "past_due" })
		f.receiveWebhook(stand, "invoice.payment_failed", bought)
		if p := b.get("/usage"); !strings.Contains(p.main(), "The last payment failed") || len(p.buttons(views.PathPortal)) != 2 {
			t.Errorf("past due: %s", p.main())
		}
		stand.ChangeSubscription(bought, func(s *stripetest.Subscription) { s.Status, s.CancelAtPeriodEnd = "active", true })
		f.receiveWebhook(stand, "customer.subscription.updated", bought)
		if p := b.get("/usage"); !strings.Contains(p.main(), "Pro is canceled It stays active until Dec 23, 2026") {
			t.Errorf("about to end: %s", p.main())
		}
		// An unpaid subscription gives no plan, and must be paid or ended before another purchase.
		stand.ChangeSubscription(bought, func(s *stripetest.Subscription) { s.Status, s.CancelAtPeriodEnd = "unpaid", false })
		f.receiveWebhook(stand, "customer.subscription.updated", bought)
		p = b.get("/usage")
		says(t, "unpaid", p.main(), []string{"The subscription is unpaid", "Until it is active again, you are on the free plan."},
			[]string{"has ended", "See plans"})
		if len(p.buttons(views.PathPortal)) == 0 {
			t.Error("an unpaid subscription cannot be paid")
		}
		says(t, "the plans", b.get("/plans").main(),
			[]string{"Your subscription is unpaid. First continue or cancel it under “Invoices and payment”."}, []string{"You already pay"})
		stand.ChangeSubscription(bought, func(s *stripetest.Subscription) { s.Status, s.EndedAt = "canceled", f.clock() })
		f.receiveWebhook(stand, "customer.subscription.deleted", bought)
		p = b.get("/usage")
		if !strings.Contains(p.main(), "The subscription has ended") || !strings.Contains(p.main(), "Nov 23, 2026, 12:00 UTC") {
			t.Errorf("ended: %s", p.main())
		}
		// The invoices are still available, and a plan can be bought again.
		if p := b.get("/plans"); p.section("invoices") == nil || len(p.buttons(views.PathCheckout)) == 0 {
			t.Errorf("after the end: %s", p.main())
		}
		b.post(views.PathPortal, nil).left(t)
		if again := b.post(views.PathCheckout, url.Values{"plan": {"pro"}}).left(t); again == address {
			t.Error("a purchase that is over is offered again")
		}
	})
}

func TestBuyingAPlanForAnOrganization(t *testing.T) {
	withStripe(t, func(t *testing.T, f *fixture, stand *stripetest.Stripe) {
		cast := f.cast()
		ada, bob, eve, lea := cast["ada"](), cast["bob"](), cast["eve"](), cast["lea"]()
		team := url.Values{"plan": {"team"}}
		if p := bob.post(views.PathCheckout, team); outcome(p) != "ask ada" {
			t.Errorf("a member: %s", p.main())
		}
		if p := lea.post(views.PathCheckout, team); outcome(p) != "no organization" {
			t.Errorf("an admin of none: %s", p.main())
		}
		address := ada.post(views.PathCheckout, team).left(t)
		session := address[strings.LastIndex(address, "/")+1:]
		bought := stand.CompleteCheckout(session)
		f.receiveWebhook(stand, "customer.subscription.created", bought)
		back := views.PathReturn + "?plan=team&session_id=" + session
		if p := ada.get(back); p.kind() != "See Other /plans" {
			t.Errorf("back: %s", p.kind())
		}
		for name, b := range map[string]*browser{"bob": bob, "lea": lea} {
			if p := b.get(back); p.kind() != "See Other /plans" {
				t.Errorf("%s comes back: %s", name, p.kind())
			}
		}
		f.post("/v1/check", `{"email": "bob@example.com"}`).want(t, 200, map[string]any{"plan": "team", "included": 50})
		customer := stand.Object(bought)["customer"].(string)
		stand.AddInvoice(stripetest.Invoice{Customer: customer, Number: "T-1", Status: "open", Currency: "usd", Total: 2400, Created: f.clock()})
		// Its admin manages it, its members do not, and other people see none of it.
		if p := ada.get("/plans"); len(p.buttons(views.PathPortal)) == 0 || !has(p.section("invoices"), "T-1") {
			t.Errorf("ada: %s", p.main())
		}
		for name, b := range map[string]*browser{"bob": bob, "eve": eve, "lea": lea} {
			if p := b.get("/plans"); len(p.buttons(views.PathPortal)) != 0 || p.section("invoices") != nil {
				t.Errorf("%s: %s", name, p.main())
			}
			if p := b.post(views.PathPortal, nil); p.status != http.StatusNotFound {
				t.Errorf("%s at the portal: %s", name, p.kind())
			}
		}
		if got := stand.Object(bought)["items"].(map[string]any)["data"].([]any)[0].(map[string]any)["quantity"]; got == nil ||
			!strings.HasPrefix(textOfNumber(got), "2") {
			t.Errorf("seats: %v", got)
		}
		p := bob.post(views.PathCheckout, url.Values{"plan": {"pro"}})
		if p.status != http.StatusConflict || !strings.Contains(p.main(), "Your plan comes from Acme") {
			t.Errorf("an individual plan in addition: %s %s", p.kind(), p.main())
		}
		if p := ada.post(views.PathCheckout, url.Values{"plan": {"business"}}); p.status != http.StatusConflict ||
			len(p.buttons(views.PathPortal)) != 1 {
			t.Errorf("a second one: %s %s", p.kind(), p.main())
		}
		stand.ChangeSubscription(bought, func(s *stripetest.Subscription) { s.Status = "past_due" })
		f.receiveWebhook(stand, "invoice.payment_failed", bought)
		if p := ada.get("/org"); !strings.Contains(p.main(), "The last payment failed") || len(p.buttons(views.PathPortal)) != 1 ||
			strings.Contains(p.main(), "not connected") {
			t.Errorf("/org: %s", p.main())
		}
		if p := bob.get("/usage"); !strings.Contains(p.main(), "To update the payment method, ask an admin of Acme.") ||
			len(p.buttons(views.PathPortal)) != 0 {
			t.Errorf("bob past due: %s", p.main())
		}
		// Ada once bought a plan of her own. The organization's unpaid subscription is still the one that
		// the pages are about.
		own := f.user("ada@example.com").ID
		_, err := f.db.NewInsert().Model(&models.StripeCustomer{ID: "cus_of_ada", UserID: &own}).Exec(t.Context())
		must(t, err)
		stand.ChangeSubscription(bought, func(s *stripetest.Subscription) { s.Status = "unpaid" })
		f.receiveWebhook(stand, "customer.subscription.updated", bought)
		for _, path := range []string{"/org", "/usage", "/plans"} {
			p := ada.get(path)
			if path != "/plans" {
				says(t, path, p.main(), []string{"The subscription is unpaid"}, []string{"has ended"})
			}
			address := ada.sendForm(p, views.PathPortal, nil).left(t)
			if got := stand.Object(address[strings.LastIndex(address, "/")+1:])["customer"]; got != customer {
				t.Errorf("the portal from %s is that of %v", path, got)
			}
		}
		says(t, "bob's page", bob.get("/usage").main(),
			[]string{"The subscription is unpaid", "To continue or end it, ask an admin of your organization."}, []string{"has ended"})
		says(t, "bob's plans", bob.get("/plans").main(), []string{"Only admins can buy a team plan for your organization."}, nil)
	})
}

func textOfNumber(v any) string {
	if n, ok := v.(interface{ String() string }); ok {
		return n.String()
	}
	return ""
}

// A person who already paid for a plan keeps paying for it after their organization bought one. The
// pages say so, and open the portal in which the person can cancel it.
func TestAPlanOfOnesOwnBesideTheOrganizations(t *testing.T) {
	withStripe(t, func(t *testing.T, f *fixture, stand *stripetest.Stripe) {
		ada := f.cast()["ada"]()
		own := ada.buys(stand, "pro")
		says(t, "before the purchase", ada.get("/plans").main(), []string{
			"You buy one seat for each current member: 2 seats × $20.00 = $40.00 per month, before tax.",
			"Your own subscription to Pro then has no effect"}, nil)
		if p := ada.get("/usage"); strings.Contains(p.main(), "your own subscription") {
			t.Errorf("the own plan has an effect: %s", p.main())
		}
		team := ada.buys(stand, "team")
		for _, path := range []string{"/usage", "/plans"} {
			p := ada.get(path)
			says(t, path, p.main(), []string{"You also have your own subscription to Pro", "It has no effect while your plan comes from Acme."}, nil)
			address := ada.post(views.PathPortal, url.Values{"organization": {"false"}}).left(t)
			if got := stand.Object(address[strings.LastIndex(address, "/")+1:])["customer"]; got != stand.Object(own)["customer"] {
				t.Errorf("the portal of the own plan is that of %v", got)
			}
			if buttons := p.find("input", "value", "false"); buttons == nil {
				t.Errorf("%s has no button for the own plan", path)
			}
		}
		address := ada.post(views.PathPortal, url.Values{"organization": {"true"}}).left(t)
		if got := stand.Object(address[strings.LastIndex(address, "/")+1:])["customer"]; got != stand.Object(team)["customer"] {
			t.Errorf("the organization's portal is that of %v", got)
		}
		stand.ChangeSubscription(own, func(s *stripetest.Subscription) { s.CancelAtPeriodEnd = true })
		f.receiveWebhook(stand, "customer.subscription.updated", own)
		if p := ada.get("/usage"); strings.Contains(p.main(), "your own subscription") {
			t.Errorf("after it was canceled: %s", p.main())
		}
		again := ada.post(views.PathPortal, url.Values{"organization": {"false"}}).left(t)
		if got := stand.Object(again[strings.LastIndex(again, "/")+1:])["customer"]; got != stand.Object(own)["customer"] {
			t.Errorf("a second click opens the portal of %v", got)
		}
	})
}

// The page of plans knows the subscriptions that prevent a purchase, even if another one gives the
// viewer their plan, and its buttons open the portals in which they can be ended.
func TestPlansKnowEverySubscription(t *testing.T) {
	withStripe(t, func(t *testing.T, f *fixture, stand *stripetest.Stripe) {
		ada := f.cast()["ada"]()
		own, team := ada.buys(stand, "pro"), ada.buys(stand, "team")
		opens := func(what, of, bought string) {
			t.Helper()
			address := ada.post(views.PathPortal, url.Values{"organization": {of}}).left(t)
			if got := stand.Object(address[strings.LastIndex(address, "/")+1:])["customer"]; got != stand.Object(bought)["customer"] {
				t.Errorf("%s: the portal is that of %v", what, got)
			}
		}
		buttons := func(p page, value string) (n int) {
			for input := range elements(p.document(), "input") {
				if attribute(input, "name") == "organization" && attribute(input, "value") == value {
					n++
				}
			}
			return n
		}
		set := func(id, status string) {
			t.Helper()
			stand.ChangeSubscription(id, func(s *stripetest.Subscription) { s.Status = status })
			f.receiveWebhook(stand, "customer.subscription.updated", id)
		}

		// The organization's subscription gives no plan, so the person's own one does.
		set(team, "unpaid")
		p := ada.get("/plans")
		says(t, "an unpaid team", p.main(), []string{
			"Your organization's subscription is unpaid. First continue or cancel it with the button below.",
			"You already pay for Pro. To switch, cancel it under “Invoices and payment”.",
		}, []string{"You buy one seat"})
		if got := buttons(p, "true"); got != 2 { // one for each team plan
			t.Errorf("an unpaid team: %d buttons for its portal: %s", got, p.main())
		}
		acme := f.organizationOf("ada@example.com")
		_, err := f.db.NewInsert().Model(&models.StripeCustomer{
			ID: "cus_newer", OrganizationID: &acme, CreatedAt: f.clock().Add(time.Hour),
		}).Exec(t.Context())
		must(t, err)
		opens("the card of a team plan", "true", team)
		opens("the top of the page", "", own)
		for plan, status := range map[string]int{"team": http.StatusConflict, "starter": http.StatusConflict} {
			if got := ada.post(views.PathCheckout, url.Values{"plan": {plan}}).status; got != status {
				t.Errorf("an unpaid team, %s: %d", plan, got)
			}
		}

		// Neither gives a plan.
		set(own, "unpaid")
		p = ada.get("/plans")
		says(t, "both unpaid", p.main(), []string{"Your subscription is unpaid.", "Your organization's subscription is unpaid."}, nil)
		if both := buttons(p, "true") + buttons(p, "false"); both != 2 {
			t.Errorf("both unpaid: %d buttons: %s", both, p.main())
		}
		opens("the card of an individual plan", "false", own)
		refused := ada.post(views.PathCheckout, url.Values{"plan": {"starter"}}) // from a page that is out of date
		address := ada.sendForm(refused, views.PathPortal, nil).left(t)
		if got := stand.Object(address[strings.LastIndex(address, "/")+1:])["customer"]; got != stand.Object(own)["customer"] {
			t.Errorf("the refused purchase leads to the portal of %v", got)
		}

		// The operator assigned a plan to the organization, whose subscription is active again.
		set(team, "active")
		f.advance(time.Hour)
		f.subscribe(models.Subscriber{OrganizationID: &acme}, "business")
		p = ada.get("/plans")
		says(t, "a plan by hand", p.main(), []string{"You already pay for Team."}, []string{"You buy one seat"})
		if got := buttons(p, "true"); got != 1 { // Business is the current plan
			t.Errorf("a plan by hand: %d buttons: %s", got, p.main())
		}
		if got := ada.post(views.PathCheckout, url.Values{"plan": {"team"}}).status; got != http.StatusConflict {
			t.Errorf("a plan by hand: %d", got)
		}
	})
}

// A refusal by Stripe cannot be solved by trying again.
func TestStripeRefusesARequest(t *testing.T) {
	withStripe(t, func(t *testing.T, f *fixture, stand *stripetest.Stripe) {
		b := f.signedIn("ada@example.com")
		stand.SetFault(func(*http.Request, url.Values) stripetest.Fault { return stripetest.Refused })
		p := b.post(views.PathCheckout, url.Values{"plan": {"pro"}})
		if p.status != http.StatusBadGateway || p.header.Get("Retry-After") != "" {
			t.Errorf("%s %v", p.kind(), p.header)
		}
		says(t, "the page", p.main(), []string{"Stripe refused the request", "Nothing was bought or changed.", "Reference"},
			[]string{"Try again"})
	})
}

// If Stripe is unreachable, the pages work, and parts that need Stripe say so.
func TestStripeIsUnreachable(t *testing.T) {
	withStripe(t, func(t *testing.T, f *fixture, stand *stripetest.Stripe) {
		b := f.signedIn("ada@example.com")
		stand.AddCustomer("cus_1", map[string]string{"tollgate_email": "ada@example.com"})
		customer := models.StripeCustomer{ID: "cus_1", UserID: new(f.user("ada@example.com").ID), CreatedAt: f.clock()}
		must(t, f.db.NewInsert().Model(&customer).Scan(context.Background()))
		stand.SetOutage(true)
		if p := b.get("/plans"); p.status != 200 || p.section("invoices") != nil || strings.Contains(p.main(), "could not be loaded") {
			t.Errorf("/plans: %s %s", p.kind(), p.main())
		}
		for path, form := range map[string]url.Values{views.PathCheckout: {"plan": {"pro"}}, views.PathPortal: nil} {
			if p := b.post(path, form); p.status != http.StatusServiceUnavailable || !strings.Contains(p.main(), "Stripe is not responding") ||
				p.header.Get("Retry-After") == "" {
				t.Errorf("%s: %s %s", path, p.kind(), p.main())
			}
		}
		if p := b.get(views.PathReturn + "?plan=pro&session_id=cs_1&try=3"); p.status != 200 || !strings.Contains(p.main(), "One moment") {
			t.Errorf("back: %s %s", p.kind(), p.main())
		}
	})
}

func TestAKeyOfAnotherAccountSellsNothing(t *testing.T) {
	withStripe(t, func(t *testing.T, f *fixture, stand *stripetest.Stripe) {
		b := f.signedIn("ada@example.com")
		customer := models.StripeCustomer{ID: "cus_1", UserID: new(f.user("ada@example.com").ID), CreatedAt: f.clock()}
		must(t, f.db.NewInsert().Model(&customer).Scan(context.Background()))
		stand.SetAccount("acct_other")
		for path, form := range map[string]url.Values{views.PathCheckout: {"plan": {"pro"}}, views.PathPortal: nil} {
			if p := b.post(path, form); p.status != http.StatusServiceUnavailable || !strings.Contains(p.main(), "Billing is set up incorrectly") {
				t.Errorf("%s: %s %s", path, p.kind(), p.main())
			}
		}
		if calls := stand.Calls(); calls["POST /v1/checkout/sessions"]+calls["POST /v1/billing_portal/sessions"] != 0 {
			t.Errorf("the other account was sent %v", calls)
		}
	})
}

func TestWithoutStripeNothingIsSold(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	b := f.signedIn("ada@example.com")
	if p := b.get("/plans"); len(p.buttons(views.PathCheckout)) != 0 || !strings.Contains(p.main(), "Billing is not available here") {
		t.Errorf("/plans: %s", p.main())
	}
	for path, form := range map[string]url.Values{views.PathCheckout: {"plan": {"pro"}}, views.PathPortal: nil} {
		if p := b.post(path, form); p.status != http.StatusConflict || !strings.Contains(p.main(), "Billing is not available here") {
			t.Errorf("%s: %s %s", path, p.kind(), p.main())
		}
	}
	if p := b.get(views.PathReturn + "?plan=pro"); p.kind() != "See Other /plans" {
		t.Errorf("back: %s", p.kind())
	}
}
