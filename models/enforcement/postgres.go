package enforcement

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"tollgate/models"
)

// postgres is a ledger with its own connection to PostgreSQL. It reconnects if the connection
// breaks.
type postgres struct {
	db     *models.DB
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
	// pingAfterIdle is how long a connection may be idle before its next use checks whether the
	// server closed it.
	pingAfterIdle = time.Second
	// keepAliveEvery is how long a connection is idle before keepAlive sends a query on it. So
	// calls need no such query, and do not wait for a new connection because a firewall dropped the
	// old one.
	keepAliveEvery = 15 * time.Second
	// keepAlivePatience bounds that query, because a call may wait for its end.
	keepAlivePatience = 2 * time.Second
	// replacePatience bounds the time to open a new connection for which no call waits.
	replacePatience = 10 * time.Second
)

// How long the server waits, in milliseconds.
const (
	// preparePatience bounds the preparation of all statements together, so that the start survives
	// a busy disk or a table that is briefly locked. A call that waits for a new connection has its
	// own deadline.
	preparePatience = "30000"
	// statementPatience bounds each later statement: the server gives up before a call does.
	statementPatience = "4000"
	// lockPatience bounds each wait for a lock, because a whole group waits for one locked record.
	lockPatience = "1000"
)

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
	err := errors.Join(answers.Close(), rowErr)
	p.used = time.Now()
	p.db.NoteSilence(err)
	return err
}

func (p *postgres) transact(ctx context.Context, l lookups, decide func(*found) *changes) error {
	p.mu.Lock()
	unlock := p.mu.Unlock
	defer func() { unlock() }()
	if err := p.connect(ctx); err != nil {
		return err
	}
	ended := false // also if decide panics
	defer func() {
		if !ended && p.conn != nil && !p.conn.IsClosed() && p.conn.TxStatus() != 'I' {
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
		a := &account{record: readRecord(row), version: readXID(row[30])}
		a.record.Daily = models.Daily(row[31])
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
	if l.past { // after the keys, so that a deleted key is never missed
		steps = append(steps, pgStep{name: "pruned_before", row: func(row [][]byte) error {
			f.prunedBefore = readTime(row[0])
			return nil
		}})
	}
	if err := p.trip(ctx, steps...); err != nil {
		return err
	}
	if ids := f.organizationIDs(); len(ids) > 0 {
		spends := pgStep{name: "spends", args: [][]byte{p.params.ints(len(ids), func(i int) int64 { return ids[i] })}, row: f.addOrganization}
		if err := p.trip(ctx, spends); err != nil {
			return err
		}
	}
	c := decide(f)
	if c.empty() {
		// The answer does not wait for the rollback. The next user of this connection waits for it.
		unlock, ended = func() {}, true
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
	writes, err := p.notices(p.writes(c), c)
	if err != nil {
		return err
	}
	writes = append(writes, pgStep{name: "moment", row: readVersion(&version)})
	writes = append(p.spend(writes, c), pgStep{name: "commit"})
	if err := p.trip(ctx, writes...); err != nil {
		return p.unsure(err)
	}
	ended = true
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
	steps, err := p.notices(p.notify(p.addEvents([]pgStep{moved}, c), c), c)
	if err != nil {
		return err
	}
	if err := p.trip(ctx, p.spend(steps, c)...); err != nil {
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

func (p *postgres) insertEvents(name string, now time.Time, e []models.UsageEvent) pgStep {
	b, n := &p.params, len(e)
	return pgStep{name: name, args: append([][]byte{
		b.time(now),
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

// addEvents adds the steps that insert the events.
func (p *postgres) addEvents(steps []pgStep, c *changes) []pgStep {
	events, notified := c.eventsByMessage()
	if len(events) > 0 {
		steps = append(steps, p.insertEvents("insert_events", c.now, events))
	}
	if len(notified) > 0 {
		steps = append(steps, p.insertEvents("notify_events", c.now, notified))
	}
	return steps
}

// notify adds the step that stores which messages the group gives, if it gives any.
func (p *postgres) notify(steps []pgStep, c *changes) []pgStep {
	notified, b := c.notified(), &p.params
	if len(notified) == 0 {
		return steps
	}
	return append(steps, pgStep{name: "notify", args: [][]byte{
		b.uuids(len(notified), func(i int) *uuid.UUID { return &notified[i].record.UserID }),
		b.ints(len(notified), func(i int) int64 { return notified[i].record.ID }),
		b.ints(len(notified), func(i int) int64 { return notified[i].message }),
	}})
}

// notices adds the step that stores the notices, if there are any. The records are locked by then,
// so two transactions never wait for each other's notices.
func (p *postgres) notices(steps []pgStep, c *changes) ([]pgStep, error) {
	n, b := c.notices(), &p.params
	if len(n) == 0 {
		return steps, nil
	}
	facts := make([]string, len(n))
	for i := range n {
		text, err := json.Marshal(n[i].Facts)
		if err != nil {
			return nil, err
		}
		facts[i] = string(text)
	}
	return append(steps, pgStep{name: "notices", args: [][]byte{
		b.uuids(len(n), func(i int) *uuid.UUID { return &n[i].ID }),
		b.uuids(len(n), func(i int) *uuid.UUID { return &n[i].Subject }),
		b.texts(len(n), func(i int) string { return string(n[i].Kind) }),
		b.times(len(n), func(i int) time.Time { return n[i].PeriodStart }),
		b.ints(len(n), func(i int) int64 { return n[i].Threshold }),
		b.ints(len(n), func(i int) int64 { return n[i].Raises }),
		b.texts(len(n), func(i int) string { return facts[i] }),
		b.texts(len(n), func(i int) string { return string(n[i].State) }),
		b.time(c.now),
		b.times(len(n), func(i int) time.Time { return n[i].ExpiresAt }),
	}}), nil
}

// spend adds the step that adds up what organizations spend, if the group has any.
func (p *postgres) spend(steps []pgStep, c *changes) []pgStep {
	o, n := c.organizations(), 0
	if n = len(o); n == 0 {
		return steps
	}
	b := &p.params
	return append(steps, pgStep{name: "spend", args: [][]byte{
		b.ints(n, func(i int) int64 { return o[i].id }),
		b.ints(n, func(i int) int64 { return o[i].cents }),
		b.ints(n, func(i int) int64 { return o[i].held }),
		b.ints(n, func(i int) int64 {
			if o[i].limited {
				return 1
			}
			return 0
		}),
		b.optionalTimes(n, func(i int) *time.Time { return o[i].expire }),
		b.single(int64(n)),
	}, row: func([][]byte) error { return nil }})
}

// writes returns the steps that store the changes.
func (p *postgres) writes(c *changes) []pgStep {
	b := &p.params
	var steps []pgStep
	steps = p.addEvents(steps, c)
	if n := len(c.holds); n > 0 {
		h := c.holds
		args := append([][]byte{
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
		}, b.figures(n, func(i int) *models.Figures { return &h[i].Figures })...)
		args = append(args, b.bools(n, func(i int) bool { return h[i].Message }))
		steps = append(steps, pgStep{name: "insert_holds", args: args})
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
	steps = p.notify(steps, c)
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

const postgresEpoch = 946684800 // seconds from 1970 to 2000
