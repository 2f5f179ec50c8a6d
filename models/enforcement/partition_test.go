package enforcement

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// partition replaces the usage tables with tables that are partitioned by user. Like a distributed
// engine, PostgreSQL then refuses unique keys without user_id. A record's email is still unique,
// because users.email is.
const partition = `
	ALTER SEQUENCE usage_record_ids OWNED BY NONE;
	CREATE TABLE r (LIKE usage_records INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
		PRIMARY KEY (user_id, id), UNIQUE (user_id, billing_period_start)) PARTITION BY HASH (user_id);
	CREATE TABLE e (LIKE usage_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
		UNIQUE (user_id, idempotency_key), UNIQUE (user_id, hold_id)) PARTITION BY HASH (user_id);
	CREATE TABLE h (LIKE usage_holds INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
		PRIMARY KEY (user_id, id), UNIQUE (user_id, idempotency_key)) PARTITION BY HASH (user_id);
	DROP TABLE usage_records, usage_events, usage_holds;
	ALTER TABLE r RENAME TO usage_records; ALTER TABLE e RENAME TO usage_events; ALTER TABLE h RENAME TO usage_holds;
	CREATE INDEX ON usage_records (email, billing_period_start);
	CREATE INDEX ON usage_records (present_workspace_id, billing_period_start, billing_period_end);
	CREATE INDEX ON usage_events (stripe_customer_id, occurred_at)
		WHERE stripe_report_id IS NULL AND stripe_customer_id IS NOT NULL AND overage_quantity > 0;
	CREATE INDEX ON usage_holds (user_id, record_id, expires_at) WHERE state = 'open';
	CREATE TRIGGER usage_records_placed BEFORE INSERT ON usage_records FOR EACH ROW EXECUTE FUNCTION tollgate_record_placed();
	CREATE TRIGGER usage_records_made AFTER INSERT ON usage_records REFERENCING NEW TABLE AS made
		FOR EACH STATEMENT EXECUTE FUNCTION tollgate_records_made();
	CREATE TRIGGER usage_records_cut AFTER UPDATE OF billing_period_end ON usage_records
		FOR EACH ROW EXECUTE FUNCTION tollgate_record_cut();
	DO $$ BEGIN
		FOR n IN 0..7 LOOP
			EXECUTE format('CREATE TABLE usage_records_p%s PARTITION OF usage_records FOR VALUES WITH (MODULUS 8, REMAINDER %s)', n, n);
			EXECUTE format('CREATE TABLE usage_events_p%s PARTITION OF usage_events FOR VALUES WITH (MODULUS 8, REMAINDER %s)', n, n);
			EXECUTE format('CREATE TABLE usage_holds_p%s PARTITION OF usage_holds FOR VALUES WITH (MODULUS 8, REMAINDER %s)', n, n);
		END LOOP;
	END $$`

// partitions returns the partitions of the usage tables that a plan read or wrote.
func (n *node) partitions() (found []string) {
	table, number, ok := strings.Cut(n.Relation, "_p")
	if ok && strings.HasPrefix(table, "usage_") && n.Loops > 0 && n.Type != "ModifyTable" {
		found = append(found, number)
	}
	for i := range n.Plans {
		found = append(found, n.Plans[i].partitions()...)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// TestTheGateOnPartitionedTables checks that the gate works on tables that are partitioned by user,
// and that each statement touches only the partitions of its people.
func TestTheGateOnPartitionedTables(t *testing.T) {
	ctx := t.Context()
	db, err := models.Open(ctx, modelstest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.ExecContext(ctx, partition); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(ctx, "CREATE UNIQUE INDEX ON usage_events (idempotency_key)"); err == nil {
		t.Fatal("the tables are not partitioned: a unique key without user_id is accepted")
	}
	catalogue, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	if !t.Run("calls", func(t *testing.T) { callsOnPartitions(t, db, catalogue, now) }) {
		t.FailNow()
	}
	var people partitioned
	query := db.NewRaw(`SELECT r.user_id AS "user", r.email, split_part(r.tableoid::regclass::text, '_p', 2) AS n,
			r.id AS record, h.id AS hold
		FROM usage_records r JOIN usage_holds h ON h.record_id = r.id AND h.idempotency_key = 'k' ORDER BY r.id LIMIT 3`)
	if err := query.Scan(ctx, &people); err != nil {
		t.Fatal(err)
	}
	t.Run("prepared statements", func(t *testing.T) { people.checkStatements(t, lockedPostgres(t, db)) })
	t.Run("queries", func(t *testing.T) { people.checkQueries(t, db, catalogue, now) })
}

// callsOnPartitions makes all kinds of calls for 40 people.
func callsOnPartitions(t *testing.T, db *models.DB, catalogue *models.Catalogue, now time.Time) {
	ctx := t.Context()
	gate, err := Open(ctx, db, Options{
		Catalogue: catalogue, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler), QueueLimit: 1000,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(gate.Close)
	must := func(a Answer, err error) Answer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for i := range 40 {
		p := Person{Email: fmt.Sprintf("u%d@example.com", i)}
		held := must(gate.Hold(ctx, p, 1, "k", time.Minute))
		first := must(gate.Consume(ctx, p, 2, "k"))
		must(gate.Settle(ctx, held.Hold.ID, 1))
		must(gate.Release(ctx, must(gate.Hold(ctx, p, 1, "k2", time.Minute)).Hold.ID))
		again := must(gate.Consume(ctx, p, 2, "k"))
		check := must(gate.Check(ctx, p, 3))
		if !again.Replayed || again.EventID != first.EventID || again.Standing.Used != 2 || check.Verdict.Allowed || check.Standing.Used != 3 {
			t.Fatalf("%s: second consume %+v, check %+v", p.Email, again, check)
		}
		late := PastEvent{Person: p, Quantity: 1, IdempotencyKey: "late", OccurredAt: now.AddDate(0, -1, 0)}
		if _, err := gate.Record(ctx, []PastEvent{late}); err != nil {
			t.Fatal(err)
		}
	}
	if err := models.Verify(ctx, db, func(d models.Difference) { t.Error(d) }); err != nil {
		t.Fatal(err)
	}
}

// partitioned has three people, each with a record and a hold in partition N.
type partitioned []struct {
	User     uuid.UUID
	Email, N string
	Record   int64
	Hold     uuid.UUID
}

// array returns an SQL array with one value for each person.
func (people partitioned) array(form string, value func(i int) any) string {
	var texts []string
	for i := range people {
		texts = append(texts, fmt.Sprintf(form, value(i)))
	}
	return "ARRAY[" + strings.Join(texts, ", ") + "]"
}

// arguments returns the arguments of the prepared statements. Some statements are explained twice.
func (people partitioned) arguments() map[string][]string {
	users := people.array("'%s'::uuid", func(i int) any { return people[i].User })
	byEmail := "ARRAY[NULL, NULL, NULL]::uuid[], " + people.array("'%s'", func(i int) any { return people[i].Email })
	byID := users + ", ARRAY['', '', '']"
	at := people.array("%s", func(int) any { return "timestamptz '2026-11-23 12:00Z'" })
	keys := people.array("%s", func(int) any { return "'k'" })
	holds := users + ", " + people.array("'%s'::uuid", func(i int) any { return people[i].Hold })
	records := users + ", " + people.array("%d::bigint", func(i int) any { return people[i].Record })
	const zeros = ", ARRAY[0, 0, 0]::bigint[]"
	return map[string][]string{
		"lock": {byEmail + ", " + at, byID + ", " + at}, "lock_free": {byEmail + ", " + at}, "there": {byEmail + ", " + at},
		"peek": {byEmail + ", " + at, byID + ", " + at}, "events": {byEmail + ", " + keys, byID + ", " + keys},
		"holds_by_key": {byEmail + ", " + keys}, "settled": {holds}, "holds_by_id": {holds},
		"close_holds": {holds + ", ARRAY['open', 'open', 'open']"}, "late": {records},
		"notify": {records + ", ARRAY[1, 1, 1]::bigint[]"},
		"update": {records + strings.Repeat(zeros, 6) + ", ARRAY[NULL, NULL, NULL]::timestamptz[], ARRAY['1', '1', '1']"},
		"move":   {records + strings.Repeat(zeros, 3) + ", ARRAY['1', '1', '1'], ARRAY['7', '7', '7']::xid[], 0"},
	}
}

// checkStatements checks that the gate's prepared statements touch only the people's partitions.
func (people partitioned) checkStatements(t *testing.T, p *postgres) {
	var own []string
	for _, person := range people {
		own = append(own, person.N)
	}
	slices.Sort(own)
	own = slices.Compact(own)
	arguments := people.arguments()
	for name := range pgStatements {
		if slices.Contains(noTable, name) || name == "spends" || name == "spend" { // these have a table without partitions
			continue
		}
		if len(arguments[name]) == 0 {
			t.Errorf("%s is not explained", name)
		}
		for _, a := range arguments[name] {
			plan, text := p.explain(t, name, a)
			if touched := plan.partitions(); !slices.Equal(touched, own) {
				t.Errorf("%s touches the partitions %q, but its people are in %q\n%s", name, touched, own, text)
			}
		}
	}
}

// checkQueries checks that the queries touch only the partition of the first person: those that
// prepare people and records, and the one that finds a hold's user.
func (people partitioned) checkQueries(t *testing.T, db *models.DB, catalogue *models.Catalogue, now time.Time) {
	ctx, person := t.Context(), people[0]
	seen := &statements{}
	watched := &models.DB{DB: db.WithQueryHook(seen), URL: db.URL, Postgres: true, Sent: seen.add}
	wants := []models.RecordKey{
		{Email: person.Email, At: now}, {UserID: person.User, Email: person.Email, At: now.AddDate(0, -2, 0)},
	}
	if err := models.PrepareRecords(ctx, watched, catalogue, now, wants); err != nil {
		t.Fatal(err)
	}
	if _, err := models.ReadAhead(ctx, watched, catalogue, now, wants); err != nil {
		t.Fatal(err)
	}
	found, err := models.RecordsOfHolds(ctx, watched, []uuid.UUID{person.Hold})
	if err != nil || found[person.Hold].UserID != person.User {
		t.Fatalf("the hold's record is %+v, %v", found, err)
	}
	for _, statement := range seen.texts {
		plan, text := explainQuery(t, db, indexOnly, statement)
		if touched := plan.partitions(); len(touched) > 1 || len(touched) == 1 && touched[0] != person.N {
			t.Errorf("the partitions %q are touched, but the person is in %s\n%s\n%s", touched, person.N, statement, text)
		}
	}
}
