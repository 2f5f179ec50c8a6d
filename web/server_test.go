package web

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/models"
	"tollgate/models/enforcement"
	"tollgate/models/modelstest"
	"tollgate/web/openapitest"
)

func TestMain(m *testing.M) { modelstest.Main(m, models.Open) }

// onBoth runs a test with a real server on each database.
func onBoth(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	modelstest.OnBoth(t, func(t *testing.T, address string) { test(t, newFixture(t, address)) })
}

// fixture is a server, a key with all scopes, and the served document. Every answer is checked
// against the document.
type fixture struct {
	t      testing.TB
	db     *models.DB
	web    *Server
	server *httptest.Server
	key    string
	schema *openapitest.Document

	mu  sync.Mutex
	now time.Time
}

func newFixture(t testing.TB, address string, changes ...func(*Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	ctx := context.Background()
	catalogue, err := models.LoadCatalogue("")
	must(t, err)
	f.db, err = models.Open(ctx, address)
	must(t, err)
	t.Cleanup(func() { _ = f.db.Close() })
	log := slog.New(slog.DiscardHandler)
	if t, ok := t.(*testing.T); ok { // a fuzz test must not log outside its target
		log = slog.New(slog.NewTextHandler(testLog{t}, nil))
	}
	o := Options{
		DB: f.db, Catalogue: catalogue, Now: f.clock, Log: log, Metrics: prometheus.NewRegistry(), BaseURL: "https://tollgate.example.com",
		Version: "test",
		SignIn:  SignIn{Issuer: SlackIssuer},
	}
	for _, change := range changes {
		change(&o)
	}
	o.Gate, err = enforcement.Open(ctx, f.db, enforcement.Options{
		Catalogue: o.Catalogue, Now: f.clock, Log: log, Metrics: o.Metrics, QueueLimit: 4096,
	})
	must(t, err)
	t.Cleanup(o.Gate.Close)
	s, err := New(o)
	must(t, err)
	f.web, f.server = s, httptest.NewServer(s.Handler())
	t.Cleanup(f.server.Close)
	f.key = f.newKey(models.Scopes...)
	f.schema = schemaOf(t, s.document)
	return f
}

// step runs a part of a test that depends on the earlier parts. If it fails, the test ends.
func (f *fixture) step(t *testing.T, name string, do func(t *testing.T)) {
	t.Helper()
	whole := f.t
	defer func() { f.t = whole }()
	if !t.Run(name, func(t *testing.T) { f.t = t; do(t) }) {
		t.FailNow()
	}
}

// schemas are the validators of the documents served so far. Nearly all tests serve the same
// document, and parsing it takes longer than most of these tests.
var schemas struct {
	sync.Mutex
	byDocument map[string]*openapitest.Document
}

func schemaOf(t testing.TB, served []byte) *openapitest.Document {
	t.Helper()
	schemas.Lock()
	defer schemas.Unlock()
	if schema, ok := schemas.byDocument[string(served)]; ok {
		return schema
	}
	schema, err := openapitest.Read(served)
	must(t, err)
	if schemas.byDocument == nil {
		schemas.byDocument = map[string]*openapitest.Document{}
	}
	schemas.byDocument[string(served)] = schema
	return schema
}

type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fixture) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

func (f *fixture) set(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = now
}

func (f *fixture) newKey(scopes ...models.Scope) string {
	f.t.Helper()
	key, err := models.CreateAPIKey(context.Background(), f.db, f.clock(), "test", scopes)
	must(f.t, err)
	return key
}

// answer is the answer to a call.
type answer struct {
	status int
	header http.Header
	body   map[string]any
	raw    string
}

func (a answer) code() any { return a.body["code"] }

type change func(*http.Request)

func withKey(key string) change {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+key) }
}

func withType(contentType string) change {
	return func(r *http.Request) { r.Header.Set("Content-Type", contentType) }
}

// call sends a request with the fixture's key and checks the answer against the document.
func (f *fixture) call(method, path, body string, changes ...change) answer {
	f.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, f.server.URL+path, strings.NewReader(body))
	must(f.t, err)
	r.Header.Set("Authorization", "Bearer "+f.key)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, c := range changes {
		c(r)
	}
	response, err := f.server.Client().Do(r)
	must(f.t, err)
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	must(f.t, err)
	a := answer{status: response.StatusCode, header: response.Header, raw: string(raw)}
	must(f.t, json.Unmarshal(raw, &a.body))
	response.Body = io.NopCloser(bytes.NewReader(raw))
	if err := f.schema.ValidateResponse(r, response); err != nil {
		if a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed ||
			a.code() != "not_found" && a.code() != "method_not_allowed" {
			f.t.Errorf("%s %s returned %d, which the document does not have: %v\n%s", method, path, a.status, err, raw)
		}
	}
	if a.status < 400 && path != "/v1/events" { // a batch gets 200 even if some of its events are invalid
		r.Body = io.NopCloser(strings.NewReader(body))
		if err := f.schema.ValidateRequest(r); err != nil {
			f.t.Errorf("%s %s: the server accepts %s, but the document does not: %v", method, path, body, err)
		}
	}
	if a.status >= 400 {
		if got := a.header.Get("Content-Type"); got != "application/problem+json" {
			f.t.Errorf("%s %s: an error with the type %s", method, path, got)
		}
	}
	return a
}

func (f *fixture) post(path, body string, changes ...change) answer {
	f.t.Helper()
	return f.call(http.MethodPost, path, body, changes...)
}

func (f *fixture) get(path string) answer {
	f.t.Helper()
	return f.call(http.MethodGet, path, "")
}

// want compares fields of an answer, identified by path, with the wanted values in their JSON form.
func (a answer) want(t testing.TB, status int, fields map[string]any) {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d: %s", a.status, status, a.raw)
	}
	for path, want := range fields {
		var got any = a.body
		for name := range strings.SplitSeq(path, ".") {
			if object, ok := got.(map[string]any); ok {
				got = object[name]
			} else if list, ok := got.([]any); ok && len(list) > 0 {
				got = list[0].(map[string]any)[name]
			} else {
				got = nil
			}
		}
		wantJSON, err := json.Marshal(want)
		must(t, err)
		gotJSON, err := json.Marshal(got)
		must(t, err)
		if !bytes.Equal(wantJSON, gotJSON) {
			t.Errorf("%s is %s, want %s in %s", path, gotJSON, wantJSON, a.raw)
		}
	}
}

// recorded counts all rows that a call can create.
func (f *fixture) recorded() (n int) {
	f.t.Helper()
	for _, table := range []string{"usage_events", "usage_holds", "usage_records", "users", "workspaces", "organizations"} {
		var rows int
		must(f.t, f.db.NewSelect().TableExpr(table).ColumnExpr("COUNT(*)").Scan(context.Background(), &rows))
		n += rows
	}
	return n
}
