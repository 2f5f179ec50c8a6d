package billing

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stripe/stripe-go/v76/webhook"

	"tollgate/models"
	"tollgate/models/modelstest"
)

const webhookSecret = "whsec_test"

// webhookNoon is the tests' clock: in the middle of a month.
var webhookNoon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

type object = map[string]any

// stripeStub has customers and subscriptions as Stripe shows them, and thin events.
type stripeStub struct {
	mu            sync.Mutex
	customers     map[string]object
	subscriptions map[string]object
	thin          map[string]object
	account       string
	requests      int
	// fail answers every request with this status; 0 answers truly.
	fail int
	// before runs before an answer, without the lock.
	before func(path string)
}

func (s *stripeStub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	before := s.before
	s.requests++
	s.mu.Unlock()
	if before != nil {
		before(r.URL.Path)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	answer := func(status int, v any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	missing := object{"error": object{"type": "invalid_request_error", "code": "resource_missing", "message": "No such thing"}}
	if s.fail != 0 {
		answer(s.fail, object{"error": object{"type": "api_error", "message": "stub"}})
		return
	}
	if id, ok := strings.CutPrefix(r.URL.Path, "/v2/core/events/"); ok {
		if s.thin[id] == nil {
			answer(404, missing)
			return
		}
		answer(200, s.thin[id])
		return
	}
	if r.URL.Path == "/v1/account" {
		answer(200, object{"id": cmp.Or(s.account, "acct_1"), "object": "account"})
		return
	}
	if id, ok := strings.CutPrefix(r.URL.Path, "/v1/customers/"); ok {
		if s.customers[id] == nil {
			answer(404, missing)
			return
		}
		answer(200, s.customers[id])
		return
	}
	if r.URL.Path == "/v1/subscriptions" {
		var data []object
		ids := slices.Sorted(maps.Keys(s.subscriptions))
		for _, id := range ids {
			sub := s.subscriptions[id]
			ended := sub["status"] == "canceled" && r.FormValue("status") != "all"
			if c := r.FormValue("customer"); !ended && (c == "" || sub["customer"] == c) && id > r.FormValue("starting_after") {
				data = append(data, sub)
			}
		}
		more := len(data) > 2 // so that pages are turned
		if more {
			data = data[:2]
		}
		answer(200, object{"object": "list", "data": data, "has_more": more, "url": "/v1/subscriptions"})
		return
	}
	answer(404, missing)
}

// set makes or changes a subscription; a nil value takes a field away.
func (s *stripeStub) set(id string, fields object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := object{}
	maps.Copy(next, s.subscriptions[id])
	maps.Copy(next, fields)
	next["id"], next["object"] = id, "subscription"
	s.subscriptions[id] = next
}

func (s *stripeStub) customer(id string, metadata object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.customers[id] = object{"id": id, "object": "customer", "metadata": metadata}
}

func (s *stripeStub) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// items are those of a subscription to a plan, by the lookup keys of set-up.
func items(plan string, seats int) object {
	return object{"object": "list", "data": []object{
		{"id": "si_over", "price": object{"id": "price_over_" + plan, "lookup_key": "tollgate_overage_" + plan, "recurring": object{"usage_type": "metered"}}},
		{"id": "si_base", "quantity": seats, "price": object{"id": "price_" + plan, "lookup_key": lookupBase + plan, "recurring": object{"usage_type": "licensed"}}},
	}}
}

// webhookFixture is a server's half that hears of Stripe, and the Stripe that it asks.
type webhookFixture struct {
	*testing.T
	db   *models.DB
	stub *stripeStub
	hook *Webhooks
	at   time.Time
	sent int
}

func onBothWebhooks(t *testing.T, test func(f *webhookFixture)) {
	t.Helper()
	for name, address := range map[string]func(testing.TB) string{"sqlite": modelstest.SQLite, "postgres": modelstest.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &webhookFixture{T: t, at: webhookNoon, stub: &stripeStub{customers: map[string]object{}, subscriptions: map[string]object{}, thin: map[string]object{}}}
			var err error
			f.db, err = models.Open(t.Context(), address(t))
			f.must(err)
			t.Cleanup(func() { _ = f.db.Close() })
			f.hook = f.process()
			test(f)
		})
	}
}

// process is what one more process has.
func (f *webhookFixture) process() *Webhooks {
	f.Helper()
	server := httptest.NewServer(f.stub)
	f.Cleanup(server.Close)
	client, err := NewClient(ClientOptions{Key: "sk_test_1", APIBase: server.URL})
	f.must(err)
	catalogue, err := models.LoadCatalogue("")
	f.must(err)
	w := NewWebhooks(WebhookOptions{
		DB: f.db, Client: client, Catalogue: catalogue, Secret: webhookSecret, Now: func() time.Time { return f.at }, Random: func() float64 { return 0.5 },
		Log: slog.New(slog.DiscardHandler),
	})
	w.accountKnown = true // so that a test's requests are its own; see TestAKeyOfAnotherAccount
	return w
}

func (f *webhookFixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *webhookFixture) email(email string) string {
	f.Helper()
	u, err := models.SetUser(f.Context(), f.db, f.at, email, models.UserChange{})
	f.must(err)
	return u.ID.String()
}

// sign signs a payload as Stripe does.
func sign(payload []byte, at time.Time) string {
	return webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: payload, Secret: webhookSecret, Timestamp: at}).Header
}

// event is the payload of an ordinary one.
func event(id, kind string, at time.Time, of object) []byte {
	payload, err := json.Marshal(object{"id": id, "object": "event", "type": kind, "created": at.Unix(), "api_version": "2099-01-01", "data": object{"object": of}})
	if err != nil {
		panic(err) // maps of texts and numbers
	}
	return payload
}

// receive keeps an event without anybody who applies it, and without the wait for that.
func (f *webhookFixture) receive(payload []byte) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 10*time.Second)
	defer cancel()
	e, err := f.hook.read(payload, sign(payload, f.at), models.Now(f.hook.Now))
	f.must(err)
	_, err = f.hook.keep(ctx, e, models.Now(f.hook.Now))
	f.must(err)
}

// tell sends an event of a customer's and has all applied that is due.
func (f *webhookFixture) tell(kind, customer string) {
	f.Helper()
	f.sent++
	f.receive(event(fmt.Sprintf("evt_%d", f.sent), kind, f.at, object{"id": "sub_1", "object": "subscription", "customer": customer}))
	f.must(f.hook.applyDue(f.Context()))
}

// plan is what a person may use now, as the gate reads it.
func (f *webhookFixture) plan(email string) string {
	f.Helper()
	e, err := models.EntitlementsOf(f.Context(), f.db, []string{email})
	f.must(err)
	of := e[email]
	plan := string(f.hook.Catalogue.PlanOf(&of).ID)
	if of.StripeCustomerID != "" {
		plan += " by " + of.StripeCustomerID
	}
	return plan
}

func (f *webhookFixture) wantPlan(email, want string) {
	f.Helper()
	if got := f.plan(email); got != want {
		f.Errorf("%s has %q, want %q", email, got, want)
	}
}

func (f *webhookFixture) row(id string) *models.Subscription {
	f.Helper()
	var rows []models.Subscription
	f.must(f.db.NewSelect().Model(&rows).Where("stripe_subscription_id = ?", id).Scan(f.Context()))
	if len(rows) == 0 {
		return nil
	}
	return &rows[0]
}

func (f *webhookFixture) customer(id string) models.StripeCustomer {
	f.Helper()
	var row models.StripeCustomer
	f.must(f.db.NewSelect().Model(&row).Where("id = ?", id).Scan(f.Context()))
	return row
}

func (f *webhookFixture) wantFault(id, part string) {
	f.Helper()
	c := f.customer(id)
	switch {
	case part == "" && c.Fault != nil:
		f.Errorf("%s has the fault %q", id, *c.Fault)
	case part != "" && (c.Fault == nil || !strings.Contains(*c.Fault, part)):
		f.Errorf("%s has the fault %v, want one with %q", id, text(c.Fault), part)
	}
}

func text(s *string) string {
	if s == nil {
		return "none"
	}
	return *s
}

// unapplied is how many events wait.
func (f *webhookFixture) unapplied() int {
	f.Helper()
	n, err := f.db.NewSelect().Model((*models.StripeWebhookEvent)(nil)).Where("applied_at IS NULL").Count(f.Context())
	f.must(err)
	return int(n)
}

func subscription(customer, plan, status string, start time.Time, seats int) object {
	return object{
		"customer": customer, "status": status, "created": start.Unix(), "billing_cycle_anchor": start.Unix(),
		"current_period_start": start.Unix(), "current_period_end": start.AddDate(0, 1, 0).Unix(), "items": items(plan, seats),
	}
}

func TestASignatureIsOfNow(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		payload := event("evt_1", "ping", f.at, object{})
		for name, bad := range map[string]string{
			"missing": "", "wrong": strings.Replace(sign(payload, f.at), "v1=", "v1=00", 1), "of another body": sign([]byte("{}"), f.at),
			"6 minutes old": sign(payload, f.at.Add(-6*time.Minute)), "an hour ahead": sign(payload, f.at.Add(time.Hour)), "no signature": "t=1,v1=", "garbage": "a,b=c=d",
		} {
			if err := f.hook.Receive(f.Context(), payload, bad); !errors.Is(err, ErrNotStripes) {
				f.Errorf("%s: %v", name, err)
			}
		}
		for _, body := range []string{"", "null", "[]", "{", `{"id":"","type":"x"}`, `{"id":"evt"}`, `{"id":"evt","type":"invoice.paid"}`, `{"id":"` + strings.Repeat("a", 256) + `","type":"x"}`} {
			if err := f.hook.Receive(f.Context(), []byte(body), sign([]byte(body), f.at)); !errors.Is(err, ErrNotStripes) {
				f.Errorf("%q: %v", body, err)
			}
		}
		if n, err := f.db.NewSelect().Model((*models.StripeWebhookEvent)(nil)).Count(f.Context()); err != nil || n != 0 {
			f.Errorf("%d events are kept, %v", n, err)
		}
		for i, skew := range []time.Duration{-5 * time.Minute, 0, 5 * time.Minute} {
			payload := event(fmt.Sprint("evt_ok", i), "ping", f.at, object{})
			f.must(f.hook.Receive(f.Context(), payload, sign(payload, f.at.Add(skew))))
		}
		if n := f.unapplied(); n != 0 {
			f.Errorf("%d events of a type that is nothing to us wait", n)
		}
	})
}

func TestPlansFollowStripe(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		ada := f.email("ada@example.com")
		f.stub.customer("cus_1", object{"tollgate_user": ada})
		start := f.at.Add(-time.Hour)
		steps := []struct {
			name   string
			change object
			kind   string
			want   string
		}{
			{"trial", subscription("cus_1", "starter", "trialing", start, 1), "customer.subscription.created", "starter by cus_1"},
			{"active", object{"status": "active"}, "invoice.paid", "starter by cus_1"},
			{"upgrade", object{"items": items("pro", 1)}, "customer.subscription.updated", "pro by cus_1"},
			{"downgrade", object{"items": items("starter", 1)}, "customer.subscription.updated", "starter by cus_1"},
			{"past due", object{"status": "past_due"}, "invoice.payment_failed", "starter by cus_1"},
			{"unpaid", object{"status": "unpaid"}, "customer.subscription.updated", "free"},
			{"paid", object{"status": "active"}, "invoice.paid", "starter by cus_1"},
			{"paused", object{"status": "paused"}, "customer.subscription.paused", "free"},
			{"resumed", object{"status": "active"}, "customer.subscription.resumed", "starter by cus_1"},
			{"cancelled at the period's end", object{"cancel_at_period_end": true}, "customer.subscription.updated", "starter by cus_1"},
			{"deleted", object{"status": "canceled", "ended_at": f.at.Unix()}, "customer.subscription.deleted", "free"},
		}
		for _, s := range steps {
			f.at = f.at.Add(time.Minute)
			f.stub.set("sub_1", s.change)
			f.tell(s.kind, "cus_1")
			if got := f.plan("ada@example.com"); got != s.want {
				f.Errorf("%s: %q, want %q", s.name, got, s.want)
			}
			row := f.row("sub_1")
			if row == nil || string(row.Status) != f.stub.subscriptions["sub_1"]["status"] || !row.StripeEventAt.Equal(f.at) {
				f.Fatalf("%s: %+v", s.name, row)
			}
			if s.name == "cancelled at the period's end" && (row.CancelAt == nil || !row.CancelAt.Equal(start.AddDate(0, 1, 0))) {
				f.Errorf("it ends at %v", row.CancelAt)
			}
		}
		f.wantFault("cus_1", "")
		if n := f.unapplied(); n != 0 {
			f.Errorf("%d events wait", n)
		}
	})
}

func TestAnOrganizationsPlanIsItsMembers(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		o, err := models.CreateOrganization(f.Context(), f.db, f.at, "Acme", []string{"T1"})
		f.must(err)
		f.must(models.LinkPeople(f.Context(), f.db, f.at, []models.Link{{Email: "bob@example.com", Slack: models.SlackIdentity{TeamID: "T1", UserID: "U1"}}}))
		f.stub.customer("cus_1", nil)
		sub := subscription("cus_1", "team", "active", f.at.Add(-time.Hour), 12)
		sub["metadata"] = object{"organization_id": o.ID.String()}
		f.stub.set("sub_1", sub)
		f.tell("customer.subscription.created", "cus_1")
		f.wantPlan("bob@example.com", "team by cus_1")
		if row := f.row("sub_1"); row == nil || row.Seats == nil || *row.Seats != 12 || *row.StripePriceID != "price_team" {
			f.Errorf("the row is %+v", row)
		}
		// A plan of the other kind is nobody's: an organization's is for a team, a person's is not.
		f.stub.set("sub_1", object{"items": items("pro", 1)})
		f.tell("customer.subscription.updated", "cus_1")
		f.wantPlan("bob@example.com", "team by cus_1")
		f.wantFault("cus_1", `"pro" is an individual plan`)
		f.stub.customer("cus_2", object{"email": "carl@example.com"})
		f.stub.set("sub_2", subscription("cus_2", "team", "active", f.at, 1))
		f.tell("customer.subscription.created", "cus_2")
		f.wantPlan("carl@example.com", "free")
		f.wantFault("cus_2", `"team" is a team plan`)
	})
}

func TestWhoseASubscriptionIs(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		o, err := models.CreateOrganization(f.Context(), f.db, f.at, "Acme", nil)
		f.must(err)
		ada := f.email("ada@example.com")
		for i, c := range []struct {
			customer, subscription object
			checkout               string
			plan, want, fault      string
		}{
			{object{"tollgate_user": ada}, nil, "", "pro", "ada@example.com", ""},
			{object{"user_id": ada}, nil, "", "pro", "ada@example.com", ""},
			{object{"tollgate_email": " Ada@Example.com "}, nil, "", "pro", "ada@example.com", ""},
			{object{"email": "new@example.com"}, nil, "", "pro", "new@example.com", ""},
			{nil, object{"tollgate_user": ada}, "", "pro", "ada@example.com", ""},
			{object{"tollgate_organization": o.ID.String()}, nil, "", "team", o.ID.String(), ""},
			{nil, nil, "organization:" + o.ID.String(), "business", o.ID.String(), ""},
			{nil, nil, o.ID.String(), "team", o.ID.String(), ""},
			{nil, nil, "user:" + ada, "starter", "ada@example.com", ""},
			{nil, nil, ada, "starter", "ada@example.com", ""},
			{nil, nil, "ada@example.com", "starter", "ada@example.com", ""},
			{nil, nil, "", "pro", "", "nobody is named"},
			{nil, nil, uuid.NewString(), "pro", "", "whom nobody knows"},
			{object{"tollgate_user": uuid.NewString()}, nil, "", "pro", "", "whom nobody knows"},
			{nil, object{"tollgate_user": "nonsense"}, "", "pro", "", "whom nobody knows"},
		} {
			customer, sub := fmt.Sprintf("cus_%d", i), fmt.Sprintf("sub_%d", i)
			f.stub.customer(customer, c.customer)
			s := subscription(customer, c.plan, "active", f.at, 1)
			s["metadata"] = c.subscription
			f.stub.set(sub, s)
			if c.checkout != "" {
				// It comes after the subscription's own event, which nobody could be given the plan of.
				f.tell("customer.subscription.created", customer)
				f.wantFault(customer, "nobody is named")
				f.receive(event("evt_checkout"+customer, checkoutCompleted, f.at, object{"id": "cs_1", "object": "checkout.session", "customer": customer, "client_reference_id": c.checkout}))
				f.must(f.hook.applyDue(f.Context()))
			} else {
				f.tell("customer.subscription.created", customer)
			}
			f.wantFault(customer, c.fault)
			row, got := f.row(sub), ""
			switch {
			case row == nil:
			case row.OrganizationID != nil:
				got = row.OrganizationID.String()
			default:
				f.must(f.db.NewSelect().Model((*models.User)(nil)).Column("email").Where("id = ?", *row.UserID).Scan(f.Context(), &got))
			}
			if got != c.want || row != nil && string(row.PlanID) != c.plan {
				f.Errorf("%d %+v: it is %q's, want %q", i, c, got, c.want)
			}
		}
	})
}

func TestWhatCannotBeChangesNoPlan(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		sub := subscription("cus_1", "gold", "active", f.at, 1)
		f.stub.set("sub_1", sub)
		f.tell("customer.subscription.created", "cus_1")
		f.wantPlan("ada@example.com", "free")
		f.wantFault("cus_1", "no plan has the price price_gold")
		if f.unapplied() != 0 || f.row("sub_1") != nil {
			f.Error("an unknown price left something to do")
		}
		// Once the operator has put it right.
		_, err := f.db.NewInsert().Model(&models.StripeObject{Name: objectPrice + "pro", StripeID: "price_gold", UpdatedAt: f.at}).Exec(f.Context())
		f.must(err)
		f.tell("customer.subscription.updated", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		f.wantFault("cus_1", "")
		// A newer version of the API has the period elsewhere, so it reads as 0.
		f.stub.set("sub_1", object{"current_period_end": 0, "current_period_start": nil, "items": items("starter", 1)})
		f.tell("customer.subscription.updated", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		f.wantFault("cus_1", "no billing period")
		if row := f.row("sub_1"); row.CurrentPeriodEnd == nil || !row.CurrentPeriodEnd.Equal(f.at.AddDate(0, 1, 0)) {
			f.Errorf("the period ends at %v", row.CurrentPeriodEnd)
		}
		f.stub.set("sub_1", subscription("cus_1", "silver", "past_due", f.at, 1))
		f.tell("customer.subscription.updated", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		f.wantFault("cus_1", "price_silver")
		// What ended needs no plan to end.
		f.stub.set("sub_1", object{"status": "canceled"})
		f.tell("customer.subscription.deleted", "cus_1")
		f.wantPlan("ada@example.com", "free")
		f.wantFault("cus_1", "")
	})
}

func TestADeletedCustomerHasNoPlan(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		for i, gone := range []object{nil, {"id": "cus_1", "object": "customer", "deleted": true}} {
			customer, email := fmt.Sprintf("cus_%d", i), fmt.Sprintf("ada%d@example.com", i)
			f.stub.customer(customer, object{"tollgate_email": email})
			f.stub.set("sub_"+customer, subscription(customer, "pro", "active", f.at, 1))
			f.tell("customer.subscription.created", customer)
			f.wantPlan(email, "pro by "+customer)
			f.stub.customers[customer] = gone
			delete(f.stub.subscriptions, "sub_"+customer)
			f.receive(event("evt_gone"+customer, "customer.deleted", f.at, object{"id": customer, "object": "customer"}))
			f.must(f.hook.applyDue(f.Context()))
			f.wantPlan(email, "free")
			if c := f.customer(customer); !c.Deleted || c.UserID == nil {
				f.Errorf("%+v", c)
			}
		}
		// Of a subscription that is no longer there while its customer is.
		f.stub.customer("cus_9", object{"tollgate_email": "eve@example.com"})
		f.stub.set("sub_9", subscription("cus_9", "pro", "active", f.at, 1))
		f.tell("customer.subscription.created", "cus_9")
		delete(f.stub.subscriptions, "sub_9")
		f.tell("customer.subscription.deleted", "cus_9")
		f.wantPlan("eve@example.com", "free")
	})
}

// Events come twice and in any order. What Stripe has counts, and the newest event's time never goes back.
func TestEventsTwiceAndOutOfOrder(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at.Add(-time.Hour), 1))
		f.tell("customer.subscription.updated", "cus_1")
		asked := f.stub.asked()
		again := event("evt_1", "customer.subscription.updated", f.at, object{"id": "sub_1", "object": "subscription", "customer": "cus_1"})
		f.must(f.hook.Receive(f.Context(), again, sign(again, f.at)))
		f.must(f.hook.applyDue(f.Context()))
		if f.stub.asked() != asked {
			f.Error("a repeated event asked Stripe again")
		}
		before := f.row("sub_1")
		// What was before comes after, with the state of before.
		f.receive(event("evt_old", "customer.subscription.created", f.at.Add(-50*time.Minute), subscription("cus_1", "starter", "incomplete", f.at, 1)))
		f.must(f.hook.applyDue(f.Context()))
		after := f.row("sub_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		if !after.StripeEventAt.Equal(f.at) || !after.UpdatedAt.Equal(before.UpdatedAt) || f.unapplied() != 0 {
			f.Errorf("%+v became %+v", before, after)
		}
	})
}

// Stripe is away for a while: the events wait, the tries become rarer, and then all is applied.
func TestStripeIsAway(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at, 1))
		f.stub.fail = 500
		f.tell("customer.subscription.created", "cus_1")
		for i := range 12 {
			c := f.customer("cus_1")
			if wait := c.NextAttemptAt.Sub(f.at); c.Failures != i+1 || wait <= 0 || wait > lastRetry || c.LeaseToken != nil {
				f.Fatalf("after %d failures: %+v", i+1, c)
			}
			asked := f.stub.asked()
			f.must(f.hook.applyDue(f.Context()))
			if f.stub.asked() != asked {
				f.Fatal("it was tried before its time")
			}
			f.at = c.NextAttemptAt.UTC()
			f.must(f.hook.applyDue(f.Context()))
		}
		f.wantPlan("ada@example.com", "free")
		var waiting models.StripeWebhookEvent
		f.must(f.db.NewSelect().Model(&waiting).Where("applied_at IS NULL").Scan(f.Context()))
		if !strings.Contains(text(waiting.LastError), "stub") {
			f.Errorf("its error is %s", text(waiting.LastError))
		}
		f.stub.fail = 0
		f.at = f.at.Add(lastRetry)
		f.must(f.hook.applyDue(f.Context()))
		f.wantPlan("ada@example.com", "pro by cus_1")
		if c := f.customer("cus_1"); c.Failures != 0 || c.NextAttemptAt != nil || f.unapplied() != 0 {
			f.Errorf("%+v", c)
		}
	})
}

// A process that was slow must not undo what a later one has seen.
func TestALostLeaseAppliesNothing(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "starter", "active", f.at, 1))
		second := f.process()
		var overtaken atomic.Bool
		f.stub.before = func(path string) {
			if path != "/v1/subscriptions" || overtaken.Swap(true) {
				return
			}
			// While the first waits for its answer, its lease runs out and the second does it all. The first then still
			// gets what it asked for.
			f.at = f.at.Add(customerLease)
			f.stub.set("sub_1", object{"items": items("pro", 1)})
			f.must(second.applyDue(f.Context()))
			f.wantPlan("ada@example.com", "pro by cus_1")
			f.stub.set("sub_1", object{"items": items("starter", 1)})
		}
		f.tell("customer.subscription.created", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		if c := f.customer("cus_1"); c.LeaseToken != nil || c.Failures != 0 {
			f.Errorf("%+v", c)
		}
	})
}

// An event that comes while Stripe is asked may be newer than the answer, so it is not applied with it.
func TestAnEventDuringTheQuestion(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "starter", "active", f.at, 1))
		var once sync.Once
		f.stub.before = func(path string) {
			if path == "/v1/subscriptions" {
				once.Do(func() {
					f.receive(event("evt_during", "customer.subscription.updated", f.at, object{"object": "subscription", "customer": object{"id": "cus_1"}}))
				})
			}
		}
		f.tell("customer.subscription.created", "cus_1")
		if f.stub.asked() != 4 || f.unapplied() != 0 {
			f.Errorf("%d requests, %d events wait", f.stub.asked(), f.unapplied())
		}
	})
}

// 10,000 events of one customer, from many callers at once and in three processes, cost a few questions.
func TestManyEventsAtOnce(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at, 1))
		n := 10_000
		if !f.db.Postgres {
			n = 2_000 // each is a commit on the disk of its own
		}
		processes := []*Webhooks{f.hook, f.process(), f.process()}
		for _, p := range processes {
			p.Now, p.resyncNotBefore = time.Now, time.Now().Add(time.Hour)
			p.Start(f.Context())
			defer p.Stop()
		}
		var next atomic.Int64
		var wg sync.WaitGroup
		for range 48 {
			wg.Go(func() {
				for i := next.Add(1); i <= int64(n); i = next.Add(1) {
					payload := event(fmt.Sprintf("evt_%d", i), "invoice.created", f.at, object{"id": "in_1", "object": "invoice", "customer": "cus_1"})
					if err := processes[i%3].Receive(f.Context(), payload, sign(payload, time.Now())); err != nil {
						f.Errorf("event %d: %v", i, err)
					}
				}
			})
		}
		wg.Wait()
		for f.unapplied() > 0 {
			time.Sleep(receivePoll) // the workers do it, and rest in between
		}
		f.wantPlan("ada@example.com", "pro by cus_1")
		kept, err := f.db.NewSelect().Model((*models.StripeWebhookEvent)(nil)).Where("applied_at IS NOT NULL").Count(f.Context())
		f.must(err)
		subs, err := f.db.NewSelect().Model((*models.Subscription)(nil)).Count(f.Context())
		f.must(err)
		f.Logf("%d events, %d requests to Stripe", kept, f.stub.asked())
		if int(kept) != n || subs != 1 || f.stub.asked() > n/10 {
			f.Errorf("%d of %d events are applied, with %d requests; %d subscriptions", kept, n, f.stub.asked(), subs)
		}
	})
}

// Whoever looks right after a webhook's answer sees the new plan.
func TestAWebhookIsAnsweredWhenItIsApplied(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at, 1))
		f.hook.resyncNotBefore = f.at.Add(time.Hour)
		f.hook.Start(f.Context())
		defer f.hook.Stop()
		payload := event("evt_1", "customer.subscription.created", f.at, object{"object": "subscription", "customer": "cus_1"})
		f.must(f.hook.Receive(f.Context(), payload, sign(payload, f.at)))
		f.wantPlan("ada@example.com", "pro by cus_1")
	})
}

// A subscription that begins in the middle of a month opens a period of its own, and what was used before it is nobody's bill.
func TestAnUpgradeOpensItsOwnPeriod(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		prepared := func() []models.UsageRecord {
			f.Helper()
			f.must(models.PrepareRecords(f.Context(), f.db, f.hook.Catalogue, f.at, []models.Want{{Email: "ada@example.com", At: f.at}}))
			var records []models.UsageRecord
			f.must(f.db.NewSelect().Model(&records).Order("billing_period_start").Scan(f.Context()))
			return records
		}
		if free := prepared(); len(free) != 1 || free[0].PlanID != "free" || free[0].StripeCustomerID != nil {
			f.Fatalf("before: %+v", free)
		}
		start := f.at.Add(-time.Minute)
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", start, 1))
		f.tell("customer.subscription.created", "cus_1")
		records := prepared()
		if len(records) != 2 {
			f.Fatalf("%d records", len(records))
		}
		before, own := records[0], records[1]
		if before.StripeCustomerID != nil || !before.Period().End.Equal(start) || before.PlanID != "free" {
			f.Errorf("before the upgrade: %+v", before)
		}
		if text(own.StripeCustomerID) != "cus_1" || own.PlanID != "pro" || own.Period() != (models.Period{Start: start, End: start.AddDate(0, 1, 0)}) || !own.Entitled {
			f.Errorf("of the subscription: %+v", own)
		}
		// An upgrade within it counts at once, a downgrade takes nothing of the period's away.
		for _, step := range []struct {
			plan     string
			included int64
		}{{"starter", 75}, {"pro", 75}} {
			f.stub.set("sub_1", object{"items": items(step.plan, 1)})
			f.tell("customer.subscription.updated", "cus_1")
			if r := prepared(); len(r) != 2 || string(r[1].PlanID) != step.plan || r[1].SuggestionsIncluded != step.included {
				f.Errorf("%s: %+v", step.plan, r)
			}
		}
	})
}

func TestErrorsOfMeters(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		report := func(identifier string, minute int, state models.ReportState) {
			f.Helper()
			later := f.at.Add(20 * time.Hour)
			_, err := f.db.NewInsert().Model(&models.StripeReport{
				ID: uuid.New(), Identifier: identifier, StripeCustomerID: "cus_1", MeterEventName: "m", Minute: f.at.Add(time.Duration(minute) * time.Minute), Value: 1, State: state,
				NextAttemptAt: &later, CreatedAt: f.at,
			}).Exec(f.Context())
			f.must(err)
		}
		report("a", 1, models.ReportAccepted)
		report("b", 2, models.ReportVerified)
		report("c", 3, models.ReportAccepted)
		sample := func(identifier string) object {
			return object{"error_message": "no customer", "request": object{"identifier": identifier}}
		}
		full := object{
			"id": "evt_full", "object": "v2.core.event", "type": ThinWebhookTypes[0], "created": "2026-11-23T11:59:00.123Z", "related_object": object{"id": "mtr_1"},
			"data": object{"developer_message_summary": "There are 2 invalid events", "reason": object{"error_count": 2, "error_types": []object{
				{"code": "meter_event_no_customer_defined", "error_count": 2, "sample_errors": []object{sample("a"), sample("b"), sample("unknown"), sample("")}},
			}}},
		}
		thin := func(id, kind string) object {
			return object{"id": id, "object": "v2.core.event", "type": kind, "created": "2026-11-23T11:59:00Z", "related_object": object{"id": "mtr_1"}}
		}
		f.stub.thin["evt_thin"] = object{"id": "evt_thin", "data": object{"developer_message_summary": "fetched", "reason": object{"error_types": []object{{"code": "x", "error_count": 1, "sample_errors": []object{sample("c")}}}}}}
		for _, e := range []object{full, thin("evt_thin", ThinWebhookTypes[0]), thin("evt_lost", ThinWebhookTypes[1])} {
			payload, err := json.Marshal(e)
			f.must(err)
			f.must(f.hook.Receive(f.Context(), payload, sign(payload, f.at)))
		}
		f.must(f.hook.applyThin(f.Context()))
		var got []string
		var reports []models.StripeReport
		f.must(f.db.NewSelect().Model(&reports).Order("identifier").Scan(f.Context()))
		for _, r := range reports {
			got = append(got, fmt.Sprintf("%s %s %t", r.Identifier, text(r.LastError), r.NextAttemptAt.Equal(f.at)))
		}
		if want := []string{"a meter_event_no_customer_defined: no customer true", "b meter_event_no_customer_defined: no customer false", "c x: no customer true"}; !slices.Equal(got, want) {
			f.Errorf("reports: %q", got)
		}
		got = nil
		var events []models.StripeWebhookEvent
		f.must(f.db.NewSelect().Model(&events).Order("id").Scan(f.Context()))
		for _, e := range events {
			got = append(got, fmt.Sprintf("%s %s %t", e.ID, text(e.LastError), e.AppliedAt != nil && e.OccurredAt != nil))
		}
		if want := []string{"evt_full There are 2 invalid events; meter_event_no_customer_defined: 2 true", "evt_lost Stripe gave no details true", "evt_thin fetched; x: 1 true"}; !slices.Equal(got, want) {
			f.Errorf("events: %q", got)
		}
	})
}

// What no webhook told of is found once a day, by one process.
func TestADayLater(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		for i := range 5 {
			customer := fmt.Sprintf("cus_%d", i)
			f.stub.customer(customer, object{"tollgate_email": fmt.Sprintf("u%d@example.com", i)})
			f.stub.set(fmt.Sprintf("sub_%d", i), subscription(customer, "starter", "active", f.at, 1))
		}
		resync := func(w *Webhooks, want int) {
			f.Helper()
			n, err := w.Resync(f.Context())
			f.must(err)
			f.must(w.applyDue(f.Context()))
			if n != want {
				f.Errorf("%d customers differ, want %d", n, want)
			}
		}
		resync(f.hook, 5)
		f.wantPlan("u4@example.com", "starter by cus_4")
		second := f.process()
		f.stub.set("sub_0", object{"items": items("pro", 1)})
		resync(second, 0) // not yet
		f.at = f.at.Add(resyncEvery)
		delete(f.stub.subscriptions, "sub_1")
		f.stub.set("sub_2", object{"status": "canceled"})
		f.stub.set("sub_3", object{"cancel_at_period_end": true})
		f.stub.fail = 500
		if _, err := second.Resync(f.Context()); err == nil {
			f.Error("Stripe was away, and all was compared")
		}
		f.stub.fail = 0
		resync(f.hook, 0) // soon again, but not at once
		f.at = f.at.Add(resyncRetry)
		resync(f.hook, 4)
		f.wantPlan("u0@example.com", "pro by cus_0")
		f.wantPlan("u1@example.com", "free")
		f.wantPlan("u2@example.com", "free")
		f.wantPlan("u3@example.com", "starter by cus_3")
		f.at = f.at.Add(resyncEvery)
		resync(f.hook, 0)
	})
}

// With a key of another account, or of the other mode, Stripe knows nobody. That is nobody's end.
func TestAKeyOfAnotherAccount(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at, 1))
		f.hook.accountKnown = false
		f.tell("customer.subscription.created", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		if asked := f.stub.asked(); asked != 3 {
			f.Errorf("%d requests", asked)
		}
		f.tell("customer.subscription.updated", "cus_1")
		if asked := f.stub.asked(); asked != 5 {
			f.Errorf("%d requests: whose the key is was asked again", asked)
		}
		f.stub.customers, f.stub.subscriptions = map[string]object{}, map[string]object{}
		for name, change := range map[string]func(*Webhooks){
			"another account": func(*Webhooks) { f.stub.account = "acct_2" },
			"the other mode":  func(w *Webhooks) { f.stub.account = ""; w.Client.Live = true },
		} {
			other := f.process()
			other.accountKnown = false
			change(other)
			f.at = f.at.Add(resyncEvery)
			f.sent++
			f.receive(event(fmt.Sprintf("evt_%d", f.sent), "customer.subscription.updated", f.at, object{"object": "subscription", "customer": "cus_1"}))
			f.must(other.applyDue(f.Context()))
			if _, err := other.Resync(f.Context()); !errors.Is(err, errOtherAccount) {
				f.Errorf("%s: %v", name, err)
			}
			f.wantPlan("ada@example.com", "pro by cus_1")
			if c := f.customer("cus_1"); c.Failures == 0 {
				f.Errorf("%s: %+v", name, c)
			}
		}
	})
}
