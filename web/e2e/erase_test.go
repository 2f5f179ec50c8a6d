//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A person with thousands of events is erased while calls with their address continue. The command is
// killed in the middle and run again. No unit is lost, and none of the old rows has the address.
func TestEraseWhileServing(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			s := newSite(t, kind.database(t), 1)
			_, emails := s.business("TERASE", 2)
			e := &eraseTest{site: s, addr: s.servers[0].addr, email: emails[0], db: s.open()}
			e.recordPast(10)
			id := e.preview()
			holds := e.hold(3)

			ctx, stop := context.WithCancel(t.Context())
			var calls sync.WaitGroup
			calls.Go(func() { e.consumeUntil(ctx) })
			defer calls.Wait()
			defer stop()
			wait(t, e.allowed.more(5), "calls to be allowed")
			used := func() (units int) {
				e.scan(&units, "SELECT CAST(SUM(suggestions_used) AS bigint) FROM usage_records WHERE user_id = $1", id)
				return units
			}
			e.kill(id)
			before := used()
			e.settle(holds[0], 2)
			if label := e.erase(id); label != id+"@erased.invalid" {
				t.Errorf("printed %q", label)
			}
			e.settle(holds[1], 1)
			e.release(holds[2])
			if after := used(); after != before+3 {
				t.Errorf("the person used %d, after the settlements %d, want %d", before, after, before+3)
			}
			wait(t, e.refused.more(1), "the new person to reach the limit of the free plan")
			stop()
			calls.Wait()

			var left int
			for _, table := range []string{"usage_events", "usage_holds", "usage_records"} {
				e.scan(&left, "SELECT COUNT(*) FROM "+table+" WHERE user_id = $1 AND email <> $2", id, id+"@erased.invalid")
				if left > 0 {
					t.Errorf("%d rows of %s have another label", left, table)
				}
			}
			e.scan(&left, "SELECT COUNT(*) FROM usage_events WHERE user_id = $1 AND idempotency_key LIKE 'erase-%'", id)
			if left > 0 {
				t.Errorf("%d events have their key", left)
			}
			var total int
			e.scan(&total, "SELECT CAST(SUM(quantity) AS bigint) FROM usage_events")
			if want := 10_000 + 3 + e.allowed.now(); total != want {
				t.Errorf("%d units are recorded, want %d", total, want)
			}
			e.scan(&left, "SELECT COUNT(*) FROM audit_log WHERE action = 'user.erase' AND subject = $1", id)
			if left != 1 {
				t.Errorf("the audit log has %d erasures", left)
			}
			r := e.post("/v1/consume", body{"email": id + "@erased.invalid", "idempotency_key": "x"})
			if r.status != http.StatusUnprocessableEntity {
				t.Errorf("a call with the label was answered with %d: %s", r.status, r.body)
			}
			if err := e.db.Close(); err != nil {
				t.Error(err)
			}
			s.verify()
		})
	}
}

// eraseTest erases a person of a site.
type eraseTest struct {
	*site
	addr, email string
	db          *sql.DB

	allowed, refused count
}

func (e *eraseTest) scan(into any, query string, args ...any) {
	e.t.Helper()
	if err := e.db.QueryRowContext(e.t.Context(), query, args...).Scan(into); err != nil {
		e.t.Fatal(err)
	}
}

func (e *eraseTest) post(path string, content body) *reply {
	return e.client.call(e.t.Context(), e.addr, http.MethodPost, path, content)
}

// recordPast records thousands of events.
func (e *eraseTest) recordPast(thousands int) {
	e.t.Helper()
	for n := range thousands {
		events := make([]body, 1000)
		for i := range events {
			events[i] = body{"email": e.email, "quantity": 1, "idempotency_key": fmt.Sprintf("erase-past-%d-%d", n, i),
				"occurred_at": time.Now().UTC().Format(time.RFC3339)}
		}
		if r := e.post("/v1/events", body{"events": events}); r.status != http.StatusOK || !bytes.Contains(r.body, []byte(`"recorded"`)) {
			e.t.Fatalf("recording was answered with %d: %.300s, %v", r.status, r.body, r.err)
		}
	}
}

// preview returns the ID that `user erase` prints without --yes.
func (e *eraseTest) preview() string {
	e.t.Helper()
	stdout, stderr, err := e.try("user", "erase", e.email)
	id := regexp.MustCompile(`ID:\s+([0-9a-f-]{36})`).FindStringSubmatch(stdout)
	if err != nil || id == nil || !strings.Contains(stdout, "events: 10000") ||
		!strings.Contains(stderr, "Nothing was changed") || !strings.Contains(stderr, "tollgate user erase "+e.email+" --yes "+id[1]) {
		e.t.Fatalf("the preview is %q and %q, %v", stdout, stderr, err)
	}
	return id[1]
}

// hold makes holds of two units each.
func (e *eraseTest) hold(n int) (ids []string) {
	e.t.Helper()
	for i := range n {
		var answer struct{ Hold struct{ ID string } }
		r := e.post("/v1/holds", body{"email": e.email, "quantity": 2, "idempotency_key": fmt.Sprint("erase-hold-", i), "ttl_seconds": 600})
		if err := r.read(http.StatusOK, &answer); err != nil || answer.Hold.ID == "" {
			e.t.Fatalf("a hold: %v, %s", err, r.body)
		}
		ids = append(ids, answer.Hold.ID)
	}
	return ids
}

func (e *eraseTest) settle(hold string, quantity int) {
	e.t.Helper()
	if r := e.post("/v1/holds/"+hold+"/settle", body{"quantity": quantity}); r.status != http.StatusOK {
		e.t.Errorf("a settlement was answered with %d: %s", r.status, r.body)
	}
}

func (e *eraseTest) release(hold string) {
	e.t.Helper()
	if r := e.post("/v1/holds/"+hold+"/release", body{}); r.status != http.StatusOK {
		e.t.Errorf("a release was answered with %d: %s", r.status, r.body)
	}
}

// consumeUntil makes one call after another with the person's address until ctx ends.
func (e *eraseTest) consumeUntil(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		d, err := e.post("/v1/consume", body{"email": e.email, "idempotency_key": fmt.Sprint("erase-live-", n)}).decision()
		switch {
		case err != nil:
			e.t.Errorf("call %d: %v", n, err)
			return
		case d.Email != e.email:
			e.t.Errorf("call %d was answered for %s", n, d.Email)
		case d.Allowed:
			e.allowed.add()
		default:
			e.refused.add()
		}
	}
}

// kill starts the erasure, and kills it when some of the events are changed.
func (e *eraseTest) kill(id string) {
	e.t.Helper()
	cmd := exec.CommandContext(e.t.Context(), e.program, "user", "erase", e.email, "--yes", id, "--database", e.database)
	cmd.Env = environment(e.t)
	r, err := launch(cmd)
	if err != nil {
		e.t.Fatal(err)
	}
	var changed int
	eventually(e.t, "some events to be changed", func() bool {
		e.scan(&changed, "SELECT COUNT(*) FROM usage_events WHERE user_id = $1 AND email = $2", id, id+"@erased.invalid")
		return changed > 0
	})
	if err := r.process.Signal(syscall.SIGKILL); err != nil {
		e.t.Fatal(err)
	}
	<-r.exited
	var all, marks int
	e.scan(&changed, "SELECT COUNT(*) FROM usage_events WHERE user_id = $1 AND email = $2", id, id+"@erased.invalid")
	e.scan(&all, "SELECT COUNT(*) FROM usage_events WHERE user_id = $1", id)
	e.scan(&marks, "SELECT COUNT(*) FROM user_erasures WHERE user_id = $1", id)
	if changed >= all || marks != 1 {
		e.t.Fatalf("it was killed after it changed %d of %d events, with %d marks", changed, all, marks)
	}
	e.t.Logf("killed after %d of %d events", changed, all)
}

// erase runs the same command again, and returns what it prints.
func (e *eraseTest) erase(id string) string {
	e.t.Helper()
	begun := time.Now()
	// The command rests after each step, in proportion to the step. On a busy machine, it takes long.
	cmd := exec.CommandContext(e.t.Context(), e.program, "user", "erase", e.email, "--yes", id, "--database", e.database)
	cmd.Env = environment(e.t)
	label, err := cmd.Output()
	if err != nil {
		e.t.Fatalf("the erasure failed: %v", withOutput(err))
	}
	e.t.Logf("finished in %s", time.Since(begun).Round(time.Millisecond))
	return strings.TrimSpace(string(label))
}

// TestExportCommand exports a person to a file, to a closed pipe and to a full disk.
func TestExportCommand(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			s := shell{t, kind.database(t)}
			id := parseID(t, s.ok("user", "set", "ada@example.com"))
			var document struct {
				Person struct{ ID, Email string }
			}
			if err := json.Unmarshal([]byte(s.ok("user", "export", "Ada@example.com")), &document); err != nil || document.Person.ID != id {
				t.Errorf("exported %+v, %v", document, err)
			}
			s.fails(1, "There is no user bob@example.com", "user", "export", "bob@example.com")
			full := exec.CommandContext(t.Context(), "sh", "-c", `exec "$0" user export ada@example.com >/dev/full`, program(t))
			full.Env = append(environment(t), "DATABASE_URL="+s.database)
			if out, err := full.CombinedOutput(); err == nil || !strings.Contains(string(out), "no space left on device") {
				t.Errorf("with a full disk: %v, %s", err, out)
			}
			closed := exec.CommandContext(t.Context(), program(t), "user", "export", "ada@example.com")
			closed.Env = full.Env
			var stderr bytes.Buffer
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			closed.Stdout, closed.Stderr = write, &stderr
			if err := errors.Join(read.Close(), closed.Start(), write.Close()); err != nil {
				t.Fatal(err)
			}
			if err := closed.Wait(); err == nil || strings.Contains(stderr.String(), "goroutine") {
				t.Errorf("with a closed pipe: %v, %s", err, &stderr)
			}
		})
	}
}
