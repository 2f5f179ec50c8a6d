package models_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/modelstest"
)

const ledgerMigration = "20261128080000"

// oldLedger has rows of releases before the ledger's migration. ada pays through a customer, bob
// has a plan by hand whose period a subscription ended early, and eve has usage but no row in
// users. All three used more than is included.
const oldLedger = `
INSERT INTO users (id, email, created_at) VALUES
	('00000000-0000-4000-8000-0000000000a1', 'ada@example.com', '2026-01-01 00:00:00+00:00'),
	('00000000-0000-4000-8000-0000000000b0', 'bob@example.com', '2026-01-01 00:00:00+00:00');
INSERT INTO subscriptions (id, user_id, plan_id, status, stripe_subscription_id, stripe_customer_id, created_at, updated_at) VALUES
	('00000000-0000-4000-8000-0000000000a2', '00000000-0000-4000-8000-0000000000a1', 'pro', 'active', 'sub_1', 'cus_1',
		'2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00'),
	('00000000-0000-4000-8000-0000000000b2', '00000000-0000-4000-8000-0000000000b0', 'pro', 'active', NULL, NULL,
		'2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00');
INSERT INTO usage_records (email, billing_period_start, billing_period_end, plan_id, suggestions_included, suggestions_used,
	suggestions_held, holds_expire_at,
	daily, entitled, overage_rate_cents, stripe_customer_id, created_at) VALUES
	('ada@example.com', '2026-09-01 00:00:00+00:00', '2026-10-01 00:00:00+00:00', 'pro', 75, 81, 7, '2026-09-02 00:00:00+00:00',
		'78,3', true, 30, 'cus_1', '2026-09-01 00:00:00+00:00'),
	('bob@example.com', '2026-09-01 00:00:00+00:00', '2026-09-03 00:00:00+00:00', 'pro', 75, 77, 0, NULL, '0,0,0,77', true, 30,
		NULL, '2026-09-01 00:00:00+00:00'),
	('eve@example.com', '2026-09-01 00:00:00+00:00', '2026-10-01 00:00:00+00:00', 'free', 5, 7, 0, NULL, '7', true, 0, NULL,
		'2026-09-01 00:00:00+00:00'),
	('ada@example.com', '2099-09-01 00:00:00+00:00', '2099-10-01 00:00:00+00:00', 'pro', 75, 0, 0, NULL, '', true, 30, 'cus_1',
		'2026-09-01 00:00:00+00:00');
INSERT INTO usage_events (id, record_id, email, quantity, idempotency_key, hold_id, occurred_at, recorded_at, plan_id,
	billing_period_start, billing_period_end,
	used_after, held_after, included, overage_rate_cents, stripe_customer_id, stripe_report_id) VALUES
	('00000000-0000-7000-8000-000000000001', 1, 'ada@example.com', 70, 'k1', NULL, '2026-09-01 10:00:00+00:00',
		'2026-09-01 10:00:00+00:00', 'pro',
		'2026-09-01 00:00:00+00:00', '2026-10-01 00:00:00+00:00', 70, 0, 75, 30, 'cus_1', '00000000-0000-7000-8000-000000000030'),
	('00000000-0000-7000-8000-000000000002', 1, 'ada@example.com', 8, 'k2', NULL, '2026-09-01 11:00:00+00:00',
		'2026-09-01 11:00:00+00:00', 'pro',
		'2026-09-01 00:00:00+00:00', '2026-10-01 00:00:00+00:00', 78, 0, 75, 30, 'cus_1', '00000000-0000-7000-8000-000000000030'),
	('00000000-0000-7000-8000-000000000003', 1, 'ada@example.com', 2, NULL, '00000000-0000-7000-8000-000000000021',
		'2026-09-02 11:00:00+00:00', '2026-09-02 11:00:00+00:00', 'pro',
		'2026-09-01 00:00:00+00:00', '2026-10-01 00:00:00+00:00', 80, 7, 75, 30, 'cus_1', NULL),
	('00000000-0000-7000-8000-000000000004', 1, 'ada@example.com', 1, 'k4', NULL, '2026-09-02 12:00:00+00:00',
		'2026-09-02 12:00:00+00:00', 'pro',
		'2026-09-01 00:00:00+00:00', '2026-10-01 00:00:00+00:00', 81, 7, 75, 30, NULL, NULL),
	('00000000-0000-7000-8000-000000000005', 2, 'bob@example.com', 77, 'k5', NULL, '2026-09-04 12:00:00+00:00',
		'2026-09-04 12:00:00+00:00', 'pro',
		'2026-09-01 00:00:00+00:00', '2026-10-01 00:00:00+00:00', 77, 0, 75, 30, NULL, NULL),
	('00000000-0000-7000-8000-000000000006', 3, 'eve@example.com', 7, 'k6', NULL, '2026-09-01 12:00:00+00:00',
		'2026-09-01 12:00:00+00:00', 'free',
		'2026-09-01 00:00:00+00:00', '2026-10-01 00:00:00+00:00', 7, 0, 5, 0, 'cus_2', NULL);
INSERT INTO usage_holds (id, record_id, email, quantity, idempotency_key, state, expires_at, created_at, plan_id,
	billing_period_start, billing_period_end,
	used_after, held_after, included, overage_rate_cents) VALUES
	('00000000-0000-7000-8000-000000000021', 1, 'ada@example.com', 2, 'h1', 'settled', '2026-09-02 00:00:00+00:00',
		'2026-09-01 12:00:00+00:00', 'pro',
		'2026-09-01 00:00:00+00:00', '2026-10-01 00:00:00+00:00', 70, 2, 75, 30),
	('00000000-0000-7000-8000-000000000022', 1, 'ada@example.com', 4, 'h2', 'open', '2026-09-02 00:00:00+00:00',
		'2026-09-01 12:00:00+00:00', 'pro',
		'2026-09-01 00:00:00+00:00', '2026-10-01 00:00:00+00:00', 70, 7, 75, 30),
	('00000000-0000-7000-8000-000000000023', 1, 'ada@example.com', 3, 'h3', 'open', '2026-09-02 00:00:00+00:00',
		'2026-09-01 12:00:00+00:00', 'pro',
		'2026-09-01 00:00:00+00:00', '2026-10-01 00:00:00+00:00', 80, 3, 75, 30);
INSERT INTO stripe_reports (id, identifier, stripe_customer_id, meter_event_name, minute, value, state, created_at) VALUES
	('00000000-0000-7000-8000-000000000030', 'test:1', 'cus_1', 'suggestions', '2026-09-01 11:00:00+00:00', 78, 'sealed',
		'2026-09-01 12:00:00+00:00')`

func TestTheLedgerIsMigrated(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		t.Parallel()
		exec, open := oldDatabase(t, address, ledgerMigration)
		exec(oldLedger)
		f := open()
		if len(f.db.Applied) == 0 || !strings.HasSuffix(f.db.Applied[0], "_ledger") {
			t.Fatalf("applied %q", f.db.Applied)
		}
		f.wantVerified(t)

		people := map[uuid.UUID]string{}
		for _, u := range all[models.User](t, f, "email") {
			people[u.ID] = u.Email
		}
		if len(people) != 3 {
			t.Errorf("the people are %v", people)
		}
		var got []string
		for _, r := range all[models.UsageRecord](t, f, "id") {
			got = append(got, fmt.Sprintf("record %d of %s: %d used, overage %d for %d; %d held, overage %d for %d; ready %t", r.ID,
				people[r.UserID],
				r.SuggestionsUsed, r.OverageUsed, r.OverageCents, r.UnitsHeld, r.OverageHeld, r.OverageCentsHeld, r.Entitled))
			if r.Email != people[r.UserID] || r.Payer != nil {
				t.Errorf("record %d has the email %q and the payer %v", r.ID, r.Email, r.Payer)
			}
		}
		for _, e := range all[models.UsageEvent](t, f, "id") {
			got = append(got, fmt.Sprintf("event %s of %s: %d, overage %d for %d; after it %d for %d of %d", e.ID.String()[34:], people[e.UserID],
				e.Quantity, e.OverageQuantity, e.OverageCents, e.OverageAfter, e.OverageCentsAfter, e.UsedAfter))
		}
		for _, h := range all[models.UsageHold](t, f, "id") {
			got = append(got, fmt.Sprintf("hold %s of %s: %d, overage %d for %d, %s", h.ID.String()[34:], people[h.UserID], h.Quantity,
				h.OverageQuantity, h.OverageCents, h.State))
		}
		want := []string{
			"record 1 of ada@example.com: 81 used, overage 5 for 150; 7 held, overage 5 for 150; ready true",
			"record 2 of bob@example.com: 77 used, overage 0 for 0; 0 held, overage 0 for 0; ready true",
			"record 3 of eve@example.com: 7 used, overage 0 for 0; 0 held, overage 0 for 0; ready true",
			"record 4 of ada@example.com: 0 used, overage 0 for 0; 0 held, overage 0 for 0; ready false",
			"event 01 of ada@example.com: 70, overage 0 for 0; after it 0 for 0 of 70",
			"event 02 of ada@example.com: 8, overage 3 for 90; after it 3 for 90 of 78",
			"event 03 of ada@example.com: 2, overage 2 for 60; after it 5 for 150 of 80",
			"event 04 of ada@example.com: 1, overage 0 for 0; after it 0 for 0 of 81",
			"event 05 of bob@example.com: 77, overage 0 for 0; after it 0 for 0 of 77",
			"event 06 of eve@example.com: 7, overage 0 for 0; after it 0 for 0 of 7",
			"hold 21 of ada@example.com: 2, overage 0 for 0, settled",
			"hold 22 of ada@example.com: 4, overage 2 for 60, open",
			"hold 23 of ada@example.com: 3, overage 3 for 90, open",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		var counts string
		if err := f.db.QueryRowContext(f.ctx, "SELECT counts FROM stripe_reports").Scan(&counts); err != nil || counts != "quantity" {
			t.Errorf("the report counts %q, %v", counts, err)
		}

		// Holds of earlier releases do not name their users, but are found. The tables remain usable.
		old := uuid.MustParse("00000000-0000-7000-8000-000000000022")
		keys, err := models.RecordsOfHolds(f.ctx, f.db, []uuid.UUID{old})
		if err != nil || people[keys[old].UserID] != ada || !keys[old].At.Equal(time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("the old hold belongs to %+v, %v", keys, err)
		}
		f.consume(t, "bob@example.com", noon, 76)
		f.hold(t, "eve@example.com", noon, noon.Add(time.Minute), 2)
		f.exec(t, "UPDATE users SET email = 'ada@example.org' WHERE email = 'ada@example.com'")
		if r, err := models.CurrentUsage(f.ctx, f.db, time.Date(2026, 9, 5, 0, 0, 0, 0, time.UTC), "ada@example.org"); err != nil ||
			r == nil || r.ID != 1 {
			t.Errorf("the record of the new address: %+v, %v", r, err)
		}
		f.wantVerified(t)
	})
}
