package billing

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
)

// shopFixture has a shop whose Stripe is set up.
type shopFixture struct {
	*webhookFixture
	shop  *Shop
	stand *stripetest.Stripe
	ids   map[string]string
}

func onBothShops(t *testing.T, test func(f *shopFixture)) {
	t.Helper()
	onBothWebhooks(t, func(w *webhookFixture) {
		f := &shopFixture{webhookFixture: w}
		stand, client := standIn(w.T, func() time.Time { return w.at })
		f.stand, w.hook.client = stand, client
		f.shop = f.newShop(client)
		_, err := Setup(f.Context(), SetupOptions{DB: w.db, Client: client, Catalogue: w.hook.catalogue, Now: w.hook.clock,
			BaseURL: "https://tollgate.example.com"})
		f.must(err)
		f.ids, err = stripeObjects(f.Context(), w.db)
		f.must(err)
		test(f)
	})
}

// newShop returns the shop of one more process.
func (f *shopFixture) newShop(client *Client) *Shop {
	return NewShop(ShopOptions{
		DB: f.db, Client: client, Catalogue: f.hook.catalogue, Now: f.hook.clock, BaseURL: "https://tollgate.example.com",
		Log: slog.New(slog.DiscardHandler),
	})
}

func (f *shopFixture) buyer(email string) Buyer {
	f.Helper()
	u, err := models.SetUser(f.Context(), f.db, f.at, email, models.UserChange{})
	f.must(err)
	return Buyer{UserID: u.ID, Email: email}
}

func (f *shopFixture) planOf(id models.PlanID) models.Plan {
	f.Helper()
	plan, ok := f.shop.catalogue.Plan(id)
	if !ok {
		f.Fatalf("no plan %s", id)
	}
	return plan
}

// checkout starts a purchase and returns its session's ID.
func (f *shopFixture) checkout(buyer Buyer, plan models.PlanID) string {
	f.Helper()
	address, err := f.shop.Checkout(f.Context(), buyer, f.planOf(plan))
	f.must(err)
	return address[strings.LastIndex(address, "/")+1:]
}

// pay pays a purchase and applies Stripe's webhooks about it.
func (f *shopFixture) pay(session string) (subscription string) {
	f.Helper()
	subscription = f.stand.CompleteCheckout(session)
	if subscription == "" {
		f.Fatalf("%s is not open", session)
	}
	f.applyEvent("customer.subscription.created", f.stand.Object(subscription))
	f.applyEvent("checkout.session.completed", f.stand.Object(session))
	return subscription
}

// applyEvent receives an event that the stand-in signed, and applies it.
func (f *shopFixture) applyEvent(kind string, data map[string]any) {
	f.Helper()
	body, signature := f.stand.SignedEvent(webhookSecret, f.at, kind, data)
	e, err := f.hook.read(body, signature, models.Now(f.hook.clock))
	f.must(err)
	_, err = f.hook.store(f.Context(), e, f.at)
	f.must(err)
	f.must(f.hook.applyDue(f.Context()))
}

func TestAPersonBuysAPlan(t *testing.T) {
	onBothShops(t, func(f *shopFixture) {
		ada := f.buyer("ada@example.com")
		if _, err := f.shop.CustomerOf(f.Context(), ada); !errors.Is(err, ErrNoCustomer) {
			f.Errorf("before the purchase: %v", err)
		}
		first := f.checkout(ada, "pro")
		if again := f.checkout(ada, "pro"); again != first {
			f.Errorf("a double click made %s and %s", first, again)
		}
		if other := f.checkout(f.buyer("eve@example.com"), "pro"); other == first {
			f.Error("two people have one session")
		}
		session := f.stand.Object(first)
		if session["client_reference_id"] != "user:"+ada.UserID.String() || session["customer_email"] != "ada@example.com" ||
			session["customer"] != nil ||
			session["success_url"] != "https://tollgate.example.com/plans/return?plan=pro&session_id={CHECKOUT_SESSION_ID}" ||
			session["cancel_url"] != "https://tollgate.example.com/plans" {
			f.Errorf("the session is %v", session)
		}
		bought := f.pay(first)
		row := f.row(bought)
		if row == nil || *row.UserID != ada.UserID || *row.StripePriceID != f.ids["price:pro"] || row.Seats != nil {
			f.Fatalf("the row is %+v", row)
		}
		customer := *row.StripeCustomerID
		f.wantPlan("ada@example.com", "pro by "+customer)
		if arrived, err := f.shop.Arrived(f.Context(), ada, "pro"); err != nil || !arrived {
			f.Errorf("the plan arrived: %t, %v", arrived, err)
		}
		if arrived, err := f.shop.Arrived(f.Context(), ada, "starter"); err != nil || arrived {
			f.Errorf("another plan arrived: %t, %v", arrived, err)
		}
		for _, status := range []string{"active", "past_due", "unpaid", "paused"} {
			f.stand.ChangeSubscription(bought, func(s *stripetest.Subscription) { s.Status = status })
			f.applyEvent("customer.subscription.updated", f.stand.Object(bought))
			if _, err := f.shop.Checkout(f.Context(), ada, f.planOf("starter")); !errors.Is(err, ErrHasPlan) {
				f.Errorf("a second subscription next to one that is %s: %v", status, err)
			}
		}
		// The items have both prices, and the customer stays the same.
		for i, want := range []string{f.ids["price:pro"], f.ids["overage:pro"]} {
			items := f.stand.Object(bought)["items"].(map[string]any)["data"].([]any)
			if got := items[i].(map[string]any)["price"].(map[string]any)["id"]; got != want {
				f.Errorf("item %d has the price %v", i, got)
			}
		}
		f.stand.ChangeSubscription(bought, func(s *stripetest.Subscription) { s.Status = "canceled" })
		f.applyEvent("customer.subscription.deleted", f.stand.Object(bought))
		again := f.checkout(ada, "pro")
		if o := f.stand.Object(again); again == first || o["customer"] != customer || o["customer_email"] != nil {
			f.Errorf("bought again: %v", o)
		}
		// If the customer was deleted at Stripe without a webhook, a new one is created.
		f.stand.DeleteCustomer(customer)
		f.at = f.at.Add(sessionAge)
		if o := f.stand.Object(f.checkout(ada, "pro")); o["customer"] != nil || o["customer_email"] != "ada@example.com" {
			f.Errorf("after the customer was deleted: %v", o)
		}
	})
}

func TestATeamBuysSeats(t *testing.T) {
	onBothShops(t, func(f *shopFixture) {
		o, err := models.CreateOrganization(f.Context(), f.db, f.at, "Acme", []string{"T1"})
		f.must(err)
		join := func(n int) {
			f.Helper()
			for i := range n {
				f.link(models.Link{Email: fmt.Sprintf("u%d@example.com", i), Slack: models.SlackIdentity{TeamID: "T1", UserID: fmt.Sprint("U", i)}})
			}
		}
		admin := f.buyer("u0@example.com")
		admin.OrganizationID = &o.ID
		one := f.checkout(admin, "team")
		join(7)
		seven := f.checkout(admin, "team")
		if one == seven {
			f.Error("one seat and seven have one session")
		}
		wrote := f.stand.Calls()["POST /v1/prices"]
		bought := f.pay(seven)
		if n := f.stand.Calls()["POST /v1/prices"]; n != wrote {
			f.Errorf("a purchase made %d prices", n-wrote)
		}
		row := f.row(bought)
		if row == nil || *row.OrganizationID != o.ID || *row.Seats != 7 || row.PlanID != "team" {
			f.Fatalf("the row is %+v", row)
		}
		f.wantPlan("u3@example.com", "team by "+*row.StripeCustomerID)
		// The base price is for each seat, and the overage price is the same for any number of seats.
		items := f.stand.Object(bought)["items"].(object)["data"].([]any)
		for i, want := range []string{f.ids["price:team"], f.ids["overage:team"]} {
			if got := items[i].(object)["price"].(object)["id"]; got != want {
				f.Errorf("item %d has the price %v, want %s", i, got, want)
			}
		}
		if got := fmt.Sprintf("%v %v", items[0].(object)["quantity"], items[1].(object)["quantity"]); got != "7 <nil>" {
			f.Errorf("the quantities are %s", got)
		}
	})
}

func TestWhatCannotBeBought(t *testing.T) {
	onBothShops(t, func(f *shopFixture) {
		ada := f.buyer("ada@example.com")
		_, err := f.db.NewDelete().Model((*models.StripeObject)(nil)).Where("name = 'price:pro' OR name = 'overage:starter'").Exec(f.Context())
		f.must(err)
		for _, plan := range []models.PlanID{"pro", "starter"} {
			if _, err := f.shop.Checkout(f.Context(), ada, f.planOf(plan)); !errors.Is(err, ErrNotSetUp) {
				f.Errorf("%s without a price: %v", plan, err)
			}
		}
		_, err = Setup(f.Context(), SetupOptions{DB: f.db, Client: f.shop.client, Catalogue: f.shop.catalogue, Now: f.shop.clock,
			BaseURL: "https://tollgate.example.com"})
		f.must(err)
		// A stored 500 response does not block purchases for the lifetime of its idempotency key.
		broken := 0
		f.stand.SetFault(func(r *http.Request, _ url.Values) stripetest.Fault {
			if r.URL.Path == "/v1/checkout/sessions" && broken == 0 {
				broken++
				return stripetest.ErrorBefore
			}
			return stripetest.None
		})
		f.checkout(ada, "pro")
		f.stand.SetFault(nil)
		f.stand.SetOutage(true)
		if _, err := f.shop.Checkout(f.Context(), f.buyer("bob@example.com"), f.planOf("pro")); !IsStripe(err) {
			f.Errorf("while Stripe is down: %v", err)
		}
		f.stand.SetOutage(false)
	})
}

func TestThePortalAndInvoices(t *testing.T) {
	onBothShops(t, func(f *shopFixture) {
		f.stand.AddCustomer("cus_1", nil)
		address, err := f.shop.Portal(f.Context(), "cus_1")
		f.must(err)
		o := f.stand.Object(address[strings.LastIndex(address, "/")+1:])
		if o["configuration"] != f.ids["portal"] || o["return_url"] != "https://tollgate.example.com/plans" {
			f.Errorf("the portal is %v", o)
		}
		if _, err := f.shop.Portal(f.Context(), "cus_none"); !errors.Is(err, ErrNoCustomer) {
			f.Errorf("an unknown customer: %v", err)
		}
		for i := range 15 {
			f.stand.AddInvoice(stripetest.Invoice{
				Customer: "cus_1", Number: fmt.Sprintf("A-%02d", i), Status: "paid", Currency: "usd", Total: int64(i),
				Created: f.at.AddDate(0, i-15, 0), HostedURL: "https://invoice.example.com/" + fmt.Sprint(i),
			})
		}
		f.stand.AddInvoice(stripetest.Invoice{Customer: "cus_2", Status: "draft", Currency: "eur", Total: 5, Created: f.at,
			HostedURL: "javascript:alert(1)"})
		got := f.shop.Invoices(f.Context(), "cus_1")
		if len(got) != 12 || got[0] != (Invoice{Number: "A-14", Status: "paid", Total: 14, Currency: "usd",
			Created: f.at.AddDate(0, -1, 0), URL: "https://invoice.example.com/14"}) {
			f.Errorf("%d invoices, the first %+v", len(got), got[0])
		}
		if got := f.shop.Invoices(f.Context(), "cus_2"); len(got) != 1 || got[0].URL != "" {
			f.Errorf("a draft: %+v", got)
		}
		asked := f.stand.Calls()["GET /v1/invoices"]
		f.shop.Invoices(f.Context(), "cus_1")
		if f.stand.Calls()["GET /v1/invoices"] != asked {
			f.Error("the invoices were requested again immediately")
		}
		// While Stripe is down, the previous invoices are shown, and pages do not wait for new ones.
		f.at = f.at.Add(invoicesFresh)
		f.stand.SetOutage(true)
		for range 3 {
			if got := f.shop.Invoices(f.Context(), "cus_1"); len(got) != 12 {
				f.Errorf("%d invoices while Stripe is down", len(got))
			}
		}
		if f.shop.Invoices(f.Context(), "cus_3") != nil || f.stand.Calls()["GET /v1/invoices"] != asked+2 {
			f.Errorf("the invoices were requested %d times", f.stand.Calls()["GET /v1/invoices"]-asked)
		}
	})
}

// If a plan's price is raised, a new price takes over the lookup key. Earlier subscribers keep the
// old price and the plan.
func TestSubscribersKeepTheirPriceWhenItIsRaised(t *testing.T) {
	onBothShops(t, func(f *shopFixture) {
		bought := f.pay(f.checkout(f.buyer("ada@example.com"), "pro"))
		customer := *f.row(bought).StripeCustomerID
		want := basePrice(f.shop.catalogue, f.planOf("pro"), f.ids["product:pro"])
		want.UnitAmount, want.TransferLookupKey = stripe.Int64(2500), stripe.Bool(true)
		raised, err := f.shop.client.api.Prices.New(want)
		f.must(err)
		_, err = Setup(f.Context(), SetupOptions{DB: f.db, Client: f.shop.client, Catalogue: f.shop.catalogue, Now: f.shop.clock,
			BaseURL: "https://tollgate.example.com"})
		f.must(err)
		f.applyEvent("customer.subscription.updated", f.stand.Object(bought))
		f.wantProblem(customer, "")
		f.at = f.at.Add(24 * time.Hour)
		if differ, err := f.hook.Resync(f.Context()); err != nil || differ != 0 {
			f.Errorf("%d customers differ, %v", differ, err)
		}
		// The same, if the database does not know the subscription, as after a restore.
		_, err = f.db.NewDelete().Model((*models.Subscription)(nil)).Where("stripe_subscription_id = ?", bought).Exec(f.Context())
		f.must(err)
		f.applyEvent("customer.subscription.updated", f.stand.Object(bought))
		f.wantProblem(customer, "")
		f.wantPlan("ada@example.com", "pro by "+customer)
		if row := f.row(bought); row == nil || *row.StripePriceID != f.ids["price:pro"] {
			f.Errorf("the row is %+v", row)
		}
		eve := f.row(f.pay(f.checkout(f.buyer("eve@example.com"), "pro")))
		if *eve.StripePriceID != raised.ID || eve.PlanID != "pro" {
			f.Errorf("a new subscriber has %+v", eve)
		}

		// A price does not belong to a plan because of its metadata alone.
		product, err := f.shop.client.api.Products.New(&stripe.ProductParams{Name: stripe.String("Coffee")})
		f.must(err)
		for customer, product := range map[string]string{"cus_foreign": product.ID, "cus_starter": f.ids["product:starter"]} {
			foreign := basePrice(f.shop.catalogue, f.planOf("pro"), product)
			foreign.LookupKey = nil
			price, err := f.shop.client.api.Prices.New(foreign)
			f.must(err)
			f.stand.AddCustomer(customer, map[string]string{"tollgate_email": "bob@example.com"})
			other := f.stand.AddSubscription(stripetest.Subscription{Customer: customer, Items: []stripetest.Item{{Price: price.ID, Quantity: 1}}})
			f.applyEvent("customer.subscription.created", f.stand.Object(other))
			f.wantProblem(customer, "no plan has the price "+price.ID)
			f.wantPlan("bob@example.com", "free")
		}
	})
}

// A missing webhook does not matter: the return page asks Stripe.
func TestAPurchaseWithoutItsWebhook(t *testing.T) {
	onBothShops(t, func(f *shopFixture) {
		ada := f.buyer("ada@example.com")
		session := f.checkout(ada, "pro")
		f.must(f.shop.Hurry(f.Context(), session))
		f.must(f.hook.applyDue(f.Context()))
		f.wantPlan("ada@example.com", "free")
		f.stand.CompleteCheckout(session)
		f.must(f.shop.Hurry(f.Context(), session))
		f.must(f.hook.applyDue(f.Context()))
		if arrived, err := f.shop.Arrived(f.Context(), ada, "pro"); err != nil || !arrived {
			f.Errorf("the plan arrived: %t, %v", arrived, err)
		}
	})
}

func TestTheShopMatchesStripesSpecification(t *testing.T) {
	onBothShops(t, func(f *shopFixture) {
		client, asked := mockClient(f.T)
		f.shop = f.newShop(client)
		_, err := f.db.NewUpdate().Model((*models.StripeState)(nil)).Set("account_id = ''").Where("id = 1").Exec(f.Context())
		f.must(err) // stripe-mock has another account than the stand-in
		ada := f.buyer("ada@example.com")
		for _, plan := range []models.PlanID{"starter", "pro"} {
			_, err = f.shop.Checkout(f.Context(), ada, f.planOf(plan))
			f.must(err)
		}
		if !slices.ContainsFunc(*asked, func(path string) bool { return strings.HasSuffix(path, "/expire") }) {
			f.Errorf("the first Checkout was not closed: the requests are %q", *asked)
		}
		o, err := models.CreateOrganization(f.Context(), f.db, f.at, "Acme", []string{"T1"})
		f.must(err)
		f.link(models.Link{Email: "a@example.com", Slack: models.SlackIdentity{TeamID: "T1", UserID: "U1"}},
			models.Link{Email: "b@example.com", Slack: models.SlackIdentity{TeamID: "T1", UserID: "U2"}})
		_, err = f.shop.Checkout(f.Context(), Buyer{UserID: ada.UserID, Email: ada.Email, OrganizationID: &o.ID}, f.planOf("team"))
		f.must(err)
		_, err = f.shop.Portal(f.Context(), "cus_1")
		f.must(err)
		f.must(f.shop.Hurry(f.Context(), "cs_test_1"))
		f.shop.Invoices(f.Context(), "cus_1")
		if cached := f.shop.invoices["cus_1"]; cached.until.Sub(f.at) != invoicesFresh {
			f.Error("Stripe's specification refuses the request for invoices")
		}
		if len(*asked) < 9 {
			f.Errorf("the requests are %q", *asked)
		}
	})
}
