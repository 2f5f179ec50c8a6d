//go:build linux

package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/models/enforcement"
	"tollgate/models/modelstest"
)

const (
	sealedEvents    = 1_000_000
	sealedCustomers = 10_000
	// sealingRate is how many calls per second are made during the sealing.
	sealingRate = 2000
)

// BenchmarkConsumeDuringSealing seals a million events of ten thousand customers while a gate on
// the same PostgreSQL gets calls at a fixed rate. It reports the latencies of the calls during the
// sealing and just before. A latency starts at the time at which the call was due.
func BenchmarkConsumeDuringSealing(b *testing.B) {
	gate, reporter := sealingSite(b)
	c := &sealingCalls{b: b, gate: gate}
	after := func(d time.Duration) <-chan struct{} {
		end := make(chan struct{})
		time.AfterFunc(d, func() { close(end) })
		return end
	}
	c.call(after(3 * time.Second)) // creates all records
	before := c.call(after(10 * time.Second))
	sealed := make(chan struct{})
	var reports int
	begin := time.Now()
	b.ResetTimer()
	go func() {
		defer close(sealed)
		var err error
		if reports, err = reporter.Seal(context.Background()); err != nil {
			b.Error(err)
		}
	}()
	during := c.call(sealed)
	b.ReportMetric(time.Since(begin).Seconds(), "sealing-s")
	b.ReportMetric(float64(reports), "reports")
	for name, took := range map[string][]time.Duration{"before": before, "during": during} {
		b.ReportMetric(float64(len(took)), name+"-calls")
		b.ReportMetric(took[len(took)/2].Seconds()*1000, name+"-p50-ms")
		b.ReportMetric(took[len(took)*99/100].Seconds()*1000, name+"-p99-ms")
	}
}

// sealingSite opens a gate and a reporter on a new PostgreSQL with the events to seal.
func sealingSite(b *testing.B) (*enforcement.Gate, *billing.Reporter) {
	b.Helper()
	ctx := context.Background()
	cluster, err := modelstest.StartPostgres(ctx, modelstest.PostgresOptions{Durable: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			b.Error(err)
		}
	})
	db, err := models.Open(ctx, cluster.URL("postgres"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	catalogue, err := models.LoadCatalogue("")
	if err != nil {
		b.Fatal(err)
	}
	month := models.CalendarMonth(time.Now())
	modelstest.FillEvents(b, db.DB.DB, sealedEvents, sealedCustomers, 1, time.Now(), month.Start, month.End)
	organization, err := models.CreateOrganization(ctx, db, models.Now(time.Now), "bench", []string{slackTeam})
	if err != nil {
		b.Fatal(err)
	}
	subscriber := models.Subscriber{OrganizationID: &organization.ID}
	if _, err := models.Subscribe(ctx, db, catalogue, models.Now(time.Now), subscriber, benchPlan); err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	gate, err := enforcement.Open(ctx, db, enforcement.Options{Catalogue: catalogue, Now: time.Now, Log: log, QueueLimit: 10_000})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(gate.Close)
	client, err := billing.NewClient(billing.ClientOptions{Key: "sk_test_bench"})
	if err != nil {
		b.Fatal(err)
	}
	return gate, billing.NewReporter(billing.ReporterOptions{DB: db, Client: client, Catalogue: catalogue, Now: time.Now, Log: log,
		Every: time.Minute})
}

// sealingCalls makes the calls at the fixed rate.
type sealingCalls struct {
	b    *testing.B
	gate *enforcement.Gate
	made atomic.Int64
}

// call makes calls until end is closed, and returns their sorted latencies.
func (c *sealingCalls) call(end <-chan struct{}) []time.Duration {
	var mu sync.Mutex
	var took []time.Duration
	var wait sync.WaitGroup
	begin := time.Now()
	for n := 0; ; n++ {
		due := begin.Add(time.Duration(n) * time.Second / sealingRate)
		time.Sleep(time.Until(due)) // the fixed rate
		select {
		case <-end:
			wait.Wait()
			slices.Sort(took)
			return took
		default:
		}
		wait.Go(func() {
			key := c.made.Add(1)
			who := enforcement.Person{
				Email: fmt.Sprintf("caller%d@example.com", key%1000),
				Slack: models.SlackIdentity{TeamID: slackTeam, UserID: fmt.Sprint("U", key%1000)},
			}
			if answer, err := c.gate.Consume(context.Background(), who, 1, fmt.Sprint(key)); err != nil || !answer.Verdict.Allowed {
				c.b.Error(answer, err)
			}
			d := time.Since(due)
			mu.Lock()
			took = append(took, d)
			mu.Unlock()
		})
	}
}
