package demo_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/models"
	"tollgate/models/enforcement"
	"tollgate/web"
	"tollgate/web/demo"
)

// counter counts the API's calls by path, and calls done once there are enough.
type counter struct {
	http.Handler
	mu     sync.Mutex
	calls  map[string]int
	failed []string
	enough func(map[string]int) bool
	done   func()
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	recorded := httptest.NewRecorder()
	c.Handler.ServeHTTP(recorded, r)
	parts := strings.Split(r.URL.Path, "/")
	c.mu.Lock()
	c.calls[parts[len(parts)-1]]++
	if recorded.Code != http.StatusOK {
		c.failed = append(c.failed, r.URL.Path+": "+recorded.Body.String())
	}
	enough := c.enough(c.calls)
	c.mu.Unlock()
	for name, values := range recorded.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(recorded.Code)
	_, _ = w.Write(recorded.Body.Bytes())
	if enough {
		c.done()
	}
}

// serve starts the whole server and returns its address.
func serve(t *testing.T, db *models.DB, c *counter) string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	gate, err := enforcement.Open(t.Context(), db, enforcement.Options{Catalogue: catalogue(t), Now: time.Now, Log: log, QueueLimit: 64})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(gate.Close)
	server, err := web.New(web.Options{
		DB: db, Gate: gate, Catalogue: catalogue(t), Now: time.Now, Log: log, Metrics: prometheus.NewRegistry(),
		BaseURL: "http://localhost", Version: "test", SignIn: web.SignIn{Issuer: web.SlackIssuer},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Handler, c.calls = server.Handler(), map[string]int{}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	return s.URL
}

func TestTraffic(t *testing.T) {
	db := atNoon(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := &counter{done: cancel, enough: func(n map[string]int) bool {
		return n["consume"] >= 20 && n["check"] >= 5 && n["holds"] >= 5 && n["settle"] >= 3 && n["release"] >= 1
	}}
	url := serve(t, db, c)
	key, err := models.CreateAPIKey(ctx, db, noon, "test", models.Scopes)
	if err != nil {
		t.Fatal(err)
	}
	people, err := demo.Regulars(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	if len(people) != 46 { // of 48, one left and one never started
		t.Errorf("%d people use the app", len(people))
	}
	traffic := demo.Traffic{
		URL: url, Key: key, Log: slog.New(slog.DiscardHandler), Now: fast(time.Now(), 1000), People: people, Pace: time.Millisecond, Usual: 120,
	}
	traffic.Run(ctx)
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("not enough calls in time: %v", c.calls)
	}
	if len(c.failed) > 0 {
		t.Errorf("failed: %q", c.failed)
	}
	if err := models.Verify(t.Context(), db, func(d models.Difference) { t.Error(d) }); err != nil {
		t.Fatal(err)
	}
}

// fast returns a clock that begins at start and runs this many times faster than the real one.
func fast(start time.Time, times int) func() time.Time {
	began := time.Now()
	return func() time.Time { return start.Add(time.Duration(times) * time.Since(began)) }
}

// TestTrafficIsAUsualDay runs eight hours of traffic, with a usual number of calls, and compares
// the day with a usual one.
func TestTrafficIsAUsualDay(t *testing.T) {
	db := atNoon(t)
	usual, before, err := demo.UsualDay(t.Context(), db, noon)
	if err != nil {
		t.Fatal(err)
	}
	if usual < 50 || usual > 250 {
		t.Errorf("a usual day has %d units", usual)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var calls atomic.Int64
	c := &counter{done: cancel, enough: func(map[string]int) bool { return calls.Add(1) >= 1500 }}
	url := serve(t, db, c)
	key, err := models.CreateAPIKey(ctx, db, noon, "test", models.Scopes)
	if err != nil {
		t.Fatal(err)
	}
	people, err := demo.Regulars(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	traffic := demo.Traffic{
		URL: url, Key: key, Log: slog.New(slog.DiscardHandler), People: people, Pace: time.Millisecond, Usual: usual, Today: before,
		Now: func() time.Time { return noon.Add(time.Duration(calls.Load()) * 20 * time.Second) },
	}
	traffic.Run(ctx)
	if n := calls.Load(); n < 1500 {
		t.Fatalf("only %d calls in time", n)
	}
	var used int64
	if err := db.NewSelect().Model((*models.UsageEvent)(nil)).ColumnExpr("COALESCE(SUM(quantity), 0)").
		Where("recorded_at > ?", noon.Add(time.Second)).Scan(t.Context(), &used); err != nil {
		t.Fatal(err)
	}
	if day := before + used; used == 0 || day > usual*5/4 {
		t.Errorf("%d units before and %d of traffic make %d, a usual day has %d", before, used, before+used, usual)
	}
}

// Each printed command works without changes.
func TestRunPrintsWhatWorks(t *testing.T) {
	db := atNoon(t)
	c := &counter{done: func() {}, enough: func(map[string]int) bool { return false }}
	url := serve(t, db, c)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	printed := make(lines, 1)
	ended := make(chan error)
	go func() {
		ended <- demo.Run(ctx, demo.Options{
			DB: db, Catalogue: catalogue(t), Now: time.Now, Log: slog.New(slog.DiscardHandler), URL: url,
			Program: "/my programs/it's tollgate", Out: printed,
		})
	}()
	var text string
	select {
	case text = <-printed:
	case err := <-ended:
		t.Fatal(err)
	}
	if !strings.Contains(text, url+"/docs") {
		t.Errorf("no address of the API documentation in %s", text)
	}
	want := `'/my programs/it'\''s tollgate' sign-in alma.teapot@example.com --base-url ` + url + " --database " + db.URL + "\n"
	if !strings.Contains(text, want) {
		t.Errorf("no line %s in %s", want, text)
	}
	var answers []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "curl ") {
			answers = append(answers, curl(t, strings.TrimSpace(line)), curl(t, strings.TrimSpace(line)))
		} else if models.IsKey(strings.TrimSpace(line)) {
			answers = append(answers, "key")
		}
	}
	for i, want := range []string{
		"key", `"warning_level":`, `"warning_level":`, `"replayed":false`, `"replayed":true`, `"total_users":42`, `"total_users":42`,
	} {
		if i >= len(answers) || !strings.Contains(answers[i], want) {
			t.Fatalf("answer %d is not one with %s: %q", i, want, answers)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// lines sends each text that is written to it.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// curl does what a shell and curl do with the line. It supports words, quotes, -H, -d and an
// address.
func curl(t *testing.T, line string) string {
	t.Helper()
	var words []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 0 {
			words = append(words, strings.Fields(part)...)
		} else {
			words = append(words, part)
		}
	}
	method, body, address := http.MethodGet, "", ""
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}} // curl's own, with -d
	for i := 1; i < len(words); i++ {
		switch words[i] {
		case "-sS":
		case "-H":
			i++
			name, value, _ := strings.Cut(words[i], ": ")
			header.Set(name, value)
		case "-d":
			i++
			method, body = http.MethodPost, words[i]
		default:
			address = words[i]
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), method, address, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s %v", line, response.Status, answer, err)
	}
	return string(answer)
}
