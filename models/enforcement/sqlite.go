package enforcement

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// chunkSizes are the numbers of rows that a statement can take. A group is split into the largest
// that fit.
var chunkSizes = [...]int{64, 8, 1}

// chunks is a statement in all sizes.
type chunks [len(chunkSizes)]*sql.Stmt

// each calls run with a statement for the next rows, until all n rows are done.
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

// lite is a ledger with its own connection to the SQLite file.
type lite struct {
	db        *sql.DB
	conn      *sql.Conn
	checkFile func(maxAge time.Duration) error
	args      []any // of one statement; reused
	// times caches formatted times, because groups write the same few period boundaries again and
	// again.
	times map[time.Time]string

	version    *sql.Stmt
	spend      *sql.Stmt
	pruned     *sql.Stmt
	statements []*sql.Stmt // all of them
	log        liteLog

	lock, look, event, settled, holdByID, holdByKey, insertEvent, insertHold, closeHold, update, notify, notices, late, spends chunks
}

func openSQLite(ctx context.Context, db *models.DB) (l *lite, err error) {
	l = &lite{times: map[time.Time]string{}, db: db.SQLitePool(), checkFile: db.CheckFile}
	if l.conn, err = l.db.Conn(ctx); err != nil {
		return nil, errors.Join(err, l.db.Close())
	}
	// The gate uses pages in all parts of the index of idempotency keys, more than fit in SQLite's
	// default cache of 2 MiB.
	if _, err := l.conn.ExecContext(ctx, "PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY"); err != nil {
		return nil, errors.Join(err, l.db.Close())
	}
	if l.version, err = l.conn.PrepareContext(ctx, "PRAGMA data_version"); err != nil {
		return nil, errors.Join(err, l.db.Close())
	}
	if l.spend, err = l.conn.PrepareContext(ctx, liteSpend); err != nil {
		return nil, errors.Join(err, l.db.Close())
	}
	if l.pruned, err = l.conn.PrepareContext(ctx, "SELECT pruned_before FROM retention WHERE id = 1"); err != nil {
		return nil, errors.Join(err, l.db.Close())
	}
	l.statements = append(l.statements, l.version, l.spend, l.pruned)
	l.log.done = make(chan struct{}, 1)
	wanted := [2]string{"WITH k (i, user_id, email, at, bound) AS (VALUES ", ") "}
	keys := "WITH k (user_id, email, key) AS (VALUES "
	ids := "WITH k (user_id, id) AS (VALUES "
	for _, s := range []struct {
		into               *chunks
		before, row, after string
	}{
		{&l.lock, wanted[0], "(?, ?, ?, ?, ?)", wanted[1] + liteLock}, {&l.look, wanted[0], "(?, ?, ?, ?, ?)", wanted[1] + litePeek},
		{&l.event, keys, "(?, ?, ?)", ") " + liteEventByKey}, {&l.settled, ids, "(?, ?)", ") " + liteSettled},
		{&l.holdByID, ids, "(?, ?)", ") " + liteHold + "k.user_id AND h.id = k.id"},
		{&l.holdByKey, keys, "(?, ?, ?)", ") " + liteHold + namedPerson + " AND h.idempotency_key = k.key"},
		{&l.insertEvent, liteInsertEvent, "(?" + strings.Repeat(", ?", 26) + ")", ""},
		{&l.insertHold, liteInsertHold, "(?, ?, 'open'" + strings.Repeat(", ?", 22) + ")", ""},
		{&l.closeHold, "WITH k (state, user_id, id) AS (VALUES ", "(?, ?, ?)", ") " + liteCloseHold},
		{
			&l.update, "WITH k (used, overage, cents, held, overage_held, cents_held, expire, daily, user_id, id) AS (VALUES ",
			"(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", ") " + liteUpdate,
		},
		{&l.notify, "WITH k (level, user_id, id) AS (VALUES ", "(?, ?, ?)", ") " + liteNotify},
		{&l.notices, liteNotice, "(?, ?, 'user', ?, ?, ?, ?, ?, ?, ?, ?, ?)", ""},
		{&l.late, ids, "(?, ?)", ") " + liteLate},
		{&l.spends, "WITH k (id) AS (VALUES ", "(?)", ") " + liteSpends},
	} {
		for i, size := range chunkSizes {
			text := s.before + s.row + strings.Repeat(", "+s.row, size-1) + s.after //nolint:gosec // all parts are constants
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
		<-l.log.done
	}
	// The last connection that is closed checkpoints and deletes the write-ahead log, but SQLite
	// does not close a connection with open statements, and database/sql does not close the
	// statements of a *sql.Conn.
	for _, s := range l.statements {
		_ = s.Close()
	}
	_ = l.conn.Close() // nothing is lost: no call was answered before its commit
	_ = l.db.Close()
}

// exec runs a statement for n rows. row adds the arguments of one row.
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

// query does the same for a statement that returns rows, and calls scan for each of them.
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

// inTransaction calls do in a transaction with the write lock. version is the version of the file,
// which changes when another connection changes anything.
// Source: https://www.sqlite.org/pragma.html#pragma_data_version
func (l *lite) inTransaction(ctx context.Context, do func(ctx context.Context, version uint32) error) error {
	// Only the wait for the lock ends with the context. Once started, statements run to their end.
	begin := ctx
	ctx = context.WithoutCancel(ctx)
	if _, err := l.conn.ExecContext(begin, "BEGIN IMMEDIATE"); err != nil {
		_, _ = l.conn.ExecContext(ctx, "ROLLBACK") // the transaction may have started just when the context ended
		return err
	}
	ended := false // also if do panics
	defer func() {
		if !ended {
			// After some errors, such as a full disk, SQLite has already rolled back, and there is
			// nothing to undo.
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
	// Commits to a file that is no longer at its path are lost, unless someone moves the file back.
	if err := l.checkFile(0); err != nil {
		return errors.Join(errUnconfirmed, err)
	}
	ended = true
	return nil
}

// compareAndCommit writes only if every record is unchanged. If no other connection has changed the
// file, all records are unchanged. Otherwise, for example if the last use of an API key was
// written, the records are read again and compared.
func (l *lite) compareAndCommit(ctx context.Context, c *changes) error {
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

// confirm reads the records that are remembered from another version of the file. It returns
// errStale if one of them has changed.
func (l *lite) confirm(ctx context.Context, c *changes, version uint32) error {
	var old []*account
	for _, a := range c.accounts {
		if a.version != version {
			old = append(old, a)
		}
	}
	same := 0
	want := func(i int) { l.want(i, models.RecordKey{UserID: old[i].record.UserID, At: c.now}) }
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
		return errStale
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
	f := newFound(look)
	want := func(i int) { l.want(i, look.wants[i]) }
	if err := l.query(ctx, &l.lock, len(look.wants), want, func(rows *sql.Rows) error {
		i, r, err := scanRecord(rows)
		if err == nil {
			f.accounts[i] = &account{record: *r}
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
		{&l.event, len(look.keys), func(i int) { l.key(look.keys[i]) }, f.scanEvent},
		{&l.holdByKey, len(look.holdKeys), func(i int) { l.key(look.holdKeys[i]) }, f.scanHold},
		{&l.holdByID, len(look.holds), func(i int) { l.add(look.holds[i].user.String(), look.holds[i].id.String()) }, f.scanHold},
		{&l.settled, len(look.holds), func(i int) { l.add(look.holds[i].user.String(), look.holds[i].id.String()) }, f.scanEvent},
	} {
		if err := l.query(ctx, q.statement, q.n, q.row, q.scan); err != nil {
			return nil, err
		}
	}
	if look.past {
		err := l.pruned.QueryRowContext(ctx).Scan(&f.prunedBefore)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
		f.prunedBefore = f.prunedBefore.UTC()
	}
	organizations := f.organizationIDs()
	return f, l.query(ctx, &l.spends, len(organizations), func(i int) { l.add(organizations[i]) }, f.scanOrganization)
}

// want adds the key of one record. The last argument limits the search to records that can contain
// the time.
func (l *lite) want(i int, w models.RecordKey) {
	l.add(i, userID(w), w.Email, l.text(w.At), l.text(w.At.AddDate(0, 0, -models.MaxPeriodDays)))
}

// key adds one idempotency key.
func (l *lite) key(k keyOf[models.RecordKey]) { l.add(userID(k.person), k.person.Email, k.key) }

// userID returns the person's user ID, or nil if only the email is known.
func userID(w models.RecordKey) any {
	if w.UserID == uuid.Nil {
		return nil
	}
	return w.UserID.String()
}

// addFigures adds the columns of figures.
func (l *lite) addFigures(f *models.Figures) {
	l.add(string(f.PlanID), l.text(f.BillingPeriodStart), l.text(f.BillingPeriodEnd),
		f.UsedAfter, f.OverageAfter, f.OverageCentsAfter, f.HeldAfter, f.OverageHeldAfter,
		f.Included, f.OverageRateCents, optional(f.SpendLimitCents), optional(f.MemberLimit), string(f.NextRefusal))
}

// save writes the changes and commits.
func (l *lite) save(ctx context.Context, c *changes) error {
	now := liteTime(c.now)
	if err := l.exec(ctx, &l.insertEvent, len(c.events), func(i int) {
		e := &c.events[i]
		l.add(e.Message, now, e.ID.String(), e.UserID.String(), e.RecordID, e.Email, optional(e.WorkspaceID),
			e.Quantity, e.OverageQuantity, e.OverageCents,
			optional(e.IdempotencyKey), optional(e.HoldID), l.text(e.OccurredAt), optional(e.StripeCustomerID))
		l.addFigures(&e.Figures)
	}); err != nil {
		return err
	}
	if err := l.exec(ctx, &l.insertHold, len(c.holds), func(i int) {
		h := c.holds[i]
		l.add(h.Message, now, h.ID.String(), h.UserID.String(), h.RecordID, h.Email, h.Quantity, h.OverageQuantity, h.OverageCents,
			h.IdempotencyKey, liteTime(h.ExpiresAt))
		l.addFigures(&h.Figures)
	}); err != nil {
		return err
	}
	if err := l.exec(ctx, &l.closeHold, len(c.closed), func(i int) {
		l.add(string(c.closed[i].State), c.closed[i].UserID.String(), c.closed[i].ID.String())
	}); err != nil {
		return err
	}
	late := c.late()
	if err := l.exec(ctx, &l.late, len(late), func(i int) { l.add(late[i].record.UserID.String(), late[i].record.ID) }); err != nil {
		return err
	}
	if err := l.exec(ctx, &l.update, len(c.accounts), func(i int) {
		a := c.accounts[i]
		var expire any
		if a.record.HoldsExpireAt != nil {
			expire = liteTime(*a.record.HoldsExpireAt)
		}
		s := &a.standing
		l.add(s.Used, s.Overage, s.OverageCents, s.Held, s.OverageHeld, s.OverageCentsHeld, expire, string(a.daily),
			a.record.UserID.String(), a.record.ID)
	}); err != nil {
		return err
	}
	notified := c.notified()
	if err := l.exec(ctx, &l.notify, len(notified), func(i int) {
		l.add(notified[i].message, notified[i].record.UserID.String(), notified[i].record.ID)
	}); err != nil {
		return err
	}
	if err := l.addNotices(ctx, now, c.notices()); err != nil {
		return err
	}
	for _, o := range c.organizations() {
		var expire any
		if o.expire != nil {
			expire = liteTime(*o.expire)
		}
		spent, err := l.spend.ExecContext(ctx, o.cents, o.held, o.limited, expire, o.id)
		if err != nil {
			return err
		}
		if n, err := spent.RowsAffected(); err != nil || n == 0 {
			return errors.Join(errStale, err)
		}
	}
	if _, err := l.conn.ExecContext(ctx, "COMMIT"); err != nil {
		return unsure(err)
	}
	l.checkpoint(ctx, len(c.events)+len(c.holds)+len(c.closed)+len(c.accounts))
	return nil
}

func (l *lite) addNotices(ctx context.Context, now string, notices []models.DueNotice) error {
	facts := make([]string, len(notices))
	for i := range notices {
		text, err := json.Marshal(notices[i].Facts)
		if err != nil {
			return err
		}
		facts[i] = string(text)
	}
	return l.exec(ctx, &l.notices, len(notices), func(i int) {
		n := &notices[i]
		l.add(n.ID.String(), n.Subject.String(), string(n.Kind), l.text(n.PeriodStart), n.Threshold, n.Raises, facts[i], string(n.State),
			now, now, l.text(n.ExpiresAt))
	})
}

// unsure adds errUnconfirmed to the error of a commit after which the disk may hold the
// transaction.
func unsure(err error) error {
	if models.IsIOError(err) {
		return fmt.Errorf("%w: %w", errUnconfirmed, err)
	}
	return err
}

// liteLog is the state of the write-ahead log.
type liteLog struct {
	rows int           // written since the last checkpoint; an event changes about two pages
	busy bool          // another connection is making a checkpoint
	done chan struct{} // gets a token when that checkpoint has ended
}

// logRows is how many rows are written between two checkpoints. They are at most about 64 MiB of log.
const logRows = 16384

// checkpoint copies the pages of the write-ahead log into the database file. That is mostly waiting
// for the disk, so another connection does it while the gate continues. The log is reset only when
// all of it is copied and no connection reads from it, so the gate itself then copies the few pages
// that were added in the meantime. An error loses nothing: the log stays and grows, and if it fills
// the disk, the next commit fails.
// Source: https://www.sqlite.org/wal.html#ckpt
func (l *lite) checkpoint(ctx context.Context, rows int) {
	const checkpoint = "PRAGMA wal_checkpoint(PASSIVE)"
	if l.log.rows += rows; l.log.rows < logRows {
		return
	}
	if !l.log.busy {
		l.log.busy = true
		go func() {
			_, _ = l.db.ExecContext(ctx, checkpoint)
			l.log.done <- struct{}{}
		}()
		return
	}
	select {
	case <-l.log.done:
		_, _ = l.conn.ExecContext(ctx, checkpoint)
		l.log.busy, l.log.rows = false, 0
	default:
	}
}

func (l *lite) peek(ctx context.Context, wants []models.RecordKey) ([]*models.UsageRecord, error) {
	records := make([]*models.UsageRecord, len(wants))
	err := l.query(context.WithoutCancel(ctx), &l.look, len(wants), func(i int) { l.want(i, wants[i]) }, func(rows *sql.Rows) error {
		i, r, err := scanRecord(rows)
		if err == nil {
			records[i] = r
		}
		return err
	})
	return records, err
}

// text returns liteTime(t) from the cache.
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
