//go:build linux

package e2e_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// listening is the command while it serves.
type listening struct {
	*exec.Cmd
	url    string
	out    *bufio.Reader
	stderr *bytes.Buffer
}

func start(t *testing.T, args ...string) *listening {
	t.Helper()
	return startWith(t, nil, args...)
}

// startWith starts it with variables.
func startWith(t *testing.T, variables []string, args ...string) *listening {
	t.Helper()
	s := &listening{Cmd: tollgate(t, variables, args...), stderr: &bytes.Buffer{}}
	s.Stderr = s.stderr
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Process.Kill(); _ = s.Wait() })
	s.out = bufio.NewReader(out)
	line, err := s.out.ReadString('\n')
	if err != nil {
		_ = s.Wait()
		t.Fatalf("%v: %s", err, s.stderr)
	}
	var found bool
	if s.url, found = strings.CutPrefix(strings.TrimSpace(line), "listening on "); !found {
		t.Fatalf("printed %q", line)
	}
	return s
}

func (s *listening) get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s %v", url, response.Status, body, err)
	}
	return string(body)
}

// stop sends the signal once and returns the exit status.
func (s *listening) stop(t *testing.T, signal os.Signal) int {
	t.Helper()
	if err := s.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, s.out) // until it has ended: Wait closes the pipe
	_ = s.Wait()
	return s.ProcessState.ExitCode()
}

func TestServe(t *testing.T) {
	s := start(t, "serve", "--database", sqliteDatabase(t), "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
	if strings.HasSuffix(s.url, ":0") || !strings.HasPrefix(s.url, "http://127.0.0.1:") {
		t.Errorf("listens on %q", s.url)
	}
	s.get(t, s.url+"/healthz")
	s.get(t, s.url+"/readyz")
	if document := s.get(t, s.url+"/v1/openapi.json"); !strings.Contains(document, s.url) {
		t.Error("the document does not name the address that is listened on")
	}

	address := strings.TrimPrefix(s.url, "http://")
	shell{t, sqliteDatabase(t)}.fails(1, address+" is in use by another program, choose another address with --listen", "serve", "--listen", address)
	shell{t, sqliteDatabase(t)}.fails(1, "with --metrics-listen", "serve", "--listen", "127.0.0.1:0", "--metrics-listen", address)

	if status := s.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("status %d, %s", status, s.stderr)
	}
	metrics := regexp.MustCompile(`"url":"(http://[^"]+/metrics)"`).FindStringSubmatch(s.stderr.String())
	if metrics == nil {
		t.Errorf("the log does not say where the metrics are: %s", s.stderr)
	}
}

func TestServeMetrics(t *testing.T) {
	// A port that was free a moment ago: the log, where the real one is, is read only after the end.
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	s := start(t, "serve", "--database", postgresDatabase(t), "--listen", "127.0.0.1:0", "--metrics-listen", address, "--base-url", "https://tollgate.example.com/")
	for _, want := range []string{"tollgate_gate_group_size", "go_goroutines", "process_resident_memory_bytes"} {
		if text := s.get(t, "http://"+address+"/metrics"); !strings.Contains(text, want) {
			t.Errorf("%s is not in the metrics", want)
		}
	}
	if document := s.get(t, s.url+"/v1/openapi.json"); !strings.Contains(document, `"https://tollgate.example.com"`) {
		t.Error("the document does not name the base URL")
	}
	if status := s.stop(t, os.Interrupt); status != 0 {
		t.Errorf("status %d, %s", status, s.stderr)
	}
}

// half opens a connection and sends a request but for its last byte, which the function that it returns sends.
func (s *listening) half(t *testing.T, key string) (finish func() string) {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	body := `{"email": "ada@example.com", "idempotency_key": "k"}`
	head := "POST /v1/consume HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nAuthorization: Bearer " + key +
		"\r\nContent-Type: application/json\r\nContent-Length: 52\r\n\r\n"
	if _, err := io.WriteString(c, head); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	// The server asks for the body once its handler reads it: the request is under way.
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("%q, %v", line, err)
	}
	return func() string {
		if _, err := io.WriteString(c, body); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		return string(answer)
	}
}

// What was taken in is finished: decided, committed and answered.
func TestServeFinishesWhatItTook(t *testing.T) {
	database := sqliteDatabase(t)
	key := strings.TrimSpace(shell{t, database}.ok("apikey", "create", "--name", "test", "--scopes", "consume"))
	s := start(t, "serve", "--database", database, "--listen", "127.0.0.1:0")
	finish := s.half(t, key)
	if err := s.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.untilRefused(t)
	if answer := finish(); !strings.Contains(answer, "200 OK") || !strings.Contains(answer, `"event_id"`) {
		t.Errorf("answered %q", answer)
	}
	_, _ = io.Copy(io.Discard, s.out)
	if err := s.Wait(); err != nil {
		t.Errorf("%v: %s", err, s.stderr)
	}
	if out := (shell{t, database}).ok("verify"); out != "" {
		t.Errorf("verify: %s", out)
	}
}

// untilRefused waits until the server takes no more connections.
func (s *listening) untilRefused(t *testing.T) {
	t.Helper()
	for {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			return
		}
		_ = c.Close()
	}
}

// A second signal does not wait for anybody.
func TestServeEndsAtOnceOnASecondSignal(t *testing.T) {
	database := sqliteDatabase(t)
	key := strings.TrimSpace(shell{t, database}.ok("apikey", "create", "--name", "test", "--scopes", "consume"))
	s := start(t, "serve", "--database", database, "--listen", "127.0.0.1:0")
	s.half(t, key)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, s.out)
	}()
	begun := time.Now()
	for again := time.NewTicker(50 * time.Millisecond); ; {
		_ = s.Process.Signal(syscall.SIGTERM)
		select {
		case <-again.C:
			continue
		case <-ended:
		}
		break
	}
	_ = s.Wait()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if s.ProcessState.ExitCode() == 0 {
		t.Error("it pretends to have ended in order")
	}
}
