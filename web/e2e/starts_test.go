//go:build linux

package e2e_test

import (
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tollgate/models/modelstest"
)

// starts is how many rounds TestProgramsThatStartAtOnce runs on each database: `go test ./web/e2e
// -args -starts=50`.
var starts = flag.Int("starts", 3, "how many rounds of simultaneous starts there are on each database")

// Two to six programs that start at the same time on a new database all succeed, and create the
// usual schema.
func TestProgramsThatStartAtOnce(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			fresh := &site{t: t, database: kind.database(t), program: program(t)}
			fresh.command("migrate")
			want := schema(t, fresh.database)
			for round := range *starts {
				database := kind.database(t)
				startAtOnce(t, database, round, want)
				dropPostgres(t, database)
			}
		})
	}
}

func startAtOnce(t *testing.T, database string, round int, want string) {
	t.Helper()
	random := rand.New(rand.NewPCG(uint64(round), 14))
	programs := [][]string{
		{"migrate"}, {"migrate"}, {"apikey", "create", "--name", "app", "--scopes", "consume"},
		{"verify"}, {"organization", "create", "Example Inc.", "--slack-team", "T1"},
	}
	n := 2 + random.IntN(5)
	var names []string
	var all sync.WaitGroup
	together := make(chan struct{})
	for i := range n {
		if p := random.IntN(len(programs) + 1); p < len(programs) {
			args := programs[p]
			names = append(names, strings.Join(args[:min(2, len(args))], " "))
			all.Go(func() {
				<-together
				if stdout, stderr, err := execute(t, program(t), append(args, "--database", database)...); err != nil {
					t.Errorf("round %d: tollgate %s: %v\n%s%s", round, strings.Join(args, " "), err, stdout, stderr)
				}
			})
			continue
		}
		names = append(names, "serve")
		s := newServer(t, fmt.Sprintf("round %d, process %d", round, i), database)
		all.Go(func() {
			<-together
			if err := s.start(t.Context()); err != nil {
				t.Errorf("round %d: %v", round, err)
			} else if err := s.crash(); err != nil {
				t.Error(err)
			}
		})
	}
	close(together)
	all.Wait()
	if got := schema(t, database); got != want {
		t.Errorf("round %d with %v: the schema is\n%s\nwant\n%s", round, names, got, want)
	}
}

// dropPostgres drops a PostgreSQL database, so that the cluster does not have to write fifty of
// them when it stops.
func dropPostgres(t *testing.T, database string) {
	t.Helper()
	if strings.HasPrefix(database, "sqlite:") {
		return
	}
	c, _ := sharedCluster(t)
	config, err := pgx.ParseConfig(database)
	must(t, err)
	conn, err := pgx.Connect(t.Context(), c.URL("postgres"))
	must(t, err)
	_, err = conn.Exec(t.Context(), "DROP DATABASE "+pgx.Identifier{config.Database}.Sanitize()+" WITH (FORCE)")
	must(t, err, conn.Close(t.Context()))
}

// schema returns the definitions of a database, sorted by name.
func schema(t *testing.T, database string) string {
	t.Helper()
	file, ok := strings.CutPrefix(database, "sqlite:")
	if !ok {
		return dump(t, database, "--schema-only")
	}
	db, err := sql.Open("sqlite", "file:"+file+"?mode=rw")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var text string
	if err := db.QueryRowContext(t.Context(), `SELECT
		group_concat(type || ' ' || name || ' ' || tbl_name || ' ' || COALESCE(sql, ''), char(10) ORDER BY type, name)
		FROM sqlite_master`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

// dump returns the output of pg_dump, without its random lines.
func dump(t *testing.T, database string, args ...string) string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(postgresProgram(t, "pg_dump", append(args, "--dbname", database)...)) {
		if !strings.HasPrefix(line, `\restrict`) && !strings.HasPrefix(line, `\unrestrict`) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// postgresProgram runs a client program of PostgreSQL, of the server's version.
func postgresProgram(t *testing.T, name string, args ...string) string {
	t.Helper()
	c, _ := sharedCluster(t)
	path, err := c.Program(name)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = environment(t)
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", name, withOutput(err))
	}
	return string(output)
}

// TestFirstStartOverASlowLink creates the tables over a link with 300 milliseconds in each
// direction.
func TestFirstStartOverASlowLink(t *testing.T) {
	t.Parallel()
	_, slow := modelstest.NewSlowLink(t, postgresDatabase(t), 300*time.Millisecond)
	begun := time.Now()
	if r := runIt(t, []string{"DATABASE_URL=" + slow}, "migrate"); r.status != 0 {
		t.Errorf("%+v", r)
	}
	t.Logf("it took %s", time.Since(begun))
}

// A start on an up-to-date database needs no lock, so it does not wait for a writer.
func TestStartDoesNotWaitForAWriter(t *testing.T) {
	s := &site{t: t, database: sqliteDatabase(t), program: program(t)}
	s.command("migrate")
	tx, err := s.open().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `DELETE FROM sessions`); err != nil {
		t.Fatal(err)
	}
	s.verify()
}

// A dump of a PostgreSQL database, restored into another one, has the same events.
func TestPostgresDumpAndRestore(t *testing.T) {
	s := newSite(t, postgresDatabase(t), 1)
	for i := range 40 {
		s.client.insist(t.Context(), s.addresses(), 0, "POST", "/v1/consume",
			body{"email": fmt.Sprintf("p%d@dump.example", i%10), "idempotency_key": fmt.Sprint("dump", i)})
	}
	file := filepath.Join(t.TempDir(), "tollgate.dump")
	postgresProgram(t, "pg_dump", "--format=custom", "--file="+file, "--dbname", s.database)
	restored := &site{t: t, database: postgresDatabase(t), program: s.program}
	postgresProgram(t, "pg_restore", "--no-owner", "--exit-on-error", "--dbname", restored.database, file)
	want, got := counted(t, s), counted(t, restored)
	if got != want || !strings.HasPrefix(got, "40 events counted, the newest recorded at 2") {
		t.Errorf("verify prints %q for the restored database and %q for the original", got, want)
	}
	if schema(t, restored.database) != schema(t, s.database) {
		t.Error("the restored database has another schema")
	}
}

// counted returns the line of verify with the number of events.
func counted(t *testing.T, s *site) string {
	t.Helper()
	stdout, stderr, err := s.try("verify")
	if err != nil || stdout != "" {
		t.Fatalf("verify: %v\n%s%s", err, stdout, stderr)
	}
	line, _, _ := strings.Cut(stderr, "\n")
	return line
}
