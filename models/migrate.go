package models

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/migrate"
)

//go:embed migrations
var migrationFiles embed.FS

// The tables of applied migrations. Their names and columns are those of bun's own migrator, which
// earlier releases used.
const (
	marksTable = "bun_migrations"
	locksTable = "bun_migration_locks"
)

// locksRow declares the columns of locksTable. Nothing reads them, but every release has created
// the table.
type locksRow struct {
	bun.BaseModel `bun:"table:bun_migration_locks"`

	ID        int64  `bun:",pk,autoincrement"`
	TableName string `bun:",unique"`
}

// migrationLock is the number of the PostgreSQL advisory lock that allows one process at a time to
// migrate. Earlier releases use the same number.
const migrationLock = 0x746f6c6c

// repair is the migration that repairs the result of running another one twice; see its file.
const repair = "20261128010000"

// firstColumns names the column that a SQLite migration adds first. SQLite has no ADD COLUMN IF NOT
// EXISTS, and earlier releases marked a migration after its transaction. If the column exists, the
// migration was applied, and only its mark is missing because the process was killed in between.
var firstColumns = map[string]struct{ table, column string }{
	"20261124040000": {"usage_records", "daily"},
	"20261124050000": {"stripe_reports", "last_attempt_at"},
	"20261124080000": {"usage_records", "present_workspace_id"},
	"20261124090000": {"subscriptions", "inactive_since"},
	"20261128030000": {"api_keys", "rate_limit"},
	"20261128050000": {"stripe_reports", "refusals"},
	"20261128070000": {"stripe_customers", "held_subscriptions"},
	"20261128060000": {"subscriptions", "trial_end"},
	"20261128080000": {"usage_records", "user_id"},
	"20261128081000": {"sessions", "user_id"},
	"20261129020000": {"audit_log", "organization_id"},
}

// contract ends the ID of a migration that removes something that older releases need. No release
// has such a migration yet. All others only add, so every older release works with them. See
// docs/upgrade.md.
const contract = "c"

// newerSchema is the error for a database from which a newer release removed something that this one
// needs.
func newerSchema(mark string) error {
	return fmt.Errorf("a newer release of Tollgate changed this database so that this release cannot use it (migration %s); "+
		"start the newer release", mark)
}

// Migrate applies the missing migrations and returns their names. The migrations and their marks
// are one transaction. Only one process at a time can run it, because it holds SQLite's write lock
// or PostgreSQL's advisory lock, and reads the marks under that lock. So a crash leaves nothing
// half done, and no migration runs twice.
func (db *DB) Migrate(ctx context.Context) (names []string, err error) {
	all, err := migrations(db.Postgres)
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	// Do not lock an up-to-date database, so that a start does not wait for a writer.
	marks, err := readMarks(ctx, db, db.Postgres)
	if err != nil {
		return nil, wrapMigrate(err)
	}
	if db.Unknown, err = marks.unknown(all); err != nil {
		return nil, wrapMigrate(err)
	}
	if len(marks.missing(all)) == 0 {
		return nil, nil
	}
	var opts *sql.TxOptions
	if db.Postgres {
		// A stricter isolation level would read the marks as they were before the wait for the
		// lock.
		opts = &sql.TxOptions{Isolation: sql.LevelReadCommitted}
	}
	for try := 1; ; try++ {
		names = nil
		err = db.RunInTx(ctx, opts, func(ctx context.Context, tx bun.Tx) error {
			if db.Postgres {
				// Wait for the lock as long as another process migrates. The timeout comes later,
				// because a statement that waits for a locked table makes all later statements on
				// that table wait.
				lock := `SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock(%d); SET LOCAL lock_timeout = '4s'`
				if _, err := tx.ExecContext(ctx, fmt.Sprintf(lock, migrationLock)); err != nil {
					return err
				}
			}
			names, err = migrateTx(ctx, tx, db.Postgres, all)
			return err
		})
		// SQLite waits only some seconds for its write lock; another process may migrate for
		// longer.
		if !IsRetryable(err) || db.Postgres && try == 5 {
			return names, wrapMigrate(err)
		}
		select {
		case <-ctx.Done():
			return nil, wrapMigrate(errors.Join(err, ctx.Err()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func wrapMigrate(err error) error {
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// migration is a file in migrations/, or a function where SQL is not enough.
type migration struct {
	id, name, statements string
	run                  func(ctx context.Context, tx bun.Tx) error // nil: the statements
}

// migrations returns all migrations in order.
func migrations(postgres bool) ([]migration, error) {
	dir := "migrations/sqlite"
	if postgres {
		dir = "migrations/postgres"
	}
	files, err := fs.Glob(migrationFiles, dir+"/*.tx.up.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	all := make([]migration, len(files))
	for i, file := range files {
		text, err := migrationFiles.ReadFile(file)
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(path.Base(file), ".tx.up.sql")
		id, _, _ := strings.Cut(name, "_")
		all[i] = migration{id: id, name: name, statements: string(text)}
	}
	all = append(all, migration{id: "20261128040000", name: "20261128040000_normalize_emails", run: normalizeEmails})
	slices.SortFunc(all, func(a, b migration) int { return strings.Compare(a.id, b.id) })
	for i := range all[1:] {
		if all[i].id == all[i+1].id { // the second one would never run
			return nil, fmt.Errorf("the migrations %s and %s have the same ID", all[i].name, all[i+1].name)
		}
	}
	return all, nil
}

// marks are the migrations that were applied to a database, and the number of their last group.
type marks struct {
	ids   map[string]bool
	group int64
}

func readMarks(ctx context.Context, db bun.IDB, postgres bool) (marks, error) {
	exists := `SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = '` + marksTable + `'`
	if postgres {
		exists = `SELECT CASE WHEN to_regclass('` + marksTable + `') IS NULL THEN 0 ELSE 1 END`
	}
	found := marks{ids: map[string]bool{}}
	var tables int
	if err := db.QueryRowContext(ctx, exists).Scan(&tables); err != nil || tables == 0 {
		return found, err
	}
	var rows []migrate.Migration
	if err := db.NewSelect().ColumnExpr("*").Model(&rows).ModelTableExpr(marksTable).Scan(ctx); err != nil {
		return found, err
	}
	for i := range rows {
		found.ids[rows[i].Name] = true
		found.group = max(found.group, rows[i].GroupID)
	}
	return found, nil
}

// missing returns the migrations without a mark.
func (m marks) missing(all []migration) (missing []migration) {
	for _, one := range all {
		if !m.ids[one.id] {
			missing = append(missing, one)
		}
	}
	return missing
}

// unknown returns the IDs of migrations that a newer release applied, in order. It returns an error if
// one of them removed something.
func (m marks) unknown(all []migration) (ids []string, err error) {
	for id := range m.ids {
		if !slices.ContainsFunc(all, func(one migration) bool { return one.id == id }) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		if strings.HasSuffix(id, contract) {
			return nil, newerSchema(id)
		}
	}
	return ids, nil
}

// migrateTx applies and marks the missing migrations. The caller holds the lock.
func migrateTx(ctx context.Context, tx bun.Tx, postgres bool, all []migration) (names []string, err error) {
	// Send as many statements at once as possible: over a slow link, each one takes a round trip.
	tables := tx.NewCreateTable().Model((*migrate.Migration)(nil)).ModelTableExpr(marksTable).IfNotExists().String() + ";\n" +
		tx.NewCreateTable().Model((*locksRow)(nil)).ModelTableExpr(locksTable).IfNotExists().String()
	if _, err := tx.ExecContext(ctx, tables); err != nil {
		return nil, err
	}
	found, err := readMarks(ctx, tx, postgres)
	if err != nil {
		return nil, err
	}
	if _, err := found.unknown(all); err != nil { // another process may have migrated meanwhile
		return nil, err
	}
	missing, group := found.missing(all), found.group
	for _, m := range missing {
		applied := false
		if first, ok := firstColumns[m.id]; ok && !postgres {
			query := `SELECT COUNT(*) FROM pragma_table_info(?) WHERE name = ?`
			if err := tx.QueryRowContext(ctx, query, first.table, first.column).Scan(&applied); err != nil {
				return nil, fmt.Errorf("%s: %w", m.name, err)
			}
		}
		statements := tx.NewInsert().Model(&migrate.Migration{Name: m.id, GroupID: group + 1}).ModelTableExpr(marksTable).String()
		if m.run != nil {
			if err := m.run(ctx, tx); err != nil {
				return nil, fmt.Errorf("%s: %w", m.name, err)
			}
		} else if !applied {
			statements = m.statements + ";\n" + statements
		}
		if _, err := tx.ExecContext(ctx, statements); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		names = append(names, m.name)
	}
	// Releases without the lock may have applied a migration that is later than one of these.
	for _, m := range all {
		if m.id == repair && len(missing) > 0 {
			if _, err := tx.ExecContext(ctx, m.statements); err != nil {
				return nil, fmt.Errorf("%s: %w", m.name, err)
			}
		}
	}
	return names, nil
}
