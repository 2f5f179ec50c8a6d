package models_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/models/modelstest"
)

const oneDay = 24 * time.Hour

// left returns the values of a column, sorted.
func left(t *testing.T, f *fixture, table, column string) (values []string) {
	t.Helper()
	if err := f.db.NewSelect().Table(table).Column(column).Scan(f.ctx, &values); err != nil {
		t.Fatal(err)
	}
	slices.Sort(values)
	return values
}

func wantLeft(t *testing.T, f *fixture, table, column string, want ...string) {
	t.Helper()
	if got := left(t, f, table, column); !slices.Equal(got, want) {
		t.Errorf("%s has %q, want %q", table, got, want)
	}
}

// TestRetentionOfTables deletes old rows of each table that has a rule of its own.
func TestRetentionOfTables(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		t.Run("webhooks", f.oldWebhooks)
		t.Run("audit log", f.oldAudit)
		t.Run("refusals", f.oldRefusals)
		t.Run("notices", f.oldNotices)
	})
}

// TestRetentionGoesOnAfterAnError takes tables away, among them the one that says which events are
// deleted. The rows of the other tables are deleted, and no event is.
func TestRetentionGoesOnAfterAnError(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.insert(t, &models.StripeWebhookEvent{ID: "old", Type: "invoice.paid", Payload: "{}", ReceivedAt: noon.Add(-91 * oneDay),
			AppliedAt: ptr(noon.Add(-91 * oneDay))})
		for _, table := range []string{"retention", "sessions"} {
			f.exec(t, "ALTER TABLE "+table+" RENAME TO away_"+table)
		}
		keep, err := models.ParseKeepEvents("90d")
		if err != nil {
			t.Fatal(err)
		}
		r := models.Retention{DB: f.db, Catalogue: f.catalogue, Keep: keep, Clock: f.db.EarlierClock(func() time.Time { return noon })}
		deleted, err := r.Pass(f.ctx)
		if err == nil || !strings.Contains(err.Error(), "retention") || !strings.Contains(err.Error(), "sessions") {
			t.Errorf("the error is %v", err)
		}
		if got := deleted.String(); got != "stripe_webhook_events 1" {
			t.Errorf("deleted %q", got)
		}
	})
}

// Webhooks that are not applied stay, and Checkouts of customers whose owner is unknown.
func (f *fixture) oldWebhooks(t *testing.T) {
	ada := f.user(t, "ada@example.com")
	for id, user := range map[string]*uuid.UUID{"cus_ada": &ada, "cus_none": nil} {
		f.insert(t, &models.StripeCustomer{ID: id, UserID: user, CreatedAt: noon})
	}
	const checkout, other = "checkout.session.completed", "invoice.paid"
	for _, w := range []struct {
		id, kind, customer string
		age                time.Duration
		waits              bool
	}{
		{"old", other, "cus_none", 91 * oneDay, false},
		{"a young", other, "cus_none", 89 * oneDay, false},
		{"b waiting", other, "cus_none", 400 * oneDay, true},
		{"checkout of ada", checkout, "cus_ada", 400 * oneDay, false},
		{"c checkout of no one", checkout, "cus_none", 400 * oneDay, false},
		{"d checkout of an unknown customer", checkout, "cus_unknown", 400 * oneDay, false},
		{"checkout without a customer", checkout, "", 400 * oneDay, false},
	} {
		e := models.StripeWebhookEvent{ID: w.id, Type: w.kind, Payload: "{}", ReceivedAt: noon.Add(-w.age)}
		if w.customer != "" {
			e.StripeCustomerID = &w.customer
		}
		if !w.waits {
			e.AppliedAt = ptr(noon.Add(-w.age))
		}
		f.insert(t, &e)
	}
	f.insert(t, &models.StripeWebhookEvent{
		ID: "e applied late", Type: other, Payload: "{}", ReceivedAt: noon.Add(-100 * oneDay), AppliedAt: ptr(noon.Add(-80 * oneDay)),
	})
	if deleted := f.retain(t, noon, "forever"); deleted["stripe_webhook_events"] != 3 {
		t.Errorf("deleted %s", deleted)
	}
	wantLeft(t, f, "stripe_webhook_events", "id", "a young", "b waiting", "c checkout of no one", "d checkout of an unknown customer",
		"e applied late")
	f.exec(t, "UPDATE stripe_customers SET user_id = ? WHERE id = 'cus_none'", ada)
	f.retain(t, noon, "forever")
	wantLeft(t, f, "stripe_webhook_events", "id", "a young", "b waiting", "d checkout of an unknown customer", "e applied late")
}

func (f *fixture) oldAudit(t *testing.T) {
	for _, years := range []int{0, 2, 3} {
		for _, hours := range []time.Duration{-1, 1} {
			at := noon.AddDate(-years, 0, 0).Add(hours * time.Hour)
			if err := models.Audit(f.ctx, f.db, at, "a", "b", at.Format("2006-01-02T15"), ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.retain(t, noon, "forever")
	wantLeft(t, f, "audit_log", "subject", "2023-11-23T13", "2024-11-23T11", "2024-11-23T13", "2026-11-23T11", "2026-11-23T13")
}

func (f *fixture) oldRefusals(t *testing.T) {
	for i, age := range []time.Duration{89 * oneDay, 92 * oneDay} {
		f.insert(t, &models.UsageRefusal{
			UserID: id(i), BillingPeriodStart: noon, Reason: models.Reason(fmt.Sprint(age)), Count: 1, LastAt: noon.Add(-age),
		})
	}
	f.retain(t, noon, "forever")
	wantLeft(t, f, "usage_refusals", "reason", "2136h0m0s", "2208h0m0s")
	f.retain(t, noon, "90d")
	wantLeft(t, f, "usage_refusals", "reason", "2136h0m0s")
}

// A notice stays as long as its row prevents a second one, and until its deliveries have ended. The
// newest summary of an organization stays for good.
func (f *fixture) oldNotices(t *testing.T) {
	n := 0
	add := func(kind models.NoticeKind, subject uuid.UUID, state models.NoticeState, created, expires time.Duration) {
		n++
		notice := models.DueNotice{
			ID: id(100 + n), Subject: subject, SubjectKind: models.SubjectUser, Kind: kind, PeriodStart: noon.Add(-created), State: state,
			CreatedAt: noon.Add(-created), DueAt: noon.Add(-created), ExpiresAt: noon.Add(-expires),
		}
		f.insert(t, &notice)
		f.insert(t, &models.NoticeDelivery{
			ID: id(200 + n), NoticeID: notice.ID, Channel: models.ChannelMail, Recipient: subject, State: models.DeliverySent, CreatedAt: noon,
		})
		f.insert(t, &models.NoticeAttempt{DeliveryID: id(200 + n), Number: 1, At: noon, Outcome: models.AttemptSent})
	}
	const included, digest = models.NoticeIncluded, models.NoticeDigest
	add(models.NoticePaymentPastDue, id(1), models.NoticeDone, 400*oneDay, 35*oneDay) // 101: of a yearly period
	add(included, id(1), models.NoticePending, 300*oneDay, 280*oneDay)                // 102
	add(included, id(2), models.NoticeDelivering, 300*oneDay, 280*oneDay)             // 103
	add(included, id(3), models.NoticeDone, 300*oneDay, 280*oneDay)                   // 104: deleted
	add(included, id(4), models.NoticeSuperseded, 300*oneDay, 91*oneDay)              // 105: deleted
	add(included, id(5), models.NoticeSkipped, 300*oneDay, 89*oneDay)                 // 106
	add(digest, id(6), models.NoticeDone, 250*oneDay, 249*oneDay)                     // 107: deleted
	add(digest, id(6), models.NoticeDone, 240*oneDay, 239*oneDay)                     // 108: the newest one
	add(digest, id(7), models.NoticeDone, 230*oneDay, 229*oneDay)                     // 109: deleted
	add(digest, id(7), models.NoticeDone, 20*oneDay, 19*oneDay)                       // 110
	deleted := f.retain(t, noon, "forever")
	if deleted["notices"] != 4 || deleted["notice_deliveries"] != 4 || deleted["notice_attempts"] != 4 {
		t.Errorf("deleted %s", deleted)
	}
	var want [3][]string
	for _, n := range []int{101, 102, 103, 106, 108, 110} {
		want[0], want[1] = append(want[0], id(n).String()), append(want[1], id(100+n).String())
	}
	wantLeft(t, f, "notices", "id", want[0]...)
	wantLeft(t, f, "notice_deliveries", "id", want[1]...)
	wantLeft(t, f, "notice_attempts", "delivery_id", want[1]...)
}

// TestRetentionUsesIndexes explains each statement of a pass over a database in which nothing is old,
// and over one with old rows. None reads a table that grows.
func TestRetentionUsesIndexes(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		f := newFixture(t, address)
		f.manyOldRows(t)
		var ran queries
		whole := f.db.DB
		f.db.DB = whole.WithQueryHook(&ran)
		deleted := f.retain(t, noon, "90d")
		f.db.DB = whole
		for _, table := range []string{"usage_events", "usage_holds", "usage_voids", "notices", "audit_log", "stripe_webhook_events"} {
			if deleted[table] == 0 {
				t.Errorf("no row of %s was deleted", table)
			}
		}
		for table := range deleted {
			if !slices.Contains(models.RetentionTables, table) {
				t.Errorf("%s is not in RetentionTables", table)
			}
		}
		explain, scan := "EXPLAIN ", regexp.MustCompile(`Seq Scan on (usage_\w+|notice\w*|audit_log|stripe_\w+|slack_requests|sessions)`)
		if !f.db.Postgres {
			explain, scan = "EXPLAIN QUERY PLAN ", regexp.MustCompile(`^SCAN (\w+)$`)
		}
		if len(ran.texts) < 20 {
			t.Errorf("only these statements ran: %q", ran.texts)
		}
		seen := map[string]bool{}
		for _, text := range ran.texts {
			verb, _, _ := strings.Cut(text, " ")
			if !slices.Contains([]string{"SELECT", "UPDATE", "DELETE", "WITH"}, verb) {
				continue
			}
			for _, line := range f.plan(t, explain+text) {
				found := scan.FindString(strings.TrimSpace(line))
				if found == "" || strings.HasSuffix(found, " u") || strings.HasSuffix(found, "sign_in_links") || seen[found+verb] {
					continue // u is the list of people, and links are few
				}
				seen[found+verb] = true
				t.Errorf("%s\n%s", found, text)
			}
		}
	})
}

// plan returns the lines of a query plan. PostgreSQL shows whether an index can serve the query: in a
// table of a few thousand rows, it would often read all of them nevertheless.
func (f *fixture) plan(t *testing.T, query string) (lines []string) {
	t.Helper()
	err := f.db.RunInTx(f.ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if f.db.Postgres {
			if _, err := tx.ExecContext(ctx, "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off"); err != nil {
				return err
			}
			return tx.NewRaw(query).Scan(ctx, &lines)
		}
		var steps []struct {
			ID, Parent, Notused int64
			Detail              string
		}
		err := tx.NewRaw(query).Scan(ctx, &steps)
		for _, s := range steps {
			lines = append(lines, s.Detail)
		}
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return lines
}

// manyOldRows inserts enough rows that the planner prefers an index. One in ten is old.
func (f *fixture) manyOldRows(t *testing.T) {
	t.Helper()
	const numbers = "WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 3000)"
	id := func(n string) string { return "printf('00000000-0000-7000-8000-%012d', " + n + ")" }
	at := func(age string) string {
		return "strftime('%Y-%m-%d %H:%M:%S', '2026-11-23', '-' || (" + age + ") || ' days') || '+00:00'"
	}
	if f.db.Postgres {
		id = func(n string) string {
			return "CAST('00000000-0000-7000-8000-' || lpad(CAST(" + n + " AS text), 12, '0') AS uuid)"
		}
		at = func(age string) string { return "timestamptz '2026-11-23Z' - (" + age + ") * interval '1 day'" }
		f.exec(t, "ALTER TABLE usage_records DISABLE TRIGGER USER")
	}
	person, subject := id("n"), id("n % 100")
	// The rows with small numbers are old, as in a real table, whose order is that of time.
	age := "CASE WHEN n <= 300 THEN 400 ELSE 1 END"
	insert := func(table, columns, values string) {
		t.Helper()
		f.exec(t, "INSERT INTO "+table+" ("+columns+") "+numbers+" SELECT "+values+" FROM s")
	}
	insert("usage_records", "id, user_id, email, billing_period_start, billing_period_end, plan_id, suggestions_included, suggestions_used, "+
		"overage_rate_cents, entitled, created_at", "n, "+person+", 'p' || n, "+at("30 + "+age)+", "+at(age)+", 'pro', 75, 1, 30, TRUE, "+
		at("30 + "+age))
	const figures = "plan_id, billing_period_start, billing_period_end, used_after, held_after, included, overage_rate_cents"
	values := "'pro', " + at("30 + "+age) + ", " + at(age) + ", 1, 0, 75, 30"
	insert("usage_events", "id, user_id, record_id, email, quantity, idempotency_key, occurred_at, recorded_at, voided_at, "+figures,
		person+", "+person+", n, 'p' || n, 1, 'k' || n, "+at(age)+", "+at(age)+", CASE WHEN n % 50 = 0 THEN "+at(age)+" END, "+values)
	insert("usage_voids", "user_id, event_id, email, quantity, overage_quantity, overage_cents, reason, voided_by, voided_at, overage_after, "+
		"overage_cents_after, overage_held_after, "+figures, person+", "+person+", 'p' || n, 1, 0, 0, 'r', 'a', "+at(age)+", 0, 0, 0, "+values)
	insert("usage_holds", "id, user_id, record_id, email, quantity, idempotency_key, state, expires_at, created_at, "+figures,
		person+", "+person+", n, 'p' || n, 1, 'h' || n, 'released', "+at(age)+", "+at(age)+", "+values)
	insert("notices", "id, subject, subject_kind, kind, period_start, threshold, raises, facts, state, created_at, due_at, expires_at",
		person+", "+subject+", 'organization', 'digest', "+at(age)+", 0, n, '{}', 'done', "+at(age)+", "+at(age)+", "+at(age))
	insert("notice_deliveries", "id, notice_id, channel, recipient, state, created_at",
		person+", "+person+", 'mail', "+person+", 'sent', "+at(age))
	insert("notice_attempts", "delivery_id, number, at, outcome", person+", 1, "+at(age)+", 'sent'")
	insert("audit_log", "id, at, actor, action, subject", person+", "+at("4 * "+age)+", 'a', 'b', 'c'")
	insert("stripe_webhook_events", "id, type, payload, received_at, applied_at", "'evt_' || n, 'invoice.paid', '{}', "+at(age)+", "+at(age))
	insert("slack_requests", "id, expires_at", "'event:' || n, "+at("CASE WHEN n <= 300 THEN 1 ELSE 0 END"))
	insert("usage_refusals", "user_id, billing_period_start, reason, count, last_at", person+", "+at(age)+", 'r', 1, "+at(age))
	f.exec(t, "ANALYZE")
}

// TestRetentionReadsTheEarlierClock checks that a process whose clock is ahead deletes by the
// database's clock.
func TestRetentionReadsTheEarlierClock(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for offset, want := range map[time.Duration]time.Duration{-time.Hour: -time.Hour, 400 * oneDay: 0} {
			if !f.db.Postgres {
				want = offset // SQLite has no clock of its own
			}
			got, err := f.db.EarlierClock(func() time.Time { return time.Now().Add(offset) })(context.WithoutCancel(f.ctx))
			if d := time.Until(got.Add(-want)); err != nil || d < -time.Minute || d > time.Minute {
				t.Errorf("with an offset of %s, the time is %s, %v", offset, got, err)
			}
		}
	})
}
