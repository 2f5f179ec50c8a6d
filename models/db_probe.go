package models

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// ProbeWrite commits a small change. An error means that usage cannot be recorded either, because
// the disk is full, the database is read-only, or another program keeps a table locked. It changes
// no row that usage depends on: it increments the version of a workspace that does not exist. On
// PostgreSQL, the two parts that change no row need the same locks and permissions as recording
// does.
func ProbeWrite(ctx context.Context, db *DB) error {
	const write = `INSERT INTO usage_versions (workspace_id, version) VALUES (?, 1)
		ON CONFLICT (workspace_id) DO UPDATE SET version = usage_versions.version + 1`
	text := write
	if db.Postgres {
		text = `WITH records AS (UPDATE usage_records SET suggestions_used = suggestions_used WHERE false RETURNING 1),
			events AS (INSERT INTO usage_events SELECT * FROM usage_events WHERE false RETURNING 1) ` + write
	}
	if _, err := db.ExecContext(ctx, text, uuid.Nil); err != nil {
		return fmt.Errorf("write to the database: %w", err)
	}
	return nil
}
