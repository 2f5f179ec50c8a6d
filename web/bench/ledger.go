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

// ledger has the numbers of stored events and counted units.
type ledger struct{ events, units int64 }

// readLedger counts the events, and the units in the records. It reads the database directly,
// without the product.
func readLedger(ctx context.Context, database, usedColumn string) (ledger, error) {
	driver, source := "pgx", database
	if path, found := strings.CutPrefix(database, "sqlite:"); found {
		driver, source = "sqlite", "file:"+path+"?mode=ro"
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		return ledger{}, fmt.Errorf("read the ledger: %w", err)
	}
	defer db.Close() //nolint:errcheck // only read
	var l ledger
	err = db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM usage_events),
		(SELECT sum(`+usedColumn+`) FROM usage_records)`).Scan(&l.events, &l.units)
	if err != nil {
		return ledger{}, fmt.Errorf("read the ledger: %w", err)
	}
	return l, nil
}

// against compares the ledger with the number of allowed calls, each for one unit. Every load waits
// for its last answer, so no call is in progress and the three numbers must be equal.
func (l ledger) against(answers int64) error {
	if l.events != answers || l.units != answers {
		return fmt.Errorf("%d calls were allowed, but the ledger has %d events and the records have %d units",
			answers, l.events, l.units)
	}
	return nil
}
