package enforcement

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// seqScan matches a table that is read whole.
var seqScan = regexp.MustCompile(`Seq Scan on (organizations|workspaces|users|subscriptions|memberships|usage_records|usage_events|` +
	`usage_holds|organization_records|api_keys)`)

// grow fills the tables with enough rows that the planner prefers an index.
const grow = `
	ALTER TABLE subscriptions DISABLE TRIGGER USER; -- they would look up each person, one after another
	INSERT INTO organizations SELECT gen_random_uuid(), 'o' || n, now() FROM generate_series(1, 2000) n;
	INSERT INTO workspaces SELECT gen_random_uuid(), id, 'T' || row_number() OVER (), name, now() FROM organizations;
	INSERT INTO users (id, email, workspace_id, slack_user_id, created_at)
		SELECT gen_random_uuid(), 'u' || n || '@example.com', (SELECT id FROM workspaces WHERE slack_team_id = 'T' || (n % 2000 + 1)),
			'U' || n, now()
		FROM generate_series(1, 4000) n;
	INSERT INTO memberships SELECT u.id, w.organization_id, now() FROM users u JOIN workspaces w ON w.id = u.workspace_id;
	INSERT INTO subscriptions (id, organization_id, plan_id, status, created_at, updated_at)
		SELECT gen_random_uuid(), id, 'team', 'active', now(), now() FROM organizations;
	INSERT INTO subscriptions (id, user_id, plan_id, status, created_at, updated_at)
		SELECT gen_random_uuid(), id, 'pro', 'canceled', now(), now() FROM users;
	INSERT INTO usage_records (user_id, email, billing_period_start, billing_period_end, plan_id, suggestions_included,
			overage_rate_cents, entitled, created_at)
		SELECT id, email, m, m + interval '1 month', 'team', 50, 25, true, now()
		FROM users, generate_series(timestamptz '2026-06-01Z', '2026-11-01Z', interval '1 month') m;
	INSERT INTO usage_events (id, user_id, record_id, email, quantity, idempotency_key, occurred_at, recorded_at, plan_id,
			billing_period_start, billing_period_end, used_after, held_after, included, overage_rate_cents)
		SELECT gen_random_uuid(), user_id, id, email, 1, 'k' || id, now(), now(), plan_id,
			billing_period_start, billing_period_end, 1, 0, 50, 25
		FROM usage_records;
	INSERT INTO usage_holds (id, user_id, record_id, email, quantity, idempotency_key, state, expires_at, created_at, plan_id,
			billing_period_start, billing_period_end, used_after, held_after, included, overage_rate_cents)
		SELECT gen_random_uuid(), user_id, id, email, 1, 'h' || id, 'settled', now(), now(), plan_id,
			billing_period_start, billing_period_end, 1, 0, 50, 25
		FROM usage_records;
	INSERT INTO api_keys (id, name, hint, hash, scopes, created_at)
		SELECT gen_random_uuid(), 'k', 'k', sha256(n::text::bytea), 'read', now() FROM generate_series(1, 5000) n;
	ANALYZE`

// TestNoStatementReadsATableWhole explains the gate's prepared statements and the queries that it
// makes through bun.
func TestNoStatementReadsATableWhole(t *testing.T) {
	ctx := t.Context()
	db, err := models.Open(ctx, modelstest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.ExecContext(ctx, grow); err != nil {
		t.Fatal(err)
	}
	p, err := openPostgres(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	p.mu.Lock() // the test uses the connection
	t.Cleanup(p.mu.Unlock)
	const people = `ARRAY[NULL::uuid], ARRAY['u7@example.com'], ARRAY[timestamptz '2026-11-23Z']`
	const key = `ARRAY[NULL::uuid], ARRAY['u7@example.com'], ARRAY['k7']`
	const ids = `ARRAY[gen_random_uuid()], ARRAY[gen_random_uuid()]`
	arguments := map[string]string{
		"lock": people, "lock_free": people, "there": people, "peek": people,
		"events": key, "holds_by_key": key, "settled": ids, "holds_by_id": ids, "close_holds": ids + `, ARRAY['settled']`,
		"update": `ARRAY[gen_random_uuid()], ARRAY[7::bigint], ARRAY[1::bigint], ARRAY[0::bigint], ARRAY[0::bigint],
			ARRAY[0::bigint], ARRAY[0::bigint], ARRAY[0::bigint], ARRAY[NULL::timestamptz], ARRAY['1']`,
		"move": `ARRAY[gen_random_uuid()], ARRAY[7::bigint], ARRAY[1::bigint], ARRAY[0::bigint], ARRAY[0::bigint], ARRAY['1'],
			ARRAY['7'::xid], 1`,
		"late":   `ARRAY[gen_random_uuid()], ARRAY[7::bigint]`,
		"notify": `ARRAY[gen_random_uuid()], ARRAY[7::bigint], ARRAY[1::bigint]`,
		"spends": `ARRAY[7::bigint]`,
		"spend":  `ARRAY[7::bigint], ARRAY[0::bigint], ARRAY[0::bigint], ARRAY[0::bigint], ARRAY[NULL::timestamptz], 0`,
	}
	for name := range pgStatements {
		if slices.Contains(noTable, name) {
			continue
		}
		results, err := p.conn.Exec(ctx, fmt.Sprintf("EXPLAIN EXECUTE %s (%s)", name, arguments[name])).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var plan strings.Builder
		for _, row := range results[0].Rows {
			fmt.Fprintf(&plan, "%s\n", row[0])
		}
		if bad := seqScan.FindString(plan.String()); bad != "" {
			t.Errorf("%s: %s\n%s", name, bad, plan.String())
		}
	}

	seen := &statements{}
	watched := db.WithQueryHook(seen)
	catalogue, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 12, 23, 12, 0, 0, 0, time.UTC)
	identity := models.SlackIdentity{TeamID: "T7", UserID: "U6"}
	watchedDB := &models.DB{DB: watched, URL: db.URL, Postgres: true, Sent: seen.add}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = models.LinkPeople(ctx, watchedDB, now, []models.Link{{Email: "new@example.com", Slack: identity}})
	must(err)
	must(models.PrepareRecords(ctx, watchedDB, catalogue, now, []models.RecordKey{
		{Email: "new@example.com", At: now}, {Email: "u9@example.com", At: now}, {Email: "u8@example.com", At: now.AddDate(-1, 0, 0)},
	}))
	_, err = models.PeopleByIdentity(ctx, watchedDB, []models.SlackIdentity{identity, {TeamID: "T8", UserID: "U7"}})
	must(err)
	_, err = models.RecordsOfHolds(ctx, watchedDB, []uuid.UUID{{1}})
	must(err)
	_, err = models.APIKeyByHash(ctx, watchedDB, models.HashKey("x"))
	must(err)
	for _, statement := range seen.texts {
		var lines []string
		must(db.NewRaw("EXPLAIN "+statement).Scan(ctx, &lines))
		if bad := seqScan.FindString(strings.Join(lines, "\n")); bad != "" {
			t.Errorf("%s\n%s\n%s", bad, statement, strings.Join(lines, "\n"))
		}
	}
	if len(seen.texts) < 10 {
		t.Errorf("only %d statements were recorded", len(seen.texts))
	}
}

// statements records the statements that bun sends.
type statements struct {
	mu    sync.Mutex
	texts []string
}

func (s *statements) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (s *statements) add(query string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.texts = append(s.texts, query)
}

func (s *statements) AfterQuery(_ context.Context, e *bun.QueryEvent) {
	if verb := e.Operation(); verb == "SELECT" || verb == "UPDATE" || verb == "DELETE" {
		s.add(e.Query)
	}
}
