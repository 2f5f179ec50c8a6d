package models

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
)

func (db *DB) openPostgres(ctx context.Context) (err error) {
	if db.server, err = connectPostgres(ctx, db.URL); err != nil {
		return explainPostgres(db.URL, err)
	}
	config := db.server.configure(nil)
	config.Tracer = &db.server.silence
	std := stdlib.OpenDB(*config, stdlib.OptionShouldPing(db.server.silence.shouldPing))
	std.SetMaxOpenConns(16)
	std.SetMaxIdleConns(16)
	std.SetConnMaxIdleTime(5 * time.Minute)
	db.DB, db.Postgres = bun.NewDB(std, pgdialect.New()), true
	return nil
}

const (
	// warmConns is the number of connections that stay open, so that a call after a pause does not
	// wait for a new one. Over a slow link, connecting takes several round trips. While one
	// connection is pinged, the others are free.
	warmConns     = 3
	keepWarmEvery = 20 * time.Second
	warmPatience  = 10 * time.Second
)

// KeepWarm opens some connections to PostgreSQL, and keeps them open until Close. A server calls it
// once, before its first call. It does nothing with SQLite.
func (db *DB) KeepWarm(ctx context.Context) {
	if !db.Postgres {
		return
	}
	patience, cancel := context.WithTimeout(ctx, warmPatience)
	defer cancel()
	// The pool first uses the connection that was given back last. So give them back in reverse: the
	// first one was open before, and already knows statements.
	for _, conn := range slices.Backward(takeConns(patience, db.DB.DB)) {
		_ = conn.Close() // gives it back
	}
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	db.stopKeeping = stop
	go keepWarm(keeping, db.DB.DB)
}

// keepWarm keeps warmConns connections open. At each tick, it pings a random one.
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

// takeConns takes warmConns connections, opening the missing ones in parallel. It returns fewer if
// some cannot be opened.
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
