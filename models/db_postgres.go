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
	patience, cancel := context.WithTimeout(ctx, warmPatience)
	defer cancel()
	for _, conn := range takeConns(patience, std) {
		_ = conn.Close() // gives it back
	}
	go keepWarm(keeping, std)
	return nil
}

const (
	// warmConns connections are open, so that a call after a rest does not wait for a new one: over a slow link, that takes
	// several round trips. While one is asked whether it is alive, the others are free.
	warmConns     = 3
	keepWarmEvery = 20 * time.Second
	warmPatience  = 10 * time.Second
)

// keepWarm keeps warmConns connections open. At each tick it asks one of them, by chance, whether it is alive.
func keepWarm(ctx context.Context, pool *sql.DB) {
	tick := time.NewTicker(keepWarmEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		patience, cancel := context.WithTimeout(ctx, warmPatience)
		conns := takeConns(patience, pool)
		for i, conn := range conns {
			if i == len(conns)-1 {
				_ = conn.PingContext(patience) // the pool drops one that does not answer
			}
			_ = conn.Close() // gives it back
		}
		cancel()
	}
}

// takeConns takes warmConns connections, and opens those that are missing all at once. It returns fewer if some cannot be opened.
func takeConns(ctx context.Context, pool *sql.DB) []*sql.Conn {
	taken := make(chan *sql.Conn, warmConns)
	for range warmConns {
		go func() {
			conn, err := pool.Conn(ctx)
			if err != nil {
				conn = nil // whoever needs it learns why
			}
			taken <- conn
		}()
	}
	var conns []*sql.Conn
	for range warmConns {
		if conn := <-taken; conn != nil {
			conns = append(conns, conn)
		}
	}
	return conns
}

// shouldPing says whether a connection that rested must answer before it is used again, which takes a round trip. One that
// rested for seconds is looked at only for whether the server ended it; a firewall needs minutes to forget it.
func shouldPing(_ context.Context, p stdlib.ShouldPingParams) bool {
	if p.IdleDuration < time.Second {
		return false
	}
	return p.IdleDuration > time.Minute || p.Conn.PgConn().CheckConn() != nil //nolint:staticcheck // that takes no round trip
}
