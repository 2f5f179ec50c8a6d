package models

import (
	"context"
	"database/sql"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
)

func (db *DB) openPostgres(ctx context.Context) (err error) {
	if db.server, err = connectPostgres(ctx, db.URL); err != nil {
		return explainPostgres(err)
	}
	std := stdlib.OpenDB(*db.server.configure(nil), stdlib.OptionShouldPing(shouldPing))
	std.SetMaxOpenConns(16)
	std.SetMaxIdleConns(16)
	std.SetConnMaxIdleTime(5 * time.Minute)
	db.DB, db.Postgres = bun.NewDB(std, pgdialect.New()), true
	keeping, stop := context.WithCancel(context.Background())
	db.stopKeeping = stop
	go keepWarm(keeping, std)
	return nil
}

const (
	// warmConns connections are open and known to be alive, so that a call after a rest does not wait for a new one: over a
	// slow link, that takes several round trips.
	warmConns     = 2
	keepWarmEvery = 30 * time.Second
)

func keepWarm(ctx context.Context, pool *sql.DB) {
	tick := time.NewTicker(keepWarmEvery)
	defer tick.Stop()
	for {
		var conns [warmConns]*sql.Conn
		for i := range conns {
			patience, cancel := context.WithTimeout(ctx, 10*time.Second)
			conn, err := pool.Conn(patience)
			if err == nil {
				conns[i] = conn
				_ = conn.PingContext(patience) // the pool drops one that does not answer
			}
			cancel()
		}
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close() // gives it back
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// shouldPing says whether a connection that rested must answer before it is used again, which takes a round trip. One that
// rested for seconds is looked at only for whether the server ended it; a firewall needs minutes to forget it.
func shouldPing(_ context.Context, p stdlib.ShouldPingParams) bool {
	if p.IdleDuration < time.Second {
		return false
	}
	return p.IdleDuration > time.Minute || p.Conn.PgConn().CheckConn() != nil //nolint:staticcheck // that takes no round trip
}
