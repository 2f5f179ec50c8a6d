//go:build linux

package e2e_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/models"
)

// listening is a running server command.
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

// startWith starts the command with variables, and waits until it listens.
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
	_, _ = io.Copy(io.Discard, s.out) // until it has ended, since Wait closes the pipe
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
		t.Error("the document does not have the server's address")
	}

	address := strings.TrimPrefix(s.url, "http://")
	shell{t, sqliteDatabase(t)}.fails(1, address+" is in use by another program; choose another address with --listen",
		"serve", "--listen", address)
	shell{t, sqliteDatabase(t)}.fails(1, "with --metrics-listen", "serve", "--listen", "127.0.0.1:0", "--metrics-listen", address)

	if status := s.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("status %d, %s", status, s.stderr)
	}
	metrics := regexp.MustCompile(`"url":"(http://[^"]+/metrics)"`).FindStringSubmatch(s.stderr.String())
	if metrics == nil {
		t.Errorf("the log does not have the address of the metrics: %s", s.stderr)
	}
}

func TestServeMetrics(t *testing.T) {
	// A port that was free a moment ago. Port 0 does not work here, because the log is read only at
	// the end.
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	database := postgresDatabase(t)
	db, err := models.Open(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := models.Audit(t.Context(), db, time.Now().AddDate(-3, 0, -1), "shell", "apikey.create", "old", ""); err != nil {
		t.Fatal(err)
	}
	s := start(t, "serve", "--database", database, "--listen", "127.0.0.1:0", "--metrics-listen", address,
		"--base-url", "https://tollgate.example.com/", "--keep-events", "2y")
	eventually(t, "the old entry of the audit log is deleted", func() bool {
		return strings.Contains(s.get(t, "http://"+address+"/metrics"), `tollgate_retention_deleted_rows_total{table="audit_log"} 1`)
	})
	for _, want := range []string{"tollgate_gate_group_size", "go_goroutines", "process_resident_memory_bytes"} {
		if text := s.get(t, "http://"+address+"/metrics"); !strings.Contains(text, want) {
			t.Errorf("%s is not in the metrics", want)
		}
	}
	if document := s.get(t, s.url+"/v1/openapi.json"); !strings.Contains(document, `"https://tollgate.example.com"`) {
		t.Error("the document does not have the base URL")
	}
	if status := s.stop(t, os.Interrupt); status != 0 {
		t.Errorf("status %d, %s", status, s.stderr)
	}
	if want := `"msg":"deleted old rows","keep_events":"2y","rows":{"audit_log":1}}`; !strings.Contains(s.stderr.String(), want) {
		t.Errorf("the log does not have %s: %s", want, s.stderr)
	}
	shell{t, database}.fails(2, `--keep-events: must be at least 90d or 3mo: "30d"`, "serve", "--keep-events", "30d")
}

// half opens a connection and sends the header of a request. finish sends the body and returns the
// answer.
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
	// The server requests the body when its handler reads it, so the request is in progress.
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

// When a server stops, it ends incomplete requests, with a 503 if their header was complete, and
// does not wait for them.
func TestStopEndsIncompleteRequests(t *testing.T) {
	database := sqliteDatabase(t)
	key := strings.TrimSpace(shell{t, database}.ok("apikey", "create", "--name", "test", "--scopes", "consume"))
	s := start(t, "serve", "--database", database, "--listen", "127.0.0.1:0", "--drain", "300ms")
	body := s.raw(t, "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+key+
		"\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{\"events\": [")
	header := s.raw(t, "POST /v1/consume HTTP/1.1\r\nHost: loc")
	silent := s.raw(t, "")
	begun := time.Now()
	if status := s.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("status %d", status)
	}
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("the stop took %s", took)
	}
	if answer, err := io.ReadAll(body); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") ||
		!strings.Contains(string(answer), "\r\nConnection: close\r\n") || !strings.Contains(string(answer), "\r\nRetry-After: ") {
		t.Errorf("a call with half a body got %q, %v; want 503", answer, err)
	}
	for name, c := range map[string]net.Conn{"half a header": header, "nothing": silent} {
		if answer, err := io.ReadAll(c); err != nil || len(answer) > 0 {
			t.Errorf("a connection with %s got %q, %v; want its end", name, answer, err)
		}
	}
	for _, want := range []string{`"msg":"stopping","drain":"300ms"`, `"msg":"stopped"`, `"requests_incomplete":2`, `"idle_connections":1`} {
		if !strings.Contains(s.stderr.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, s.stderr)
		}
	}
}

// raw opens a connection and sends a text.
func (s *listening) raw(t *testing.T, text string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// During the drain, a server serves as before. Only /readyz, on both of its addresses, answers 503.
// After the drain, answers have Connection: close.
func TestDrain(t *testing.T) {
	database := sqliteDatabase(t)
	key := strings.TrimSpace(shell{t, database}.ok("apikey", "create", "--name", "test", "--scopes", "check"))
	metrics := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	s := start(t, "serve", "--database", database, "--listen", "127.0.0.1:0", "--metrics-listen", metrics, "--drain", "1s")
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	ask := func(method, url, body string) (status int, closes bool, err error) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+key)
		r.Header.Set("Content-Type", "application/json")
		response, err := client.Do(r)
		if err != nil {
			return 0, false, err
		}
		_, err = io.Copy(io.Discard, response.Body)
		return response.StatusCode, response.Close, errors.Join(err, response.Body.Close())
	}
	for _, url := range []string{s.url, "http://" + metrics} {
		if status, _, err := ask(http.MethodGet, url+"/readyz", ""); err != nil || status != http.StatusOK {
			t.Fatalf("/readyz before the stop: %d, %v", status, err)
		}
	}
	begun := time.Now()
	if err := s.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "/readyz answers 503", func() bool {
		status, _, err := ask(http.MethodGet, s.url+"/readyz", "")
		return err == nil && status == http.StatusServiceUnavailable
	})
	if status, _, err := ask(http.MethodGet, "http://"+metrics+"/readyz", ""); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("/readyz on the metrics address: %d, %v; want 503", status, err)
	}
	served := 0
	for {
		status, closes, err := ask(http.MethodPost, s.url+"/v1/check", `{"email": "ada@drain.example"}`)
		if err != nil || status != http.StatusOK {
			t.Fatalf("a call during the drain: %d, %v", status, err)
		}
		if closes {
			break
		}
		served++
		time.Sleep(5 * time.Millisecond) // a client with pauses between its calls
	}
	if took := time.Since(begun); took < time.Second || served == 0 {
		t.Errorf("an answer had Connection: close after %s and %d calls, want at least 1 s", took, served)
	}
	if status, _, err := ask(http.MethodGet, "http://"+metrics+"/metrics", ""); err != nil || status != http.StatusOK {
		t.Errorf("the metrics while connections are closed: %d, %v", status, err)
	}
	_, _ = io.Copy(io.Discard, s.out)
	if err := s.Wait(); err != nil {
		t.Errorf("%v: %s", err, s.stderr)
	}
}

// A client that closes its side of the connection after its request still gets the answer. A client
// that disconnects causes no error.
func TestHalfClosedConnections(t *testing.T) {
	database := sqliteDatabase(t)
	key := strings.TrimSpace(shell{t, database}.ok("apikey", "create", "--name", "test", "--scopes", "check,consume,read"))
	s := start(t, "serve", "--database", database, "--listen", "127.0.0.1:0")
	request := func(method, path, body string) string {
		return method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + key +
			"\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
	}
	for i := range 20 {
		for _, call := range []string{
			request("POST", "/v1/consume", `{"email": "half`+strconv.Itoa(i)+`@close.example", "idempotency_key": "half`+strconv.Itoa(i)+`"}`),
			request("POST", "/v1/check", `{"email": "half@close.example"}`),
			request("POST", "/v1/holds",
				`{"email": "half`+strconv.Itoa(i)+`@close.example", "quantity": 1, "idempotency_key": "half`+strconv.Itoa(i)+`"}`),
			request("POST", "/v1/events", `{"events": [{"email": "half@close.example", "quantity": 1, "idempotency_key": "event`+strconv.Itoa(i)+
				`", "occurred_at": "`+time.Now().UTC().Format(time.RFC3339)+`"}]}`),
			request("GET", "/v1/usage/half@close.example", ""),
			request("GET", "/v1/usage/half@close.example/history", ""),
		} {
			c := s.raw(t, call).(*net.TCPConn)
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if answer, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") {
				t.Fatalf("%q got %q, %v", strings.SplitN(call, "\r\n", 2)[0], answer, err)
			}
			_ = c.Close()
		}
	}
	for i := range 20 {
		for _, path := range []string{"/v1/usage/half@close.example", "/v1/openapi.json", "/plans", "/static/app.css"} {
			_ = s.raw(t, request("GET", path, "")).Close()
			// The answers are larger than the buffers of the connection, which is then reset.
			c := s.raw(t, strings.Repeat(request("GET", path, ""), 60)).(*net.TCPConn)
			time.Sleep(time.Duration(i%8) * time.Millisecond) // so that the answers are interrupted at different bytes
			_ = c.SetLinger(0)
			_ = c.Close()
		}
	}
	if status := s.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("status %d", status)
	}
	if strings.Contains(s.stderr.String(), `"level":"ERROR"`) {
		t.Errorf("the log has an error:\n%s", s.stderr)
	}
}

// TestSecondSignalEndsServe sends SIGTERM again during the drain.
func TestSecondSignalEndsServe(t *testing.T) {
	database := sqliteDatabase(t)
	key := strings.TrimSpace(shell{t, database}.ok("apikey", "create", "--name", "test", "--scopes", "consume"))
	s := start(t, "serve", "--database", database, "--listen", "127.0.0.1:0", "--drain", "30s")
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
		t.Errorf("the process took %v to end", took)
	}
	if s.ProcessState.ExitCode() == 0 {
		t.Error("it exited with status 0, as after a complete stop")
	}
}
