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
	// several round trips. One is asked whether it is alive, and the others are free meanwhile.
	warmConns     = 3
	keepWarmEvery = 20 * time.Second
	warmPatience  = 10 * time.Second
)

// keepWarm keeps warmConns connections open. At each tick it asks another one of them whether it is alive.
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
		// The pool hands out the connection that was given back last, so this order asks each in its turn.
		for i := len(conns) - 2; i >= 0; i-- {
			_ = conns[i].Close() // gives it back
		}
		if n := len(conns); n > 0 {
			_ = conns[n-1].PingContext(patience) // the pool drops one that does not answer
			_ = conns[n-1].Close()
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
