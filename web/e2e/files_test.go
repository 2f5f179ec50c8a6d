//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tollgate/models/modelstest"
)

// fileSite is a server on a SQLite file that the test moves, deletes or replaces. Hard links keep
// the files.
type fileSite struct {
	*site
	path string // of the database
	kept string // of the hard link to it; there is one to the log, too
}

func newFileSite(t *testing.T, path string) *fileSite {
	t.Helper()
	s := &fileSite{site: newSite(t, "sqlite:"+path, 1), path: path, kept: filepath.Join(filepath.Dir(path), "kept.db")}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal"} {
		if err := os.Link(target+suffix, s.kept+suffix); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// load consumes with 16 clients until stop, for more and more new people. Calls that start after
// gone was set must not get 200.
func (s *fileSite) load(ctx context.Context) (answers func() ledger, gone *atomic.Bool, decided, refused *count, stop func()) {
	gone, decided, refused = &atomic.Bool{}, &count{}, &count{}
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	all := ledger{}
	var running sync.WaitGroup
	running.Go(func() {
		spread(ctx, 16, 1<<30, func(i int) {
			key, email := fmt.Sprintf("file-%d", i), fmt.Sprintf("p%d@file.example", i/5)
			late := gone.Load()
			r := s.client.call(s.t.Context(), s.servers[0].addr, http.MethodPost, "/v1/consume",
				body{"email": email, "idempotency_key": key})
			if r.status == http.StatusServiceUnavailable {
				refused.add()
				return
			}
			d, err := r.decision()
			if err != nil || !d.Allowed || late && gone.Load() {
				s.t.Errorf("%s (started without a file: %t) was answered with %d %+v, %v", key, late, r.status, d, err)
				return
			}
			mu.Lock()
			all[key] = grant{*d.EventID, email, 1}
			mu.Unlock()
			decided.add()
		})
	})
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	s.t.Cleanup(stop)
	return func() ledger { stop(); return all }, gone, decided, refused, stop
}

// wantEveryGrant checks that each call that got 200 has its event in the database file.
func (s *fileSite) wantEveryGrant(answers ledger, file string) {
	s.t.Helper()
	kept := &site{t: s.t, database: "sqlite:" + file, program: s.program}
	kept.verify()
	stored := kept.ledger()
	lost := 0
	for key, g := range answers {
		if stored[key] != g {
			lost++
		}
	}
	s.t.Logf("%d calls got 200, %d events are stored", len(answers), len(stored))
	if lost > 0 {
		s.t.Errorf("%d of %d calls that got 200 have no event", lost, len(answers))
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// A server whose file is moved, deleted or replaced answers every call with 503 from then on, and
// loses no call that got 200.
func TestDatabaseFileRemoved(t *testing.T) {
	for name, c := range map[string]struct {
		take    func(t *testing.T, path string)
		back    func(path string) error // puts the file back; nil if the case does not
		missing bool                    // there is no file then, and none may be created
		link    bool                    // the path is a symbolic link
	}{
		"moved and moved back": {
			take:    func(t *testing.T, path string) { must(t, os.Rename(path, path+".away")) },
			back:    func(path string) error { return os.Rename(path+".away", path) },
			missing: true,
		},
		"deleted": {take: func(t *testing.T, path string) { must(t, os.Remove(path)) }, missing: true},
		"deleted with its log": {missing: true, take: func(t *testing.T, path string) {
			must(t, os.Remove(path), os.Remove(path+"-wal"), os.Remove(path+"-shm"))
		}},
		"replaced":    {take: func(t *testing.T, path string) { must(t, os.Rename(path+".other", path)) }},
		"log deleted": {take: func(t *testing.T, path string) { must(t, os.Remove(path+"-wal")) }},
		"link changed": {link: true, take: func(t *testing.T, path string) {
			must(t, os.Symlink(path+".other", path+".link"), os.Rename(path+".link", path))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := modelstest.Dir(t)
			path := filepath.Join(dir, "tollgate.db")
			if c.link {
				must(t, os.Mkdir(filepath.Join(dir, "real"), 0o755),
					os.WriteFile(filepath.Join(dir, "real", "tollgate.db"), nil, 0o600))
				must(t, os.Symlink(filepath.Join(dir, "real", "tollgate.db"), path))
			}
			(&site{t: t, database: "sqlite:" + path + ".other", program: program(t)}).command("migrate")
			s := newFileSite(t, path)
			p := s.servers[0]
			answers, gone, decided, refused, stop := s.load(t.Context())
			wait(t, decided.more(200), "calls to be decided")
			c.take(t, path)
			gone.Store(true)
			wait(t, refused.more(100), "calls to be refused")
			if c.back == nil {
				stop()
			}
			for _, page := range []string{"/readyz", "/", "/plans", "/sign-in", "/usage", "/sign-in/ABCDEFGHIJKLMNOPQRSTUVWXYZ"} {
				if status, err := p.get(t.Context(), page); err != nil || status != http.StatusServiceUnavailable {
					t.Errorf("%s: %d, %v; want 503", page, status, err)
				}
			}
			for _, path := range []string{"/v1/usage/a@b.example", "/v1/usage/a@b.example/history"} {
				if r := s.client.call(t.Context(), p.addr, http.MethodGet, path, nil); r.status != http.StatusServiceUnavailable {
					t.Errorf("%s: %d; want 503", path, r.status)
				}
			}
			r := s.client.call(t.Context(), p.addr, http.MethodPost, "/v1/check", body{"email": "a@b.example"})
			if r.status != http.StatusServiceUnavailable {
				t.Errorf("check: %d; want 503", r.status)
			}
			if status, err := p.get(t.Context(), "/healthz"); err != nil || status != http.StatusOK {
				t.Errorf("/healthz: %d, %v; want 200", status, err)
			}
			if _, err := os.Stat(path); c.missing && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a file was created: %v", err)
			}
			log, want := p.log.String(), "the database file was replaced, moved or deleted"
			if strings.Count(log, `"level":"ERROR"`) != 1 || !strings.Contains(log, want) {
				t.Errorf("want one error in the log:\n%s", log)
			}
			file := s.kept
			if c.back != nil {
				gone.Store(false)
				must(t, c.back(path))
				wait(t, decided.more(100), "calls to be decided with the file back in its place")
				file = path
			}
			all := answers()
			s.judge()
			if _, err := p.stop(); err != nil {
				t.Error(err)
			}
			if c.back != nil {
				must(t, os.Remove(s.kept+"-wal"), os.Remove(s.kept)) // the log was written back, and SQLite checks links
			}
			s.wantEveryGrant(all, file)
			if other := path + ".other"; name == "replaced" || c.link {
				if name == "replaced" {
					other = path
					must(t, os.Remove(path+"-wal"), os.Remove(path+"-shm"))
				}
				if stored := (&site{t: t, database: "sqlite:" + other, program: s.program}).ledger(); len(stored) > 0 {
					t.Errorf("%d events went into the other file", len(stored))
				}
			}
		})
	}
}

// A new file is never created next to leftover files of another database.
func TestLeftoverFiles(t *testing.T) {
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		path := filepath.Join(modelstest.Dir(t), "tollgate.db")
		must(t, os.WriteFile(path+suffix, []byte("left"), 0o600))
		_, stderr, err := execute(t, program(t), "migrate", "--database", "sqlite:"+path)
		want := fmt.Sprintf("tollgate: open database %q: no such file, but %q still exists and may have the newest events; "+
			"put the database file back next to it, or move the leftover file away to begin with an empty database\n", "sqlite:"+path, path+suffix)
		if err == nil || stderr != want {
			t.Errorf("%s: %v, %s", suffix, err, stderr)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the file was created: %v", suffix, err)
		}
		if content, err := os.ReadFile(path + suffix); err != nil || string(content) != "left" {
			t.Errorf("%s has %q, %v", suffix, content, err)
		}
		// SQLite would delete a log next to an empty file.
		if suffix == "-wal" {
			must(t, os.WriteFile(path, nil, 0o600))
			_, stderr, err := execute(t, program(t), "migrate", "--database", "sqlite:"+path)
			if err == nil || !strings.Contains(stderr, "the file is empty, but") {
				t.Errorf("an empty file: %v, %s", err, stderr)
			}
			if content, err := os.ReadFile(path + suffix); err != nil || string(content) != "left" {
				t.Errorf("next to an empty file, %s has %q, %v", suffix, content, err)
			}
		}
	}
}

// New files can be read only by their owner, whatever the umask is. An existing file keeps its
// mode.
func TestFileModes(t *testing.T) {
	serve := func(path string) *server {
		t.Helper()
		s := newServer(t, "process", "sqlite:"+path)
		s.path, s.args = "/bin/sh", append([]string{"-c", `umask 0; exec "$0" "$@"`, s.path}, s.args...)
		must(t, s.start(t.Context()))
		return s
	}
	modes := func(path string, want fs.FileMode) {
		t.Helper()
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if info, err := os.Stat(path + suffix); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v; want %v", filepath.Base(path+suffix), info.Mode(), err, want)
			}
		}
	}
	path := filepath.Join(modelstest.Dir(t), "tollgate.db")
	s := serve(path)
	modes(path, 0o600)
	if _, err := s.stop(); err != nil {
		t.Error(err)
	}
	// A stop writes the log back, so the database is one file.
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("after a stop there are %v, %v; want only the file", names, err)
	}
	must(t, os.Chmod(path, 0o640))
	serve(path)
	modes(path, 0o640)
}

// With a read-only file or directory, no command starts, and no files are left.
func TestReadOnlyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tollgate.db")
	if os.Geteuid() == 0 {
		must(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"))
		t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	}
	s := &site{t: t, database: "sqlite:" + path, program: program(t)}
	s.command("migrate")
	if os.Geteuid() == 0 { // file modes do not apply to root
		must(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=8m"))
	} else {
		must(t, os.Chmod(path, 0o400))
	}
	for _, args := range [][]string{{"serve", "--listen", "127.0.0.1:0"}, {"verify"}, {"migrate"}} {
		_, stderr, err := s.try(args...)
		want := fmt.Sprintf("tollgate: open database %q: the file is read-only (", s.database)
		if err == nil || !strings.HasPrefix(stderr, want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: %v, %s", args, err, stderr)
		}
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("%v, %v; want only the file", names, err)
	}
}

// If the files become read-only under a server, or are overwritten, every request gets 503 or its
// usual answer, and none gets 500.
func TestUnusableDatabaseFile(t *testing.T) {
	immutable := func(t *testing.T, path string, set bool) error {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		if err != nil {
			return err
		}
		if flags &^= unix.STATX_ATTR_IMMUTABLE; set {
			flags |= unix.STATX_ATTR_IMMUTABLE // FS_IMMUTABLE_FL has the same value
		}
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
	}
	for name, spoil := range map[string]func(t *testing.T, path string) bool{
		"read-only": func(t *testing.T, path string) bool {
			for _, suffix := range []string{"", "-wal"} {
				if err := immutable(t, path+suffix, true); err != nil {
					t.Logf("only root on some file systems can make a file immutable: %v", err)
					return false
				}
				t.Cleanup(func() { _ = immutable(t, path+suffix, false) }) // the file may be deleted by then
			}
			return true
		},
		"mode 0444": func(t *testing.T, path string) bool {
			must(t, os.Chmod(path, 0o444))
			return true
		},
		"overwritten": func(t *testing.T, path string) bool {
			must(t, os.WriteFile(path+"-wal", nil, 0o600),
				os.WriteFile(path, []byte(strings.Repeat("not a database", 50_000)), 0o600))
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "tollgate.db")
			s := newSite(t, "sqlite:"+path, 1)
			p := s.servers[0]
			call := func(content body, path string) *reply {
				return s.client.call(t.Context(), p.addr, http.MethodPost, path, content)
			}
			if r := call(body{"email": "ada@example.com", "idempotency_key": "k"}, "/v1/consume"); r.status != http.StatusOK {
				t.Fatalf("%d %s", r.status, r.body)
			}
			s.command("user", "set", "ada@example.com", "--operator")
			browser := signedIn(t, s, "ada@example.com")
			link := s.command("sign-in", "ada@example.com", "--base-url", "http://"+p.addr)
			if !spoil(t, path) {
				return
			}
			writes := map[string]*reply{
				"consume": call(body{"email": "ada@example.com", "idempotency_key": "k2"}, "/v1/consume"),
				"hold":    call(body{"email": "ada@example.com", "idempotency_key": "h", "quantity": 1}, "/v1/holds"),
				"events": call(body{"events": []body{{"email": "ada@example.com", "idempotency_key": "e", "quantity": 1,
					"occurred_at": time.Now().UTC().Format(time.RFC3339)}}}, "/v1/events"),
				"new person": call(body{"email": "bob@example.com", "idempotency_key": "k3"}, "/v1/consume"),
				"link":       call(body{"email": "cy@example.com", "slack_team_id": "T9", "slack_user_id": "U9"}, "/v1/check"),
			}
			for what, r := range writes {
				if r.status != http.StatusServiceUnavailable {
					t.Errorf("%s: %d %s; want 503", what, r.status, r.body)
				}
			}
			call(body{"email": "ada@example.com"}, "/v1/check")
			for _, path := range []string{
				"/v1/usage/ada@example.com", "/v1/usage/ada@example.com/history",
				"/v1/organizations/018f0000-0000-7000-8000-000000000000/usage",
			} {
				s.client.call(t.Context(), p.addr, http.MethodGet, path, nil)
			}
			for _, r := range []struct{ method, path string }{
				{"GET", "/"}, {"GET", "/plans"}, {"GET", "/usage"}, {"GET", "/org"}, {"GET", "/org/members"}, {"GET", "/settings"},
				{"GET", "/ops"}, {"GET", "/readyz"},
				{"GET", strings.TrimPrefix(link, "http://"+p.addr)}, {"POST", strings.TrimPrefix(link, "http://"+p.addr)},
				{"POST", "/usage/spend-limit"}, {"POST", "/usage"}, {"POST", "/sign-out"},
			} {
				request, err := http.NewRequestWithContext(t.Context(), r.method, "http://"+p.addr+r.path, http.NoBody)
				must(t, err)
				response, err := browser.Do(request)
				must(t, err)
				_ = response.Body.Close()
				if response.StatusCode == http.StatusInternalServerError {
					t.Errorf("%s %s: 500", r.method, r.path)
				}
			}
			s.judge() // for the API: no 500, and each 503 is valid
		})
	}
}

// signedIn returns a client with a session.
func signedIn(t *testing.T, s *site, email string) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	must(t, err)
	browser := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	link := s.command("sign-in", email, "--base-url", "http://"+s.servers[0].addr)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, link, http.NoBody)
	must(t, err)
	response, err := browser.Do(request)
	must(t, err)
	_ = response.Body.Close()
	if response.StatusCode != http.StatusSeeOther {
		t.Fatalf("sign in: %d", response.StatusCode)
	}
	return browser
}
