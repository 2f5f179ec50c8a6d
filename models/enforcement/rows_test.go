package enforcement

import (
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/modelstest"
)

var large = flag.Bool("large", false, "explain the gate's statements with 50,000 people as well; takes half a minute")

// node is one node of a plan that EXPLAIN (ANALYZE, FORMAT JSON) printed.
type node struct {
	Type      string  `json:"Node Type"`
	Relation  string  `json:"Relation Name"`
	Index     string  `json:"Index Name"`
	Rows      float64 `json:"Actual Rows"`
	Loops     float64 `json:"Actual Loops"`
	Filtered  float64 `json:"Rows Removed by Filter"`
	Rechecked float64 `json:"Rows Removed by Index Recheck"`
	Unjoined  float64 `json:"Rows Removed by Join Filter"`
	Hits      float64 `json:"Shared Hit Blocks"`
	Reads     float64 `json:"Shared Read Blocks"`
	Plans     []node
}

// read returns the number of rows that a plan read from tables and indexes, including those that it
// discarded.
func (n *node) read() (rows float64) {
	if n.Relation != "" && n.Type != "ModifyTable" || n.Index != "" {
		rows = (n.Rows + n.Filtered + n.Rechecked) * n.Loops
	}
	rows += n.Unjoined * n.Loops
	for i := range n.Plans {
		rows += n.Plans[i].read()
	}
	return rows
}

// indexOnly makes the planner prefer indexes, with the same settings as in models (inTrips).
const indexOnly = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; " +
	"SET LOCAL enable_material = off"

// noTable has the prepared statements that read no table, or one with a single row, so there is
// nothing to explain.
var noTable = []string{"begin", "commit", "rollback", "moment", "insert_events", "notify_events", "insert_holds", "notices",
	"pruned_before"}

// explained returns the plan of an EXPLAIN (FORMAT JSON).
func explained(t *testing.T, text []byte) *node {
	t.Helper()
	var plan []struct{ Plan node }
	if err := json.Unmarshal(text, &plan); err != nil {
		t.Fatal(err)
	}
	return &plan[0].Plan
}

// explain executes one of the gate's prepared statements, and returns its plan and EXPLAIN's text.
// The caller has locked the connection.
func (p *postgres) explain(t *testing.T, name, arguments string) (*node, []byte) {
	t.Helper()
	query := fmt.Sprintf("BEGIN; EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE %s (%s); ROLLBACK", name, arguments)
	results, err := p.conn.Exec(t.Context(), query).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	text := results[1].Rows[0][0]
	return explained(t, text), text
}

// explainQuery executes a query with the settings, and returns its plan and EXPLAIN's text.
func explainQuery(t *testing.T, db *models.DB, settings, query string) (*node, []byte) {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), settings); err != nil {
		t.Fatal(err)
	}
	var text []byte
	if err := tx.QueryRowContext(t.Context(), "EXPLAIN (ANALYZE, FORMAT JSON) "+query).Scan(&text); err != nil {
		t.Fatalf("%v\n%s", err, query)
	}
	return explained(t, text), text
}

// lockedPostgres opens the gate's side of a database. The test may use its connection.
func lockedPostgres(t *testing.T, db *models.DB) *postgres {
	t.Helper()
	p, err := openPostgres(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	p.mu.Lock()
	t.Cleanup(p.mu.Unlock)
	return p
}

// TestRowsReadAreBounded explains every statement of the gate, prepared on an empty database, while
// the tables grow. Whatever the size of the tables and whether or not they were analyzed, a
// statement must read only a few rows for each row that it is asked for.
func TestRowsReadAreBounded(t *testing.T) {
	ctx := t.Context()
	db, err := models.Open(ctx, modelstest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	p := lockedPostgres(t, db)
	// Only the test analyzes tables.
	for _, table := range []string{
		"users", "workspaces", "organizations", "memberships", "subscriptions", "usage_records", "usage_events", "usage_holds",
		"api_keys",
	} {
		if _, err := db.ExecContext(ctx, "ALTER TABLE "+table+" SET (autovacuum_enabled = off)"); err != nil {
			t.Fatal(err)
		}
	}
	grown := 0
	sizes := []int{10, 2_000}
	if *large {
		sizes = append(sizes, 50_000)
	}
	for _, people := range sizes {
		if _, err := db.ExecContext(ctx, growBy(grown, people)); err != nil {
			t.Fatal(err)
		}
		grown = people
		for _, analyzed := range []bool{false, true} {
			if analyzed {
				if _, err := db.ExecContext(ctx, "ANALYZE"); err != nil {
					t.Fatal(err)
				}
			}
			name := fmt.Sprintf("%d people, analyzed %v", people, analyzed)
			t.Run(name+": prepared statements", func(t *testing.T) { boundedStatements(t, db, p, people) })
			t.Run(name+": queries", func(t *testing.T) {
				boundedQueries(t, db, fmt.Sprintf("new%d-%v@example.com", people, analyzed))
			})
		}
	}
}

// boundedStatements checks how much the prepared statements read if they are asked for three
// people.
func boundedStatements(t *testing.T, db *models.DB, p *postgres, people int) {
	const asked = 3
	all := boundedArguments(t, db, people)
	for name := range pgStatements {
		if slices.Contains(noTable, name) {
			continue
		}
		plan, text := p.explain(t, name, all[name])
		if rows := plan.read(); rows > 8*asked {
			t.Errorf("%s reads %v rows for %d\n%s", name, rows, asked, text)
		}
		if blocks := plan.Hits + plan.Reads; blocks > 100*asked {
			t.Errorf("%s reads %v blocks for %d\n%s", name, blocks, asked, text)
		}
	}
}

// boundedArguments returns the arguments of the prepared statements. They are the newest records,
// so that a plan that reads an index from its beginning does not find them early.
func boundedArguments(t *testing.T, db *models.DB, people int) map[string]string {
	t.Helper()
	now := `timestamptz '2026-11-23Z'`
	last := 2 * people // records
	id := func(n int) string { return fmt.Sprintf("'%032d'::uuid", n) }
	var ids []string
	query := db.NewRaw("SELECT user_id FROM usage_records WHERE id IN (?, ?, ?) ORDER BY id DESC", last, last-1, last-2)
	if err := query.Scan(t.Context(), &ids); err != nil {
		t.Fatal(err)
	}
	users := fmt.Sprintf(`ARRAY['%s']::uuid[]`, strings.Join(ids, "', '"))
	emails := fmt.Sprintf(`ARRAY[NULL, NULL, NULL]::uuid[], ARRAY['u%d@example.com', 'u%d@example.com', 'new@example.com']`,
		people, people-1)
	wants := fmt.Sprintf(`%s, ARRAY[%s, %s, %s]`, emails, now, now, now)
	holds := fmt.Sprintf(`%s, ARRAY[%s, %s, %s]`, users, id(last), id(last-1), id(1<<40))
	records := fmt.Sprintf(`%s, ARRAY[%d, %d, %d]::bigint[]`, users, last, last-1, last-2)
	const zeros = `, ARRAY[0, 0, 0]::bigint[]`
	return map[string]string{
		"lock": wants, "lock_free": wants, "there": wants, "peek": wants,
		"events":  fmt.Sprintf(`%s, ARRAY['k%d', 'k%d', 'new']`, emails, last, last-1),
		"settled": holds, "holds_by_id": holds, "holds_by_key": fmt.Sprintf(`%s, ARRAY['h%d', 'h%d', 'new']`, emails, last, last-1),
		"close_holds": holds + `, ARRAY['settled', 'released', 'settled']`,
		"update":      records + strings.Repeat(zeros, 6) + `, ARRAY[NULL, NULL, NULL]::timestamptz[], ARRAY['1', '1', '1']`,
		"move":        records + strings.Repeat(zeros, 3) + `, ARRAY['1', '1', '1'], ARRAY['7', '7', '7']::xid[], 0`,
		"late":        records,
		"notify":      records + zeros,
		"spends":      "ARRAY[7, 8, 9]::bigint[]",
		"spend":       "ARRAY[7, 8, 9]::bigint[]" + strings.Repeat(zeros, 3) + ", ARRAY[NULL, NULL, NULL]::timestamptz[], 0",
	}
}

// boundedQueries checks how much the queries read that the gate makes through bun. email is a new
// person.
func boundedQueries(t *testing.T, db *models.DB, email string) {
	ctx := t.Context()
	catalogue, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	seen := &statements{}
	watched := &models.DB{DB: db.WithQueryHook(seen), URL: db.URL, Postgres: true, Sent: seen.add}
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	identity := models.SlackIdentity{TeamID: "T7", UserID: "U6"}
	_, err = models.LinkPeople(ctx, watched, at, []models.Link{
		{Email: email, Slack: identity}, {Email: "u5@example.com", Slack: models.SlackIdentity{TeamID: "T-" + email, UserID: "U1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = models.PrepareRecords(ctx, watched, catalogue, at, []models.RecordKey{
		{Email: email, At: at}, {Email: "u9@example.com", At: at}, {Email: "u8@example.com", At: at.AddDate(-1, 0, 0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	grouped := len(seen.texts)
	_, err1 := models.PeopleByIdentity(ctx, watched, []models.SlackIdentity{identity, {TeamID: "T8", UserID: "U7"}})
	_, err2 := models.RecordsOfHolds(ctx, watched, []uuid.UUID{{1}})
	_, err3 := models.APIKeyByHash(ctx, watched, models.HashKey("x"))
	if err1 != nil || err2 != nil || err3 != nil {
		t.Fatal(err1, err2, err3)
	}
	for i, statement := range seen.texts {
		settings, most := "", 1000.0 // a single query is planned each time and may read a small table whole
		if i < grouped {
			settings, most = indexOnly, 60
		}
		plan, text := explainQuery(t, db, settings, statement)
		if rows := plan.read(); rows > most {
			t.Errorf("a query reads %v rows\n%s\n%s", rows, statement, text)
		}
	}
}

// growBy returns statements that insert people, a team for ten people, their records for October
// and November, and one event and one hold for each record.
func growBy(from, to int) string {
	replace := strings.NewReplacer("FROM_N", fmt.Sprint(from+1), "TO_N", fmt.Sprint(to),
		"FROM_T", fmt.Sprint(from/10+1), "TO_T", fmt.Sprint(max(to/10, 10)))
	return replace.Replace(`
	SET LOCAL synchronous_commit = off;
	ALTER TABLE subscriptions DISABLE TRIGGER USER;
	ALTER TABLE users DISABLE TRIGGER USER;
	ALTER TABLE workspaces DISABLE TRIGGER USER;
	INSERT INTO organizations SELECT gen_random_uuid(), 'o' || n, now() FROM generate_series(FROM_T, TO_T) n ON CONFLICT DO NOTHING;
	INSERT INTO workspaces SELECT gen_random_uuid(), id, 'T' || substr(name, 2), name, now()
		FROM organizations WHERE name LIKE 'o%' ON CONFLICT DO NOTHING;
	INSERT INTO users (id, email, workspace_id, slack_user_id, created_at)
		SELECT gen_random_uuid(), 'u' || n || '@example.com', w.id, 'U' || n, '2026-01-01Z'
		FROM generate_series(FROM_N, TO_N) n JOIN workspaces w ON slack_team_id = 'T' || (n / 10 + 1);
	INSERT INTO memberships SELECT u.id, w.organization_id, now()
		FROM users u JOIN workspaces w ON w.id = u.workspace_id ON CONFLICT DO NOTHING;
	INSERT INTO subscriptions (id, organization_id, plan_id, status, created_at, updated_at)
		SELECT gen_random_uuid(), id, 'team', 'active', now(), now() FROM organizations o
		WHERE NOT EXISTS (SELECT 1 FROM subscriptions s WHERE s.organization_id = o.id);
	INSERT INTO usage_records (user_id, email, billing_period_start, billing_period_end, plan_id, suggestions_included,
			overage_rate_cents, entitled, created_at)
		SELECT u.id, u.email, m, m + interval '1 month', 'team', 50, 25, true, now()
		FROM generate_series(FROM_N, TO_N) n JOIN users u ON u.email = 'u' || n || '@example.com',
			generate_series(timestamptz '2026-10-01Z', '2026-11-01Z', interval '1 month') m;
	INSERT INTO usage_events (id, user_id, record_id, email, quantity, idempotency_key, occurred_at, recorded_at, plan_id,
			billing_period_start, billing_period_end, used_after, held_after, included, overage_rate_cents)
		SELECT gen_random_uuid(), user_id, id, email, 1, 'k' || id, now(), now(), plan_id,
			billing_period_start, billing_period_end, 1, 0, 50, 25
		FROM usage_records
		WHERE substr(split_part(email, '@', 1), 2) ~ '^[0-9]+$'
			AND substr(split_part(email, '@', 1), 2)::bigint BETWEEN FROM_N AND TO_N
		ON CONFLICT DO NOTHING;
	INSERT INTO usage_holds (id, user_id, record_id, email, quantity, idempotency_key, state, expires_at, created_at, plan_id,
			billing_period_start, billing_period_end, used_after, held_after, included, overage_rate_cents)
		SELECT lpad(id::text, 32, '0')::uuid, user_id, id, email, 1, 'h' || id, 'settled', now(), now(), plan_id,
			billing_period_start, billing_period_end, 1, 0, 50, 25
		FROM usage_records
		WHERE substr(split_part(email, '@', 1), 2) ~ '^[0-9]+$'
			AND substr(split_part(email, '@', 1), 2)::bigint BETWEEN FROM_N AND TO_N
		ON CONFLICT DO NOTHING;
	ALTER TABLE subscriptions ENABLE TRIGGER USER;
	ALTER TABLE users ENABLE TRIGGER USER;
	ALTER TABLE workspaces ENABLE TRIGGER USER;
	INSERT INTO api_keys (id, name, hint, hash, scopes, created_at)
		SELECT gen_random_uuid(), 'k', 'k', sha256(n::text::bytea), 'read', now() FROM generate_series(FROM_N, TO_N) n`)
}
