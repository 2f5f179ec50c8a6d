package enforcement

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// The same statements as PostgreSQL's. Each stands in three sizes (see chunks), as a statement's own cost, of going through
// database/sql, the driver and SQLite's start and reset, is more than that of one more row in it.
const (
	liteRecord = `r.id, r.email, r.billing_period_start, r.billing_period_end, r.plan_id, r.suggestions_included, r.suggestions_used, r.overage_rate_cents,
		r.spend_limit_cents, r.workspace_id, r.slack_team_id, r.slack_user_id, r.stripe_customer_id, r.entitled`

	// CROSS JOIN keeps the order: the few wanted ones first, then the index for each.
	liteWhere = ` FROM k CROSS JOIN usage_records r ON r.email = k.email AND r.billing_period_start <= k.at AND r.billing_period_start > k.bound
		AND r.billing_period_end > k.at`

	liteLock = `SELECT k.i, ` + liteRecord + `, r.suggestions_held, r.holds_expire_at, r.daily` + liteWhere

	litePayers = `SELECT k.i, s.stripe_customer_id FROM k ` + models.EntitlementJoinsAt

	litePeek = `SELECT k.i, ` + liteRecord + `, CASE WHEN r.holds_expire_at <= k.at THEN (SELECT COALESCE(SUM(h.quantity), 0) FROM usage_holds h
			WHERE h.record_id = r.id AND h.state = 'open' AND h.expires_at > k.at) ELSE r.suggestions_held END, NULL, ''` + liteWhere

	liteEvent = `SELECT id, email, quantity, idempotency_key, hold_id, ` + pgFigures + ` FROM usage_events WHERE `
	liteHold  = `SELECT id, email, quantity, idempotency_key, state, expires_at, created_at, record_id, ` + pgFigures + ` FROM usage_holds WHERE `

	// OR ROLLBACK: a failed statement ends the group's transaction, which it does in any case, and so needs no journal of its own
	// to take back its first rows.
	liteInsertEvent = `INSERT OR ROLLBACK INTO usage_events (recorded_at, id, record_id, email, workspace_id, quantity, idempotency_key, hold_id, occurred_at,
			stripe_customer_id, ` + pgFigures + `) VALUES `
	liteInsertHold = `INSERT OR ROLLBACK INTO usage_holds (created_at, state, id, record_id, email, quantity, idempotency_key, expires_at, ` + pgFigures + `) VALUES `
	liteCloseHold  = `UPDATE OR ROLLBACK usage_holds SET state = k.state FROM k WHERE usage_holds.id = k.id`
	liteUpdate     = `UPDATE OR ROLLBACK usage_records SET suggestions_used = k.used, suggestions_held = k.held, holds_expire_at = k.expire, daily = k.daily
		FROM k WHERE usage_records.id = k.id`
	liteLate = `INSERT OR ROLLBACK INTO usage_versions (workspace_id, version) SELECT DISTINCT present_workspace_id, 1 FROM usage_records
		WHERE present_workspace_id IS NOT NULL AND id IN (`
)

// chunkSizes are how many rows a statement takes; a group is cut into the largest that fit.
var chunkSizes = [...]int{64, 8, 1}

// chunks is a statement in the three sizes.
type chunks [len(chunkSizes)]*sql.Stmt

// each calls run with a statement for the rows from i on, until all n are done.
func (c *chunks) each(n int, run func(s *sql.Stmt, from, to int) error) error {
	for i := 0; i < n; {
		for size := range chunkSizes {
			if i+chunkSizes[size] <= n {
				if err := run(c[size], i, i+chunkSizes[size]); err != nil {
					return err
				}
				i += chunkSizes[size]
				break
			}
		}
	}
	return nil
}

// lite is a ledger on a connection of its own to the SQLite file.
type lite struct {
	db        *sql.DB
	conn      *sql.Conn
	checkFile func(maxAge time.Duration) error
	args      []any // of one statement, used again
	// times are written texts of times: the groups of one day write the same few bounds of periods again and again.
	times map[time.Time]string

	version    *sql.Stmt
	statements []*sql.Stmt // all of them
	log        liteLog

	lock, look, payers, event, settled, holdByID, holdByKey, insertEvent, insertHold, closeHold, update, late chunks
}

func openSQLite(ctx context.Context, db *models.DB) (l *lite, err error) {
	l = &lite{times: map[time.Time]string{}, db: db.SQLitePool(), checkFile: db.CheckFile}
	if l.conn, err = l.db.Conn(ctx); err != nil {
		return nil, errors.Join(err, l.db.Close())
	}
	// The gate's pages are all over the ledger's index of keys, beyond the 2 MiB that SQLite keeps by itself.
	if _, err := l.conn.ExecContext(ctx, fmt.Sprintf("PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = %d", logMost)); err != nil {
		return nil, errors.Join(err, l.db.Close())
	}
	if l.version, err = l.conn.PrepareContext(ctx, "PRAGMA data_version"); err != nil {
		return nil, errors.Join(err, l.db.Close())
	}
	l.statements = append(l.statements, l.version)
	l.log.aside = make(chan struct{}, 1)
	wanted := [2]string{"WITH k (i, email, at, bound) AS (VALUES ", ") "}
	for _, s := range []struct {
		into               *chunks
		before, row, after string
	}{
		{&l.lock, wanted[0], "(?, ?, ?, ?)", wanted[1] + liteLock}, {&l.look, wanted[0], "(?, ?, ?, ?)", wanted[1] + litePeek},
		{&l.payers, wanted[0], "(?, ?, ?, ?)", wanted[1] + litePayers},
		{&l.event, liteEvent + "idempotency_key IN (", "?", ")"}, {&l.settled, liteEvent + "hold_id IN (", "?", ")"},
		{&l.holdByID, liteHold + "id IN (", "?", ")"}, {&l.holdByKey, liteHold + "idempotency_key IN (", "?", ")"},
		{&l.insertEvent, liteInsertEvent, "(?" + strings.Repeat(", ?", 17) + ")", ""}, {&l.insertHold, liteInsertHold, "(?, 'open'" + strings.Repeat(", ?", 14) + ")", ""},
		{&l.closeHold, "WITH k (state, id) AS (VALUES ", "(?, ?)", ") " + liteCloseHold},
		{&l.update, "WITH k (used, held, expire, daily, id) AS (VALUES ", "(?, ?, ?, ?, ?)", ") " + liteUpdate},
		{&l.late, liteLate, "?", ") ON CONFLICT (workspace_id) DO UPDATE SET version = version + 1"},
	} {
		for i, size := range chunkSizes {
			text := s.before + s.row + strings.Repeat(", "+s.row, size-1) + s.after //nolint:gosec // all of it stands above
			if s.into[i], err = l.conn.PrepareContext(ctx, text); err != nil {      //nolint:sqlclosecheck // closed with the connection
				return nil, errors.Join(err, l.db.Close())
			}
			l.statements = append(l.statements, s.into[i])
		}
	}
	return l, nil
}

func (l *lite) close() {
	if l.log.busy {
		<-l.log.aside
	}
	// A connection with an open statement is not closed, and the last one to be closed writes the log back into the file and
	// deletes it. database/sql closes no statement of a connection that its user holds.
	for _, s := range l.statements {
		_ = s.Close()
	}
	_ = l.conn.Close() // what was not committed is not answered
	_ = l.db.Close()
}

// exec runs a statement for n rows, with the arguments that row adds for each.
func (l *lite) exec(ctx context.Context, c *chunks, n int, row func(i int)) error {
	return c.each(n, func(s *sql.Stmt, from, to int) error {
		l.args = l.args[:0]
		for i := from; i < to; i++ {
			row(i)
		}
		_, err := s.ExecContext(ctx, l.args...)
		return err
	})
}

// query does the same for a statement that answers, and hands each row of the answer to scan.
func (l *lite) query(ctx context.Context, c *chunks, n int, row func(i int), scan func(*sql.Rows) error) error {
	return c.each(n, func(s *sql.Stmt, from, to int) error {
		l.args = l.args[:0]
		for i := from; i < to; i++ {
			row(i)
		}
		rows, err := s.QueryContext(ctx, l.args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := scan(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

func (l *lite) add(args ...any) { l.args = append(l.args, args...) }

func (l *lite) transact(ctx context.Context, look lookups, decide func(*found) *changes) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return l.inTransaction(ctx, func(ctx context.Context, version uint32) error {
		return l.decide(ctx, version, look, decide)
	})
}

// inTransaction holds the write lock. version is that of the file: it changes when another connection has changed anything.
// Source: https://www.sqlite.org/pragma.html#pragma_data_version
func (l *lite) inTransaction(ctx context.Context, do func(ctx context.Context, version uint32) error) (err error) {
	// Only the wait for the lock ends with the context. Statements run to their end once begun.
	begin := ctx
	ctx = context.WithoutCancel(ctx)
	if _, err := l.conn.ExecContext(begin, "BEGIN IMMEDIATE"); err != nil {
		_, _ = l.conn.ExecContext(ctx, "ROLLBACK") // in case the transaction began just when the context ended
		return err
	}
	defer func() {
		if err != nil {
			// SQLite has rolled back by itself after some faults, such as a full disk; then there is nothing left to undo.
			_, _ = l.conn.ExecContext(ctx, "ROLLBACK")
		}
	}()
	var version uint32
	if err := l.version.QueryRowContext(ctx).Scan(&version); err != nil {
		return err
	}
	if err := do(ctx, version); err != nil {
		return err
	}
	// What was committed into a file that is no longer at its path is lost, unless someone puts the file back.
	if err := l.checkFile(0); err != nil {
		return errors.Join(errUnconfirmed, err)
	}
	return nil
}

// move writes only when every record is as it was read. What other connections have not changed since is; where they have changed
// anything at all, as when the last use of a key is noted, the records are read again and compared.
func (l *lite) move(ctx context.Context, c *changes) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return l.inTransaction(ctx, func(ctx context.Context, version uint32) error {
		if err := l.confirm(ctx, c, version); err != nil {
			return err
		}
		return l.save(ctx, c)
	})
}

// confirm reads the records that are remembered from another version of the file, and ends with errMoved when one is not the same.
func (l *lite) confirm(ctx context.Context, c *changes, version uint32) error {
	var old []*account
	for _, a := range c.accounts {
		if a.version != version {
			old = append(old, a)
		}
	}
	same := 0
	want := func(i int) { l.want(i, old[i].record.Email, c.now) }
	if err := l.query(ctx, &l.lock, len(old), want, func(rows *sql.Rows) error {
		i, r, err := scanRecord(rows)
		if err == nil && reflect.DeepEqual(*r, old[i].record) {
			old[i].version = version
			same++
		}
		return err
	}); err != nil {
		return err
	}
	if same < len(old) {
		return errMoved
	}
	return nil
}

func (l *lite) decide(ctx context.Context, version uint32, look lookups, decide func(*found) *changes) error {
	f, err := l.find(ctx, look)
	if err != nil {
		return err
	}
	for _, a := range f.accounts {
		if a != nil {
			a.version = version
		}
	}
	c := decide(f)
	if c.empty() {
		_, err = l.conn.ExecContext(ctx, "ROLLBACK")
		return err
	}
	return l.save(ctx, c)
}

func (l *lite) find(ctx context.Context, look lookups) (*found, error) {
	f := &found{
		accounts: make([]*account, len(look.wants)), payers: map[models.Want]string{}, events: make(map[string]*models.UsageEvent, len(look.keys)),
		settled: map[uuid.UUID]*models.UsageEvent{}, holds: map[uuid.UUID]*models.UsageHold{}, holdKeys: map[string]*models.UsageHold{},
	}
	want := func(i int) { l.want(i, look.wants[i].Email, look.wants[i].At) }
	if err := l.query(ctx, &l.lock, len(look.wants), want, func(rows *sql.Rows) error {
		i, r, err := scanRecord(rows)
		if err == nil {
			f.accounts[i] = &account{record: *r}
		}
		return err
	}); err != nil {
		return nil, err
	}
	if err := l.query(ctx, &l.payers, len(look.late), func(i int) { l.want(i, look.late[i].Email, look.late[i].At) }, func(rows *sql.Rows) error {
		var i int
		var customer *string
		err := rows.Scan(&i, &customer)
		if err == nil && customer != nil {
			f.payers[look.late[i]] = *customer
		}
		return err
	}); err != nil {
		return nil, err
	}
	for _, q := range []struct {
		statement *chunks
		n         int
		row       func(i int)
		scan      func(*sql.Rows) error
	}{
		{&l.event, len(look.keys), func(i int) { l.add(look.keys[i]) }, f.scanEvent},
		{&l.holdByKey, len(look.holdKeys), func(i int) { l.add(look.holdKeys[i]) }, f.scanHold},
		{&l.holdByID, len(look.holdIDs), func(i int) { l.add(look.holdIDs[i].String()) }, f.scanHold},
		{&l.settled, len(look.holdIDs), func(i int) { l.add(look.holdIDs[i].String()) }, f.scanEvent},
	} {
		if err := l.query(ctx, q.statement, q.n, q.row, q.scan); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// want adds one record that is looked for. A period is at most 32 days long, so that older ones need not be looked at.
func (l *lite) want(i int, email string, at time.Time) {
	l.add(i, email, l.text(at), l.text(at.Add(-32*24*time.Hour)))
}

// save writes the changes and commits.
func (l *lite) save(ctx context.Context, c *changes) error {
	now := liteTime(c.now)
	if err := l.exec(ctx, &l.insertEvent, len(c.events), func(i int) {
		e := &c.events[i]
		l.add(now, e.ID.String(), e.RecordID, e.Email, optional(e.WorkspaceID), e.Quantity, optional(e.IdempotencyKey), optional(e.HoldID), l.text(e.OccurredAt),
			optional(e.StripeCustomerID), string(e.PlanID), l.text(e.BillingPeriodStart), l.text(e.BillingPeriodEnd), e.UsedAfter, e.HeldAfter, e.Included,
			e.OverageRateCents, optional(e.SpendLimitCents))
	}); err != nil {
		return err
	}
	if err := l.exec(ctx, &l.insertHold, len(c.holds), func(i int) {
		h := c.holds[i]
		l.add(now, h.ID.String(), h.RecordID, h.Email, h.Quantity, h.IdempotencyKey, liteTime(h.ExpiresAt), string(h.PlanID),
			l.text(h.BillingPeriodStart), l.text(h.BillingPeriodEnd), h.UsedAfter, h.HeldAfter, h.Included, h.OverageRateCents, optional(h.SpendLimitCents))
	}); err != nil {
		return err
	}
	if err := l.exec(ctx, &l.closeHold, len(c.closed), func(i int) { l.add(string(c.closed[i].State), c.closed[i].ID.String()) }); err != nil {
		return err
	}
	late := c.late()
	if err := l.exec(ctx, &l.late, len(late), func(i int) { l.add(late[i]) }); err != nil {
		return err
	}
	if err := l.exec(ctx, &l.update, len(c.accounts), func(i int) {
		a := c.accounts[i]
		var expire any
		if a.record.HoldsExpireAt != nil {
			expire = liteTime(*a.record.HoldsExpireAt)
		}
		l.add(a.standing.Used, a.standing.Held, expire, string(a.daily), a.record.ID)
	}); err != nil {
		return err
	}
	if _, err := l.conn.ExecContext(ctx, "COMMIT"); err != nil {
		return unsure(err)
	}
	l.tidy(ctx, len(c.events)+len(c.holds)+len(c.closed)+len(c.accounts))
	return nil
}

// unsure adds errUnconfirmed to the error of a commit after which the disk may hold the transaction.
func unsure(err error) error {
	if models.IsIOError(err) {
		return fmt.Errorf("%w: %w", errUnconfirmed, err)
	}
	return err
}

// liteLog is what the gate knows of the write-ahead log.
type liteLog struct {
	rows  int           // written since it was last brought home; an event changes some two pages
	busy  bool          // it is being brought home by another connection
	aside chan struct{} // that is done
}

const (
	// logRows is after how many rows the log is brought home: at most some 64 MiB of it.
	logRows = 16384
	// logMost is from how many pages on, 96 MiB, SQLite tries so by itself in each commit: somebody who reads keeps the log from beginning anew.
	logMost = 24576
)

// tidy brings the pages in the log home. What it takes is mostly the wait for the disk, so another connection does it while
// the gate goes on. The log begins anew only when all of it is home and nobody reads from it, so the gate itself brings what
// has come meanwhile, which is little. A fault loses nothing: the log stays and grows, and a disk that it fills ends the next commit.
// Source: https://www.sqlite.org/wal.html#ckpt
func (l *lite) tidy(ctx context.Context, rows int) {
	const home = "PRAGMA wal_checkpoint(PASSIVE)"
	if l.log.rows += rows; l.log.rows < logRows {
		return
	}
	if !l.log.busy {
		l.log.busy = true
		go func() {
			_, _ = l.db.ExecContext(ctx, home)
			l.log.aside <- struct{}{}
		}()
		return
	}
	select {
	case <-l.log.aside:
		_, _ = l.conn.ExecContext(ctx, home)
		l.log.busy, l.log.rows = false, 0
	default:
	}
}

func (l *lite) peek(ctx context.Context, emails []string, now time.Time) ([]*models.UsageRecord, error) {
	records := make([]*models.UsageRecord, len(emails))
	err := l.query(context.WithoutCancel(ctx), &l.look, len(emails), func(i int) { l.want(i, emails[i], now) }, func(rows *sql.Rows) error {
		i, r, err := scanRecord(rows)
		if err == nil {
			records[i] = r
		}
		return err
	})
	return records, err
}

// text is liteTime, remembered.
func (l *lite) text(t time.Time) string {
	s, ok := l.times[t]
	if !ok {
		if len(l.times) >= 1000 {
			clear(l.times)
		}
		s = liteTime(t)
		l.times[t] = s
	}
	return s
}

// optional is a nil or the value itself, as going through a pointer costs the driver a reflection.
func optional[T any](v *T) any {
	if v == nil {
		return nil
	}
	if id, ok := any(*v).(uuid.UUID); ok {
		return id.String()
	}
	return *v
}

// liteTime writes a time as bun does on SQLite, so that times compare as text.
func liteTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999-07:00") }

func scanRecord(rows *sql.Rows) (i int, r *models.UsageRecord, err error) {
	r = &models.UsageRecord{}
	err = rows.Scan(&i, &r.ID, &r.Email, &r.BillingPeriodStart, &r.BillingPeriodEnd, &r.PlanID, &r.SuggestionsIncluded, &r.SuggestionsUsed, &r.OverageRateCents,
		&r.SpendLimitCents, &r.WorkspaceID, &r.SlackTeamID, &r.SlackUserID, &r.StripeCustomerID, &r.Entitled, &r.SuggestionsHeld, &r.HoldsExpireAt, &r.Daily)
	return i, r, err
}

func (f *found) scanEvent(rows *sql.Rows) error {
	e := &models.UsageEvent{}
	if err := rows.Scan(&e.ID, &e.Email, &e.Quantity, &e.IdempotencyKey, &e.HoldID, &e.PlanID, &e.BillingPeriodStart, &e.BillingPeriodEnd, &e.UsedAfter, &e.HeldAfter,
		&e.Included, &e.OverageRateCents, &e.SpendLimitCents); err != nil {
		return err
	}
	e.BillingPeriodStart, e.BillingPeriodEnd = e.BillingPeriodStart.UTC(), e.BillingPeriodEnd.UTC()
	if e.HoldID != nil {
		f.settled[*e.HoldID] = e
	} else {
		f.events[*e.IdempotencyKey] = e
	}
	return nil
}

// scanHold reads a hold. One that was found by key and by id is one value.
func (f *found) scanHold(rows *sql.Rows) error {
	h := &models.UsageHold{}
	if err := rows.Scan(&h.ID, &h.Email, &h.Quantity, &h.IdempotencyKey, &h.State, &h.ExpiresAt, &h.CreatedAt, &h.RecordID, &h.PlanID,
		&h.BillingPeriodStart, &h.BillingPeriodEnd, &h.UsedAfter, &h.HeldAfter, &h.Included, &h.OverageRateCents, &h.SpendLimitCents); err != nil {
		return err
	}
	h.BillingPeriodStart, h.BillingPeriodEnd, h.ExpiresAt, h.CreatedAt = h.BillingPeriodStart.UTC(), h.BillingPeriodEnd.UTC(), h.ExpiresAt.UTC(), h.CreatedAt.UTC()
	if first, ok := f.holds[h.ID]; ok {
		h = first
	}
	f.holds[h.ID], f.holdKeys[h.IdempotencyKey] = h, h
	return nil
}
