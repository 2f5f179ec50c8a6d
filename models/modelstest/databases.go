package modelstest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// shared is the cluster that all tests of one test binary share. Starting one takes a second, and
// creating a database in it takes some hundredths of a second.
var shared struct {
	sync.Mutex
	main   bool // whether Main runs, which stops the cluster
	server *Cluster
	err    error // of the only start attempt; each test that needs the cluster reports it
	made   int   // number of databases

	prepare func(ctx context.Context, url string) error // nil: databases are empty
}

// The prepared databases, which are copied for each test.
var (
	postgresTemplate = sync.OnceValue(func() error { return preparePostgres(context.Background()) })
	sqliteTemplate   = sync.OnceValues(func() ([]byte, error) { return prepareSQLite(context.Background()) })
)

const templateName = "prepared"

// OnBoth runs a test as a subtest on each database. address is the one of a new database with all
// tables.
func OnBoth(t *testing.T, test func(t *testing.T, address string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, Postgres(t)) })
}

// Main runs a package's tests and then stops the cluster that Postgres may have started. A package
// whose tests call Postgres or SQLite calls Main from its TestMain. Each database starts as open
// leaves an empty one. It is prepared once and copied, because creating the tables again would take
// longer than most tests.
//
//	func TestMain(m *testing.M) { modelstest.Main(m, models.Open) }
func Main[D io.Closer](m *testing.M, open func(ctx context.Context, url string) (D, error)) {
	run(m, func(ctx context.Context, url string) error {
		db, err := open(ctx, url)
		if err != nil {
			return err
		}
		return db.Close()
	})
}

func run(m *testing.M, prepare func(ctx context.Context, url string) error) {
	shared.Lock()
	shared.main, shared.prepare = true, prepare
	shared.Unlock()

	code := m.Run()

	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		if err := shared.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

func preparePostgres(ctx context.Context) (err error) {
	defer wrap(&err, "prepare a database to copy")
	if err := shared.server.CreateDatabase(ctx, templateName); err != nil {
		return err
	}
	if !*plain {
		if err := shared.server.makeHostile(ctx, templateName); err != nil {
			return err
		}
	}
	return shared.prepare(ctx, shared.server.URL(templateName))
}

func prepareSQLite(ctx context.Context) (file []byte, err error) {
	defer wrap(&err, "prepare a database to copy")
	dir, err := os.MkdirTemp("", "tollgate-sqlite-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "prepared.db")
	if err := shared.prepare(ctx, "sqlite:"+path); err != nil {
		return nil, err
	}
	if _, err := os.Stat(path + "-wal"); err == nil {
		return nil, errors.New("its write-ahead log was not checkpointed")
	}
	return os.ReadFile(path)
}

// Postgres returns the URL of a new database. It is empty except for what Main prepares, and is
// dropped after the test together with its open connections. If Main prepares databases, they have
// HostileDefaults unless the flag -plain is given: tests that pass with these pass with any others.
// The database is in a cluster that all tests of the binary share. The cluster is not durable; test
// crashes with StartPostgres.
func Postgres(t testing.TB) string {
	t.Helper()
	server, name := sharedDatabase(t)
	template := "template0"
	if shared.prepare != nil {
		if err := postgresTemplate(); err != nil {
			t.Fatal(err)
		}
		template = templateName
	}
	if err := server.createDatabase(t.Context(), name, template); err != nil {
		t.Fatal(err)
	}
	if shared.prepare != nil && !*plain {
		if err := server.makeHostile(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		// The test's own context has ended.
		err := server.exec(context.Background(), "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
		if err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return server.URL(name)
}

// sharedDatabase returns the shared cluster and a name for a database in it. It starts the cluster
// for the first test.
func sharedDatabase(t testing.TB) (*Cluster, string) {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if !shared.main {
		t.Fatal("PostgreSQL would not be stopped: call modelstest.Main from the package's TestMain")
	}
	if shared.server == nil && shared.err == nil {
		// The cluster outlives the first test, so it does not use that test's context. Parallel
		// tests with a pool each need many connections.
		shared.server, shared.err = StartPostgres(context.Background(), PostgresOptions{MaxConnections: 400})
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	shared.made++
	return shared.server, "test_" + strconv.Itoa(shared.made)
}

// SQLite returns the URL of a new database in its own folder. Main may prepare it; otherwise, no
// file exists yet.
func SQLite(t testing.TB) string {
	t.Helper()
	path := filepath.Join(Dir(t), "test.db")
	if shared.prepare != nil {
		file, err := sqliteTemplate()
		if err == nil {
			err = os.WriteFile(path, file, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return "sqlite:" + path
}

// Dir returns a new folder like t.TempDir, but in memory if there is enough, so that commits do not
// wait for a disk.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(memory(), "tollgate-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
