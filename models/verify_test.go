package models_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// id returns a UUID that ends with n.
func id(n int) uuid.UUID { return uuid.MustParse(fmt.Sprintf("00000000-0000-7000-8000-%012d", n)) }

// ledger stores a ledger without differences. One record has 9 units from three events, one of them
// a settled hold and two in a report, and an open hold of 2. A past record of an earlier release
// was shortened by a subscription to end before one of its events. One record has no valid events:
// its only one was voided.
func (f *fixture) ledger(t *testing.T) {
	t.Helper()
	october := models.CalendarMonth(noon.AddDate(0, -1, 0))
	adaID, bobID := f.user(t, "ada@example.com"), f.user(t, "bob@example.com")
	f.insert(t, &models.Subscription{
		ID: id(41), UserID: &adaID, PlanID: "pro", Status: models.StatusActive, StripeSubscriptionID: ptr("sub_1"),
		StripeCustomerID: ptr("cus_1"),
		OverageRateCents: ptr(int64(30)), CreatedAt: noon, UpdatedAt: noon,
	})
	ada := models.UsageRecord{
		UserID: adaID, Email: "ada@example.com", BillingPeriodStart: november.Start, BillingPeriodEnd: november.End, PlanID: "pro",
		SuggestionsIncluded: 75,
		SuggestionsUsed:     9, OverageUsed: 6, OverageCents: 180, UnitsHeld: 2, OverageHeld: 1, OverageCentsHeld: 30,
		HoldsExpireAt: ptr(noon.Add(time.Minute)),
		Daily:         models.Daily("").Add(22, 9), Entitled: true, Payer: ptr("cus_1"), OverageRateCents: 30, StripeCustomerID: ptr("cus_1"),
		CreatedAt: noon,
	}
	bob := models.UsageRecord{
		UserID: bobID, Email: "bob@example.com", BillingPeriodStart: november.Start, BillingPeriodEnd: november.End, PlanID: "free",
		SuggestionsIncluded: 5,
		Entitled:            true, Payer: ptr(""), CreatedAt: noon,
	}
	cut := models.UsageRecord{
		UserID: adaID, Email: "ada@example.com", BillingPeriodStart: october.Start, BillingPeriodEnd: october.End.AddDate(0, 0, -5),
		PlanID:              "free",
		SuggestionsIncluded: 5, SuggestionsUsed: 4, Daily: models.Daily("").Add(22, 3).Add(27, 1), Entitled: true, CreatedAt: noon,
	}
	for i, r := range []*models.UsageRecord{&ada, &bob, &cut} {
		if f.insert(t, r); r.ID != int64(i+1) {
			t.Fatalf("the record %d has the ID %d", i+1, r.ID)
		}
	}
	event := func(n int, r *models.UsageRecord, at time.Time, quantity, overage int64, report *uuid.UUID) models.UsageEvent {
		return models.UsageEvent{
			ID: id(n), UserID: r.UserID, RecordID: r.ID, Email: "former@example.com", Quantity: quantity, OverageQuantity: overage,
			OverageCents:   30 * overage,
			IdempotencyKey: ptr(fmt.Sprint("k", n)), OccurredAt: at, RecordedAt: noon, StripeCustomerID: ptr("cus_1"), StripeReportID: report,
			Figures: models.Figures{PlanID: r.PlanID, BillingPeriodStart: october.Start, BillingPeriodEnd: november.End},
		}
	}
	events := []models.UsageEvent{
		event(1, &ada, noon, 1, 1, ptr(id(30))), event(2, &ada, noon, 5, 4, ptr(id(30))), event(3, &ada, noon, 3, 1, nil),
		event(4, &cut, noon.AddDate(0, -1, 0), 3, 0, ptr(id(31))), event(5, &cut, october.End.AddDate(0, 0, -4), 1, 0, ptr(id(31))),
		event(6, &bob, noon, 2, 2, nil),
	}
	events[2].IdempotencyKey, events[2].HoldID = nil, ptr(id(20))
	events[5].VoidedAt, events[5].VoidReason = ptr(noon), ptr("by mistake")
	for i := range events {
		f.insert(t, &events[i])
	}
	f.insert(t, &models.UsageVoid{
		UserID: bobID, EventID: id(6), Email: "former@example.com", Quantity: 2, OverageQuantity: 2, OverageCents: 60, Reason: "by mistake",
		VoidedBy: models.ActorShell, VoidedAt: noon, Figures: events[5].Figures, State: models.VoidNotReported,
	})
	holds := []models.UsageHold{
		{Quantity: 4, OverageQuantity: 2, State: models.HoldSettled}, {Quantity: 2, OverageQuantity: 1, State: models.HoldOpen},
		{Quantity: 8, State: models.HoldReleased},
	}
	for i, h := range holds {
		h.ID, h.UserID, h.RecordID, h.Email, h.IdempotencyKey, h.OverageCents = id(20+i), ada.UserID, ada.ID, "former@example.com",
			fmt.Sprint("h", i), 30*h.OverageQuantity
		h.ExpiresAt, h.CreatedAt = noon.Add(time.Minute), noon
		h.Figures = models.Figures{PlanID: "pro", BillingPeriodStart: october.Start, BillingPeriodEnd: november.End}
		f.insert(t, &h)
	}
	for i, r := range []struct {
		value  int
		counts string
	}{{5, "overage"}, {4, "quantity"}} {
		f.exec(t, `INSERT INTO stripe_reports (id, identifier, stripe_customer_id, meter_event_name, minute, value, counts, state, created_at)
			VALUES (?, ?, 'cus_1', 'suggestions', ?, ?, ?, 'pending', ?)`, id(30+i), fmt.Sprint("test:", i),
			noon.Add(time.Duration(i)*time.Minute), r.value, r.counts, noon)
	}
}

func (f *fixture) verify(t *testing.T) []string {
	t.Helper()
	var lines []string
	if err := models.Verify(f.ctx, f.db, func(d models.Difference) { lines = append(lines, d.String()) }); err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestVerifyFindsNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		if got := f.verify(t); len(got) != 0 {
			t.Errorf("an empty database: %q", got)
		}
		f.ledger(t)
		if got := f.verify(t); len(got) != 0 {
			t.Errorf("a ledger without differences: %q", got)
		}
	})
}

func TestVerifyFindsEachDifference(t *testing.T) {
	const ada, bob, october = "1 of ada@example.com, 2026-11-01T00:00:00Z to 2026-12-01T00:00:00Z: ",
		"2 of bob@example.com, 2026-11-01T00:00:00Z to 2026-12-01T00:00:00Z: ",
		"3 of ada@example.com, 2026-10-01T00:00:00Z to 2026-10-27T00:00:00Z: "
	const changed = "its copy of the person, workspace, plan or payment is out of date"
	record := func(label, problem string) string { return "usage record " + label + problem }
	event := func(n int, problem string) string {
		return fmt.Sprintf("usage event %s of former@example.com, 2026-10-01T00:00:00Z to 2026-12-01T00:00:00Z: %s", id(n), problem)
	}
	hold := func(n int, problem string) string {
		return strings.Replace(event(n, problem), "usage event", "hold", 1)
	}
	report := func(n int, problem string) string {
		return fmt.Sprintf("report %s of customer cus_1, 2026-11-23T12:%02d:00Z to 2026-11-23T12:%02d:00Z: %s", id(n), n-30, n-29, problem)
	}
	count := func(label, what string, stored, counted int) string {
		return record(label, fmt.Sprintf("%d %s are stored, %d were counted from its events", stored, what, counted))
	}
	held := func(label, what string, stored, counted int) string {
		return record(label, fmt.Sprintf("%d %s on hold are stored, %d were counted from its open holds", stored, what, counted))
	}
	days := func(label string, stored, missing int) string {
		return record(label, fmt.Sprintf("compared with its events, %d units too many are stored on some days, and %d are missing on others",
			stored, missing))
	}
	const voided = "it has %d units and its void has %d; the void is missing, or its units or overage differ"
	const used, over, cents = "used units", "units of overage", "cents of overage"
	bobIs := func(change string) string { return "UPDATE users SET " + change + " WHERE email = 'bob@example.com'" }
	const entitled = "UPDATE usage_records SET entitled = true"
	for _, test := range []struct {
		name  string
		plant []string
		want  []string
	}{
		{"counter too high", []string{"UPDATE usage_records SET suggestions_used = 10 WHERE id = 1"}, []string{count(ada, used, 10, 9)}},
		{"counter without events", []string{"UPDATE usage_records SET suggestions_used = 1 WHERE id = 2"}, []string{count(bob, used, 1, 0)}},
		{"overage too low", []string{"UPDATE usage_records SET overage_used = 5 WHERE id = 1"}, []string{count(ada, over, 5, 6)}},
		{"a cent too much", []string{"UPDATE usage_records SET overage_cents = 181 WHERE id = 1"}, []string{count(ada, cents, 181, 180)}},
		{"event that is billed once more", []string{"UPDATE usage_events SET overage_quantity = 2, overage_cents = 60 WHERE hold_id IS NOT NULL"},
			[]string{count(ada, over, 6, 7), count(ada, cents, 180, 210)}},
		{"event lost", []string{"DELETE FROM usage_events WHERE idempotency_key = 'k4'"},
			[]string{count(october, used, 4, 1), days(october, 3, 0), report(31, "4 units are stored, 1 were counted from its events")}},
		{"deleted event that is in the sums", []string{"DELETE FROM usage_events WHERE idempotency_key = 'k4'",
			"INSERT INTO usage_pruned SELECT user_id, id, 1, 3, 0, 0 FROM usage_records WHERE id = 3",
			"INSERT INTO stripe_reports_pruned VALUES ('" + id(31).String() + "', 3)"}, nil},
		{"deleted event with other sums", []string{"DELETE FROM usage_events WHERE idempotency_key = 'k4'",
			"INSERT INTO usage_pruned SELECT user_id, id, 1, 2, 1, 7 FROM usage_records WHERE id = 3",
			"INSERT INTO stripe_reports_pruned VALUES ('" + id(31).String() + "', 2)"},
			[]string{count(october, used, 4, 3), count(october, over, 0, 1), count(october, cents, 0, 7), days(october, 1, 0),
				report(31, "4 units are stored, 3 were counted from its events")}},
		{"deleted event with a wrong day", []string{"DELETE FROM usage_events WHERE idempotency_key = 'k4'",
			"INSERT INTO usage_pruned SELECT user_id, id, 1, 3, 0, 0 FROM usage_records WHERE id = 3",
			"INSERT INTO stripe_reports_pruned VALUES ('" + id(31).String() + "', 3)",
			"UPDATE usage_records SET daily = '4' WHERE id = 3"}, []string{days(october, 1, 1)}},
		{"sums without a record", []string{"INSERT INTO retention VALUES (1, '2025-06-01 00:00:00+00:00')",
			"INSERT INTO usage_pruned SELECT user_id, 99, 1, 3, 0, 0 FROM usage_records WHERE id = 3"},
			[]string{"usage record 99 of ada@example.com, 2025-06-01T00:00:00Z to 2025-06-01T00:00:00Z: " +
				"the sums of deleted events have 3 units for this record, but the record does not exist"}},
		{"sums without a report", []string{"INSERT INTO retention VALUES (1, '2025-06-01 00:00:00+00:00')",
			"INSERT INTO stripe_reports_pruned VALUES ('" + id(39).String() + "', 3)"},
			[]string{"report " + id(39).String() + " of customer unknown, 2025-06-01T00:00:00Z to 2025-06-01T00:01:00Z: " +
				"3 units of its deleted events are stored, but the report does not exist"}},
		{"voided event that still counts", []string{"UPDATE usage_events SET voided_at = recorded_at WHERE hold_id IS NOT NULL"},
			[]string{count(ada, used, 9, 6), count(ada, over, 6, 5), count(ada, cents, 180, 150), days(ada, 3, 0),
				event(3, fmt.Sprintf(voided, 3, 0))}},
		{"voided event counted", []string{"UPDATE usage_events SET voided_at = NULL WHERE idempotency_key = 'k6'"},
			[]string{count(bob, used, 0, 2), count(bob, over, 0, 2), count(bob, cents, 0, 60), days(bob, 0, 2),
				"void " + strings.TrimPrefix(event(6, "its event with 2 units does not exist or is not voided"), "usage event ")}},
		{"void without its credit note", []string{"UPDATE usage_voids SET state = 'credited'"},
			[]string{"void " + strings.TrimPrefix(event(6, "its state does not match its credit note or its next attempt"), "usage event ")}},
		{"void of other cents", []string{"UPDATE usage_voids SET overage_cents = 30"}, []string{event(6, fmt.Sprintf(voided, 2, 2))}},
		{"unit on another day", []string{"UPDATE usage_records SET daily = replace(daily, '0,9', '2,7') WHERE id = 1"},
			[]string{days(ada, 2, 2)}},
		{"no days", []string{"UPDATE usage_records SET daily = ''"}, []string{days(ada, 0, 9), days(october, 0, 4)}},
		{"days without events", []string{"UPDATE usage_records SET daily = '0,3' WHERE id = 2"}, []string{days(bob, 3, 0)}},
		{"event of another day", []string{"UPDATE usage_events SET occurred_at = '2026-11-23 23:59:59.999999+00:00' WHERE idempotency_key = 'k1'",
			"UPDATE usage_events SET occurred_at = '2026-11-24 00:00:00+00:00' WHERE idempotency_key = 'k2'"}, []string{days(ada, 5, 5)}},
		{"held too few", []string{"UPDATE usage_records SET units_held = 1 WHERE id = 1"}, []string{held(ada, "units", 1, 2)}},
		{"held without holds", []string{"UPDATE usage_records SET units_held = 3 WHERE id = 2"}, []string{held(bob, "units", 3, 0)}},
		{"overage held too much", []string{"UPDATE usage_records SET overage_held = 2, overage_cents_held = 60 WHERE id = 1"},
			[]string{held(ada, "units of overage", 2, 1), held(ada, "cents of overage", 60, 30)}},
		{"holds never given back", []string{"UPDATE usage_records SET holds_expire_at = NULL WHERE id = 1"},
			[]string{record(ada, "2 units on hold expire earlier than the record says")}},
		{"holds given back late", []string{"UPDATE usage_records SET holds_expire_at = '2026-11-23 12:01:01+00:00' WHERE id = 1"},
			[]string{record(ada, "2 units on hold expire earlier than the record says")}},
		{"granted without a grant", []string{"UPDATE usage_records SET granted = 3 WHERE id = 2"},
			[]string{record(bob, "3 granted units are stored, 0 were counted from its grants")}},
		{"grant that ends unseen", []string{"INSERT INTO usage_grants (id, user_id, record_id, quantity, reason, granted_by, created_at, " +
			"expires_at) " +
			"SELECT '" + id(43).String() + "', user_id, id, 2, 'r', 'a', created_at, billing_period_end FROM usage_records WHERE id = 2",
			"UPDATE usage_records SET granted = 2 WHERE id = 2"},
			[]string{record(bob, "2 granted units expire earlier than the record says")}},
		{"grant without record", []string{"INSERT INTO usage_grants (id, user_id, record_id, quantity, reason, granted_by, created_at) " +
			"SELECT '" + id(43).String() + "', user_id, 99, 2, 'r', 'a', '2026-11-01 00:00:00+00:00' FROM usage_records WHERE id = 2"},
			[]string{"grant " + id(43).String() + " of bob@example.com, 2026-11-01T00:00:00Z to 2026-11-01T00:00:00Z: " +
				"its units are in usage record 99, which its person does not have"}},
		{"records overlap", []string{"UPDATE usage_records SET billing_period_end = '2026-11-01 00:00:01+00:00' WHERE id = 3"},
			[]string{"usage record 3 of ada@example.com, 2026-10-01T00:00:00Z to 2026-11-01T00:00:01Z: it overlaps usage record 1 of the " +
				"same person"}},
		{"spend limit that changed", []string{bobIs("spend_limit_cents = 100"), entitled}, []string{record(bob, changed)}},
		{"plan that ended", []string{"UPDATE subscriptions SET status = 'canceled'", entitled}, []string{record(ada, changed)}},
		{"plan that began", []string{"INSERT INTO subscriptions (id, user_id, plan_id, status, created_at, updated_at) SELECT '" + id(42).
			String() +
			"', id, 'pro', 'active', created_at, created_at FROM users WHERE email = 'bob@example.com'", entitled}, []string{record(bob, changed)}},
		{"plan that is not its payer's", []string{"UPDATE usage_records SET payer = '' WHERE id = 1"}, []string{record(ada, changed)}},
		{"payer without a plan", []string{"UPDATE usage_records SET payer = 'organization:x' WHERE id = 2"}, []string{record(bob, changed)}},
		{"rate that changed", []string{"UPDATE subscriptions SET overage_rate_cents = 25", entitled}, []string{record(ada, changed)}},
		{"rate that was not read", []string{"UPDATE subscriptions SET overage_rate_cents = NULL", entitled}, []string{record(ada, changed)}},
		{"trial that bills", []string{"UPDATE subscriptions SET status = 'trialing'", entitled}, []string{record(ada, changed)}},
		{"payment past due", []string{"UPDATE subscriptions SET status = 'past_due'", entitled}, []string{record(ada, changed)}},
		{"payment that succeeded", []string{"UPDATE usage_records SET past_due = true WHERE id = 2"}, []string{record(bob, changed)}},
		{"a record that is to be prepared", []string{"UPDATE subscriptions SET status = 'past_due'"}, nil},
		{"counted in another workspace", []string{"UPDATE usage_records SET present_workspace_id = '" + id(40).String() + "' WHERE id = 2"},
			[]string{record(bob, "it is counted on the pages of a workspace that its person is not in")}},
		{"another address", []string{"UPDATE usage_records SET email = 'eve@example.com' WHERE id = 2"},
			[]string{record(strings.Replace(bob, "bob@", "eve@", 1), "its email is not the person's current email")}},
		{"person deleted", []string{"DELETE FROM users WHERE email = 'bob@example.com'"}, []string{record(bob, "its person does not exist")}},
		{"event without record", []string{"UPDATE usage_events SET record_id = 99 WHERE idempotency_key = 'k1'"},
			[]string{count(ada, used, 9, 8), count(ada, over, 6, 5), count(ada, cents, 180, 150), days(ada, 1, 0),
				event(1, "it counts in usage record 99, which its person does not have")}},
		{"event of another person", []string{"UPDATE usage_events SET user_id = '" + id(40).String() + "' WHERE idempotency_key = 'k1'"},
			[]string{count(ada, used, 9, 8), count(ada, over, 6, 5), count(ada, cents, 180, 150), days(ada, 1, 0),
				event(1, "it counts in usage record 1, which its person does not have")}},
		{"event before its record", []string{"UPDATE usage_events SET occurred_at = '2026-10-31 23:59:59.999999+00:00' WHERE " +
			"idempotency_key = 'k1'"},
			[]string{days(ada, 1, 1), event(1, "it counts in usage record 1, which is another period's")}},
		{"event at the end of its record", []string{"UPDATE usage_events SET occurred_at = '2026-12-01 00:00:00+00:00' WHERE " +
			"idempotency_key = 'k1'"},
			[]string{days(ada, 1, 1), event(1, "it counts in usage record 1, which is another period's")}},
		{"event that should have moved", []string{"UPDATE usage_records SET payer = '' WHERE id = 3"},
			[]string{event(5, "it counts in usage record 3, which is another period's")}},
		{"hold without record", []string{"UPDATE usage_holds SET record_id = 99 WHERE idempotency_key = 'h2'"},
			[]string{hold(22, "its units are in usage record 99, which its person does not have")}},
		{"hold of another person", []string{"UPDATE usage_holds SET user_id = '" + id(40).String() + "' WHERE idempotency_key = 'h2'"},
			[]string{hold(22, "its units are in usage record 1, which its person does not have")}},
		{"hold of another period", []string{"UPDATE usage_holds SET created_at = '2026-12-01 00:00:00+00:00' WHERE state = 'open'"},
			[]string{hold(21, "its units are in usage record 1, which is another period's")}},
		{"settled without event", []string{"UPDATE usage_holds SET state = 'settled' WHERE idempotency_key = 'h2'"},
			[]string{hold(22, "it is settled, so it must have 1 event, but 0 were counted")}},
		{"settled twice", []string{"DROP INDEX usage_events_user_id_hold_id", "UPDATE usage_holds SET quantity = 5 WHERE idempotency_key = 'h0'",
			"UPDATE usage_events SET idempotency_key = NULL, hold_id = '" + id(20).String() + "' WHERE idempotency_key = 'k2'"},
			[]string{hold(20, "it is settled, so it must have 1 event, but 2 were counted")}},
		{"settled by another person's event", []string{"UPDATE usage_holds SET user_id = '" + id(40).String() + "' WHERE idempotency_key = 'h0'"},
			[]string{hold(20, "its units are in usage record 1, which its person does not have"),
				hold(20, "it is settled, so it must have 1 event, but 0 were counted"),
				event(3, "it has 3 units and its hold has 0; the hold is missing, too small, not settled or in another record")}},
		{"settled with more than was held", []string{"UPDATE usage_holds SET quantity = 2 WHERE idempotency_key = 'h0'"},
			[]string{event(3, "it has 3 units and its hold has 2; the hold is missing, too small, not settled or in another record")}},
		{"counted although released", []string{"UPDATE usage_holds SET state = 'released' WHERE idempotency_key = 'h0'"},
			[]string{event(3, "it has 3 units and its hold has 4; the hold is missing, too small, not settled or in another record")}},
		{"counted in another record than its hold", []string{"UPDATE usage_holds SET record_id = 3 WHERE idempotency_key = 'h0'"},
			[]string{event(3, "it has 3 units and its hold has 4; the hold is missing, too small, not settled or in another record")}},
		{"event without its hold", []string{"DELETE FROM usage_holds WHERE idempotency_key = 'h0'"},
			[]string{event(3, "it has 3 units and its hold has 0; the hold is missing, too small, not settled or in another record")}},
		{"report too high", []string{"UPDATE stripe_reports SET value = 7 WHERE counts = 'overage'"},
			[]string{report(30, "7 units are stored, 5 were counted from its events")}},
		{"report of all units", []string{"UPDATE stripe_reports SET counts = 'quantity'"},
			[]string{report(30, "5 units are stored, 6 were counted from its events")}},
		{"report of overage only", []string{"UPDATE stripe_reports SET counts = 'overage'"},
			[]string{report(31, "4 units are stored, 0 were counted from its events")}},
		{"report without events", []string{"UPDATE usage_events SET stripe_report_id = NULL WHERE record_id = 1"},
			[]string{report(30, "5 units are stored, 0 were counted from its events")}},
		{"report lost", []string{"DELETE FROM stripe_reports WHERE counts = 'overage'"},
			[]string{event(1, "its 1 units went into a report that does not exist or is another customer's"),
				event(2, "its 5 units went into a report that does not exist or is another customer's")}},
		{"report of another customer", []string{"UPDATE usage_events SET stripe_customer_id = 'cus_2' WHERE idempotency_key = 'k2'"},
			[]string{event(2, "its 5 units went into a report that does not exist or is another customer's")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, f *fixture) {
				f.ledger(t)
				for _, statement := range test.plant {
					f.exec(t, statement)
				}
				if got := f.verify(t); !slices.Equal(got, test.want) {
					t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
				}
			})
		})
	}
}

// A decision that commits during a verification changes the counter and the ledger together. The
// verification must see both changes or neither.
func TestVerifyReadsOneMoment(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.ledger(t)
		f.exec(t, "UPDATE usage_records SET suggestions_used = 11 WHERE id = 1")
		var lines []string
		err := models.Verify(f.ctx, f.db, func(d models.Difference) {
			lines = append(lines, d.String())
			// Meanwhile, a writer changes the counter and deletes events, without waiting for the reader.
			ctx, cancel := context.WithTimeout(f.ctx, 5*time.Second)
			defer cancel()
			if _, err := f.db.ExecContext(ctx, "UPDATE usage_records SET units_held = 7"); err != nil {
				t.Error(err)
			}
			if _, err := f.db.ExecContext(ctx, "DELETE FROM usage_events"); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) != 1 || !strings.HasSuffix(lines[0], "11 used units are stored, 9 were counted from its events") {
			t.Errorf("the differences are %q", lines)
		}
	})
}
