//go:build linux

package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Processes that start at the same time on an empty database create its tables once, and all serve.
func TestStartTogetherOnAnEmptyDatabase(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			s := &site{t: t, database: kind.database(t), program: program(t)}
			for _, name := range []string{"process 1", "process 2", "process 3"} {
				s.servers = append(s.servers, newServer(t, name, s.database))
			}
			s.startAll()
			s.client = newClient(s.apiKey("e2e", "consume"))
			t.Cleanup(s.client.http.CloseIdleConnections)
			for i, p := range s.servers {
				r := s.client.call(t.Context(), p.addr, http.MethodPost, "/v1/consume", body{"email": "ada@start.example", "idempotency_key": p.name})
				if d, err := r.decision(); err != nil || d.Used != int64(i+1) {
					t.Errorf("%s decided %+v, want unit %d: %v", p.name, d, i+1, err)
				}
			}
			s.judge()
			s.verify()
		})
	}
}

// After a process was killed while it created the tables, the next one starts.
func TestKilledWhileCreatingTheTables(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			database := kind.database(t)
			p := newServer(t, "process 1", database)
			for i := range 12 {
				cmd := exec.CommandContext(t.Context(), p.path, p.args...)
				cmd.Env, cmd.Stdout, cmd.Stderr = p.env, p.log, p.log
				r, err := launch(cmd)
				if err != nil {
					t.Fatal(err)
				}
				select {
				case <-r.exited:
					t.Errorf("it ended unexpectedly: %v\n%s", r.outcome(), p.log)
				case <-time.After(time.Duration(10+5*i) * time.Millisecond):
					if err := r.process.Kill(); err != nil {
						t.Error(err)
					}
					<-r.exited
				}
			}
			s := newSite(t, database, 1)
			d, err := s.client.call(t.Context(), s.servers[0].addr, http.MethodPost, "/v1/consume",
				body{"email": "ada@start.example", "idempotency_key": "first"}).decision()
			if err != nil || !d.Allowed {
				t.Errorf("after the kills: %+v, %v", d, err)
			}
			s.verify()
		})
	}
}

// If a server cannot start, it prints a helpful message on standard error and exits with a status
// other than 0.
func TestRefusesToStart(t *testing.T) {
	dir := t.TempDir()
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	c, _ := sharedCluster(t)
	plans, err := os.ReadFile("../../models/plans.yaml")
	if err != nil {
		t.Fatal(err)
	}
	before, after, ok := strings.Cut(string(plans), "currency: usd\n")
	if !ok {
		t.Fatal("the catalog has no line \"currency: usd\"")
	}
	line := fmt.Sprintf("plans.yaml:%d:", strings.Count(before, "\n")+2)
	file := filepath.Join(dir, "plans.yaml")
	if err := os.WriteFile(file, []byte(before+"currency: usd\ncurrencies: all\n"+after), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := "sqlite:" + filepath.Join(dir, "tollgate.db")
	const password = "sekret-of-mine"
	const user = "postgres://tollgate:" + password
	for _, c := range []struct {
		name string
		args []string
		says []string
	}{
		{"port in use", []string{"--listen", taken.Addr().String(), "--database", fresh}, []string{"--listen", taken.Addr().String()}},
		{"no address", []string{"--listen", "nowhere", "--database", fresh}, []string{"nowhere"}},
		{"no server at the database's address", []string{"--database", user + "@127.0.0.1:1/tollgate"}, []string{"database", "127.0.0.1"}},
		{
			"a missing database",
			[]string{"--database", strings.Replace(c.URL("no_such_database"), "postgres@", "postgres:"+password+"@", 1)},
			[]string{"no_such_database"},
		},
		{"an invalid port", []string{"--database", user + "@127.0.0.1:port/tollgate"}, []string{"database", "port"}},
		{"an invalid option", []string{"--database", user + "@127.0.0.1:1/tollgate?sslmode=perhaps"}, []string{"database", "sslmode"}},
		{"a password with an unescaped character", []string{"--database", user + "%@127.0.0.1:1/tollgate"}, []string{"database"}},
		{
			"another database", []string{"--database", "mysql://tollgate:" + password + "@127.0.0.1/tollgate"},
			[]string{"sqlite:FILE", "postgres://"},
		},
		{"a missing folder", []string{"--database", "sqlite:" + filepath.Join(dir, "missing", "tollgate.db")}, []string{"database"}},
		{"an unknown key in the plans", []string{"--plans", file, "--database", fresh}, []string{line, "currencies"}},
		{"no plans", []string{"--plans", filepath.Join(dir, "none.yaml"), "--database", fresh}, []string{"none.yaml"}},
		{"an unknown flag", []string{"--databse", fresh}, []string{"--databse"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			stdout, stderr, err := execute(t, program(t), append([]string{"serve"}, c.args...)...)
			if err == nil {
				t.Errorf("it exited with status 0")
			}
			t.Logf("it printed: %s", strings.TrimSpace(stderr))
			if stdout != "" {
				t.Errorf("it printed on standard output: %s", stdout)
			}
			for _, word := range c.says {
				if !strings.Contains(stderr, word) {
					t.Errorf("it does not print %q:\n%s", word, stderr)
				}
			}
			for _, word := range []string{password, "goroutine", "panic"} {
				if strings.Contains(stderr, word) {
					t.Errorf("it prints %q:\n%s", word, stderr)
				}
			}
		})
	}
}
