package billing

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stripe/stripe-go/v76/webhook"

	"tollgate/models"
	"tollgate/models/modelstest"
)

const webhookSecret = "whsec_test"

// webhookNoon is the tests' time, in the middle of a month.
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
	// fail is the status of every answer; 0 means normal answers.
	fail int
	// noLists answers 404 to requests for all subscriptions.
	noLists bool
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
	if id, ok := strings.CutPrefix(r.URL.Path, "/v1/subscriptions/"); ok && s.subscriptions[id] != nil {
		answer(200, s.subscriptions[id])
		return
	}
	if r.URL.Path == "/v1/subscriptions" && !s.noLists {
		var data []object
		ids := slices.Sorted(maps.Keys(s.subscriptions))
		for _, id := range ids {
			sub := s.subscriptions[id]
			ended := sub["status"] == "canceled" && r.FormValue("status") != "all"
			if c := r.FormValue("customer"); !ended && (c == "" || sub["customer"] == c) && id > r.FormValue("starting_after") {
				data = append(data, sub)
			}
		}
		more := len(data) > 2 // so that there are several pages
		if more {
			data = data[:2]
		}
		answer(200, object{"object": "list", "data": data, "has_more": more, "url": "/v1/subscriptions"})
		return
	}
	answer(404, missing)
}

// set adds or changes a subscription; a nil value removes a field.
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

// items returns the items of a subscription to a plan, with the lookup keys of setup.
func items(plan string, seats int) object {
	return object{"object": "list", "data": []object{
		{"id": "si_over", "price": overageOf(plan, nil)},
		{"id": "si_base", "quantity": seats, "price": object{"id": "price_" + plan, "lookup_key": lookupBase + plan,
			"recurring": object{"usage_type": "licensed"}}},
	}}
}

// overageOf returns the overage price of a plan, with changes.
func overageOf(plan string, changes object) object {
	cents := map[string]int{"starter": 35, "pro": 30, "team": 25, "business": 20}[plan]
	price := object{
		"id": "price_over_" + plan, "lookup_key": lookupOverage + plan, "currency": "usd", "billing_scheme": "per_unit",
		"unit_amount": cents, "unit_amount_decimal": fmt.Sprint(cents), "recurring": object{"usage_type": "metered"},
	}
	maps.Copy(price, changes)
	return price
}

// webhookFixture has a process that receives webhooks, and the Stripe that it asks.
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
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		t.Parallel()
		f := &webhookFixture{T: t, at: webhookNoon, stub: &stripeStub{customers: map[string]object{}, subscriptions: map[string]object{},
			thin: map[string]object{}}}
		var err error
		f.db, err = models.Open(t.Context(), address)
		f.must(err)
		t.Cleanup(func() { _ = f.db.Close() })
		f.hook = f.process()
		test(f)
	})
}

// process returns the webhooks of one more process.
func (f *webhookFixture) process() *Webhooks {
	f.Helper()
	server := httptest.NewServer(f.stub)
	f.Cleanup(server.Close)
	client, err := NewClient(ClientOptions{Key: "sk_test_1", APIBase: server.URL})
	f.must(err)
	catalogue, err := models.LoadCatalogue("")
	f.must(err)
	w := NewWebhooks(WebhookOptions{
		DB: f.db, Client: client, Catalogue: catalogue, Secret: webhookSecret, Now: func() time.Time { return f.at },
		Random: func() float64 { return 0.5 },
		Log:    slog.New(slog.DiscardHandler),
	})
	w.account.passed.Store(true) // so that a test's requests are its own; see TestAKeyOfAnotherAccount
	return w
}

// link links people to Slack.
func (f *webhookFixture) link(links ...models.Link) {
	f.Helper()
	_, err := models.LinkPeople(f.Context(), f.db, f.at, links)
	f.must(err)
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

// event returns the payload of a snapshot event.
func event(id, kind string, at time.Time, of object) []byte {
	payload, err := json.Marshal(object{"id": id, "object": "event", "type": kind, "created": at.Unix(), "api_version": "2099-01-01",
		"data": object{"object": of}})
	if err != nil {
		panic(err) // cannot happen with strings and numbers
	}
	return payload
}

// receive stores an event without applying it and without waiting for that.
func (f *webhookFixture) receive(payload []byte) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 10*time.Second)
	defer cancel()
	e, err := f.hook.read(payload, sign(payload, f.at), models.Now(f.hook.clock))
	f.must(err)
	_, err = f.hook.store(ctx, e, models.Now(f.hook.clock))
	f.must(err)
}

// sendEvent sends an event of a customer and applies all events that are due.
func (f *webhookFixture) sendEvent(kind, customer string) {
	f.Helper()
	f.sent++
	f.receive(event(fmt.Sprintf("evt_%d", f.sent), kind, f.at, object{"id": "sub_1", "object": "subscription", "customer": customer}))
	f.must(f.hook.applyDue(f.Context()))
}

// entitlement returns a person's current entitlement; for an unknown person, that of the free plan.
func (f *webhookFixture) entitlement(email string) models.Entitlement {
	f.Helper()
	var ids []uuid.UUID
	f.must(f.db.NewSelect().Model((*models.User)(nil)).Column("id").Where("email = ?", email).Scan(f.Context(), &ids))
	if len(ids) == 0 {
		return models.Entitlement{}
	}
	e, err := models.EntitlementsOf(f.Context(), f.db, ids)
	f.must(err)
	return e[ids[0]]
}

// plan returns a person's current plan, as the gate reads it.
func (f *webhookFixture) plan(email string) string {
	f.Helper()
	of := f.entitlement(email)
	plan := string(f.hook.catalogue.PlanOf(of.PlanID).ID)
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

func (f *webhookFixture) wantProblem(id, part string) {
	f.Helper()
	c := f.customer(id)
	switch {
	case part == "" && c.Problem != nil:
		f.Errorf("%s has the problem %q", id, *c.Problem)
	case part != "" && (c.Problem == nil || !strings.Contains(*c.Problem, part)):
		f.Errorf("%s has the problem %v, want one with %q", id, text(c.Problem), part)
	}
}

func text(s *string) string {
	if s == nil {
		return "none"
	}
	return *s
}

// unapplied returns the number of events that wait.
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
