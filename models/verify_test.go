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

// id is a UUID that a test can spell.
func id(n int) uuid.UUID { return uuid.MustParse(fmt.Sprintf("00000000-0000-7000-8000-%012d", n)) }

// ledger stores what a verified ledger has of each kind: a record of 9 units from three events, one of them a settled
// hold and two in a report; an open hold of 2; a past record that a subscription cut short; a record without events.
func (f *fixture) ledger(t *testing.T) {
	t.Helper()
	ada := f.use(t, "ada@example.com", noon, "pro", 9)
	f.use(t, "bob@example.com", noon, "free", 0)
	cut := f.use(t, "ada@example.com", noon.AddDate(0, -1, 0), "free", 4)
	minute := noon.Truncate(time.Minute)
	f.insert(t, &models.UsageEvent{
		ID: id(4), RecordID: cut.ID, Email: "ada@example.com", Quantity: 4, IdempotencyKey: ptr("k4"), OccurredAt: noon.AddDate(0, -1, 0), RecordedAt: noon, PlanID: "free",
		BillingPeriodStart: cut.BillingPeriodStart, BillingPeriodEnd: cut.BillingPeriodEnd, UsedAfter: 4, Included: 5,
	})
	f.exec(t, "UPDATE usage_records SET billing_period_end = ? WHERE id = ?", cut.BillingPeriodEnd.AddDate(0, 0, -5), cut.ID)
	for i, quantity := range []int64{1, 5, 3} {
		e := models.UsageEvent{
			ID: id(i + 1), RecordID: ada.ID, Email: "ada@example.com", Quantity: quantity, IdempotencyKey: ptr(fmt.Sprint("k", i)),
			OccurredAt: noon, RecordedAt: noon, PlanID: "pro", BillingPeriodStart: november.Start, BillingPeriodEnd: november.End, Included: 75, StripeCustomerID: ptr("cus_1"),
		}
		if i < 2 {
			e.StripeReportID = ptr(id(30))
		} else {
			e.IdempotencyKey, e.HoldID = nil, ptr(id(20))
		}
		f.insert(t, &e)
	}
	for i, h := range []models.UsageHold{{Quantity: 4, State: models.HoldSettled}, {Quantity: 2, State: models.HoldOpen}, {Quantity: 8, State: models.HoldReleased}} {
		h.ID, h.RecordID, h.Email, h.IdempotencyKey = id(20+i), ada.ID, ada.Email, fmt.Sprint("h", i)
		h.ExpiresAt, h.CreatedAt, h.PlanID, h.BillingPeriodStart, h.BillingPeriodEnd = noon.Add(time.Minute), noon, "pro", november.Start, november.End
		f.insert(t, &h)
	}
	for i, daily := range []models.Daily{models.Daily("").Add(22, 9), "", models.Daily("").Add(22, 4)} {
		f.exec(t, "UPDATE usage_records SET daily = ? WHERE id = ?", daily, i+1)
	}
	f.exec(t, "UPDATE usage_records SET units_held = 2, holds_expire_at = ? WHERE id = ?", noon.Add(time.Minute), ada.ID)
	f.exec(t, `INSERT INTO stripe_reports (id, identifier, stripe_customer_id, meter_event_name, minute, value, state, created_at)
		VALUES (?, 'test:1', 'cus_1', 'suggestions', ?, 6, 'pending', ?)`, id(30), minute, noon)
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
			t.Errorf("in an empty database: %q", got)
		}
		f.ledger(t)
		if got := f.verify(t); len(got) != 0 {
			t.Errorf("in a clean one: %q", got)
		}
	})
}

func TestVerifyFindsEachDifference(t *testing.T) {
	const ada, bob, october = "1 of ada@example.com, 2026-11-01T00:00:00Z to 2026-12-01T00:00:00Z: ",
		"2 of bob@example.com, 2026-11-01T00:00:00Z to 2026-12-01T00:00:00Z: ", "3 of ada@example.com, 2026-10-01T00:00:00Z to 2026-10-27T00:00:00Z: "
	event := func(n int, fault string) string {
		return fmt.Sprintf("usage event %s of ada@example.com, 2026-11-01T00:00:00Z to 2026-12-01T00:00:00Z: %s", id(n), fault)
	}
	hold := func(n int, fault string) string {
		return strings.Replace(event(n, fault), "usage event", "hold", 1)
	}
	days := func(stored, missing int) string {
		return fmt.Sprintf("%d units are stored on days that its events do not give, %d are missing on days that they do", stored, missing)
	}
	for _, test := range []struct {
		name  string
		plant []string
		want  []string
	}{
		{"counter too high", []string{"UPDATE usage_records SET suggestions_used = 10 WHERE id = 1"},
			[]string{"usage record " + ada + "10 units used are stored, 9 were counted from its events"}},
		{"counter without events", []string{"UPDATE usage_records SET suggestions_used = 1 WHERE id = 2"},
			[]string{"usage record " + bob + "1 units used are stored, 0 were counted from its events"}},
		{"event lost", []string{"DELETE FROM usage_events WHERE idempotency_key = 'k4'"},
			[]string{"usage record " + october + "4 units used are stored, 0 were counted from its events", "usage record " + october + days(4, 0)}},
		{"unit on another day", []string{"UPDATE usage_records SET daily = replace(daily, '0,9', '2,7') WHERE id = 1"},
			[]string{"usage record " + ada + days(2, 2)}},
		{"no days", []string{"UPDATE usage_records SET daily = ''"},
			[]string{"usage record " + ada + days(0, 9), "usage record " + october + days(0, 4)}},
		{"days without events", []string{"UPDATE usage_records SET daily = '0,3' WHERE id = 2"},
			[]string{"usage record " + bob + days(3, 0)}},
		{"event of another day", []string{"UPDATE usage_events SET occurred_at = '2026-11-23 23:59:59.999999+00:00' WHERE idempotency_key = 'k0'",
			"UPDATE usage_events SET occurred_at = '2026-11-24 00:00:00+00:00' WHERE idempotency_key = 'k1'"},
			[]string{"usage record " + ada + days(5, 5)}},
		{"held too few", []string{"UPDATE usage_records SET units_held = 1 WHERE id = 1"},
			[]string{"usage record " + ada + "1 units on hold are stored, 2 were counted from its open holds"}},
		{"held without holds", []string{"UPDATE usage_records SET units_held = 3 WHERE id = 2"},
			[]string{"usage record " + bob + "3 units on hold are stored, 0 were counted from its open holds"}},
		{"holds never given back", []string{"UPDATE usage_records SET holds_expire_at = NULL WHERE id = 1"},
			[]string{"usage record " + ada + "of 2 units on hold, 2 expire before the record says that any do"}},
		{"holds given back late", []string{"UPDATE usage_records SET holds_expire_at = '2026-11-23 12:01:01+00:00' WHERE id = 1"},
			[]string{"usage record " + ada + "of 2 units on hold, 2 expire before the record says that any do"}},
		{"records overlap", []string{"UPDATE usage_records SET billing_period_end = '2026-11-01 00:00:01+00:00' WHERE id = 3", "UPDATE usage_events SET billing_period_end = '2026-11-02 00:00:00+00:00' WHERE record_id = 3"},
			[]string{"usage record 3 of ada@example.com, 2026-10-01T00:00:00Z to 2026-11-01T00:00:01Z: it overlaps usage record 1 of the same person"}},
		{"limit that is no longer so", []string{"INSERT INTO users (id, email, spend_limit_cents, created_at) VALUES ('" + id(40).String() + "', 'bob@example.com', 100, '2026-11-01 00:00:00+00:00')"},
			[]string{"usage record " + bob + "what it repeats of the person, their workspace or their plan is no longer so"}},
		{"plan that is no longer so", []string{"INSERT INTO users (id, email, created_at) VALUES ('" + id(40).String() + "', 'ada@example.com', '2026-11-01 00:00:00+00:00')"},
			[]string{"usage record " + ada + "what it repeats of the person, their workspace or their plan is no longer so"}},
		{"free beside a plan", []string{
			"INSERT INTO users (id, email, created_at) VALUES ('" + id(40).String() + "', 'bob@example.com', '2026-11-01 00:00:00+00:00')",
			"INSERT INTO subscriptions (id, user_id, plan_id, status, created_at, updated_at) VALUES ('" + id(41).String() + "', '" + id(40).String() + "', 'pro', 'active', '2026-11-01 00:00:00+00:00', '2026-11-01 00:00:00+00:00')",
			"UPDATE usage_records SET entitled = true WHERE id = 2",
		}, []string{"usage record " + bob + "what it repeats of the person, their workspace or their plan is no longer so"}},
		{"counted in another workspace", []string{"UPDATE usage_records SET present_workspace_id = '" + id(40).String() + "' WHERE id = 2"},
			[]string{"usage record " + bob + "its organization's pages count it in another workspace than its person's"}},
		{"event without record", []string{"UPDATE usage_events SET record_id = 99 WHERE idempotency_key = 'k0'", "UPDATE usage_records SET suggestions_used = 8 WHERE id = 1"},
			[]string{"usage record " + ada + days(1, 0), event(1, "it counts on usage record 99, which does not exist")}},
		{"event of another person", []string{"UPDATE usage_events SET email = 'eve@example.com' WHERE idempotency_key = 'k0'"},
			[]string{strings.Replace(event(1, "it counts on usage record 1, which is another person's or period's"), "ada@", "eve@", 1)}},
		{"event of another period", []string{"UPDATE usage_events SET billing_period_start = '2026-11-02 00:00:00+00:00' WHERE idempotency_key = 'k0'"},
			[]string{strings.Replace(event(1, "it counts on usage record 1, which is another person's or period's"), "11-01", "11-02", 1)}},
		{"event of a shorter period", []string{"UPDATE usage_events SET billing_period_end = '2026-11-30 00:00:00+00:00' WHERE idempotency_key = 'k0'"},
			[]string{strings.Replace(event(1, "it counts on usage record 1, which is another person's or period's"), "12-01", "11-30", 1)}},
		{"hold without record", []string{"loosen holds", "UPDATE usage_holds SET record_id = 99 WHERE idempotency_key = 'h2'"},
			[]string{hold(22, "its units are on usage record 99, which does not exist")}},
		{"hold on another person's record", []string{"UPDATE usage_holds SET email = 'eve@example.com' WHERE idempotency_key = 'h2'"},
			[]string{strings.Replace(hold(22, "its units are on usage record 1, which is another person's or period's"), "ada@", "eve@", 1)}},
		{"hold of another period", []string{"UPDATE usage_holds SET billing_period_start = '2026-11-02 00:00:00+00:00' WHERE idempotency_key = 'h2'"},
			[]string{strings.Replace(hold(22, "its units are on usage record 1, which is another person's or period's"), "11-01", "11-02", 1)}},
		{"settled without event", []string{"UPDATE usage_holds SET state = 'settled' WHERE idempotency_key = 'h2'"},
			[]string{hold(22, "it is settled, 1 event is due, 0 were counted")}},
		{"settled twice", []string{"DROP INDEX usage_events_hold_id", "UPDATE usage_events SET idempotency_key = NULL, hold_id = '" + id(20).String() + "' WHERE idempotency_key = 'k1'", "UPDATE usage_holds SET quantity = 5 WHERE idempotency_key = 'h0'"},
			[]string{hold(20, "it is settled, 1 event is due, 2 were counted")}},
		{"settled with more than was held", []string{"UPDATE usage_holds SET quantity = 2 WHERE idempotency_key = 'h0'"},
			[]string{event(3, "its 3 units are from a hold that has 2, is not settled or is on another record")}},
		{"counted although released", []string{"UPDATE usage_holds SET state = 'released' WHERE idempotency_key = 'h0'"},
			[]string{event(3, "its 3 units are from a hold that has 4, is not settled or is on another record")}},
		{"event of no hold", []string{"DELETE FROM usage_holds WHERE idempotency_key = 'h0'"},
			[]string{event(3, "its 3 units are from a hold that has 0, is not settled or is on another record")}},
		{"report too high", []string{"UPDATE stripe_reports SET value = 7"},
			[]string{"report " + id(30).String() + " of customer cus_1, 2026-11-23T12:00:00Z to 2026-11-23T12:01:00Z: 7 units are stored, 6 were counted from its events"}},
		{"report without events", []string{"UPDATE usage_events SET stripe_report_id = NULL"},
			[]string{"report " + id(30).String() + " of customer cus_1, 2026-11-23T12:00:00Z to 2026-11-23T12:01:00Z: 6 units are stored, 0 were counted from its events"}},
		{"report lost", []string{"DELETE FROM stripe_reports"},
			[]string{event(1, "its 1 units went into a report that does not exist or is another customer's"), event(2, "its 5 units went into a report that does not exist or is another customer's")}},
		{"report of another customer", []string{"UPDATE usage_events SET stripe_customer_id = 'cus_2' WHERE idempotency_key = 'k1'"},
			[]string{event(2, "its 5 units went into a report that does not exist or is another customer's")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, f *fixture) {
				f.ledger(t)
				for _, statement := range test.plant {
					f.plant(t, statement)
				}
				if got := f.verify(t); !slices.Equal(got, test.want) {
					t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
				}
			})
		})
	}
}

// plant runs a statement that the schema may forbid.
func (f *fixture) plant(t *testing.T, statement string) {
	t.Helper()
	if statement != "loosen holds" {
		f.exec(t, statement)
		return
	}
	if f.db.Postgres {
		f.exec(t, "ALTER TABLE usage_holds DROP CONSTRAINT usage_holds_record_id_fkey")
		return
	}
	// The setting is a connection's own.
	f.db.SetMaxOpenConns(1)
	f.exec(t, "PRAGMA foreign_keys = OFF")
}

// A decision that commits while a verification runs changes the counter and the ledger together; it must see both or neither.
func TestVerifyReadsOneMoment(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.ledger(t)
		f.exec(t, "UPDATE usage_records SET suggestions_used = 11 WHERE id = 1")
		var lines []string
		err := models.Verify(f.ctx, f.db, func(d models.Difference) {
			lines = append(lines, d.String())
			// In the middle of it, a writer takes units from the counter and loses events; neither waits for the reader.
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
		if len(lines) != 1 || !strings.HasSuffix(lines[0], "11 units used are stored, 9 were counted from its events") {
			t.Errorf("got %q", lines)
		}
	})
}
