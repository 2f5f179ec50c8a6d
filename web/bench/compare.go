//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"tollgate/models/modelstest"
)

// build is one of the two builds that -compare compares, on one kind of database.
type build struct {
	*server
	// rates and cpu have the rate and the server's processor time per call, in microseconds, of each
	// round.
	rates, cpu []float64
}

// compare measures consume with this build and with another one. Both run at the same time on the
// same database server and get the load in turn, round after round, so that a change of the machine's
// speed affects both.
func (b *bench) compare(ctx context.Context, out io.Writer) error {
	if err := b.build(ctx); err != nil {
		return err
	}
	var postgres *modelstest.Cluster
	if b.wants(postgresServer) {
		var err error
		if postgres, err = modelstest.StartPostgres(ctx, modelstest.PostgresOptions{Durable: true, MaxConnections: 300}); err != nil {
			return err
		}
		b.stops = append(b.stops, postgres.Stop)
	}
	lines := [][]string{{"database", "rounds", "rate of this build", "rate of the other build", "ratio",
		"CPU per call of this build", "CPU per call of the other build", "ratio"}}
	for _, kind := range []string{postgresServer, sqliteServer} {
		if !b.wants(kind) {
			continue
		}
		var both []*build // the other build first
		for _, binary := range []string{b.Compare, b.binary} {
			name := fmt.Sprintf("%s_%d", kind, len(both))
			database := "sqlite:" + filepath.Join(b.dir, name+".db")
			if kind == postgresServer {
				if err := postgres.CreateDatabase(ctx, name); err != nil {
					return err
				}
				database = postgres.URL(name)
			}
			one, err := b.startBuild(ctx, binary, name, database)
			if err != nil {
				return err
			}
			both = append(both, one)
		}
		for round := range b.Rounds {
			turns := slices.Clone(both)
			if round%2 == 1 {
				slices.Reverse(turns)
			}
			for _, one := range turns {
				r, err := b.load(ctx, one.server, load{Path: "/v1/consume", Keyed: true, Warm: warm(b.Duration), Measure: b.Duration})
				if err != nil {
					return err
				}
				one.rates = append(one.rates, r.PerSecond)
				one.cpu = append(one.cpu, float64(r.ServerCPU.Microseconds())/float64(r.Answers))
				b.say("round %d of %d: %s: %.0f/s, %.1f µs of CPU per call", round+1, b.Rounds, one.name, r.PerSecond, one.cpu[round])
			}
		}
		other, this := both[0], both[1]
		lines = append(lines, []string{
			title(kind), fmt.Sprint(b.Rounds), fmt.Sprintf("%.0f/s", median(this.rates)), fmt.Sprintf("%.0f/s", median(other.rates)),
			spread(quotients(this.rates, other.rates)), fmt.Sprintf("%.1f µs", median(this.cpu)), fmt.Sprintf("%.1f µs", median(other.cpu)),
			spread(quotients(this.cpu, other.cpu)),
		})
		for _, one := range both {
			if err := one.gate.verify(ctx); err != nil {
				return err
			}
			l, err := readLedger(ctx, one.database, one.usedColumn)
			if err == nil {
				err = l.against(one.answers)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", one.name, err)
			}
		}
	}
	_, err := fmt.Fprintf(out, "\n%s", table(lines))
	return err
}

// startBuild starts a build on a new database, with a record for each person.
func (b *bench) startBuild(ctx context.Context, binary, name, database string) (*build, error) {
	g, err := newGate(ctx, binary, b.dir, name, database)
	if err != nil {
		return nil, err
	}
	s := &server{name: name, token: g.token, gate: g, database: database, usedColumn: "suggestions_used"}
	if s.process, s.addr, err = g.serve(ctx); err != nil {
		return nil, err
	}
	b.stops = append(b.stops, func() error { return s.process.stop() })
	if err := g.ready(ctx, s.process, s.addr); err != nil {
		return nil, err
	}
	_, err = b.load(ctx, s, load{Path: "/v1/consume", Keyed: true, Introduce: true})
	return &build{server: s}, err
}

// comparable reports whether another build can be measured with everything that -only names.
func (o options) comparable() bool {
	return !slices.ContainsFunc(o.Only, func(name string) bool {
		return !slices.Contains([]string{postgresServer, sqliteServer, consumeCall}, name)
	})
}
