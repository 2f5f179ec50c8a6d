//go:build linux

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// clocked are the packages that read the clock. All others get it from these, or measure durations.
var clocked = []string{"tollgate", "tollgate/web", "tollgate/web/cli", "tollgate/models/enforcement"}

// shiftedProgram builds tollgate with a clock that a test can set, and returns its path. Only the
// build differs: testdata/shiftedclock.go replaces time.Now in the packages above. Setting the
// machine's clock would affect every other program.
var shiftedProgram = sync.OnceValues(buildShifted)

func buildShifted() (path string, err error) {
	made.Lock()
	dir := made.dir
	made.Unlock()
	ctx := context.Background() // all tests share the program
	format := "{{range .GoFiles}}{{$.Dir}}/{{.}}\n{{end}}"
	list, err := exec.CommandContext(ctx, "go", append([]string{"list", "-f", format}, clocked...)...).Output()
	if err != nil {
		return "", fmt.Errorf("list the product's files: %w", withOutput(err))
	}
	clock, err := filepath.Abs("testdata/shiftedclock.go")
	if err != nil {
		return "", err
	}
	root := filepath.Dir(filepath.Dir(filepath.Dir(filepath.Dir(clock))))
	overlay := struct{ Replace map[string]string }{map[string]string{root + "/models/shiftedclock/clock.go": clock}}
	for i, file := range strings.Fields(string(list)) {
		source, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		if !calls.Match(source) {
			continue
		}
		source = calls.ReplaceAll(source, []byte("shiftedclock.Now"))
		source = packageClause.ReplaceAll(source, []byte(`$0; import "tollgate/models/shiftedclock"`))
		source = append(source, "\nvar _ time.Time\n"...) // the import of time may be unused now
		changed := filepath.Join(dir, fmt.Sprintf("shifted-%d.go", i))
		if err := os.WriteFile(changed, source, 0o600); err != nil {
			return "", err
		}
		overlay.Replace[file] = changed
	}
	replaced, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	config := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(config, replaced, 0o600); err != nil {
		return "", err
	}
	path = filepath.Join(dir, "tollgate-shifted")
	build := exec.CommandContext(ctx, "go", "build", "-race=false", "-pgo=off", "-overlay", config, "-o", path, "tollgate")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tollgate with another clock: %w\n%s", err, output)
	}
	return path, nil
}

var (
	calls         = regexp.MustCompile(`\btime\.Now\b`)
	packageClause = regexp.MustCompile(`(?m)^package \w+`)
)

// withClock gives a server that is not started a clock. set puts it ahead of the machine's.
func withClock(t *testing.T, p *server) (set func(ahead time.Duration)) {
	t.Helper()
	path, err := shiftedProgram()
	if err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(t.TempDir(), "clock")
	must(t, syscall.Mkfifo(pipe, 0o600))
	p.path, p.env = path, append(p.env, "TOLLGATE_TEST_CLOCK="+pipe)
	return func(ahead time.Duration) {
		t.Helper()
		w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
		must(t, err)
		_, err = fmt.Fprintln(w, ahead)
		must(t, err, w.Close())
	}
}

// clockAhead returns how far a server's clock is ahead, according to the end of a new hold.
func (s *site) clockAhead(p *server, key string) time.Duration {
	s.t.Helper()
	r := s.client.insist(s.t.Context(), []string{p.addr}, 0, http.MethodPost, "/v1/holds",
		body{"email": "clock@example.com", "quantity": 1, "ttl_seconds": 60, "idempotency_key": key})
	var held struct {
		Hold struct {
			ID      string
			Expires time.Time `json:"expires_at"`
		}
	}
	if err := r.read(http.StatusOK, &held); err != nil {
		s.t.Fatal(err)
	}
	ahead := time.Until(held.Hold.Expires) - time.Minute
	r = s.client.insist(s.t.Context(), []string{p.addr}, 0, http.MethodPost, "/v1/holds/"+held.Hold.ID+"/release", nil)
	if _, err := r.decision(); err != nil {
		s.t.Error(err)
	}
	return ahead.Round(time.Minute)
}
