package billing

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-mock/embedded"
	"github.com/stripe/stripe-mock/server"

	"tollgate/models/billing/stripetest"
)

// stub is stripe-mock. It takes seconds to read Stripe's specification, and stores nothing.
var stub = sync.OnceValues(func() (*server.StubServer, error) {
	spec, err := server.LoadSpec(embedded.OpenAPISpec, "")
	if err != nil {
		return nil, err
	}
	fixtures, err := server.LoadFixtures(embedded.OpenAPIFixtures, "")
	if err != nil {
		return nil, err
	}
	return server.NewStubServer(fixtures, spec, false, false)
})

// mockClient returns a client of stripe-mock, which refuses requests that do not match Stripe's
// specification and stores nothing. asked lists the requested paths.
func mockClient(t *testing.T) (client *Client, asked *[]string) {
	t.Helper()
	stripe, err := stub()
	must(t, err)
	asked = &[]string{}
	mock := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.Method+" "+r.URL.Path)
		stripe.HandleRequest(w, r)
	}))
	t.Cleanup(mock.Close)
	client, err = NewClient(ClientOptions{Key: "sk_test_1", APIBase: mock.URL})
	must(t, err)
	return client, asked
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// standIn returns a Stripe that stores what is sent to it.
func standIn(t *testing.T, now func() time.Time) (*stripetest.Stripe, *Client) {
	t.Helper()
	s := stripetest.New(stripetest.Options{Now: now, Rand: rand.New(rand.NewPCG(1, 2))})
	client, err := NewClient(ClientOptions{Key: "sk_test_1", Transport: s.Transport()})
	must(t, err)
	return s, client
}

// written returns the number of POST requests.
func written(s *stripetest.Stripe) (n int) {
	for call, times := range s.Calls() {
		if strings.HasPrefix(call, "POST ") {
			n += times
		}
	}
	return n
}

// step runs a part of a test that depends on the earlier parts. If it fails, the test ends.
func (f *webhookFixture) step(name string, do func()) {
	f.Helper()
	whole := f.T
	defer func() { f.T = whole }()
	if !whole.Run(name, func(t *testing.T) { f.T = t; do() }) {
		whole.FailNow()
	}
}

func TestSetup(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		stand, client := standIn(f.T, func() time.Time { return f.at })
		o := SetupOptions{DB: f.db, Client: client, Catalogue: f.hook.catalogue, Now: f.hook.clock, BaseURL: "https://tollgate.example.com",
			DryRun: true}
		setup := func() SetupReport {
			f.Helper()
			r, err := Setup(f.Context(), o)
			f.must(err)
			return r
		}
		var dry SetupReport
		var ids map[string]string
		f.step("a dry run changes nothing", func() {
			dry = setup()
			if written(stand) != 0 || len(dry.Found) != 0 || len(dry.Drift) != 0 || dry.WebhookSecret != "" {
				f.Errorf("a dry run: %+v", dry)
			}
			if ids, err := stripeObjects(f.Context(), f.db); err != nil || len(ids) != 0 {
				f.Errorf("a dry run wrote %v, %v", ids, err)
			}
			if state, err := State(f.Context(), f.db); err != nil || state.AccountID != "" || state.Livemode != nil {
				f.Errorf("a dry run claimed the account: %+v, %v", state, err)
			}
		})
		f.step("the first run makes the objects", func() {
			o.DryRun = false
			first := setup()
			// Each of the four plans has a product, a meter and two prices; there is also the endpoint
			// and the portal.
			if len(first.Made) != 18 || len(dry.Missing) != 18 || len(dry.Made) != 0 || len(first.Found)+len(first.Drift) != 0 ||
				!strings.HasPrefix(first.WebhookSecret, "whsec_") {
				f.Errorf("the first run: %s", strings.Join(first.Lines(), "\n"))
			}
			var err error
			ids, err = stripeObjects(f.Context(), f.db)
			f.must(err)
			if len(ids) != 18 || ids["overage:team"] == "" || ids["price:pro"] == "" || ids["webhook"] == "" || ids["portal"] == "" ||
				ids["meter:pro"] == "" || ids["meter"] != "" || ids["product:business"] == "" {
				f.Errorf("stored: %v", ids)
			}
		})
		f.step("the prices and meters", func() {
			pro := stand.Object(ids["price:pro"])
			if fmt.Sprint(pro["unit_amount"]) != "1800" || pro["lookup_key"] != "tollgate_base_pro" || pro["currency"] != "usd" {
				f.Errorf("the price is %v", pro)
			}
			for plan, cents := range map[string]int64{"starter": 35, "pro": 30, "team": 25, "business": 20} {
				over, err := client.api.Prices.Get(ids["overage:"+plan], nil)
				f.must(err)
				if over.UnitAmount != cents || over.BillingScheme != "per_unit" || over.Recurring.Meter != ids["meter:"+plan] ||
					over.Recurring.UsageType != "metered" ||
					over.LookupKey != "tollgate_overage_"+plan {
					f.Errorf("the overage price of %s is %+v", plan, over)
				}
				meter, err := client.api.BillingMeters.Get(ids["meter:"+plan], nil)
				f.must(err)
				if meter.EventName != "slack_speak_suggestions_"+plan || meter.DefaultAggregation.Formula != "sum" {
					f.Errorf("the meter of %s is %+v", plan, meter)
				}
			}
		})
		f.step("the second run finds the objects", func() {
			wrote := written(stand)
			second := setup()
			if written(stand) != wrote || len(second.Made)+len(second.Drift) != 0 || len(second.Found) != 18 || second.WebhookSecret != "" {
				f.Errorf("the second run: %s", strings.Join(second.Lines(), "\n"))
			}
			again, err := stripeObjects(f.Context(), f.db)
			f.must(err)
			for name, id := range ids {
				if again[name] != id {
					f.Errorf("%s became %s", name, again[name])
				}
			}
		})
		f.step("differences are listed and not overwritten", func() {
			changed := *f.hook.catalogue
			changed.Plans = slices.Clone(changed.Plans)
			changed.Currency = "eur"
			for i := range changed.Plans {
				if p := &changed.Plans[i]; p.ID == "pro" {
					p.BasePriceCents, p.OverageRateCents = 1900, 28
				}
			}
			o.Catalogue = &changed
			_, err := client.api.Prices.Update(ids["price:starter"], &stripe.PriceParams{Active: stripe.Bool(false)})
			f.must(err)
			_, err = client.api.WebhookEndpoints.Update(ids["webhook"],
				&stripe.WebhookEndpointParams{EnabledEvents: stripe.StringSlice([]string{"invoice.paid", "charge.failed"})})
			f.must(err)
			_, err = client.api.Products.Update(ids["product:team"], &stripe.ProductParams{Active: stripe.Bool(false), Name: stripe.String("Crew")})
			f.must(err)
			_, err = client.api.BillingPortalConfigurations.Update(ids["portal"],
				&stripe.BillingPortalConfigurationParams{Active: stripe.Bool(false)})
			f.must(err)
			_, err = client.api.BillingMeters.Deactivate(ids["meter:team"], nil)
			f.must(err)
			wrote := written(stand)
			drift := strings.Join(setup().Drift, "\n")
			for _, part := range []string{
				"it is $18.00, and the catalog says 19.00 EUR", "it is $0.30, and the catalog says 0.28 EUR",
				"it is in usd, and the catalog in eur", "price:starter, " + ids["price:starter"] + ": it is inactive",
				"does not get checkout.session.completed events",
				"gets charge.failed events", "is inactive", `is called "Crew"`, "the portal's configuration", "so Stripe accepts no usage",
			} {
				if !strings.Contains(drift, part) {
					f.Errorf("%q is not listed in\n%s", part, drift)
				}
			}
			if written(stand) != wrote {
				f.Error("setup changed an object that differs")
			}
		})
	})
}

// After an update from a release whose overage prices had tiers, setup makes flat prices, which
// take over the lookup keys. The old prices stay for those who subscribed to them.
func TestSetupAfterAReleaseWithTiers(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		stand, client := standIn(f.T, func() time.Time { return f.at })
		meter := stand.AddMeter(f.hook.catalogue.MeterEventName)
		old := stand.AddPrice(stripetest.Price{LookupKey: "tollgate_overage_pro", Meter: meter, Tiered: true,
			Metadata: map[string]string{metadataPlan: "pro"}})
		f.must(storeObject(f.Context(), f.db, f.at, objectOldMeter, meter))
		o := SetupOptions{DB: f.db, Client: client, Catalogue: f.hook.catalogue, Now: f.hook.clock, BaseURL: "https://tollgate.example.com"}
		first, err := Setup(f.Context(), o)
		f.must(err)
		if len(first.Made) != 18 || len(first.Found)+len(first.Drift) != 0 {
			f.Errorf("the first run: %s", strings.Join(first.Lines(), "\n"))
		}
		ids, err := stripeObjects(f.Context(), f.db)
		f.must(err)
		flat, err := client.api.Prices.Get(ids["overage:pro"], nil)
		f.must(err)
		before, err := client.api.Prices.Get(old, nil)
		f.must(err)
		if flat.ID == old || flat.LookupKey != "tollgate_overage_pro" || flat.UnitAmount != 30 || before.LookupKey != "" ||
			!before.Active || ids[objectOldMeter] != meter {
			f.Errorf("the price is %+v, and the old one %+v; the stored objects are %v", flat, before, ids)
		}
		if again, err := Setup(f.Context(), o); err != nil || len(again.Made)+len(again.Drift) != 0 {
			f.Errorf("the second run: %+v, %v", again, err)
		}
	})
}

// Prices that an operator already has are taken from the catalog. An address without HTTPS gets no
// webhook endpoint.
func TestSetupWithPricesOfTheCatalog(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		_, client := standIn(f.T, func() time.Time { return f.at })
		changed := *f.hook.catalogue
		changed.Plans = slices.Clone(changed.Plans)
		product, err := client.api.Products.New(&stripe.ProductParams{Name: stripe.String("Pro"),
			Metadata: map[string]string{metadataPlan: "pro"}})
		f.must(err)
		price, err := client.api.Prices.New(basePrice(&changed, changed.Plans[2], product.ID))
		f.must(err)
		changed.Plans[2].StripePriceID, changed.Plans[1].StripePriceID = price.ID, "price_nowhere"
		r, err := Setup(f.Context(), SetupOptions{DB: f.db, Client: client, Catalogue: &changed, Now: f.hook.clock,
			BaseURL: "http://127.0.0.1:8080"})
		f.must(err)
		lines := strings.Join(r.Lines(), "\n")
		for _, part := range []string{"found: price:pro, " + price.ID, "differs: Stripe does not know the price price_nowhere",
			"note: no webhook endpoint"} {
			if !strings.Contains(lines, part) {
				f.Errorf("%q is not in\n%s", part, lines)
			}
		}
		if r.WebhookSecret != "" || len(r.Drift) != 1 {
			f.Errorf("%s", lines)
		}
	})
}

// The stored objects belong to the account that was set up first. With the key of another account,
// nothing is made and nothing is sold.
func TestSetupWithAKeyOfAnotherAccount(t *testing.T) {
	onBothShops(t, func(f *shopFixture) {
		other := stripetest.New(stripetest.Options{Now: f.shop.clock, Account: "acct_other", Rand: rand.New(rand.NewPCG(9, 9))})
		other.AddMeter("another") // so that the ids differ
		client, err := NewClient(ClientOptions{Key: "sk_test_2", Transport: other.Transport()})
		f.must(err)
		for _, dry := range []bool{true, false} {
			o := SetupOptions{DB: f.db, Client: client, Catalogue: f.shop.catalogue, Now: f.shop.clock, BaseURL: "https://tollgate.example.com",
				DryRun: dry}
			if r, err := Setup(f.Context(), o); !errors.Is(err, ErrOtherAccount) || len(r.Lines()) != 0 {
				f.Errorf("a dry run: %t; %v, %q", dry, err, r.Lines())
			}
		}
		if written(other) != 0 {
			f.Errorf("the other account was sent %v", other.Calls())
		}
		ids, err := stripeObjects(f.Context(), f.db)
		f.must(err)
		if !maps.Equal(ids, f.ids) {
			f.Errorf("%v became %v", f.ids, ids)
		}
		shop, before := f.newShop(client), other.Calls()["GET /v1/account"]
		if _, err := shop.Checkout(f.Context(), f.buyer("ada@example.com"), f.planOf("pro")); !errors.Is(err, ErrOtherAccount) {
			f.Errorf("a purchase returned %v", err)
		}
		if _, err := shop.Portal(f.Context(), "cus_1"); !errors.Is(err, ErrOtherAccount) {
			f.Errorf("the portal returned %v", err)
		}
		if n := other.Calls()["GET /v1/account"] - before; n != 1 {
			f.Errorf("the wrong account was requested %d times", n)
		}
		if written(other) != 0 {
			f.Errorf("the other account was sent %v", other.Calls())
		}
		// With the right key, the account is requested once.
		asked := f.stand.Calls()["GET /v1/account"]
		f.checkout(f.buyer("ada@example.com"), "pro")
		f.checkout(f.buyer("bob@example.com"), "pro")
		if again := f.stand.Calls()["GET /v1/account"]; again != asked+1 {
			f.Errorf("the account was requested %d times", again-asked)
		}
	})
}

// Each request matches Stripe's specification.
func TestSetupMatchesStripesSpecification(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		client, asked := mockClient(f.T)
		_, err := Setup(f.Context(), SetupOptions{DB: f.db, Client: client, Catalogue: f.hook.catalogue, Now: f.hook.clock,
			BaseURL: "https://tollgate.example.com"})
		f.must(err)
		for _, part := range []string{"meters", "products", "prices", "webhook_endpoints", "configurations"} {
			for _, method := range []string{"GET", "POST"} {
				if !slices.ContainsFunc(*asked, func(path string) bool {
					return strings.HasPrefix(path, method) && strings.HasSuffix(path, "/"+part)
				}) {
					f.Errorf("no %s of %s is in %q", method, part, *asked)
				}
			}
		}
		// The webhooks' requests match it too.
		f.hook.client = client
		_, err = f.hook.ask(f.Context(), "cus_1", nil)
		f.must(err)
		_, err = f.hook.differing(f.Context())
		f.must(err)
	})
}
