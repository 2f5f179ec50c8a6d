package notify

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// workerVariable makes this test's program run a worker instead of the tests. Its value is the
// worker's settings.
const workerVariable = "TOLLGATE_NOTIFY_TEST"

// workerClock is how much faster than time a worker's clock runs, so that retries are due soon.
const workerClock = 20

// workerSettings are the settings of a worker in its own process. Its only channel is webhooks,
// which it sends to one server, whatever the host.
type workerSettings struct {
	Database, Server string
	Certificate      []byte
	Start            time.Time // of its clock
}

// work runs a worker until its standard input ends.
func work(settings string) (err error) {
	var s workerSettings
	if err := json.Unmarshal([]byte(settings), &s); err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(s.Certificate)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	plans, err := models.LoadCatalogue("")
	if err != nil {
		return err
	}
	ctx := context.Background()
	db, err := models.Open(ctx, s.Database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	begun := time.Now()
	w := New(Options{
		DB: db, Catalogue: plans, Now: func() time.Time { return s.Start.Add(workerClock * time.Since(begun)) },
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), BaseURL: "https://tollgate.example.com",
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.Server)
		},
		RootCAs: roots, Every: 10 * time.Millisecond, Random: func() float64 { return 0 },
	})
	w.Start(ctx)
	defer w.Stop()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// startWorker starts a worker in its own process. stop ends it in order.
func (f *fixture) startWorker(address string, start time.Time) (process *exec.Cmd, stop func()) {
	f.t.Helper()
	settings, err := json.Marshal(workerSettings{
		address, f.webhooks.server.Listener.Addr().String(), f.webhooks.server.Certificate().Raw, start,
	})
	must(f.t, err)
	p := exec.CommandContext(f.t.Context(), os.Args[0])
	p.Env, p.Stderr = append(os.Environ(), workerVariable+"="+string(settings)), os.Stderr
	in, err := p.StdinPipe()
	must(f.t, err)
	must(f.t, p.Start())
	return p, func() {
		f.t.Helper()
		must(f.t, errors.Join(in.Close(), p.Wait()))
	}
}

// A process is killed with SIGKILL when the endpoint has its request and has not yet answered. Of
// the processes that run after it, one sends the webhook again, with the same ID.
func TestAKilledProcessAddsNoWebhookID(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		t.Parallel()
		f := newFixture(t, address)
		f.endpoint()
		notice := f.notice(f.person("ada@example.com", "T1", "U1"))
		answer := make(chan struct{})
		release := sync.OnceFunc(func() { close(answer) })
		t.Cleanup(release)
		first := sync.OnceFunc(func() { <-answer })
		f.webhooks.answerWith(func(http.ResponseWriter) { first() })
		killed, _ := f.startWorker(address, noon)
		<-f.webhooks.arrived
		want(t, "before the kill", f.deliveries(notice), "[webhook sending]")
		must(t, killed.Process.Kill())
		_ = killed.Wait() // it was killed
		release()

		processes := 4
		if strings.HasPrefix(address, "sqlite:") {
			processes = 1
		}
		stops := make([]func(), processes)
		for i := range stops {
			_, stops[i] = f.startWorker(address, noon.Add(2*leaseTime))
		}
		<-f.webhooks.arrived
		for _, stop := range stops {
			stop()
		}
		want(t, "in the end", f.deliveries(notice), "[webhook sent]")
		want(t, "attempts", f.attempts(f.rows(notice)[0].ID), "[unknown sent]")
		ids, bodies := f.webhooks.headers("Webhook-Id"), f.webhooks.list()
		if len(ids) != 2 || ids[0] != ids[1] || bodies[0] != bodies[1] {
			t.Errorf("the webhooks %q have the IDs %q, want the same one twice", bodies, ids)
		}
	})
}
