//go:build linux

package e2e_test

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// spanCollector is an OpenTelemetry collector: it receives spans by OTLP over HTTP.
type spanCollector struct {
	*httptest.Server
	mu       sync.Mutex
	headers  http.Header
	resource map[string]string
	spans    []*traces.Span
}

func newSpanCollector(t *testing.T) *spanCollector {
	c := &spanCollector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.receive(r); err != nil {
			t.Error(err)
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *spanCollector) receive(r *http.Request) error {
	if r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		return fmt.Errorf("the spans are sent to %s as %s", r.URL, r.Header.Get("Content-Type"))
	}
	var in io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if in, err = gzip.NewReader(in); err != nil {
			return err
		}
	}
	content, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	var request collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(content, &request); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers = r.Header
	for _, of := range request.GetResourceSpans() {
		c.resource = attributesOf(of.GetResource().GetAttributes())
		for _, scope := range of.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	return nil
}

func attributesOf(list []*common.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range list {
		switch v := a.GetValue().GetValue().(type) {
		case *common.AnyValue_IntValue:
			all[a.GetKey()] = fmt.Sprint(v.IntValue)
		default:
			all[a.GetKey()] = a.GetValue().GetStringValue()
		}
	}
	return all
}

// named returns the spans with a name, in the order of their start.
func (c *spanCollector) named(name string) (all []*traces.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.GetName() == name {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *traces.Span) int { return int(a.GetStartTimeUnixNano()) - int(b.GetStartTimeUnixNano()) })
	return all
}

// tracedConsume makes a call as a client whose trace has these IDs.
func tracedConsume(t *testing.T, url, key, idempotencyKey, traceparent string) time.Duration {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/consume",
		strings.NewReader(`{"email": "hidden@example.com", "idempotency_key": "`+idempotencyKey+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Traceparent", traceparent)
	begun := time.Now()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatal(response.Status)
	}
	return time.Since(begun)
}

// A call continues its caller's trace: the request has a group, which has a link to it, and a commit.
// The first call runs a transaction with locks, and the second one is decided from memory.
func TestTraces(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			const trace, caller = "0123456789abcdef0123456789abcdef", "0123456789abcdef"
			c := newSpanCollector(t)
			database := kind.database(t)
			key := strings.TrimSpace(shell{t, database}.ok("apikey", "create", "--name", "traces", "--scopes", "consume,read"))
			s := startWith(t, []string{
				"OTEL_EXPORTER_OTLP_ENDPOINT=" + c.URL, "OTEL_EXPORTER_OTLP_HEADERS=api-key=hidden%20value", "OTEL_SERVICE_NAME=metering",
				"OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test",
			}, "serve", "--database", database, "--listen", "127.0.0.1:0")
			for _, call := range []string{"hidden 1", "hidden 2"} {
				tracedConsume(t, s.url, key, call, "00-"+trace+"-"+caller+"-01")
			}
			tracedConsume(t, s.url, key, "hidden 3", "00-"+trace+"-"+caller+"-00") // the caller does not sample it
			if status, _ := (&server{addr: strings.TrimPrefix(s.url, "http://")}).get(t.Context(), "/v1/usage/hidden@example.com"); status != 401 {
				t.Errorf("usage without a key: %d", status)
			}
			if status := s.stop(t, syscall.SIGTERM); status != 0 {
				t.Errorf("status %d: %s", status, s.stderr)
			}

			system := map[string]string{"PostgreSQL": "postgresql", "SQLite": "sqlite"}[kind.name]
			requests, groups, commits := c.named("POST /v1/consume"), c.named("group"), c.named("commit")
			if len(requests) != 2 || len(groups) != 2 || len(commits) != 2 || len(c.named("GET /v1/usage/:email")) != 1 {
				t.Fatalf("%d requests, %d groups, %d commits", len(requests), len(groups), len(commits))
			}
			for i := range requests {
				wantSpan(t, requests[i], trace, caller, map[string]string{
					"http.request.method": "POST", "http.route": "/v1/consume", "http.response.status_code": "200",
				})
				id := hex.EncodeToString(requests[i].GetSpanId())
				wantSpan(t, groups[i], trace, id, map[string]string{"tollgate.group.size": "1", "db.system.name": system})
				wantSpan(t, commits[i], trace, hex.EncodeToString(groups[i].GetSpanId()), map[string]string{})
				if links := groups[i].GetLinks(); len(links) != 1 || hex.EncodeToString(links[0].GetSpanId()) != id {
					t.Errorf("the group of request %s has the links %v", id, links)
				}
			}
			for name, want := range map[string]string{
				"service.name": "metering", "deployment.environment.name": "test", "telemetry.sdk.language": "go",
			} {
				if got := c.resource[name]; got != want {
					t.Errorf("the resource has %s %q, want %q", name, got, want)
				}
			}
			if got := c.headers.Get("Api-Key"); got != "hidden value" {
				t.Errorf("the collector got the header %q", got)
			}
			for _, span := range c.spans {
				if text := span.String(); strings.Contains(text, "hidden") || strings.Contains(text, key) {
					t.Errorf("a span has what a client sent: %s", text)
				}
			}
		})
	}
}

// wantSpan checks a span's trace, parent and attributes.
func wantSpan(t *testing.T, s *traces.Span, trace, parent string, attributes map[string]string) {
	t.Helper()
	got := attributesOf(s.GetAttributes())
	if hex.EncodeToString(s.GetTraceId()) != trace || hex.EncodeToString(s.GetParentSpanId()) != parent || !maps.Equal(got, attributes) ||
		s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() {
		t.Errorf("span %s of trace %x with parent %x: %v, want trace %s, parent %s, %v", s.GetName(), s.GetTraceId(), s.GetParentSpanId(), got,
			trace, parent, attributes)
	}
}

// A collector that hangs or refuses delays no call, and the stop at most by a second. Its errors are
// logged once.
func TestTracesWithoutACollector(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-ended
	}))
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "refused "+r.Header.Get("Api-Key"), http.StatusUnauthorized)
	}))
	t.Cleanup(func() {
		close(ended)
		hanging.Close()
		refusing.Close()
	})
	for name, url := range map[string]string{"hangs": hanging.URL, "refuses": refusing.URL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := sqliteDatabase(t)
			key := strings.TrimSpace(shell{t, database}.ok("apikey", "create", "--name", "traces", "--scopes", "consume"))
			s := startWith(t, []string{
				"OTEL_EXPORTER_OTLP_ENDPOINT=" + url, "OTEL_EXPORTER_OTLP_HEADERS=api-key=hidden", "OTEL_BSP_SCHEDULE_DELAY=1",
				"OTEL_BSP_MAX_QUEUE_SIZE=16", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=4",
			}, "serve", "--database", database, "--listen", "127.0.0.1:0")
			for i := range 50 {
				traceparent := fmt.Sprintf("00-%032x-%016x-01", i+1, i+1)
				if took := tracedConsume(t, s.url, key, fmt.Sprint(i), traceparent); took > 5*time.Second { // an export waits for 10 s
					t.Errorf("a call took %s", took)
				}
			}
			begun := time.Now()
			if status := s.stop(t, syscall.SIGTERM); status != 0 {
				t.Errorf("status %d: %s", status, s.stderr)
			}
			if took := time.Since(begun); took > 5*time.Second { // usually about one second
				t.Errorf("the stop took %s", took)
			}
			log := s.stderr.Bytes()
			if n := bytes.Count(log, []byte(`"could not export traces"`)); name == "refuses" && n != 1 || n > 1 {
				t.Errorf("%d errors in the log:\n%s", n, log)
			}
			if bytes.Contains(log, []byte("hidden")) {
				t.Errorf("the log has the collector's key:\n%s", log)
			}
		})
	}
}
