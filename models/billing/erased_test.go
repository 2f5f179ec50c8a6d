package billing

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// The Stripe customer of an erased person stays theirs, even if the metadata names an address, and the
// text of later events is not stored.
func TestTheCustomerOfAnErasedPerson(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at.Add(-time.Hour), 1))
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		ada := uuid.MustParse(f.email("ada@example.com"))
		erasure := models.Erasure{DB: f.db, Now: func() time.Time { return f.at }}
		if _, err := erasure.Run(f.Context(), "ada@example.com", ada); err == nil {
			f.Fatal("a person with a subscription was erased")
		}
		f.stub.set("sub_1", subscription("cus_1", "pro", "canceled", f.at.Add(-time.Hour), 1))
		f.sendEvent("customer.subscription.deleted", "cus_1")
		// An event that waits when the person is erased.
		f.receive(event("evt_waiting", "customer.subscription.updated", f.at,
			object{"id": "sub_1", "object": "subscription", "customer": "cus_1", "description": "for ada@example.com"}))
		_, err := erasure.Run(f.Context(), "ada@example.com", ada)
		f.must(err)
		f.must(f.hook.applyDue(f.Context()))
		f.sendEvent("customer.subscription.updated", "cus_1")
		if c := f.customer("cus_1"); c.UserID == nil || *c.UserID != ada {
			f.Errorf("the customer belongs to %v, want %s", c.UserID, ada)
		}
		var people, texts int
		f.must(f.db.NewSelect().TableExpr("users").ColumnExpr("COUNT(*)").Where("email = 'ada@example.com'").Scan(f.Context(), &people))
		f.must(f.db.NewSelect().TableExpr("stripe_webhook_events").ColumnExpr("COUNT(*)").Where("payload <> '{}'").Scan(f.Context(), &texts))
		if people != 0 || texts != 0 || f.unapplied() != 0 {
			f.Errorf("%d people have the address, %d events their text, and %d wait; want none", people, texts, f.unapplied())
		}
	})
}
