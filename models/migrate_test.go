package models_test

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// sqliteSchema returns the contents of sqlite_master, sorted by name, as SQLite stores them.
func sqliteSchema(t *testing.T, db interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}) string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT type || ' ' || name || ' ' || tbl_name || ' ' || COALESCE(sql, '')
		FROM sqlite_master ORDER BY type, name`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func openFile(t *testing.T, path string) *models.DB {
	t.Helper()
	db, err := models.Open(t.Context(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// lastUnlocked is the newest migration of the releases that did not lock SQLite.
const lastUnlocked = "20261128000000"

// process runs migrations as a process of such a release did, one for each step.
type process struct {
	t       *testing.T
	db      *sql.DB
	todo    []string
	dying   bool // whether it ends before it writes its next mark
	readAll bool
}

func (p *process) marked(name string) bool {
	p.t.Helper()
	var n int
	if err := p.db.QueryRowContext(p.t.Context(), `SELECT COUNT(*) FROM bun_migrations WHERE name = ?`, name).Scan(&n); err != nil {
		p.t.Fatal(err)
	}
	return n > 0
}

// read lists the unmarked migrations.
func (p *process) read() {
	p.t.Helper()
	p.todo, p.readAll = nil, true
	files, err := filepath.Glob("migrations/sqlite/*.tx.up.sql")
	if err != nil {
		p.t.Fatal(err)
	}
	slices.Sort(files)
	for _, file := range files {
		if id, _, _ := strings.Cut(filepath.Base(file), "_"); id <= lastUnlocked && !p.marked(id) {
			p.todo = append(p.todo, file)
		}
	}
}

// step runs the next migration. done reports whether there is none.
func (p *process) step() (done bool) {
	p.t.Helper()
	if !p.readAll {
		p.read()
	}
	if len(p.todo) == 0 {
		return true
	}
	file := p.todo[0]
	p.todo = p.todo[1:]
	text, err := os.ReadFile(file)
	if err != nil {
		p.t.Fatal(err)
	}
	tx, err := p.db.BeginTx(p.t.Context(), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	_, err = tx.ExecContext(p.t.Context(), string(text))
	again := err != nil && strings.Contains(err.Error(), "duplicate column name")
	if err == nil {
		err = tx.Commit()
	} else {
		_ = tx.Rollback()
	}
	if err != nil && !again {
		p.t.Fatalf("%s: %v", file, err)
	}
	if p.dying {
		return true
	}
	id, _, _ := strings.Cut(filepath.Base(file), "_")
	if _, err := p.db.ExecContext(p.t.Context(), `INSERT INTO bun_migrations (name, group_id) VALUES (?, 1)`, id); err != nil {
		p.t.Fatal(err)
	}
	p.readAll = !again
	return false
}

// Processes of earlier releases could run migrations in any order, and one could die before it
// wrote a mark. Afterward, each file has the schema of a fresh file.
func TestDamagedSchemaIsRepaired(t *testing.T) {
	dir := t.TempDir()
	want := sqliteSchema(t, openFile(t, filepath.Join(dir, "fresh.db")))
	damaged := 0
	const orders = 24
	for n := range orders {
		path := filepath.Join(dir, "damaged.db")
		for _, suffix := range []string{"", "-wal", "-shm"} {
			_ = os.Remove(path + suffix) // of the previous round, if any
		}
		raw, err := sql.Open("sqlite", path+"?_txlock=immediate&_foreign_keys=1&_pragma=synchronous(off)")
		if err != nil {
			t.Fatal(err)
		}
		// The tables as bun's own migrator made them.
		if _, err := raw.ExecContext(t.Context(), `CREATE TABLE bun_migrations ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, `+
			`"name" VARCHAR, "group_id" INTEGER, "migrated_at" TIMESTAMP NOT NULL DEFAULT current_timestamp);`+
			`CREATE TABLE bun_migration_locks ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "table_name" VARCHAR, `+
			`UNIQUE ("table_name"))`); err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(uint64(n), 1))
		first, second, third := &process{t: t, db: raw}, &process{t: t, db: raw}, &process{t: t, db: raw}
		second.dying = n%3 == 2
		if n < 12 {
			// The second process reads the marks after n migrations of the first one, and continues when the
			// first one is done.
			for range n {
				first.step()
			}
			second.read()
			for !first.step() {
			}
			for !second.step() {
			}
		} else {
			running := []*process{first, second, third}[:2+random.IntN(2)]
			for len(running) > 0 {
				if i := random.IntN(len(running)); running[i].step() {
					running = slices.Delete(running, i, i+1)
				}
			}
		}
		before := sqliteSchema(t, raw)
		if err := raw.Close(); err != nil {
			t.Fatal(err)
		}
		db := openFile(t, path)
		got := sqliteSchema(t, db)
		if strings.Contains(before, "usage_events_unreported") || !strings.Contains(before, "usage_events_unsealed") {
			damaged++
		}
		if got != want {
			t.Errorf("order %d: the schema differs from that of a fresh file", n)
			for _, line := range strings.Split(got, "\n") {
				if !strings.Contains(want, line) {
					t.Logf("it has %q", line)
				}
			}
			for _, line := range strings.Split(want, "\n") {
				if !strings.Contains(got, line) {
					t.Logf("it lacks %q", line)
				}
			}
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d of %d files were damaged", damaged, orders)
	if damaged < 5 {
		t.Error("too few files were damaged to prove anything")
	}
}

// Goroutines that open one new file at the same time all succeed, and each migration is marked
// once.
func TestOpenAtOnce(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		address = emptied(t, address)
		const opens = 6
		dbs, errs := make([]*models.DB, opens), make([]error, opens)
		done := make(chan int)
		for i := range opens {
			go func() {
				dbs[i], errs[i] = models.Open(t.Context(), address)
				done <- i
			}()
		}
		applied := 0
		for range opens {
			i := <-done
			if errs[i] != nil {
				t.Error(errs[i])
				continue
			}
			applied += len(dbs[i].Applied)
			t.Cleanup(func() { _ = dbs[i].Close() })
		}
		if t.Failed() {
			return
		}
		var marks, names int
		if err := dbs[0].QueryRowContext(t.Context(), `SELECT COUNT(*), COUNT(DISTINCT name) FROM bun_migrations`).
			Scan(&marks, &names); err != nil {
			t.Fatal(err)
		}
		if marks != names || marks != applied {
			t.Errorf("%d marks of %d migrations; %d were applied", marks, names, applied)
		}
	})
}

// emptied returns the address of an empty database of the same kind.
func emptied(t *testing.T, address string) string {
	t.Helper()
	if file, ok := strings.CutPrefix(address, "sqlite:"); ok {
		return "sqlite:" + file + ".empty"
	}
	newFixture(t, address).exec(t, `DROP SCHEMA public CASCADE; CREATE SCHEMA public`)
	return address
}

// oldDatabase creates a database with the schema before a migration, of the same kind as the one at
// the address. exec runs statements in it. open opens it, which applies the later migrations.
func oldDatabase(t *testing.T, address, before string) (exec func(statement string), open func() *fixture) {
	t.Helper()
	dir := "migrations/postgres"
	file, isFile := strings.CutPrefix(address, "sqlite:")
	if !isFile {
		f := newFixture(t, address)
		exec = func(statement string) { t.Helper(); f.exec(t, statement) }
		exec(`DROP SCHEMA public CASCADE; CREATE SCHEMA public;
			CREATE TABLE bun_migrations (id bigserial PRIMARY KEY, name text, group_id bigint,
				migrated_at timestamptz NOT NULL DEFAULT current_timestamp)`)
		open = func() *fixture { return newFixture(t, f.db.URL) }
	} else {
		dir, file = "migrations/sqlite", file+".old"
		raw, err := sql.Open("sqlite", file+"?_txlock=immediate&_foreign_keys=1&_pragma=synchronous(off)")
		if err != nil {
			t.Fatal(err)
		}
		exec = func(statement string) {
			t.Helper()
			if _, err := raw.ExecContext(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
		exec(`CREATE TABLE bun_migrations ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "name" VARCHAR, "group_id" INTEGER, ` +
			`"migrated_at" TIMESTAMP NOT NULL DEFAULT current_timestamp)`)
		open = func() *fixture {
			if err := raw.Close(); err != nil {
				t.Fatal(err)
			}
			return newFixture(t, "sqlite:"+file)
		}
	}
	files, err := filepath.Glob(dir + "/*.tx.up.sql")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	for _, file := range files {
		if id, _, _ := strings.Cut(filepath.Base(file), "_"); id < before {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			exec(string(text))
			exec("INSERT INTO bun_migrations (name, group_id) VALUES ('" + id + "', 1)")
		}
	}
	if normalizeEmails < before {
		exec("INSERT INTO bun_migrations (name, group_id) VALUES ('" + normalizeEmails + "', 1)")
	}
	return exec, open
}

// An earlier release may have been killed between applying and marking a migration. The next start
// marks it.
func TestMigrationWithoutItsMark(t *testing.T) {
	fresh := openFile(t, filepath.Join(t.TempDir(), "tollgate.db"))
	want, all := sqliteSchema(t, fresh), fresh.Applied
	for i, name := range all {
		next := "9"
		if i+1 < len(all) {
			next, _, _ = strings.Cut(all[i+1], "_")
		}
		id, _, _ := strings.Cut(name, "_")
		if id > ledgerMigration {
			break // releases with these always mark them
		}
		exec, open := oldDatabase(t, modelstest.SQLite(t), next)
		exec("DELETE FROM bun_migrations WHERE name = '" + id + "'")
		db := open().db
		if !slices.Equal(db.Applied, all[i:]) {
			t.Errorf("%s: applied %q", name, db.Applied)
		}
		if got := sqliteSchema(t, db); got != want {
			t.Errorf("%s: the schema is\n%s\nwant\n%s", name, got, want)
		}
	}
}

// TestNewerSchema opens a database that a newer release has migrated. This release works with it and
// knows about it, unless a migration removed something.
func TestNewerSchema(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		open := func() (*models.DB, error) {
			db, err := models.Open(t.Context(), address)
			if err == nil {
				t.Cleanup(func() { _ = db.Close() })
			}
			return db, err
		}
		db, err := open()
		if err != nil || len(db.Unknown) != 0 {
			t.Fatalf("unknown migrations %q, %v", db.Unknown, err)
		}
		mark := func(id string) {
			t.Helper()
			if _, err := db.ExecContext(t.Context(), "INSERT INTO bun_migrations (name, group_id) VALUES (?, 99)", id); err != nil {
				t.Fatal(err)
			}
		}
		mark("30000101000000")
		again, err := open()
		if err != nil || !slices.Equal(again.Unknown, []string{"30000101000000"}) || len(again.Applied) != 0 {
			t.Fatalf("unknown migrations %q, applied %q, %v", again.Unknown, again.Applied, err)
		}
		if _, err := models.SetUser(t.Context(), again, time.Now(), "ada@example.com", models.UserChange{}); err != nil {
			t.Error(err)
		}
		mark("30000102000000c")
		if _, err := open(); err == nil || !strings.Contains(err.Error(), "start the newer release") ||
			!strings.Contains(err.Error(), "30000102000000c") {
			t.Errorf("a database without something that this release needs: %v", err)
		}
	})
}
