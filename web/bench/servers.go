//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"tollgate/models/modelstest"
)

// startServers starts the servers to measure, each in its own process and with a new database.
func (b *bench) startServers(ctx context.Context) error {
	if b.wants(floorServer) {
		p, addr, err := startSelf(b.dir, roleFloor, floorServer, roleConfig{})
		if err != nil {
			return err
		}
		b.add(&server{name: floorServer, process: p, addr: addr})
	}
	if b.wants(postgresServer) || b.wants(oneStatementServer) {
		if err := b.startOnPostgres(ctx); err != nil {
			return err
		}
	}
	if b.wants(sqliteServer) {
		if err := b.startGate(ctx, sqliteServer, "sqlite:"+filepath.Join(b.dir, "x.db")); err != nil {
			return err
		}
	}
	for _, name := range []string{redisServer, redisAOFServer} {
		if !b.wants(name) {
			continue
		}
		if err := b.startRedisCounter(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// add adds a started server, which is measured and stopped at the end.
func (b *bench) add(s *server) {
	b.servers = append(b.servers, s)
	b.stops = append(b.stops, func() error {
		if s.process == nil {
			return nil
		}
		return s.process.stop()
	})
}

// startOnPostgres starts PostgreSQL, and on it the gate and the server with one statement per call,
// each with its own database.
func (b *bench) startOnPostgres(ctx context.Context) error {
	postgres, err := modelstest.StartPostgres(ctx, modelstest.PostgresOptions{Durable: true, MaxConnections: 300})
	if err != nil {
		return err
	}
	b.stops = append(b.stops, postgres.Stop)
	for _, name := range []string{postgresServer, oneStatementServer} {
		if !b.wants(name) {
			continue
		}
		database := map[string]string{postgresServer: "bench_gate", oneStatementServer: "bench_one_statement"}[name]
		if err := postgres.CreateDatabase(ctx, database); err != nil {
			return err
		}
		url := postgres.URL(database)
		if name == postgresServer {
			err = b.startGate(ctx, name, url)
		} else {
			err = makeOneStatementTables(ctx, url, b.People)
			b.servers = append(b.servers, &server{name: name, database: url, usedColumn: "used"})
		}
		if err != nil {
			return err
		}
	}
	version, err := postgresFact(ctx, postgres.URL("postgres"))
	b.facts = append(b.facts, version)
	return err
}

func (b *bench) startGate(ctx context.Context, name, database string) error {
	if err := b.build(ctx); err != nil {
		return err
	}
	g, err := newGate(ctx, b.binary, b.dir, name, database)
	if err != nil {
		return err
	}
	p, addr, err := g.serve(ctx)
	if err != nil {
		return err
	}
	b.add(&server{
		name: name, process: p, addr: addr, token: g.token, gate: g, database: database, usedColumn: "suggestions_used",
	})
	return g.ready(ctx, p, addr)
}

func (b *bench) startRedisCounter(ctx context.Context, name string) error {
	store, addr, err := startRedis(ctx, b.dir, name+"-server", name == redisAOFServer)
	if err != nil {
		return err
	}
	b.stops = append(b.stops, store.stop)
	if name == redisServer || b.server(redisServer) == nil {
		version, err := redisFact(ctx, addr)
		if err != nil {
			return err
		}
		b.facts = append(b.facts, version)
	}
	p, addr, err := startSelf(b.dir, roleRedis, name, roleConfig{Redis: addr})
	if err != nil {
		return err
	}
	b.add(&server{name: name, process: p, addr: addr})
	return nil
}

// introduce makes one call for every person, which makes them members of the organization with the
// large plan.
func (b *bench) introduce(ctx context.Context) error {
	for _, s := range b.gates() {
		begin := time.Now()
		if _, err := b.load(ctx, s, load{Path: "/v1/consume", Keyed: true, Introduce: true}); err != nil {
			return err
		}
		b.say("%s: %d people created in %s", s.name, b.People, short(time.Since(begin)))
	}
	return nil
}

// poolTry is the rate with one pool size.
type poolTry struct {
	connections int
	perSecond   float64
}

// tryPools finds the best pool size for one statement per call, as its author would.
func (b *bench) tryPools(ctx context.Context) error {
	s := b.server(oneStatementServer)
	if s == nil {
		return nil
	}
	length := min(b.Duration, 2*time.Second)
	best := 0.0
	for _, connections := range b.Pools {
		if err := b.startOneStatement(s, connections); err != nil {
			return err
		}
		r, err := b.load(ctx, s, load{Path: "/v1/consume", Keyed: true, Warm: warm(length), Measure: length})
		if err != nil {
			return err
		}
		if err := s.process.stop(); err != nil {
			return err
		}
		b.poolTries = append(b.poolTries, poolTry{connections, r.PerSecond})
		b.say("one statement per call with a pool of %d: %.0f/s", connections, r.PerSecond)
		if r.PerSecond > best {
			best, b.pool = r.PerSecond, connections
		}
	}
	if err := b.startOneStatement(s, b.pool); err != nil {
		return err
	}
	b.stops = append(b.stops, func() error { return s.process.stop() })
	return nil
}

func (b *bench) startOneStatement(s *server, connections int) (err error) {
	s.process, s.addr, err = startSelf(b.dir, roleOneStatement, oneStatementServer,
		roleConfig{PostgresURL: s.database, Connections: connections})
	return err
}

// compareSizes returns an error if a server's answers are not as long as the gate's, since shorter
// answers are faster.
func (b *bench) compareSizes(ctx context.Context) error {
	for _, path := range []string{"/v1/consume", "/v1/check"} {
		sizes := map[string]int{}
		for _, s := range b.servers {
			if path == "/v1/check" && s.name != floorServer && s.gate == nil {
				continue
			}
			body := fmt.Sprintf(`{"email":%q,"quantity":1}`, personEmail(0))
			if path == "/v1/consume" {
				body = fmt.Sprintf(`{"email":%q,"quantity":1,"idempotency_key":"size-of-an-answer"}`, personEmail(0))
				s.answers++
			}
			answer, err := call(ctx, "http://"+s.addr+path, s.token, body)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			sizes[s.name] = len(answer)
		}
		for _, g := range b.gates() {
			for name, size := range sizes {
				if math.Abs(float64(size-sizes[g.name])) > 0.1*float64(sizes[g.name]) {
					return fmt.Errorf("the answer of %s of %s has %d bytes, and the gate's (%s) has %d: they must not differ by more than a tenth",
						path, name, size, g.name, sizes[g.name])
				}
			}
		}
		b.say("answer sizes of %s in bytes: %v", path, sizes)
	}
	return nil
}
