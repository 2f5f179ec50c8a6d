//go:build linux

package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain also plays the roles, since the benchmark starts its own program again for each of them.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], rolePrefix) {
		main()
		return
	}
	// Under the race detector, each program sleeps for a second before it ends, and the benchmark runs
	// its client twenty times.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	// The tests build without the profile, as the other tests do. With it, everything would be compiled
	// again.
	if err := os.Setenv("GOFLAGS", "-pgo=off"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// A short run measures and reports everything, and the ledgers agree with the answers. Only a full
// run on an idle machine shows whether the goals are met.
func TestShortRun(t *testing.T) {
	report := filepath.Join(t.TempDir(), "benchmarks.md")
	const growth = growthHeading + "\n\nMeasured before.\n"
	if err := os.WriteFile(report, []byte("# Benchmarks\n\n"+growth+"\n## How\n\nOld.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := options{
		Duration: 100 * time.Millisecond, Rounds: 1, OpenLoop: 200 * time.Millisecond, Output: report,
		People: 300, Pools: []int{16}, Starts: 1, Members: 60, Events: 3000, Requests: 2,
	}
	var out, progress strings.Builder
	if err := run(t.Context(), o, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	written, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		"consume, PostgreSQL, divided by the floor ", "consume, SQLite, divided by the floor ",
		"consume, PostgreSQL, divided by the Redis counter ", "consume, PostgreSQL, divided by one statement per call ",
		"check, PostgreSQL, divided by the floor ",
		"p99 of consume at 2000 calls/s, open loop, PostgreSQL ", "consume for one person, PostgreSQL, divided by consume for many people ",
		"overage of one organization with a spend limit, PostgreSQL, divided by many organizations ",
		"peak resident memory before the two overage measurements, PostgreSQL ", "start to first decision, existing database, PostgreSQL ",
		"start to first decision, existing database, SQLite ",
		"consume, the floor ", "consume, PostgreSQL ", "consume, SQLite ", "consume, one statement per call ",
		"consume, Redis counter ", "consume, Redis counter, log synced each second ",
		"consume, one person's record, PostgreSQL ", "overage, one organization with a spend limit, PostgreSQL ",
		"overage, many organizations with spend limits, PostgreSQL ", "check, the floor ", "check, PostgreSQL ", "check, SQLite ",
		"/usage ", "/usage/activity ", "/org ", "/org/members by last ", "/org/members, a search ", "/org/members, one level ",
	} {
		if !strings.Contains(out.String(), "\n| "+row) || !strings.Contains(string(written), "\n| "+row) {
			t.Errorf("there is no row %q", row)
		}
	}
	for _, row := range []string{
		"2000 ", "50 ", "processor ", "cores ", "busy with other work ", "memory ", "kernel ", "file system ", "fsync of 8 KiB ",
		"Tollgate ", "Go ", "PostgreSQL ", "Redis ", "github.com/labstack/echo/v4 ", "github.com/jackc/pgx/v5 ", "github.com/redis/go-redis/v9 ",
		"modernc.org/sqlite ",
	} {
		if !strings.Contains(string(written), "\n| "+row) {
			t.Errorf("the report has no row %q", row)
		}
	}
	if strings.Count(string(written), "\n"+growth+"\n## How\n") != 1 || strings.Contains(string(written), "Old.") {
		t.Error("the report does not have its earlier section on the growth before the section on how it was measured")
	}
	if strings.Contains(string(written), os.TempDir()) {
		t.Error("the report names a directory of this machine")
	}
	if t.Failed() {
		t.Logf("the report:\n%s", written)
	}
}

// The growth is measured on both databases, with a row for each size.
func TestShortGrowth(t *testing.T) {
	report := filepath.Join(t.TempDir(), "benchmarks.md")
	o := options{
		Duration: 100 * time.Millisecond, Rounds: 1, Members: 20, Requests: 2, Only: []string{growthMeasure}, Output: report,
		Sizes: []int64{20, 120}, LiteSizes: []int64{20, 60},
	}
	var out, progress strings.Builder
	if err := run(t.Context(), o, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	written, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"\n| 20 ", "| PostgreSQL ", "\n| 60 ", "| SQLite ", "--keep-events 90d", timedCall} {
		if !strings.Contains(out.String(), part) || !strings.Contains(string(written), part) {
			t.Errorf("%q is missing in:\n%s", part, written)
		}
	}
}

// A build is compared with itself.
func TestShortCompare(t *testing.T) {
	dir := t.TempDir()
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o := options{Duration: 100 * time.Millisecond, Rounds: 2, People: 300, Only: []string{sqliteServer}}
	if o.Compare, err = buildProduct(t.Context(), root, dir); err != nil {
		t.Fatal(err)
	}
	var out, progress strings.Builder
	if err := run(t.Context(), o, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	if row := "\n| SQLite   | 2 "; !strings.Contains(out.String(), row) {
		t.Errorf("there is no row %q in:\n%s", row, out.String())
	}
}

// A load fails if an answer is not a 200 with an allowed decision.
func TestClientRefusesOtherAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"allowed":        {http.StatusOK, `{"allowed":true}`, ""},
		"refused":        {http.StatusOK, `{"allowed":false}`, "not an allowed decision"},
		"unavailable":    {http.StatusServiceUnavailable, `{"allowed":true}`, "503 Service Unavailable"},
		"too long":       {http.StatusOK, `{"allowed":true}` + strings.Repeat(" ", 20<<10), "no Content-Length"},
		"longer than it": {http.StatusOK, strings.Repeat(" ", 1500) + `{"allowed":true}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body) //nolint:errcheck // the client sends all of it
				w.WriteHeader(test.status)
				io.WriteString(w, test.body) //nolint:errcheck // the client checks what it got
			}))
			defer server.Close()
			_, err := testLoad(server, load{Measure: 20 * time.Millisecond}).run()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// In every kind of load, each call has its own key and a person in the range, and every call is
// counted.
func TestClientCallsAreDistinct(t *testing.T) {
	for name, l := range map[string]load{
		"closed loop": {Measure: 50 * time.Millisecond, People: 20},
		"open loop":   {Measure: 50 * time.Millisecond, People: 20, Rate: 2000},
		"introduce":   {Introduce: true, People: 600},
		"timed keys":  {Measure: 50 * time.Millisecond, People: 20, Timed: true},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			keys, people := map[string]bool{}, map[string]bool{}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				_, key, _ := strings.Cut(string(body), `"idempotency_key":"`)
				_, email, _ := strings.Cut(string(body), `"email":"`)
				mu.Lock()
				keys[key[:len(keyShape)]] = true
				people[email[:len(emailShape)]] = true
				mu.Unlock()
				io.WriteString(w, `{"allowed":true}`) //nolint:errcheck // the client checks what it got
			}))
			defer server.Close()
			o, err := testLoad(server, l).run()
			if err != nil {
				t.Fatal(err)
			}
			// The client makes its calls without the runtime, so only the lock orders them before the
			// following lines.
			mu.Lock()
			defer mu.Unlock()
			if int64(len(keys)) != o.Answers {
				t.Errorf("%d answers for %d keys", o.Answers, len(keys))
			}
			for key := range keys {
				micros, err := strconv.ParseInt(strings.ReplaceAll(key, "-", "")[:16], 16, 64)
				if recent := err == nil && time.Since(time.UnixMicro(micros)).Abs() < time.Minute; recent != l.Timed {
					t.Fatalf("the key %s starts with the time: %v, want %v", key, recent, l.Timed)
				}
			}
			if l.Introduce && o.Answers != int64(l.People) {
				t.Errorf("%d answers for %d people", o.Answers, l.People)
			}
			for n := range l.People {
				delete(people, personEmail(n))
			}
			if len(people) > 0 {
				t.Errorf("calls for people outside of the range: %v", people)
			}
		})
	}
}

func testLoad(server *httptest.Server, l load) load {
	l.Name, l.Addr, l.Path, l.Keyed, l.Series = "test", server.Listener.Addr().String(), "/v1/consume", true, 7
	l.People = max(1, l.People)
	return l
}

// If a server stalls, the latencies include the wait of every call that was due in the meantime.
func TestOpenLoopHidesNoStall(t *testing.T) {
	const stall = 200 * time.Millisecond
	begin := sync.OnceValue(time.Now)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wait := stall - time.Since(begin()); wait > 0 {
			select {
			case <-time.After(wait):
			case <-r.Context().Done():
			}
		}
		io.WriteString(w, `{"allowed":true}`) //nolint:errcheck // the client checks what it got
	}))
	defer server.Close()
	// All 800 calls are due during the stall, and there are connections for 256 of them.
	o, err := testLoad(server, load{Measure: stall, Rate: 4000}).run()
	if err != nil {
		t.Fatal(err)
	}
	if o.Measured != 800 {
		t.Errorf("%d calls measured, of 800 that were due", o.Measured)
	}
	if o.P50 < stall/4 {
		t.Errorf("p50 is %s with a stall of %s: the wait for a connection was not counted", o.P50, stall)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{
		{"-only", "postgres,nothing"}, {"-rounds", "0"}, {"-duration", "-1s"}, {"rest"}, {"-unknown"},
	} {
		if err := runFromFlags(context.Background(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
	o := options{Only: []string{postgresServer, checkCall}}
	for name, want := range map[string]bool{
		postgresServer: true, sqliteServer: false, checkCall: true, consumeCall: false,
	} {
		if o.wants(name) != want {
			t.Errorf("-only %v: wants(%s) is %v", o.Only, name, !want)
		}
	}
	if o.Only = []string{startCall}; !o.wants(floorServer) || o.wants(checkCall) {
		t.Errorf("-only %v does not mean all servers and one call", o.Only)
	}
}
