package enforcement

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"tollgate/models"
)

// The gate's statements. A group takes two round trips: begin, lock and look up; then write and
// commit. A group that was decided on remembered records takes one: write, unless a record changed.
// Each statement takes whole arrays, so that the database plans and answers once per group and not
// once per call.
const (
	// namedPerson is the user that k names by ID or, without an ID, by email.
	namedPerson = `COALESCE(k.user_id, (SELECT u.id FROM users u WHERE u.email = k.email))`

	recordColumns = `r.id, r.user_id, r.email, r.billing_period_start, r.billing_period_end, r.plan_id,
		r.suggestions_included, r.granted, r.included_before, r.suggestions_used, r.overage_used, r.overage_cents,
		r.overage_rate_cents, r.past_due, r.spend_limit_cents, r.member_limit, r.workspace_id, r.slack_team_id,
		r.slack_user_id, r.stripe_customer_id, r.entitled`
	heldColumns = `r.units_held, r.overage_held, r.overage_cents_held, r.holds_expire_at`

	figures = `plan_id, billing_period_start, billing_period_end, used_after, overage_after, overage_cents_after,
		held_after, overage_held_after, included, overage_rate_cents, spend_limit_cents, member_limit`
	eventColumns = `id, user_id, email, quantity, idempotency_key, hold_id, ` + figures
	holdColumns  = `id, user_id, email, quantity, overage_quantity, overage_cents, idempotency_key, state, expires_at,
		created_at, record_id, ` + figures

	newEvent = `INTO usage_events (recorded_at, id, user_id, record_id, email, workspace_id, quantity, overage_quantity,
		overage_cents, idempotency_key, hold_id, occurred_at, stripe_customer_id, ` + figures + `)`
	newHold = `INTO usage_holds (created_at, state, id, user_id, record_id, email, quantity, overage_quantity,
		overage_cents, idempotency_key, expires_at, ` + figures + `)`

	pgPeople = `unnest($1::uuid[], $2::text[], $3::timestamptz[]) WITH ORDINALITY AS k (user_id, email, at, ord)`
	pgKeys   = `unnest($1::uuid[], $2::text[], $3::text[]) AS k (user_id, email, key)`
	pgIDs    = `unnest($1::uuid[], $2::uuid[]) AS k (user_id, id)`

	pgWanted = ` FROM ` + pgPeople + ` JOIN usage_records r ON r.user_id = ` + namedPerson + ` AND r.billing_period_end > k.at
			AND r.billing_period_start <= k.at AND r.billing_period_start > k.at - ` + models.MaxPeriodInterval

	pgLock     = `SELECT k.ord, ` + recordColumns + `, ` + heldColumns + `, r.xmin, r.daily` + pgWanted + ` ORDER BY k.ord FOR UPDATE OF r`
	pgLockFree = pgLock + ` SKIP LOCKED`
	pgThere    = `SELECT k.ord` + pgWanted

	pgLive = ` FROM usage_holds h WHERE h.user_id = r.user_id AND h.record_id = r.id AND h.state = 'open' AND h.expires_at > k.at)`
	pgPeek = `SELECT k.ord, ` + recordColumns + `,
			CASE WHEN r.holds_expire_at <= k.at THEN (SELECT COALESCE(SUM(h.quantity), 0)::bigint` + pgLive + ` ELSE r.units_held END,
			CASE WHEN r.holds_expire_at <= k.at THEN (SELECT COALESCE(SUM(h.overage_quantity), 0)::bigint` + pgLive + ` ELSE r.overage_held END,
			CASE WHEN r.holds_expire_at <= k.at THEN (SELECT COALESCE(SUM(h.overage_cents), 0)::bigint` + pgLive + ` ELSE r.overage_cents_held END,
			NULL::timestamptz
		FROM ` + pgPeople + `,
		-- Without LIMIT, the planner may read all records of the month and look for the people among them, which is
		-- cheap only while the table is empty.
		LATERAL (SELECT * FROM usage_records r WHERE r.user_id = ` + namedPerson + ` AND r.billing_period_end > k.at
			AND r.billing_period_start <= k.at AND r.billing_period_start > k.at - ` + models.MaxPeriodInterval + ` LIMIT 1) r`

	pgEvents = `SELECT e.* FROM ` + pgKeys + `, LATERAL (SELECT ` + eventColumns + ` FROM usage_events
		WHERE usage_events.user_id = ` + namedPerson + ` AND idempotency_key = k.key) e`
	pgSettled = `SELECT e.* FROM ` + pgIDs + `, LATERAL (SELECT ` + eventColumns + ` FROM usage_events
		WHERE usage_events.user_id = k.user_id AND hold_id = k.id) e`
	pgHoldsByKey = `SELECT h.* FROM ` + pgKeys + `, LATERAL (SELECT ` + holdColumns + ` FROM usage_holds
		WHERE usage_holds.user_id = ` + namedPerson + ` AND idempotency_key = k.key) h`
	pgHoldsByID = `SELECT h.* FROM ` + pgIDs + `, LATERAL (SELECT ` + holdColumns + ` FROM usage_holds
		WHERE usage_holds.user_id = k.user_id AND usage_holds.id = k.id) h`

	// Several unnest calls in the list of columns advance together. In FROM, their rows would first be
	// written to a table in memory.
	pgInsertEvents = `INSERT ` + newEvent + `
		SELECT $1::timestamptz, unnest($2::uuid[]), unnest($3::uuid[]), unnest($4::bigint[]), unnest($5::text[]),
			unnest($6::uuid[]), unnest($7::bigint[]), unnest($8::bigint[]), unnest($9::bigint[]), unnest($10::text[]),
			unnest($11::uuid[]), unnest($12::timestamptz[]), unnest($13::text[]), unnest($14::text[]),
			unnest($15::timestamptz[]), unnest($16::timestamptz[]), unnest($17::bigint[]), unnest($18::bigint[]),
			unnest($19::bigint[]), unnest($20::bigint[]), unnest($21::bigint[]), unnest($22::bigint[]),
			unnest($23::bigint[]), unnest($24::bigint[]), unnest($25::bigint[])`

	pgInsertHolds = `INSERT ` + newHold + `
		SELECT $1::timestamptz, 'open', unnest($2::uuid[]), unnest($3::uuid[]), unnest($4::bigint[]), unnest($5::text[]),
			unnest($6::bigint[]), unnest($7::bigint[]), unnest($8::bigint[]), unnest($9::text[]), unnest($10::timestamptz[]),
			unnest($11::text[]), unnest($12::timestamptz[]), unnest($13::timestamptz[]), unnest($14::bigint[]),
			unnest($15::bigint[]), unnest($16::bigint[]), unnest($17::bigint[]), unnest($18::bigint[]),
			unnest($19::bigint[]), unnest($20::bigint[]), unnest($21::bigint[]), unnest($22::bigint[])`

	pgCloseHolds = `UPDATE usage_holds h SET state = k.state
		FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS k (user_id, id, state)
		WHERE h.user_id = k.user_id AND h.id = k.id`

	pgUpdate = `UPDATE usage_records r SET suggestions_used = k.used, overage_used = k.overage, overage_cents = k.cents,
			units_held = k.held, overage_held = k.overage_held, overage_cents_held = k.cents_held,
			holds_expire_at = k.expire, daily = k.daily
		FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
				$8::bigint[], $9::timestamptz[], $10::text[])
			AS k (user_id, id, used, overage, cents, held, overage_held, cents_held, expire, daily)
		WHERE r.user_id = k.user_id AND r.id = k.id`

	// models.PastUsageCache caches the sums of ended periods until the workspace's version changes.
	pgLate = `INSERT INTO usage_versions (workspace_id, version)
		SELECT DISTINCT r.present_workspace_id, 1 FROM unnest($1::uuid[], $2::bigint[]) AS k (user_id, id)
			JOIN usage_records r ON r.user_id = k.user_id AND r.id = k.id
		WHERE r.present_workspace_id IS NOT NULL ORDER BY 1
		ON CONFLICT (workspace_id) DO UPDATE SET version = usage_versions.version + 1`

	// A row's xmin is the transaction that wrote this version of the row, so it differs after any
	// change. Unless every row is as remembered, the function raises a serialization failure, which
	// undoes the whole transaction.
	// Source: https://www.postgresql.org/docs/current/ddl-system-columns.html
	pgMove = `WITH moved AS (
			UPDATE usage_records r SET suggestions_used = k.used, overage_used = k.overage, overage_cents = k.cents,
				daily = k.daily
			FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::xid[])
				AS k (user_id, id, used, overage, cents, daily, version)
			WHERE r.user_id = k.user_id AND r.id = k.id AND r.xmin = k.version RETURNING 1)
		SELECT tollgate_moved(count(*), $8::bigint) FROM moved`
)

var pgStatements = map[string]string{
	"begin": "BEGIN", "commit": "COMMIT", "rollback": "ROLLBACK",
	"lock": pgLock, "lock_free": pgLockFree, "there": pgThere, "peek": pgPeek,
	"events": pgEvents, "settled": pgSettled, "holds_by_id": pgHoldsByID, "holds_by_key": pgHoldsByKey,
	"insert_events": pgInsertEvents, "insert_holds": pgInsertHolds, "close_holds": pgCloseHolds, "update": pgUpdate, "late": pgLate,
	"move": pgMove, "moment": "SELECT pg_current_xact_id()::xid",
}

// postgres is a ledger with its own connection to PostgreSQL. It reconnects if the connection
// breaks.
type postgres struct {
	config *pgconn.Config
	// mu is locked while the worker or keepAlive uses conn.
	mu   sync.Mutex
	conn *pgconn.PgConn
	// used is when conn was last used.
	used   time.Time
	params params
	closed chan struct{}
}

const (
	// pingAfterIdle is how long a connection may be idle before its next use checks whether the server
	// closed it.
	pingAfterIdle = time.Second
	// keepAliveEvery is how long a connection is idle before keepAlive sends a query on it. So calls
	// need no such query, and do not wait for a new connection because a firewall dropped the old one.
	keepAliveEvery = 15 * time.Second
	// keepAlivePatience bounds that query, because a call may wait for its end.
	keepAlivePatience = 2 * time.Second
	// replacePatience bounds the time to open a new connection for which no call waits.
	replacePatience = 10 * time.Second
)

func openPostgres(ctx context.Context, db *models.DB) (*postgres, error) {
	config := db.PostgresConfig(map[string]string{
		"application_name":  "tollgate gate",
		"statement_timeout": preparePatience,
		"lock_timeout":      preparePatience,
		// The statements look up a few rows by index. If tables have grown since they were last analyzed,
		// the planner would think that they are small and read them whole, and a prepared plan would keep
		// that.
		"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off",
		"enable_material":  "off", // otherwise a table that was analyzed while it was small is read whole for a join
		"enable_indexscan": "on", "enable_indexonlyscan": "on", "enable_bitmapscan": "on", "enable_nestloop": "on",
	})
	p := &postgres{config: config, closed: make(chan struct{})}
	if err := p.connect(ctx); err != nil {
		return nil, err
	}
	go p.keepAlive()
	return p, nil
}

// keepAlive checks every second whether the server closed an idle connection, and every
// keepAliveEvery whether it still answers. It replaces a broken connection. It returns when the
// ledger is closed.
func (p *postgres) keepAlive() {
	tick := time.NewTicker(pingAfterIdle)
	defer tick.Stop()
	asked := time.Now()
	for {
		select {
		case <-p.closed:
			return
		case <-tick.C:
		}
		if !p.mu.TryLock() {
			continue // it is in use
		}
		rested := time.Since(p.used) >= pingAfterIdle
		if rested && (p.conn == nil || p.conn.IsClosed() || p.conn.CheckConn() != nil || //nolint:staticcheck // Ping takes a round trip
			min(time.Since(p.used), time.Since(asked)) >= keepAliveEvery && !p.alive()) {
			p.disconnect()
		}
		if time.Since(asked) >= keepAliveEvery {
			asked = time.Now()
		}
		broken := p.conn == nil
		p.mu.Unlock()
		if broken {
			p.replace()
		}
	}
}

// replace opens a new connection. It does so without the lock, so a call does not wait for it but
// connects by itself.
func (p *postgres) replace() {
	ctx, cancel := context.WithTimeout(context.Background(), replacePatience)
	defer cancel()
	conn, err := p.dial(ctx)
	if err != nil {
		return // the next call reports the error
	}
	p.mu.Lock()
	if p.conn == nil && !isClosed(p.closed) {
		p.conn, conn = conn, nil
		p.used = time.Now()
	}
	p.mu.Unlock()
	hangUp(conn)
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (p *postgres) alive() bool {
	ctx, cancel := context.WithTimeout(context.Background(), keepAlivePatience)
	defer cancel()
	return p.conn.Ping(ctx) == nil
}

func (p *postgres) connect(ctx context.Context) (err error) {
	if p.conn != nil && !p.conn.IsClosed() {
		fresh := time.Since(p.used) < pingAfterIdle
		if p.conn.TxStatus() == 'I' && (fresh || p.conn.CheckConn() == nil) { //nolint:staticcheck // Ping takes a round trip
			return nil
		}
		p.disconnect() // it is broken, or has an open transaction, which the server then ends
	}
	p.conn, err = p.dial(ctx)
	p.used = time.Now()
	return err
}

// How long the server waits, in milliseconds.
const (
	// preparePatience bounds the preparation of all statements together, so that the start survives a
	// busy disk or a table that is briefly locked. A call that waits for a new connection has its own
	// deadline.
	preparePatience = "30000"
	// statementPatience bounds each later statement: the server gives up before a call does.
	statementPatience = "4000"
	// lockPatience bounds each wait for a lock, because a whole group waits for one locked record.
	lockPatience = "1000"
)

// dial returns a new connection. It prepares the gate's statements in one round trip.
func (p *postgres) dial(ctx context.Context) (*pgconn.PgConn, error) {
	conn, err := pgconn.ConnectConfig(ctx, p.config)
	if err != nil {
		return nil, err
	}
	pipeline := conn.StartPipeline(ctx)
	for name, text := range pgStatements {
		pipeline.SendPrepare(name, text, nil)
	}
	pipeline.SendQueryParams("SET statement_timeout = "+statementPatience, nil, nil, nil, nil)
	pipeline.SendQueryParams("SET lock_timeout = "+lockPatience, nil, nil, nil, nil)
	if err := errors.Join(pipeline.Sync(), pipeline.Close()); err != nil { // Close reads the results
		hangUp(conn)
		return nil, fmt.Errorf("prepare the gate's statements: %w", err)
	}
	return conn, nil
}

func (p *postgres) close() {
	close(p.closed)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disconnect()
}

func (p *postgres) disconnect() {
	hangUp(p.conn)
	p.conn = nil
}

// hangUp closes a connection, which may be nil.
func hangUp(conn *pgconn.PgConn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing is lost: no call was answered before its commit
}

// pgStep is one prepared statement of a round trip.
type pgStep struct {
	name string
	args [][]byte
	row  func([][]byte) error
}

var (
	binaryFormat = []int16{1}
	errNoRow     = errors.New("a statement returned an unexpected row")
)

// trip sends the steps in one round trip and reads their results.
func (p *postgres) trip(ctx context.Context, steps ...pgStep) error {
	var batch pgconn.Batch
	for _, s := range steps {
		batch.ExecPrepared(s.name, s.args, binaryFormat, binaryFormat)
	}
	answers := p.conn.ExecBatch(ctx, &batch)
	var rowErr error
	for i := 0; answers.NextResult(); i++ {
		rows := answers.ResultReader()
		for rows.NextRow() {
			switch {
			case rowErr != nil:
			case steps[i].row == nil:
				rowErr = errNoRow
			default:
				rowErr = steps[i].row(rows.Values())
			}
		}
		if _, err := rows.Close(); err != nil {
			break
		}
	}
	p.used = time.Now()
	return errors.Join(answers.Close(), rowErr)
}

func (p *postgres) transact(ctx context.Context, l lookups, decide func(*found) *changes) (err error) {
	p.mu.Lock()
	unlock := p.mu.Unlock
	defer func() { unlock() }()
	if err := p.connect(ctx); err != nil {
		return err
	}
	defer func() {
		if err != nil && p.conn != nil && !p.conn.IsClosed() && p.conn.TxStatus() != 'I' {
			// The group's context may have ended, but the next group needs the connection without a
			// transaction.
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if p.trip(undo, pgStep{name: "rollback"}) != nil {
				p.disconnect()
			}
		}
	}()
	f := newFound(l)
	p.params.reset()
	wanted := p.params.wants(l.wants)
	lock := pgStep{name: "lock", args: wanted, row: func(row [][]byte) error {
		i := readInt(row[0]) - 1
		a := &account{record: readRecord(row), version: readXID(row[26])}
		a.record.Daily = models.Daily(row[27])
		f.accounts[i] = a
		return nil
	}}
	steps := []pgStep{{name: "begin"}, lock}
	if l.skipLocked {
		f.locked = make([]bool, len(l.wants))
		steps[1].name = "lock_free"
		steps = append(steps, pgStep{name: "there", args: wanted, row: func(row [][]byte) error {
			i := readInt(row[0]) - 1
			f.locked[i] = f.accounts[i] == nil
			return nil
		}})
	}
	if len(l.keys) > 0 {
		steps = append(steps, pgStep{name: "events", args: p.params.keys(l.keys), row: f.addEvent})
	}
	if len(l.holdKeys) > 0 {
		steps = append(steps, pgStep{name: "holds_by_key", args: p.params.keys(l.holdKeys), row: f.addHold})
	}
	if len(l.holds) > 0 {
		steps = append(steps,
			pgStep{name: "holds_by_id", args: p.params.holds(l.holds), row: f.addHold},
			pgStep{name: "settled", args: p.params.holds(l.holds), row: f.addEvent})
	}
	if err := p.trip(ctx, steps...); err != nil {
		return err
	}
	c := decide(f)
	if c.empty() {
		// The answer does not wait for the rollback. The next user of this connection waits for it.
		unlock = func() {}
		go func() {
			defer p.mu.Unlock()
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepAlivePatience)
			defer cancel()
			_ = p.trip(undo, pgStep{name: "rollback"}) // connect checks for an open transaction
		}()
		return nil
	}
	p.params.reset()
	var version uint32
	writes := append(p.writes(c), pgStep{name: "moment", row: readVersion(&version)}, pgStep{name: "commit"})
	if err := p.trip(ctx, writes...); err != nil {
		return p.unsure(err)
	}
	for _, a := range c.accounts {
		a.version = version
	}
	return nil
}

// compareAndCommit is one round trip without BEGIN and COMMIT: all statements up to a Sync are one
// transaction.
// Source: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING
func (p *postgres) compareAndCommit(ctx context.Context, c *changes) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.connect(ctx); err != nil {
		return err
	}
	p.params.reset()
	a, n := c.accounts, len(c.accounts)
	var version uint32
	moved := pgStep{name: "move", args: [][]byte{
		p.params.uuids(n, func(i int) *uuid.UUID { return &a[i].record.UserID }),
		p.params.ints(n, func(i int) int64 { return a[i].record.ID }),
		p.params.ints(n, func(i int) int64 { return a[i].standing.Used }),
		p.params.ints(n, func(i int) int64 { return a[i].standing.Overage }),
		p.params.ints(n, func(i int) int64 { return a[i].standing.OverageCents }),
		p.params.texts(n, func(i int) string { return string(a[i].daily) }),
		p.params.versions(n, func(i int) uint32 { return a[i].version }),
		p.params.single(int64(n)),
	}, row: readVersion(&version)}
	if err := p.trip(ctx, moved, p.insertEvents(c)); err != nil {
		return p.unsure(err)
	}
	for _, account := range a {
		account.version = version
	}
	return nil
}

// unsure adds errUnconfirmed to the error of a round trip that commits, unless the server said that
// a statement failed. A FATAL error, such as at a shutdown of the server, may arrive after the
// commit succeeded.
func (p *postgres) unsure(err error) error {
	var answered *pgconn.PgError
	if errors.As(err, &answered) && answered.SeverityUnlocalized == "ERROR" || pgconn.SafeToRetry(err) || !p.conn.IsClosed() {
		return err
	}
	return fmt.Errorf("%w: %w", errUnconfirmed, err)
}

func readVersion(into *uint32) func([][]byte) error {
	return func(row [][]byte) error {
		*into = readXID(row[0])
		return nil
	}
}

func (p *postgres) insertEvents(c *changes) pgStep {
	b, e, n := &p.params, c.events, len(c.events)
	return pgStep{name: "insert_events", args: append([][]byte{
		b.time(c.now),
		b.uuids(n, func(i int) *uuid.UUID { return &e[i].ID }),
		b.uuids(n, func(i int) *uuid.UUID { return &e[i].UserID }),
		b.ints(n, func(i int) int64 { return e[i].RecordID }),
		b.texts(n, func(i int) string { return e[i].Email }),
		b.uuids(n, func(i int) *uuid.UUID { return e[i].WorkspaceID }),
		b.ints(n, func(i int) int64 { return e[i].Quantity }),
		b.ints(n, func(i int) int64 { return e[i].OverageQuantity }),
		b.ints(n, func(i int) int64 { return e[i].OverageCents }),
		b.optionalTexts(n, func(i int) *string { return e[i].IdempotencyKey }),
		b.uuids(n, func(i int) *uuid.UUID { return e[i].HoldID }),
		b.times(n, func(i int) time.Time { return e[i].OccurredAt }),
		b.optionalTexts(n, func(i int) *string { return e[i].StripeCustomerID }),
	}, b.figures(n, func(i int) *models.Figures { return &e[i].Figures })...)}
}

// writes returns the steps that store the changes.
func (p *postgres) writes(c *changes) []pgStep {
	b := &p.params
	var steps []pgStep
	if len(c.events) > 0 {
		steps = append(steps, p.insertEvents(c))
	}
	if n := len(c.holds); n > 0 {
		h := c.holds
		steps = append(steps, pgStep{name: "insert_holds", args: append([][]byte{
			b.time(c.now),
			b.uuids(n, func(i int) *uuid.UUID { return &h[i].ID }),
			b.uuids(n, func(i int) *uuid.UUID { return &h[i].UserID }),
			b.ints(n, func(i int) int64 { return h[i].RecordID }),
			b.texts(n, func(i int) string { return h[i].Email }),
			b.ints(n, func(i int) int64 { return h[i].Quantity }),
			b.ints(n, func(i int) int64 { return h[i].OverageQuantity }),
			b.ints(n, func(i int) int64 { return h[i].OverageCents }),
			b.texts(n, func(i int) string { return h[i].IdempotencyKey }),
			b.times(n, func(i int) time.Time { return h[i].ExpiresAt }),
		}, b.figures(n, func(i int) *models.Figures { return &h[i].Figures })...)})
	}
	if n := len(c.closed); n > 0 {
		steps = append(steps, pgStep{name: "close_holds", args: [][]byte{
			b.uuids(n, func(i int) *uuid.UUID { return &c.closed[i].UserID }),
			b.uuids(n, func(i int) *uuid.UUID { return &c.closed[i].ID }),
			b.texts(n, func(i int) string { return string(c.closed[i].State) }),
		}})
	}
	a, n := c.accounts, len(c.accounts)
	steps = append(steps, pgStep{name: "update", args: [][]byte{
		b.uuids(n, func(i int) *uuid.UUID { return &a[i].record.UserID }),
		b.ints(n, func(i int) int64 { return a[i].record.ID }),
		b.ints(n, func(i int) int64 { return a[i].standing.Used }),
		b.ints(n, func(i int) int64 { return a[i].standing.Overage }),
		b.ints(n, func(i int) int64 { return a[i].standing.OverageCents }),
		b.ints(n, func(i int) int64 { return a[i].standing.Held }),
		b.ints(n, func(i int) int64 { return a[i].standing.OverageHeld }),
		b.ints(n, func(i int) int64 { return a[i].standing.OverageCentsHeld }),
		b.optionalTimes(n, func(i int) *time.Time { return a[i].record.HoldsExpireAt }),
		b.texts(n, func(i int) string { return string(a[i].daily) }),
	}})
	if late := c.late(); len(late) > 0 {
		steps = append(steps, pgStep{name: "late", args: [][]byte{
			b.uuids(len(late), func(i int) *uuid.UUID { return &late[i].record.UserID }),
			b.ints(len(late), func(i int) int64 { return late[i].record.ID }),
		}})
	}
	return steps
}

func (p *postgres) peek(ctx context.Context, wants []models.RecordKey) ([]*models.UsageRecord, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.connect(ctx); err != nil {
		return nil, err
	}
	records := make([]*models.UsageRecord, len(wants))
	p.params.reset()
	err := p.trip(ctx, pgStep{name: "peek", args: p.params.wants(wants), row: func(row [][]byte) error {
		r := readRecord(row)
		records[readInt(row[0])-1] = &r
		return nil
	}})
	return records, err
}

// readRecord reads recordColumns and heldColumns, starting at the second column.
func readRecord(row [][]byte) models.UsageRecord {
	return models.UsageRecord{
		ID: readInt(row[1]), UserID: uuid.UUID(row[2]), Email: string(row[3]),
		BillingPeriodStart: readTime(row[4]), BillingPeriodEnd: readTime(row[5]), PlanID: models.PlanID(row[6]),
		SuggestionsIncluded: readInt(row[7]), Granted: readInt(row[8]), IncludedBefore: readInt(row[9]),
		SuggestionsUsed: readInt(row[10]), OverageUsed: readInt(row[11]), OverageCents: readInt(row[12]),
		OverageRateCents: readInt(row[13]), PastDue: row[14][0] != 0,
		SpendLimitCents: readOptionalInt(row[15]), MemberLimit: readOptionalInt(row[16]),
		WorkspaceID: readOptionalUUID(row[17]), SlackTeamID: readOptionalText(row[18]), SlackUserID: readOptionalText(row[19]),
		StripeCustomerID: readOptionalText(row[20]), Entitled: row[21][0] != 0,
		UnitsHeld: readInt(row[22]), OverageHeld: readInt(row[23]), OverageCentsHeld: readInt(row[24]),
		HoldsExpireAt: readOptionalTime(row[25]),
	}
}

// addEvent reads eventColumns.
func (f *found) addEvent(row [][]byte) error {
	e := &models.UsageEvent{
		ID: uuid.UUID(row[0]), UserID: uuid.UUID(row[1]), Email: string(row[2]), Quantity: readInt(row[3]),
		HoldID: readOptionalUUID(row[5]),
	}
	readFigures(row[6:], &e.Figures)
	if e.HoldID != nil {
		f.settled[*e.HoldID] = e
	} else {
		f.events[keyOf[uuid.UUID]{e.UserID, string(row[4])}] = e
	}
	return nil
}

// addHold reads holdColumns. A hold that was found both by key and by ID is one value.
func (f *found) addHold(row [][]byte) error {
	id := uuid.UUID(row[0])
	h, ok := f.holds[id]
	if !ok {
		h = &models.UsageHold{
			ID: id, UserID: uuid.UUID(row[1]), Email: string(row[2]),
			Quantity: readInt(row[3]), OverageQuantity: readInt(row[4]), OverageCents: readInt(row[5]),
			IdempotencyKey: string(row[6]), State: models.HoldState(row[7]), ExpiresAt: readTime(row[8]),
			CreatedAt: readTime(row[9]), RecordID: readInt(row[10]),
		}
		readFigures(row[11:], &h.Figures)
		f.holds[id] = h
	}
	f.holdKeys[keyOf[uuid.UUID]{h.UserID, h.IdempotencyKey}] = h
	return nil
}

func readFigures(row [][]byte, f *models.Figures) {
	*f = models.Figures{
		PlanID: models.PlanID(row[0]), BillingPeriodStart: readTime(row[1]), BillingPeriodEnd: readTime(row[2]),
		UsedAfter: readInt(row[3]), OverageAfter: readInt(row[4]), OverageCentsAfter: readInt(row[5]),
		HeldAfter: readInt(row[6]), OverageHeldAfter: readInt(row[7]), Included: readInt(row[8]),
		OverageRateCents: readInt(row[9]), SpendLimitCents: readOptionalInt(row[10]), MemberLimit: readOptionalInt(row[11]),
	}
}

// PostgreSQL's binary formats: integers are big-endian, and times are microseconds since 2000.
// Source: https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-FORMAT-CODES

const postgresEpoch = 946684800 // seconds from 1970 to 2000

func readInt(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) } //nolint:gosec // two's complement on both sides

func readXID(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

func readTime(b []byte) time.Time { return time.UnixMicro(readInt(b) + postgresEpoch*1e6).UTC() }

func readOptionalInt(b []byte) *int64 {
	if b == nil {
		return nil
	}
	v := readInt(b)
	return &v
}

func readOptionalText(b []byte) *string {
	if b == nil {
		return nil
	}
	v := string(b)
	return &v
}

func readOptionalTime(b []byte) *time.Time {
	if b == nil {
		return nil
	}
	v := readTime(b)
	return &v
}

func readOptionalUUID(b []byte) *uuid.UUID {
	if b == nil {
		return nil
	}
	v := uuid.UUID(b)
	return &v
}
