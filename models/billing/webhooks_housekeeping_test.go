package billing

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

func TestErrorsOfMeters(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		report := func(identifier string, minute int, state models.ReportState) {
			f.Helper()
			later := f.at.Add(20 * time.Hour)
			_, err := f.db.NewInsert().Model(&models.StripeReport{
				ID: uuid.New(), Identifier: identifier, StripeCustomerID: "cus_1", MeterEventName: "m",
				Minute: f.at.Add(time.Duration(minute) * time.Minute), Value: 1, Counts: models.CountsOverage, State: state,
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
			"id": "evt_full", "object": "v2.core.event", "type": ThinWebhookTypes[0], "created": "2026-11-23T11:59:00.123Z",
			"related_object": object{"id": "mtr_1"},
			"data": object{"developer_message_summary": "There are 2 invalid events", "reason": object{"error_count": 2, "error_types": []object{
				{"code": "meter_event_no_customer_defined", "error_count": 2, "sample_errors": []object{sample("a"), sample("b"),
					sample("unknown"), sample("")}},
			}}},
		}
		thin := func(id, kind string) object {
			return object{"id": id, "object": "v2.core.event", "type": kind, "created": "2026-11-23T11:59:00Z",
				"related_object": object{"id": "mtr_1"}}
		}
		f.stub.thin["evt_thin"] = object{"id": "evt_thin", "data": object{"developer_message_summary": "fetched",
			"reason": object{"error_types": []object{{"code": "x", "error_count": 1, "sample_errors": []object{sample("c")}}}}}}
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
		if want := []string{"a meter_event_no_customer_defined: no customer true", "b meter_event_no_customer_defined: no customer false",
			"c x: no customer true"}; !slices.Equal(got, want) {
			f.Errorf("the reports are %q", got)
		}
		got = nil
		var events []models.StripeWebhookEvent
		f.must(f.db.NewSelect().Model(&events).Order("id").Scan(f.Context()))
		for _, e := range events {
			got = append(got, fmt.Sprintf("%s %s %t", e.ID, text(e.LastError), e.AppliedAt != nil && e.OccurredAt != nil))
		}
		if want := []string{"evt_full There are 2 invalid events; meter_event_no_customer_defined: 2 true",
			"evt_lost Stripe gave no details true", "evt_thin fetched; x: 1 true"}; !slices.Equal(got, want) {
			f.Errorf("the events are %q", got)
		}
	})
}

// Changes without a webhook are found once a day, by one process.
func TestDailyResync(t *testing.T) {
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
		f.at = f.at.Add(24 * time.Hour)
		delete(f.stub.subscriptions, "sub_1")
		f.stub.set("sub_2", object{"status": "canceled"})
		f.stub.set("sub_3", object{"cancel_at_period_end": true})
		f.stub.fail = 500
		if _, err := second.Resync(f.Context()); err == nil {
			f.Error("the comparison returned no error while Stripe was down")
		}
		f.stub.fail = 0
		resync(f.hook, 0) // again after resyncRetry, not immediately
		f.at = f.at.Add(resyncRetry)
		resync(f.hook, 4)
		f.wantPlan("u0@example.com", "pro by cus_0")
		f.wantPlan("u1@example.com", "free")
		f.wantPlan("u2@example.com", "free")
		f.wantPlan("u3@example.com", "starter by cus_3")
		f.at = f.at.Add(24 * time.Hour)
		resync(f.hook, 0)
	})
}

// With the key of another account or of the other mode, Stripe knows no customer. That ends no
// subscription.
func TestAKeyOfAnotherAccount(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at, 1))
		f.hook.account.passed.Store(false)
		f.sendEvent("customer.subscription.created", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		if asked := f.stub.asked(); asked != 3 {
			f.Errorf("%d requests, want 3", asked)
		}
		f.sendEvent("customer.subscription.updated", "cus_1")
		if asked := f.stub.asked(); asked != 5 {
			f.Errorf("%d requests, want 5: the account was requested again", asked)
		}
		f.stub.customers, f.stub.subscriptions = map[string]object{}, map[string]object{}
		for name, change := range map[string]func(*Webhooks){
			"another account": func(*Webhooks) { f.stub.account = "acct_2" },
			"the other mode":  func(w *Webhooks) { f.stub.account = ""; w.client.Live = true },
		} {
			other := f.process()
			other.account.passed.Store(false)
			change(other)
			f.at = f.at.Add(24 * time.Hour)
			f.sent++
			f.receive(event(fmt.Sprintf("evt_%d", f.sent), "customer.subscription.updated", f.at,
				object{"object": "subscription", "customer": "cus_1"}))
			f.must(other.applyDue(f.Context()))
			if _, err := other.Resync(f.Context()); !errors.Is(err, ErrOtherAccount) {
				f.Errorf("%s: %v", name, err)
			}
			f.wantPlan("ada@example.com", "pro by cus_1")
			if c := f.customer("cus_1"); c.Failures == 0 {
				f.Errorf("%s: the customer is %+v", name, c)
			}
		}
	})
}
