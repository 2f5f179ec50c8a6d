package models

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/uptrace/bun/migrate"
)

//go:embed migrations
var migrationFiles embed.FS

// migrationLock is the number of the PostgreSQL advisory lock that lets one process migrate at a time.
const migrationLock = 0x746f6c6c

// Migrate applies the migrations that the database lacks and returns their names.
func (db *DB) Migrate(ctx context.Context) (_ []string, err error) {
	dir := "migrations/sqlite"
	if db.Postgres {
		dir = "migrations/postgres"
		conn, connErr := db.DB.DB.Conn(ctx)
		if connErr != nil {
			return nil, connErr
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		// However long the process that migrates may take.
		if _, err := conn.ExecContext(ctx, `SET lock_timeout = 0`); err != nil {
			return nil, err
		}
		defer func() {
			_, resetErr := conn.ExecContext(context.WithoutCancel(ctx), `RESET lock_timeout`)
			err = errors.Join(err, resetErr)
		}()
		if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, migrationLock); err != nil {
			return nil, err
		}
		defer func() {
			_, unlockErr := conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, migrationLock)
			err = errors.Join(err, unlockErr)
		}()
	}
	files, err := fs.Sub(migrationFiles, dir)
	if err != nil {
		return nil, err
	}
	migrations := migrate.NewMigrations()
	if err := migrations.Discover(files); err != nil {
		return nil, err
	}
	m := migrate.NewMigrator(db.DB, migrations, migrate.WithMarkAppliedOnSuccess(true))
	if err := m.Init(ctx); err != nil {
		return nil, err
	}
	var names []string
	for {
		group, err := m.Migrate(ctx)
		for _, applied := range group.Migrations {
			names = append(names, applied.Name+"_"+applied.Comment)
		}
		if err == nil {
			return names, nil
		}
		if db.Postgres || !isColumnThere(err) {
			return nil, fmt.Errorf("migrate: %w", err)
		}
		// The one that failed is the group's last.
		if err := m.MarkApplied(ctx, &group.Migrations[len(group.Migrations)-1]); err != nil {
			return nil, fmt.Errorf("migrate: %w", err)
		}
	}
}

// isColumnThere says that a migration of SQLite, which has no ADD COLUMN IF NOT EXISTS, found its column. The column comes
// first in its transaction, so all of the migration was done, and only the mark is missing: the process that did it ended
// before it set the mark, or sets it right now.
func isColumnThere(err error) bool { return strings.Contains(err.Error(), "duplicate column name") }
