//go:build linux

package e2e_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tollgate/models/modelstest"
)

// A backup under load has every unit that was answered before it started, and none twice. It can be
// verified and served.
func TestBackupWhileServing(t *testing.T) {
	dir := modelstest.Dir(t)
	s := newFileSite(t, filepath.Join(dir, "tollgate.db"))
	answers, _, decided, _, _ := s.load(t.Context())
	wait(t, decided.more(200), "calls to be decided")
	file := filepath.Join(dir, "backup.db")
	before := s.ledger()
	stdout, stderr, err := s.try("backup", file)
	if err != nil || stdout != file+"\n" || !strings.HasPrefix(stderr, "wrote ") {
		t.Fatalf("backup: %v, printed %q and %q", err, stdout, stderr)
	}
	wait(t, decided.more(50), "calls to be decided after the backup")
	all := answers()
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v, %v; want mode 0600", info.Mode(), err)
	}
	copied := &site{t: t, database: "sqlite:" + file, program: s.program}
	line := counted(t, copied)
	stored := copied.ledger()
	if want := fmt.Sprintf("%d events counted, the newest recorded at ", len(stored)); !strings.HasPrefix(line, want) {
		t.Errorf("verify prints %q, want %q…", line, want)
	}
	for key, g := range before {
		if stored[key] != g {
			t.Errorf("%q was recorded before the backup started, but is not in it", key)
		}
	}
	for key, g := range stored {
		if all[key] != g {
			t.Errorf("%q is in the backup as %+v, but was answered as %+v", key, g, all[key])
		}
	}
	t.Logf("%d events before it, %d in it, %d at the end", len(before), len(stored), len(all))
	if names, err := filepath.Glob(filepath.Join(dir, "*.partial")); err != nil || len(names) > 0 {
		t.Errorf("files are left: %v, %v", names, err)
	}
	if schema(t, copied.database) != schema(t, s.database) {
		t.Error("the backup has another schema")
	}
}

// backup refuses invalid targets and sources with one line, and changes nothing.
func TestBackupRefuses(t *testing.T) {
	dir := modelstest.Dir(t)
	s := &site{t: t, database: "sqlite:" + filepath.Join(dir, "tollgate.db"), program: program(t)}
	s.command("migrate")
	must(t, os.WriteFile(filepath.Join(dir, "taken"), []byte("mine"), 0o600), os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "old.db-wal"), []byte("left"), 0o600), os.Symlink("nowhere", filepath.Join(dir, "link")))
	list := func() string {
		names, err := os.ReadDir(dir)
		must(t, err)
		return fmt.Sprint(names)
	}
	before := list()
	const exists = "the file exists; choose another name"
	const noDirectory = "no such directory; create it or choose another one"
	for target, cause := range map[string]string{
		"taken": exists, "empty": exists, "link": exists,
		"tollgate.db": exists, ".": "is a directory; name a file in it",
		"tollgate.db-journal": `SQLite uses names that end in "-journal" for parts of a database; choose another name`,
		"new.db-wal":          `SQLite uses names that end in "-wal" for parts of a database; choose another name`,
		"missing/b.db":        noDirectory, "taken/b.db": noDirectory,
		"old.db": fmt.Sprintf("%q is left over from another database; move it away or choose another name", filepath.Join(dir, "old.db-wal")),
	} {
		target = dir + "/" + target
		stdout, stderr, err := s.try("backup", target)
		if want := fmt.Sprintf("tollgate: back up to %q: %s\n", target, cause); err == nil || stdout != "" || stderr != want {
			t.Errorf("%s: %v, %q, %q; want %q", target, err, stdout, stderr, want)
		}
	}
	missing := &site{t: t, database: s.database + "2", program: s.program}
	wantMissing := fmt.Sprintf("open database %q: no such file\n", missing.database)
	if _, stderr, err := missing.try("backup", filepath.Join(dir, "b.db")); err == nil || !strings.HasSuffix(stderr, wantMissing) {
		t.Errorf("a missing database: %v, %s", err, stderr)
	}
	postgres := &site{t: t, database: postgresDatabase(t), program: s.program}
	_, stderr, err := postgres.try("backup", filepath.Join(dir, "b.db"))
	if err == nil || !strings.Contains(stderr, "pg_dump --format=custom") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("PostgreSQL: %v, %s", err, stderr)
	}
	if after := list(); after != before {
		t.Errorf("there are %s, want %s", after, before)
	}
	if content, err := os.ReadFile(filepath.Join(dir, "taken")); err != nil || string(content) != "mine" {
		t.Errorf("the existing file has %q, %v", content, err)
	}
}

// If several backups to one name start at the same time, one succeeds. A backup that is stopped or
// killed leaves no file with the name.
func TestBackupInterrupted(t *testing.T) {
	dir := modelstest.Dir(t)
	path := filepath.Join(dir, "tollgate.db")
	s := &site{t: t, database: "sqlite:" + path, program: program(t)}
	s.command("migrate")
	db := s.open()
	if _, err := db.ExecContext(t.Context(), `INSERT INTO audit_log (id, at, actor, action, subject, detail)
		WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 15000)
		SELECT 'filler ' || i, '2026-01-01 00:00:00+00:00', '', '', '', hex(randomblob(2000)) FROM n`); err != nil {
		t.Fatal(err)
	}
	must(t, db.Close())

	file := filepath.Join(dir, "race.db")
	var all sync.WaitGroup
	var mu sync.Mutex
	succeeded := 0
	for range 4 {
		all.Go(func() {
			_, stderr, err := s.try("backup", file)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				succeeded++
			} else if !strings.Contains(stderr, "the file exists; choose another name") {
				t.Errorf("%v: %s", err, stderr)
			}
		})
	}
	all.Wait()
	if succeeded != 1 {
		t.Errorf("%d of 4 backups to one name succeeded, want 1", succeeded)
	}
	(&site{t: t, database: "sqlite:" + file, program: s.program}).verify()

	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		target := filepath.Join(dir, "stopped.db")
		var stderr bytes.Buffer
		cmd := exec.CommandContext(t.Context(), s.program, "backup", target, "--database", s.database)
		cmd.Env, cmd.Stderr = environment(t), &stderr
		r, err := launch(cmd)
		must(t, err)
		for begun := time.Now(); ; { // until it has written 1 MiB
			names, err := filepath.Glob(target + ".*.partial")
			must(t, err)
			if len(names) > 0 {
				if info, err := os.Stat(names[0]); err == nil && info.Size() > 1<<20 {
					break
				}
			}
			if time.Since(begun) > startPatience {
				t.Fatal("the backup did not start to write")
			}
		}
		must(t, r.process.Signal(signal))
		<-r.exited
		if _, err := os.Stat(target); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v; want no file", signal, err)
		}
		if names, _ := filepath.Glob(target + ".*"); signal == syscall.SIGTERM && (len(names) > 0 || strings.Count(stderr.String(), "\n") != 1) {
			t.Errorf("%s left %v and printed %q", signal, names, stderr.String())
		}
	}
	s.command("backup", filepath.Join(dir, "stopped.db")) // the files of the killed backup do not prevent it
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the source has a -wal file now: %v", err)
	}
}

// A backup copies the database without changes: before an upgrade, neither the backup nor the
// source is migrated.
func TestBackupDoesNotMigrate(t *testing.T) {
	dir := modelstest.Dir(t)
	s := &site{t: t, database: "sqlite:" + filepath.Join(dir, "tollgate.db"), program: program(t)}
	s.command("migrate")
	db := s.open()
	_, err := db.ExecContext(t.Context(), `DELETE FROM bun_migrations WHERE name = '20261128010000'; DROP INDEX usage_events_unsealed`)
	must(t, err, db.Close())
	want := schema(t, s.database)
	s.command("backup", filepath.Join(dir, "b.db"))
	if schema(t, s.database) != want || schema(t, "sqlite:"+filepath.Join(dir, "b.db")) != want {
		t.Error("the backup or its source was migrated")
	}
}

// verify prints how many events it counted and when the newest one was recorded, so that a copy
// with missing events is noticed.
func TestVerifyPrintsItsCount(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			s := newSite(t, kind.database(t), 1)
			if got := counted(t, s); got != "0 events counted" {
				t.Errorf("without events: %q", got)
			}
			begun := time.Now().Truncate(time.Microsecond)
			for i := range 3 {
				r := s.client.call(t.Context(), s.servers[0].addr, "POST", "/v1/consume",
					body{"email": "ada@example.com", "idempotency_key": fmt.Sprint(i)})
				if d, err := r.decision(); err != nil || !d.Allowed {
					t.Fatal(d, err)
				}
				if i == 0 {
					if got := counted(t, s); !strings.HasPrefix(got, "1 event counted, recorded at 2") {
						t.Errorf("with one event: %q", got)
					}
				}
			}
			ended := time.Now()
			line := counted(t, s)
			at, ok := strings.CutPrefix(line, "3 events counted, the newest recorded at ")
			newest, err := time.Parse(time.RFC3339, at)
			if !ok || err != nil || newest.Before(begun) || newest.After(ended) || newest.Location() != time.UTC {
				t.Errorf("with three events: %q, %v; want a time from %s to %s", line, err, begun, ended)
			}
		})
	}
}

// A plain copy of a running server's file, without its log, lacks the newest events. The count of
// verify shows this.
func TestVerifyShowsMissingEvents(t *testing.T) {
	s := newSite(t, sqliteDatabase(t), 1)
	for i := range 5 {
		s.client.insist(t.Context(), s.addresses(), 0, "POST", "/v1/consume", body{"email": "ada@example.com", "idempotency_key": fmt.Sprint(i)})
	}
	path := strings.TrimPrefix(s.database, "sqlite:")
	db, err := sql.Open("sqlite", "file:"+path+"?mode=rw")
	must(t, err)
	for busy, begun := 1, time.Now(); busy != 0; { // while the server reads or writes
		var pages, moved int
		must(t, db.QueryRowContext(t.Context(), "PRAGMA wal_checkpoint(FULL)").Scan(&busy, &pages, &moved))
		if time.Since(begun) > 10*time.Second {
			t.Fatal("the log could not be moved into the file")
		}
	}
	must(t, db.Close())
	for i := range 4 {
		s.client.insist(t.Context(), s.addresses(), 0, "POST", "/v1/consume",
			body{"email": "bob@example.com", "idempotency_key": fmt.Sprint("b", i)})
	}
	content, err := os.ReadFile(path)
	must(t, err, os.WriteFile(path+".copy", content, 0o600))
	copied := &site{t: t, database: s.database + ".copy", program: s.program}
	all, some := counted(t, s), counted(t, copied)
	if !strings.HasPrefix(all, "9 events counted, ") || !strings.HasPrefix(some, "5 events counted, ") {
		t.Errorf("verify prints %q for the database and %q for its copy", all, some)
	}
}

// A database error is one line: the address without its password, then the cause.
func TestDatabaseErrorsAreOneLine(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "text"), []byte(strings.Repeat("no database ", 100)), 0o600),
		os.Symlink("nowhere", filepath.Join(dir, "link")))
	c, _ := sharedCluster(t)
	server := c.URL("")
	server = server[strings.Index(server, "@"):strings.LastIndex(server, "/")]
	const unknownAddress = `the database must be "sqlite:FILE" or "postgres://USER@HOST/NAME"`
	for address, says := range map[string]string{
		"sqlite:" + dir + "/missing/x.db":        "no such directory; create it or change --database",
		"sqlite:" + dir:                          "is a directory; name a file in --database",
		"sqlite:" + dir + "/text":                "not a SQLite database; change --database",
		"sqlite:" + dir + "/text/x.db":           "not a directory",
		"sqlite:" + dir + "/link":                "a symbolic link to a file that does not exist; create that file or change --database",
		"sqlite:":                                unknownAddress + `: "sqlite:" names no file`,
		"postgres://ada@127.0.0.1:1/x":           "connection refused; start PostgreSQL or change --database",
		"postgres://ada@nowhere.invalid/x":       "no such host; change --database",
		"postgres://postgres" + server + "/none": `database "none" does not exist; create it or change --database`,
		"postgres://unknown-role" + server + "/postgres": `role "unknown-role" does not exist; ` +
			"change the user in --database (default: the user of this process), or pg_hba.conf",
		"postgres://ada@/x?host=" + dir: "no such socket; start PostgreSQL or change --database",
		"postgres://postgres" + server + "/postgres?sslmode=require": "server refused TLS connection; check sslmode and sslrootcert " +
			"in --database, and the server's TLS settings",
		"postgres://ada@127.0.0.1:1/x?sslmode=perhaps": "invalid address: failed to configure TLS (sslmode is invalid)",
		"mysql://ada@127.0.0.1/x":                      unknownAddress,
	} {
		given := strings.Replace(address, "@", ":sekret@", 1)
		stdout, stderr, err := execute(t, program(t), "verify", "--database", given)
		if want := fmt.Sprintf("tollgate: open database %q: %s\n", address, says); err == nil || stdout != "" || stderr != want {
			t.Errorf("%v, %q%q\nwant %q", err, stdout, stderr, want)
		}
	}
	for _, given := range []string{
		"postgres://ada:sek%ret@127.0.0.1:1/x", "postgres://ada:sek#ret@127.0.0.1:1/x", "postgres://ada:sek/ret@127.0.0.1:1/x",
		"postgres://ada:sek?ret@127.0.0.1:1/x", "postgres://ada:sek%kr/ret@127.0.0.1:1/x", "postgres://ada:sek/se?ret@127.0.0.1:1/x",
		"postgres://ada:sek@se ret@127.0.0.1:1/x",
		"postgres://ada:sek@ret@127.0.0.1:1/x", "postgres://ada@127.0.0.1:1/x?password=sekret", "postgres://ada@127.0.0.1:port/x?password=sekret",
	} {
		_, stderr, err := execute(t, program(t), "verify", "--database", given)
		if err == nil || !strings.HasPrefix(stderr, `tollgate: open database "postgres://`) || strings.Count(stderr, "\n") != 1 ||
			strings.Contains(stderr, "sek") || strings.Contains(strings.ReplaceAll(stderr, "secret", ""), "ret@") {
			t.Errorf("%s: %v, %s", given, err, stderr)
		}
		const hint = "; in the user name and password, write @ as %40 and / as %2F\n"
		password, _, found := strings.Cut(strings.TrimPrefix(given, "postgres://ada:"), "ret@")
		if found && strings.ContainsAny(password, "@/") && !strings.HasSuffix(stderr, hint) {
			t.Errorf("%s: no hint about the password in %s", given, stderr)
		}
	}
}
