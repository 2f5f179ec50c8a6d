package billing

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
)

// TestABuyerHasOneOpenCheckout checks that only the later of two tabs can be paid.
func TestABuyerHasOneOpenCheckout(t *testing.T) {
	onBothShops(t, func(f *shopFixture) {
		ada := f.buyer("ada@example.com")
		pro := f.checkout(ada, "pro")
		starter := f.checkout(ada, "starter")
		if f.stand.CompleteCheckout(pro) != "" {
			f.Error("the first tab can still be paid")
		}
		again := f.checkout(ada, "pro")
		if again == pro || f.stand.CompleteCheckout(starter) != "" {
			f.Errorf("from pro %s to starter %s and back to pro %s", pro, starter, again)
		}
		f.at = f.at.Add(sessionAge)
		later := f.checkout(ada, "pro")
		if later == again || f.stand.CompleteCheckout(again) != "" {
			f.Errorf("after an hour there is %s next to %s", later, again)
		}
		// An organization of hers buys for itself.
		o, err := models.CreateOrganization(f.Context(), f.db, f.at, "Acme", []string{"T1"})
		f.must(err)
		f.checkout(Buyer{UserID: ada.UserID, Email: ada.Email, OrganizationID: &o.ID}, "team")
		f.pay(later)
	})
}

// A buyer who has paid and clicks again before Stripe's webhook arrives, in another tab or after
// the hour has changed, is sent to the page that waits for the webhook.
func TestAPaidCheckoutIsWaitedFor(t *testing.T) {
	onBothShops(t, func(f *shopFixture) {
		ada := f.buyer("ada@example.com")
		f.at = time.Date(2026, 11, 23, 12, 59, 59, 0, time.UTC)
		session := f.checkout(ada, "pro")
		bought := f.stand.CompleteCheckout(session)
		f.at = f.at.Add(2 * time.Second)
		for _, plan := range []models.PlanID{"pro", "starter"} {
			address, err := f.shop.Checkout(f.Context(), ada, f.planOf(plan))
			f.must(err)
			if want := "https://tollgate.example.com/plans/return?plan=pro&session_id=" + session; address != want {
				f.Errorf("%s redirects to %s, want %s", plan, address, want)
			}
		}
		// A subscription that ended at Stripe before its webhook arrived is not waited for.
		f.stand.ChangeSubscription(bought, func(s *stripetest.Subscription) { s.Status = "canceled" })
		if again := f.checkout(ada, "pro"); f.stand.Object(again)["status"] != "open" {
			f.Errorf("bought again: %v", f.stand.Object(again))
		}
	})
}

// A Checkout that is paid just before it is expired is recognized as paid.
func TestACheckoutIsPaidWhileItIsClosed(t *testing.T) {
	onBothShops(t, func(f *shopFixture) {
		ada := f.buyer("ada@example.com")
		session := f.checkout(ada, "pro")
		client, err := NewClient(ClientOptions{Key: "sk_test_1", Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/expire") {
				f.stand.CompleteCheckout(session)
			}
			return f.stand.Transport().RoundTrip(r)
		})})
		f.must(err)
		f.shop.client = client
		address, err := f.shop.Checkout(f.Context(), ada, f.planOf("starter"))
		f.must(err)
		if !strings.HasSuffix(address, "&session_id="+session) || f.stand.Calls()["POST /v1/checkout/sessions"] != 1 {
			f.Errorf("it redirects to %s, after %v", address, f.stand.Calls())
		}
	})
}

// If a buyer clicks twice at the same time, in one process or in several, at most one Checkout can
// be paid.
func TestTwoClicksAtATimeAreOnePurchase(t *testing.T) {
	onBothShops(t, func(f *shopFixture) {
		for i := range 10 {
			buyer := f.buyer(fmt.Sprintf("u%d@example.com", i))
			sessions := map[string]bool{}
			var mu sync.Mutex
			var clicks sync.WaitGroup
			for _, plan := range []models.PlanID{"pro", "starter"} {
				shop := f.newShop(f.shop.client)
				clicks.Go(func() {
					address, err := shop.Checkout(f.Context(), buyer, f.planOf(plan))
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						f.Errorf("%s: %v", plan, err)
					}
					sessions[address[strings.LastIndex(address, "/")+1:]] = true
				})
			}
			clicks.Wait()
			paid := 0
			for session := range sessions {
				if f.stand.CompleteCheckout(session) != "" {
					paid++
				}
			}
			if paid != 1 {
				f.Errorf("%d of %v could be paid", paid, sessions)
			}
		}
	})
}

// Checkouts are not listed with the objects that setup made, and are forgotten after a while.
func TestCheckoutsAreForgotten(t *testing.T) {
	onBothShops(t, func(f *shopFixture) {
		count := func() int64 {
			f.Helper()
			n, err := f.db.NewSelect().Model((*models.StripeObject)(nil)).Where("name LIKE 'checkout:%'").Count(f.Context())
			f.must(err)
			return n
		}
		for i := range 3 {
			f.checkout(f.buyer(fmt.Sprintf("u%d@example.com", i)), "pro")
		}
		ids, err := stripeObjects(f.Context(), f.db)
		f.must(err)
		if len(ids) != len(f.ids) || count() != 3 {
			f.Errorf("%d Checkouts; setup stored %v", count(), ids)
		}
		f.at = f.at.Add(sessionsKept + time.Second)
		f.checkout(f.buyer("u0@example.com"), "pro")
		if n := count(); n != 1 {
			f.Errorf("%d Checkouts are stored", n)
		}
	})
}

// Two subscriptions of one holder, however they were made, are shown to the operator.
func TestTwoSubscriptionsOfAHolderAreAProblem(t *testing.T) {
	onBothShops(t, func(f *shopFixture) {
		ada := f.buyer("ada@example.com")
		first := f.pay(f.checkout(ada, "pro"))
		f.wantProblem(*f.row(first).StripeCustomerID, "")
		items := []stripetest.Item{{Price: f.ids["price:starter"], Quantity: 1}, {Price: f.ids["overage:starter"]}}
		f.stand.AddCustomer("cus_2", map[string]string{"tollgate_email": "ada@example.com"})
		second := f.stand.AddSubscription(stripetest.Subscription{Customer: "cus_2", Items: items})
		f.applyEvent("customer.subscription.created", f.stand.Object(second))
		f.wantProblem("cus_2", fmt.Sprintf("the same owner has 2 active subscriptions, %s and %s", first, second))

		// If both became known at the same time, the daily comparison reports them.
		_, err := f.db.NewUpdate().Model((*models.StripeCustomer)(nil)).Set("fault = NULL").Where("fault IS NOT NULL").Exec(f.Context())
		f.must(err)
		resync := func() {
			f.Helper()
			f.at = f.at.Add(24 * time.Hour)
			_, err := f.hook.Resync(f.Context())
			f.must(err)
			f.must(f.hook.applyDue(f.Context()))
		}
		resync()
		customers, _, err := WebhookProblems(f.Context(), f.db)
		f.must(err)
		if len(customers) != 1 || !strings.Contains(*customers[0].Problem, first) || !strings.Contains(*customers[0].Problem, second) {
			f.Errorf("/ops shows %+v", customers)
		}
		f.stand.ChangeSubscription(second, func(s *stripetest.Subscription) { s.Status = "canceled" })
		f.applyEvent("customer.subscription.deleted", f.stand.Object(second))
		resync()
		f.wantProblem("cus_2", "")
		f.wantProblem(*f.row(first).StripeCustomerID, "")
		f.wantPlan("ada@example.com", "pro by "+*f.row(first).StripeCustomerID)
	})
}
