package billing

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// erase erases the person.
func (f *webhookFixture) erase(person uuid.UUID) error {
	erasure := models.Erasure{DB: f.db, Now: func() time.Time { return f.at }}
	_, err := erasure.Run(f.Context(), "ada@example.com", person)
	return err
}

// wantCustomersOfErased checks that these Stripe customers belong to the person.
func (f *webhookFixture) wantCustomersOfErased(person uuid.UUID, customers ...string) {
	f.Helper()
	for _, id := range customers {
		if c := f.customer(id); c.UserID == nil || *c.UserID != person {
			f.Errorf("the customer %s belongs to %v, want %s", id, c.UserID, person)
		}
	}
}

// wantNoAddress checks that no one has the address, that the text of no event is stored, and that no
// event waits.
func (f *webhookFixture) wantNoAddress() {
	f.Helper()
	var people int
	var texts []string
	f.must(f.db.NewSelect().TableExpr("users").ColumnExpr("COUNT(*)").Where("email = 'ada@example.com'").Scan(f.Context(), &people))
	f.must(f.db.NewSelect().TableExpr("stripe_webhook_events").Column("payload").Where("payload <> '{}'").Scan(f.Context(), &texts))
	if people != 0 || len(texts) > 0 || f.unapplied() != 0 {
		f.Errorf("%d people have the address, the texts %q are stored, and %d events wait; want none", people, texts, f.unapplied())
	}
}

// The Stripe customer of an erased person stays theirs, even if the metadata names an address, and the
// text of later events is not stored.
func TestTheCustomerOfAnErasedPerson(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at.Add(-time.Hour), 1))
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		ada := uuid.MustParse(f.email("ada@example.com"))
		if err := f.erase(ada); err == nil {
			f.Fatal("a person with a subscription was erased")
		}
		f.stub.set("sub_1", subscription("cus_1", "pro", "canceled", f.at.Add(-time.Hour), 1))
		f.sendEvent("customer.subscription.deleted", "cus_1")
		// An event that waits when the person is erased.
		f.receive(event("evt_waiting", "customer.subscription.updated", f.at,
			object{"id": "sub_1", "object": "subscription", "customer": "cus_1", "description": "for ada@example.com"}))
		f.must(f.erase(ada))
		f.must(f.hook.applyDue(f.Context()))
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.wantCustomersOfErased(ada, "cus_1")
		f.wantNoAddress()
	})
}

// A customer that becomes known after its person was erased, and events of types that are not used.
func TestALaterCustomerOfAnErasedPerson(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		ada := uuid.MustParse(f.email("ada@example.com"))
		f.must(f.erase(ada))
		f.stub.customer("cus_1", nil)
		f.receive(event("evt_checkout", checkoutCompleted, f.at, object{"id": "cs_1", "object": "checkout.session", "customer": "cus_1",
			"client_reference_id": userReference + ada.String(), "customer_details": object{"email": "ada@example.com"}}))
		f.stub.customer("cus_2", object{"tollgate_user": ada.String()})
		f.receive(event("evt_invoice", "invoice.paid", f.at,
			object{"id": "in_1", "object": "invoice", "customer": "cus_2", "customer_email": "ada@example.com"}))
		f.must(f.hook.applyDue(f.Context()))
		f.receive(event("evt_unused", "customer.updated", f.at,
			object{"id": "cus_1", "object": "customer", "email": "ada@example.com", "name": "Ada"}))
		f.wantCustomersOfErased(ada, "cus_1", "cus_2")
		f.wantNoAddress()
	})
}

// An erasure while a customer's events are applied: Stripe has been asked, but nothing is stored yet.
func TestAnErasureWhileStripeIsAsked(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.sendEvent("customer.subscription.updated", "cus_1")
		ada := uuid.MustParse(f.email("ada@example.com"))
		erase := sync.OnceFunc(func() {
			if err := f.erase(ada); err != nil {
				f.Error(err)
			}
		})
		f.stub.mu.Lock()
		f.stub.before = func(string) { erase() }
		f.stub.mu.Unlock()
		f.receive(event("evt_late", "invoice.paid", f.at,
			object{"id": "in_1", "object": "invoice", "customer": "cus_1", "customer_email": "ada@example.com"}))
		f.must(f.hook.applyDue(f.Context()))
		f.wantCustomersOfErased(ada, "cus_1")
		f.wantNoAddress()
	})
}

// IsErased locks the person, so an erasure waits for the transaction that applies a customer's events.
func TestAnErasureWaitsForEventsThatAreApplied(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		ada := uuid.MustParse(f.email("ada@example.com"))
		done := make(chan error, 1)
		f.must(f.db.InTx(f.Context(), func(ctx context.Context, tx bun.Tx) error {
			if erased, err := models.IsErased(ctx, tx, ada); err != nil || erased {
				return fmt.Errorf("erased: %t, %w", erased, err)
			}
			go func() { done <- f.erase(ada) }()
			for waits := 0; waits == 0; {
				select {
				case err := <-done:
					return fmt.Errorf("the erasure did not wait: %w", err)
				default:
				}
				if waits = 1; f.db.Postgres { // SQLite has one writer
					f.must(f.db.NewSelect().TableExpr("pg_locks").ColumnExpr("COUNT(*)").Where("NOT granted").
						Where("pid IN (SELECT a.pid FROM pg_stat_activity a WHERE a.datname = current_database())").Scan(ctx, &waits))
				}
			}
			return nil
		}))
		f.must(<-done)
	})
}

// Usage that is not sent yet is sent and billed after the person was erased.
func TestUsageOfAnErasedPersonIsBilled(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		v.record(4, "sealed", v.now.Add(-3*time.Hour))
		v.seal()
		v.record(5, "unsealed", v.now.Add(-3*time.Hour))
		if _, err := v.db.NewUpdate().Model((*models.Subscription)(nil)).Set("status = ?", models.StatusCanceled).
			Where("user_id = ?", v.user).Exec(v.ctx); err != nil {
			t.Fatal(err)
		}
		before := v.balances()
		erasure := models.Erasure{DB: v.db, Now: v.clock}
		label, err := erasure.Run(v.ctx, "ada@example.com", v.user)
		v.must(err)
		if after := v.balances(); after != before || !strings.Contains(before, "decided 9 $2.70, sent 0, counted 0") {
			t.Errorf("the balances were\n%s\nand are\n%s", before, after)
		}
		v.now = v.now.Add(time.Hour)
		v.send()
		v.read()
		v.reconcileCleanly(false)
		if got := v.balances(); !strings.Contains(got, "decided 9 $2.70, sent 9, counted 9") {
			t.Errorf("the balances are\n%s", got)
		}
		var customers []string
		v.must(v.db.NewSelect().Model((*models.StripeReport)(nil)).ColumnExpr("DISTINCT stripe_customer_id").Scan(v.ctx, &customers))
		if !slices.Equal(customers, []string{"cus_1"}) {
			t.Errorf("reports were sent for %q", customers)
		}
		// An event in a report is voided by its ID.
		var event models.UsageEvent
		v.must(v.db.NewSelect().Model(&event).Where("user_id = ? AND overage_quantity = 4", v.user).Scan(v.ctx))
		if event.Email != label || *event.IdempotencyKey != event.ID.String() {
			t.Errorf("the event has the email %s and the key %s", event.Email, *event.IdempotencyKey)
		}
		v.wantVerified()
	})
}
