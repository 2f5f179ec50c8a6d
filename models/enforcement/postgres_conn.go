package enforcement

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"tollgate/models"
)

func openPostgres(ctx context.Context, db *models.DB) (*postgres, error) {
	config := db.PostgresConfig(map[string]string{
		"application_name":  "tollgate gate",
		"statement_timeout": preparePatience,
		"lock_timeout":      preparePatience,
		// The statements look up a few rows by index. If tables have grown since they were last
		// analyzed, the planner would think that they are small and read them whole, and a prepared
		// plan would keep that.
		"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off",
		"enable_material":  "off", // otherwise a table that was analyzed while it was small is read whole for a join
		"enable_indexscan": "on", "enable_indexonlyscan": "on", "enable_bitmapscan": "on", "enable_nestloop": "on",
	})
	p := &postgres{db: db, config: config, closed: make(chan struct{})}
	if err := p.connect(ctx); err != nil {
		return nil, err
	}
	go p.keepAlive()
	return p, nil
}

// keepAlive checks every second whether the server closed an idle connection, and every
// keepAliveEvery whether it still answers. It replaces a broken connection. It returns when the
// ledger is closed.
func (p *postgres) keepAlive() {
	tick := time.NewTicker(pingAfterIdle)
	defer tick.Stop()
	asked := time.Now()
	for {
		select {
		case <-p.closed:
			return
		case <-tick.C:
		}
		if !p.mu.TryLock() {
			continue // it is in use
		}
		rested := time.Since(p.used) >= pingAfterIdle
		if rested && (p.conn == nil || p.conn.IsClosed() || p.conn.CheckConn() != nil || //nolint:staticcheck // Ping takes a round trip
			min(time.Since(p.used), time.Since(asked)) >= keepAliveEvery && !p.alive(keepAlivePatience)) {
			p.disconnect()
		}
		if time.Since(asked) >= keepAliveEvery {
			asked = time.Now()
		}
		broken := p.conn == nil
		p.mu.Unlock()
		if broken {
			p.replace()
		}
	}
}

// replace opens a new connection. It does so without the lock, so a call does not wait for it but
// connects by itself.
func (p *postgres) replace() {
	ctx, cancel := context.WithTimeout(context.Background(), replacePatience)
	defer cancel()
	conn, err := p.dial(ctx)
	if err != nil {
		return // the next call reports the error
	}
	p.mu.Lock()
	if p.conn == nil && !isClosed(p.closed) {
		p.conn, conn = conn, nil
		p.used = time.Now()
	}
	p.mu.Unlock()
	hangUp(conn)
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (p *postgres) alive(patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.conn.Ping(ctx) == nil
}

func (p *postgres) connect(ctx context.Context) (err error) {
	if p.conn != nil && !p.conn.IsClosed() {
		fresh := time.Since(p.used) < pingAfterIdle
		if p.conn.TxStatus() == 'I' && (fresh || p.conn.CheckConn() == nil) && //nolint:staticcheck // Ping takes a round trip
			(!p.db.SilentSince(p.used) || p.alive(models.SilencePatience)) {
			return nil
		}
		p.disconnect() // it is broken, or has an open transaction, which the server then ends
	}
	p.conn, err = p.dial(ctx)
	p.used = time.Now()
	return err
}

// dial returns a new connection. It prepares the gate's statements in one round trip.
func (p *postgres) dial(ctx context.Context) (*pgconn.PgConn, error) {
	conn, err := pgconn.ConnectConfig(ctx, p.config)
	if err != nil {
		return nil, err
	}
	pipeline := conn.StartPipeline(ctx)
	for name, text := range pgStatements {
		pipeline.SendPrepare(name, text, nil)
	}
	pipeline.SendQueryParams("SET statement_timeout = "+statementPatience, nil, nil, nil, nil)
	pipeline.SendQueryParams("SET lock_timeout = "+lockPatience, nil, nil, nil, nil)
	if err := errors.Join(pipeline.Sync(), pipeline.Close()); err != nil { // Close reads the results
		hangUp(conn)
		return nil, fmt.Errorf("prepare the gate's statements: %w", err)
	}
	return conn, nil
}

func (p *postgres) close() {
	close(p.closed)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disconnect()
}

func (p *postgres) disconnect() {
	hangUp(p.conn)
	p.conn = nil
}

// hangUp closes a connection, which may be nil.
func hangUp(conn *pgconn.PgConn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing is lost: no call was answered before its commit
}
