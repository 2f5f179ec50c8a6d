//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"

	"tollgate/models/modelstest"
)

// site is an installation: a database, an API key, and the processes that serve it.
type site struct {
	t        *testing.T
	database string
	client   *client
	servers  []*server
	program  string
}

// kinds are the databases that the product runs on.
var kinds = []struct {
	name     string
	database func(*testing.T) string
}{{"PostgreSQL", postgresDatabase}, {"SQLite", sqliteDatabase}}

// postgresDatabase creates an empty database in the shared cluster.
func postgresDatabase(t *testing.T) string {
	t.Helper()
	c, name := sharedCluster(t)
	if err := c.CreateDatabase(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return c.URL(name)
}

// sqliteDatabase returns the address of a file that does not exist yet.
func sqliteDatabase(t *testing.T) string {
	t.Helper()
	return "sqlite:" + filepath.Join(modelstest.Dir(t), "tollgate.db")
}

// newSite creates an API key with all scopes and starts the processes in parallel.
func newSite(t *testing.T, database string, processes int) *site {
	t.Helper()
	s := &site{t: t, database: database, program: program(t)}
	s.client = newClient(s.apiKey("e2e", "check,consume,read"))
	t.Cleanup(s.client.http.CloseIdleConnections)
	for i := range processes {
		s.servers = append(s.servers, newServer(t, fmt.Sprintf("process %d", i+1), database))
	}
	s.startAll()
	return s
}

// startAll starts the processes in parallel.
func (s *site) startAll() {
	s.t.Helper()
	failed := make([]error, len(s.servers))
	var all sync.WaitGroup
	for i, p := range s.servers {
		all.Go(func() { failed[i] = p.start(s.t.Context()) })
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		s.t.Fatal(err)
	}
}

// stopAll stops the processes one after another.
func (s *site) stopAll() {
	s.t.Helper()
	for _, p := range s.servers {
		if _, err := p.stop(); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *site) addresses() []string {
	all := make([]string, len(s.servers))
	for i, p := range s.servers {
		all[i] = p.addr
	}
	return all
}

// try runs a command on the site's database and returns what it printed.
func (s *site) try(args ...string) (stdout, stderr string, err error) {
	s.t.Helper()
	return execute(s.t, s.program, append(args, "--database", s.database)...)
}

// command runs a command that must succeed and returns what it printed on standard output.
func (s *site) command(args ...string) string {
	s.t.Helper()
	stdout, stderr, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("tollgate %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return strings.TrimSpace(stdout)
}

// execute runs a program to its end.
func execute(t *testing.T, path string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startPatience)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = environment(t), &out, &errs
	r, err := launch(cmd)
	if err != nil {
		return "", "", err
	}
	<-r.exited
	return out.String(), errs.String(), r.err
}

// apiKey creates a key with the scopes.
func (s *site) apiKey(name, scopes string) string {
	s.t.Helper()
	key := s.command("apikey", "create", "--name", name, "--scopes", scopes)
	if !strings.HasPrefix(key, "tg_live_") || strings.ContainsAny(key, " \n") {
		s.t.Fatalf("apikey create printed %q on standard output, want only the key", key)
	}
	return key
}

// verify runs the product's verify command, which must find no difference.
func (s *site) verify() {
	s.t.Helper()
	if stdout, stderr, err := s.try("verify"); err != nil {
		s.t.Errorf("tollgate verify: %v\n%s%s", err, stdout, stderr)
	}
}

// judge fails the test for each invalid answer, and if a call took too long.
func (s *site) judge() {
	s.t.Helper()
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	for _, err := range s.client.invalid {
		s.t.Error(err)
	}
	if s.client.slowest > hangs {
		s.t.Errorf("a call took %s, want at most %s: %s", s.client.slowest.Round(time.Millisecond), hangs, s.client.slow)
	}
}

// restart starts a process that was killed or stopped.
func (s *site) restart(p *server) {
	s.t.Helper()
	if err := p.start(s.t.Context()); err != nil {
		s.t.Error(err)
	}
}

// grant is an event of the ledger, as it is stored or as it was answered.
type grant struct {
	id       string
	email    string
	quantity int64
}

// ledger has a grant for each idempotency key. The key of a settled hold's event is "hold " and the
// hold's ID.
type ledger map[string]grant

// open opens the site's database for the test's own queries.
func (s *site) open() *sql.DB {
	s.t.Helper()
	driver, address := "pgx", s.database
	if file, ok := strings.CutPrefix(s.database, "sqlite:"); ok {
		driver, address = "sqlite", "file:"+file+"?_pragma=busy_timeout(5000)"
	}
	db, err := sql.Open(driver, address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = db.Close() }) // closed already, unless the test failed
	return db
}

// ledger reads all events.
func (s *site) ledger() ledger {
	s.t.Helper()
	db := s.open()
	rows, err := db.QueryContext(s.t.Context(), `SELECT CAST(id AS text), email, quantity,
		COALESCE(idempotency_key, 'hold ' || CAST(hold_id AS text)) FROM usage_events`)
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	all := ledger{}
	for rows.Next() {
		var key string
		var g grant
		if err := rows.Scan(&g.id, &g.email, &g.quantity, &key); err != nil {
			s.t.Fatal(err)
		}
		if other, twice := all[key]; twice {
			s.t.Errorf("%q is in the ledger twice: events %s and %s", key, other.id, g.id)
		}
		all[key] = g
	}
	if err := errors.Join(rows.Err(), db.Close()); err != nil {
		s.t.Fatal(err)
	}
	return all
}

// wantLedger compares the ledger with the answers, and the counters with the ledger.
func (s *site) wantLedger(answers ledger) {
	s.t.Helper()
	stored := s.ledger()
	var wrong []string
	for _, key := range slices.Sorted(maps.Keys(answers)) {
		switch has, ok := stored[key]; {
		case !ok:
			wrong = append(wrong, fmt.Sprintf("%q was allowed (%+v), but is not in the ledger", key, answers[key]))
		case has != answers[key]:
			wrong = append(wrong, fmt.Sprintf("%q was answered as %+v, but is in the ledger as %+v", key, answers[key], has))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(stored)) {
		if _, ok := answers[key]; !ok {
			wrong = append(wrong, fmt.Sprintf("%q is in the ledger (%+v), but was not allowed", key, stored[key]))
		}
	}
	if n := len(wrong); n > 0 {
		s.t.Errorf("the ledger and the answers differ in %d of %d keys:\n%s", n, len(answers), strings.Join(wrong[:min(n, 10)], "\n"))
	}
	if answers, stored := answers.totals(), s.totals(); !maps.Equal(answers, stored) {
		s.t.Errorf("units used by each person: the answers have %v, the records have %v", answers, stored)
	}
}

// totals returns the units of each person.
func (l ledger) totals() map[string]int64 {
	all := map[string]int64{}
	for _, g := range l {
		all[g.email] += g.quantity
	}
	return all
}

// totals returns the units of each person in the records, without people who used nothing.
func (s *site) totals() map[string]int64 {
	s.t.Helper()
	db := s.open()
	rows, err := db.QueryContext(s.t.Context(), `SELECT email, CAST(SUM(suggestions_used) AS bigint) FROM usage_records
		GROUP BY email HAVING SUM(suggestions_used) > 0`)
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	all := map[string]int64{}
	for rows.Next() {
		var email string
		var used int64
		if err := rows.Scan(&email, &used); err != nil {
			s.t.Fatal(err)
		}
		all[email] = used
	}
	if err := errors.Join(rows.Err(), db.Close()); err != nil {
		s.t.Fatal(err)
	}
	return all
}

// business creates an organization with the plan business and this many members.
func (s *site) business(team string, people int) (organization string, emails []string) {
	s.t.Helper()
	organization = s.command("organization", "create", "Acme "+team, "--slack-team", team)
	s.command("subscribe", "--organization", organization, "--plan", "business")
	for i := range people {
		emails = append(emails, fmt.Sprintf("member%d@%s.example", i, strings.ToLower(team)))
	}
	addresses := s.addresses()
	spread(s.t.Context(), 16, people, func(i int) {
		r := s.client.insist(s.t.Context(), addresses, i, http.MethodPost, "/v1/check", body{
			"email": emails[i], "slack_team_id": team, "slack_user_id": fmt.Sprintf("U%d", i),
		})
		if d, err := r.decision(); err != nil || d.Plan != "business" {
			s.t.Errorf("link %s: plan %q, want business: %v", emails[i], d.Plan, err)
		}
	})
	if s.t.Failed() {
		s.t.FailNow()
	}
	return organization, emails
}
