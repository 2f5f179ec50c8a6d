//go:build linux

package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib" // registers "pgx"
	_ "modernc.org/sqlite"             // registers "sqlite"
)

// ledger is what a database holds of the answers.
type ledger struct{ events, units int64 }

// readLedger counts the events, and the units in the records. It asks the database itself, not the product.
func readLedger(ctx context.Context, database, usedColumn string) (ledger, error) {
	driver, source := "pgx", database
	if path, found := strings.CutPrefix(database, "sqlite:"); found {
		driver, source = "sqlite", "file:"+path+"?mode=ro"
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		return ledger{}, fmt.Errorf("ledger: %w", err)
	}
	defer db.Close() //nolint:errcheck // only read
	var l ledger
	err = db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM usage_events),
		(SELECT sum(`+usedColumn+`) FROM usage_records)`).Scan(&l.events, &l.units)
	if err != nil {
		return ledger{}, fmt.Errorf("ledger: %w", err)
	}
	return l, nil
}

// against compares the ledger with the calls that were answered "allowed", each for one unit. Every load waits for
// its last answer, so no call is under way and the three numbers must be the same.
func (l ledger) against(answers int64) error {
	if l.events != answers || l.units != answers {
		return fmt.Errorf("%d calls were answered \"allowed\", and the ledger has %d events and the records %d units",
			answers, l.events, l.units)
	}
	return nil
}
