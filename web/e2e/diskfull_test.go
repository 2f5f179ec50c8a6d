//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tollgate/models/modelstest"
)

// On a full disk with SQLite, calls get 503, nothing that was recorded is damaged, and reading
// works. When there is space again, the same process continues.
func TestDiskFull(t *testing.T) {
	t.Run("file size limit", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "tollgate.db")
		diskFull(t, file, func(p *server) (room func() error) {
			// From now on, the kernel lets no file of the process grow beyond the size of the write-ahead
			// log plus 256 KiB.
			info, err := os.Stat(file + "-wal")
			if err != nil {
				t.Fatal(err)
			}
			var free unix.Rlimit
			if err := unix.Prlimit(p.pid(), unix.RLIMIT_FSIZE, nil, &free); err != nil {
				t.Fatal(err)
			}
			full := unix.Rlimit{Cur: uint64(info.Size()) + 256<<10, Max: free.Max}
			if err := unix.Prlimit(p.pid(), unix.RLIMIT_FSIZE, &full, nil); err != nil {
				t.Fatal(err)
			}
			return func() error { return unix.Prlimit(p.pid(), unix.RLIMIT_FSIZE, &free, nil) }
		})
	})
	t.Run("full file system", func(t *testing.T) {
		dir := smallDisk(t, "2m")
		if dir == "" {
			return // the file size limit tests the same
		}
		diskFull(t, filepath.Join(dir, "tollgate.db"), func(*server) (room func() error) {
			return func() error { return syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m") }
		})
	})
}

// smallDisk mounts a small file system in memory and returns its folder. It returns "" if this
// process may not: only root can.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := modelstest.Dir(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			t.Logf("only root can mount a small file system: %v", err)
			return ""
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// diskFull runs a load until the disk is full, which is some time after fill. room makes space
// again.
func diskFull(t *testing.T, file string, fill func(*server) (room func() error)) {
	t.Helper()
	s := newSite(t, "sqlite:"+file, 1)
	p := s.servers[0]
	pid := p.pid()
	l := newLoad(s, "TFULL", 20)
	room := fill(p)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	running := l.start(ctx, 16)
	wait(t, l.turnedAway.more(50), "calls to be refused because the disk is full")

	// Nothing can be recorded, but everything can be read.
	before := len(l.allowed())
	for _, call := range []struct {
		method, path string
		content      any
	}{
		{http.MethodPost, "/v1/check", body{"email": l.emails[0]}},
		{http.MethodPost, "/v1/check", body{"email": "unknown@full.example"}},
		{http.MethodPost, "/v1/check", body{"slack_team_id": l.team, "slack_user_id": "U1"}},
		{http.MethodGet, "/v1/usage/" + l.emails[0], nil},
		{http.MethodGet, "/v1/usage/" + l.emails[0] + "/history", nil},
		{http.MethodGet, "/v1/organizations/" + l.organization + "/usage", nil},
	} {
		if r := s.client.call(t.Context(), p.addr, call.method, call.path, call.content); r.err != nil || r.status != http.StatusOK {
			t.Errorf("%s %s on a full disk: status %d, %v %s", call.method, call.path, r.status, r.err, r.body)
		}
	}
	if status, err := p.get(t.Context(), "/readyz"); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("/readyz on a full disk: status %d, %v; want 503", status, err)
	}
	s.wantIntegrity()
	// A recorded call can be repeated: it writes nothing, unless it is in a group with calls that do.
	for key, g := range l.allowed() {
		r := s.client.insist(t.Context(), s.addresses(), 0, http.MethodPost, "/v1/consume",
			body{"email": g.email, "quantity": g.quantity, "idempotency_key": key})
		if d, err := r.decision(); err != nil || !d.Replayed || *d.EventID != g.id {
			t.Errorf("%s repeated on a full disk: %+v, %v", key, d, err)
		}
		break
	}

	if err := room(); err != nil {
		t.Fatal(err)
	}
	wait(t, l.decided.more(500), "calls to be decided when there is space again")
	stop() // before the load fills the disk again
	running.Wait()
	eventually(t, "it is ready again", func() bool {
		status, err := p.get(t.Context(), "/readyz")
		return err == nil && status == http.StatusOK
	})
	if err := p.alive(); err != nil || p.pid() != pid {
		t.Errorf("the process did not survive: %v", err)
	}
	if broken := s.client.broken.Load(); broken > 0 {
		t.Errorf("%d calls had no answer; each must be answered", broken)
	}
	t.Logf("%d calls were allowed before the disk was full", before)
	s.wantIntegrity()
	s.stopAll()
	s.startAll()
	l.settle()
	s.wantIntegrity()
}

// wantIntegrity lets SQLite check its file, from another process than the server's.
func (s *site) wantIntegrity() {
	s.t.Helper()
	db := s.open()
	var verdict string
	err := errors.Join(db.QueryRowContext(s.t.Context(), "PRAGMA integrity_check").Scan(&verdict), db.Close())
	if err != nil || verdict != "ok" {
		s.t.Errorf("PRAGMA integrity_check says %q, %v; want ok", verdict, err)
	}
}
