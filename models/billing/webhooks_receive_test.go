package billing

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

func TestSignatures(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		payload := event("evt_1", "ping", f.at, object{})
		for name, bad := range map[string]string{
			"missing": "", "wrong": strings.Replace(sign(payload, f.at), "v1=", "v1=00", 1), "of another body": sign([]byte("{}"), f.at),
			"6 minutes old": sign(payload, f.at.Add(-6*time.Minute)), "an hour ahead": sign(payload, f.at.Add(time.Hour)),
			"no signature": "t=1,v1=", "garbage": "a,b=c=d",
		} {
			if err := f.hook.Receive(f.Context(), payload, bad); !errors.Is(err, ErrNotStripes) {
				f.Errorf("%s: %v", name, err)
			}
		}
		for _, body := range []string{"", "null", "[]", "{", `{"id":"","type":"x"}`, `{"id":"evt"}`, `{"id":"evt","type":"invoice.paid"}`,
			`{"id":"` + strings.Repeat("a", 256) + `","type":"x"}`} {
			if err := f.hook.Receive(f.Context(), []byte(body), sign([]byte(body), f.at)); !errors.Is(err, ErrNotStripes) {
				f.Errorf("%q: %v", body, err)
			}
		}
		if n, err := f.db.NewSelect().Model((*models.StripeWebhookEvent)(nil)).Count(f.Context()); err != nil || n != 0 {
			f.Errorf("%d events are stored, %v", n, err)
		}
		for i, skew := range []time.Duration{-5 * time.Minute, 0, 5 * time.Minute} {
			payload := event(fmt.Sprint("evt_ok", i), "ping", f.at, object{})
			f.must(f.hook.Receive(f.Context(), payload, sign(payload, f.at.Add(skew))))
		}
		if n := f.unapplied(); n != 0 {
			f.Errorf("%d events of an unused type wait", n)
		}
	})
}

// Events arrive twice and in any order. The state at Stripe counts, and the time of the newest
// event never goes back.
func TestEventsTwiceAndOutOfOrder(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at.Add(-time.Hour), 1))
		f.sendEvent("customer.subscription.updated", "cus_1")
		asked := f.stub.asked()
		again := event("evt_1", "customer.subscription.updated", f.at, object{"id": "sub_1", "object": "subscription", "customer": "cus_1"})
		f.must(f.hook.Receive(f.Context(), again, sign(again, f.at)))
		f.must(f.hook.applyDue(f.Context()))
		if f.stub.asked() != asked {
			f.Error("a repeated event asked Stripe again")
		}
		before := f.row("sub_1")
		// The earlier event arrives later, with the earlier state.
		f.receive(event("evt_old", "customer.subscription.created", f.at.Add(-50*time.Minute),
			subscription("cus_1", "starter", "incomplete", f.at, 1)))
		f.must(f.hook.applyDue(f.Context()))
		after := f.row("sub_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		if !after.StripeEventAt.Equal(f.at) || !after.UpdatedAt.Equal(before.UpdatedAt) || f.unapplied() != 0 {
			f.Errorf("%+v became %+v", before, after)
		}
	})
}

// Stripe is down for a while. The events wait, attempts become rarer, and then all events are
// applied.
func TestStripeIsDown(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at, 1))
		f.stub.fail = 500
		f.sendEvent("customer.subscription.created", "cus_1")
		for i := range 12 {
			c := f.customer("cus_1")
			if wait := c.NextAttemptAt.Sub(f.at); c.Failures != i+1 || wait <= 0 || wait > maxDelay || c.LeaseToken != nil {
				f.Fatalf("after %d failures: %+v", i+1, c)
			}
			asked := f.stub.asked()
			f.must(f.hook.applyDue(f.Context()))
			if f.stub.asked() != asked {
				f.Fatal("the customer was tried too early")
			}
			f.at = c.NextAttemptAt.UTC()
			f.must(f.hook.applyDue(f.Context()))
		}
		f.wantPlan("ada@example.com", "free")
		var waiting models.StripeWebhookEvent
		f.must(f.db.NewSelect().Model(&waiting).Where("applied_at IS NULL").Scan(f.Context()))
		if !strings.Contains(text(waiting.LastError), "stub") {
			f.Errorf("the event's error is %s", text(waiting.LastError))
		}
		f.stub.fail = 0
		f.at = f.at.Add(maxDelay)
		f.must(f.hook.applyDue(f.Context()))
		f.wantPlan("ada@example.com", "pro by cus_1")
		if c := f.customer("cus_1"); c.Failures != 0 || c.NextAttemptAt != nil || f.unapplied() != 0 {
			f.Errorf("the customer is %+v", c)
		}
	})
}

// A slow process must not undo what a later one has stored.
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
			// While the first process waits for its answer, its lease expires and the second one
			// applies everything. The first one then still gets the old state.
			f.at = f.at.Add(leaseTime)
			f.stub.set("sub_1", object{"items": items("pro", 1)})
			f.must(second.applyDue(f.Context()))
			f.wantPlan("ada@example.com", "pro by cus_1")
			f.stub.set("sub_1", object{"items": items("starter", 1)})
		}
		f.sendEvent("customer.subscription.created", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		if c := f.customer("cus_1"); c.LeaseToken != nil || c.Failures != 0 {
			f.Errorf("the customer is %+v", c)
		}
	})
}

// A customer that a killed process had claimed is free after its lease of 30 seconds, and not
// sooner.
func TestACustomerOfAKilledProcess(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at, 1))
		f.receive(event("evt_1", "customer.subscription.created", f.at, object{"id": "sub_1", "object": "subscription", "customer": "cus_1"}))
		killed := f.process()
		claimed, err := killed.claim(f.Context())
		f.must(err)
		if claimed == nil {
			f.Fatal("no customer is due")
		}
		f.at = f.at.Add(20 * time.Second)
		f.must(f.hook.applyDue(f.Context()))
		f.wantPlan("ada@example.com", "free")
		f.at = f.at.Add(10 * time.Second)
		f.must(f.hook.applyDue(f.Context()))
		f.wantPlan("ada@example.com", "pro by cus_1")
	})
}

// A live process keeps its customer for longer than one lease, however slow Stripe is.
func TestALeaseIsRenewed(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at, 1))
		begin := f.at
		var passed atomic.Int64
		second := f.process()
		for _, w := range []*Webhooks{f.hook, second} {
			w.clock, w.leaseRenewal = func() time.Time { return begin.Add(time.Duration(passed.Load())) }, time.Millisecond
		}
		f.stub.before = func(path string) {
			if path != "/v1/subscriptions" {
				return
			}
			for range 6 {
				now := begin.Add(time.Duration(passed.Add(int64(10 * time.Second))))
				for deadline := time.Now().Add(20 * time.Second); f.customer("cus_1").
					LeasedUntil.Before(now.Add(leaseTime)); time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						f.Error("the lease is not renewed")
						return
					}
				}
				if c, err := second.claim(f.Context()); err != nil || c != nil {
					f.Errorf("after %s, another process claimed %v, %v", now.Sub(begin), c, err)
				}
			}
		}
		f.sendEvent("customer.subscription.created", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		if c := f.customer("cus_1"); c.LeaseToken != nil || c.LeasedUntil != nil || c.Failures != 0 {
			f.Errorf("the customer is %+v", c)
		}
	})
}

// A request ends with its lease: soon after another process claims the customer, and before a lease
// that is not renewed expires.
func TestNoRequestOutlivesItsLease(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.hook.leaseRenewal = time.Millisecond
		var deadline time.Duration
		client, err := NewClient(ClientOptions{Key: "sk_test_1", Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			_, err := f.db.ExecContext(f.Context(), "UPDATE stripe_customers SET lease_token = ?", uuid.New())
			f.must(err)
			begin := time.Now()
			<-r.Context().Done()
			deadline = time.Since(begin)
			return nil, r.Context().Err()
		})})
		f.must(err)
		f.hook.client = client
		f.sendEvent("customer.subscription.created", "cus_1")
		if deadline == 0 || deadline > leaseTime-leaseMargin {
			f.Errorf("the request ended after %s", deadline)
		}
		// If most of a lease is over and it is never renewed, the request has no time at all.
		f.hook.leaseRenewal = time.Hour
		claimed := f.customer("cus_1")
		claimed.LeaseToken, claimed.LeasedUntil = new(uuid.New()), new(f.at.Add(leaseMargin))
		patience, release := f.hook.renewLease(f.Context(), &claimed)
		defer release()
		<-patience.Done()
	})
}

// An event that arrives during a request to Stripe may be newer than the answer, so that answer
// does not apply it.
func TestAnEventDuringARequest(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "starter", "active", f.at, 1))
		var once sync.Once
		f.stub.before = func(path string) {
			if path == "/v1/subscriptions" {
				once.Do(func() {
					f.receive(event("evt_during", "customer.subscription.updated", f.at, object{"object": "subscription",
						"customer": object{"id": "cus_1"}}))
				})
			}
		}
		f.sendEvent("customer.subscription.created", "cus_1")
		if f.stub.asked() != 4 || f.unapplied() != 0 {
			f.Errorf("%d requests, %d events wait", f.stub.asked(), f.unapplied())
		}
	})
}

// Many events of one customer, from many callers at once in three processes, cost few requests.
func TestManyEventsAtOnce(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at, 1))
		const n = 1_000
		processes := []*Webhooks{f.hook, f.process(), f.process()}
		for _, p := range processes {
			p.clock, p.resyncNotBefore = time.Now, time.Now().Add(time.Hour)
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
		for deadline := time.Now().Add(time.Minute); f.unapplied() > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				f.Fatalf("%d events are not applied", f.unapplied())
			}
		}
		f.wantPlan("ada@example.com", "pro by cus_1")
		applied, err := f.db.NewSelect().Model((*models.StripeWebhookEvent)(nil)).Where("applied_at IS NOT NULL").Count(f.Context())
		f.must(err)
		subs, err := f.db.NewSelect().Model((*models.Subscription)(nil)).Count(f.Context())
		f.must(err)
		f.Logf("%d events, %d requests to Stripe", applied, f.stub.asked())
		if int(applied) != n || subs != 1 || f.stub.asked() > n/10 {
			f.Errorf("%d of %d events are applied, with %d requests; %d subscriptions", applied, n, f.stub.asked(), subs)
		}
	})
}

// After a webhook's answer, the new plan is visible immediately.
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
