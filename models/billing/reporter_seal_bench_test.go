package billing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/modelstest"
)

func benchReporter(b *testing.B, events, customers, overageEvery int, transport http.RoundTripper, live bool) (*Reporter, time.Time) {
	b.Helper()
	cluster, err := modelstest.StartPostgres(context.Background(), modelstest.PostgresOptions{Durable: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			b.Error(err)
		}
	})
	db, err := models.Open(context.Background(), cluster.URL("postgres"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	catalogue, err := models.LoadCatalogue("")
	if err != nil {
		b.Fatal(err)
	}
	now := time.Date(2026, 11, 20, 12, 5, 0, 0, time.UTC)
	month := models.CalendarMonth(now)
	modelstest.FillEvents(b, db.DB.DB, events, customers, overageEvery, now, month.Start, month.End)
	key := "sk_test_bench"
	if live {
		key = "sk_live_bench"
	}
	c, err := NewClient(ClientOptions{Key: key, Transport: transport})
	if err != nil {
		b.Fatal(err)
	}
	return NewReporter(ReporterOptions{DB: db, Client: c, Catalogue: catalogue, Now: func() time.Time { return now },
		Log: slog.New(slog.DiscardHandler), Every: time.Minute}), now
}

// BenchmarkSealMillion seals a million events of ten thousand customers, once with overage in every
// event and once in every tenth.
func BenchmarkSealMillion(b *testing.B) {
	for _, every := range []int{1, 10} {
		b.Run(fmt.Sprintf("overage=1:%d", every), func(b *testing.B) {
			r, _ := benchReporter(b, 1_000_000, 10_000, every, nil, false)
			b.ResetTimer()
			reportHeap(b, "heap-before-MiB")
			n, err := r.Seal(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(n), "reports")
			b.ReportMetric(b.Elapsed().Seconds(), "s")
			reportHeap(b, "heap-after-MiB")
		})
	}
}

// reportHeap reports the heap in use, to show whether it grows.
func reportHeap(b *testing.B, name string) {
	b.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapAlloc)/(1<<20), name)
}

// BenchmarkDelivery delivers for ten seconds to a Stripe that takes 150 ms for each call, and
// reports the calls per second.
func BenchmarkDelivery(b *testing.B) {
	for _, live := range []bool{false, true} {
		b.Run(fmt.Sprintf("live=%t", live), func(b *testing.B) {
			var calls atomic.Int64
			transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
				if r.Method != http.MethodPost {
					return answer(200, `{"object": "account", "id": "acct_1"}`)(r)
				}
				select {
				case <-time.After(150 * time.Millisecond):
				case <-r.Context().Done():
					return nil, errors.New("too late")
				}
				calls.Add(1)
				return answer(200, `{"object": "billing.meter_event"}`)(r)
			})
			r, _ := benchReporter(b, 100_000, 10_000, 1, transport, live)
			if _, err := r.Seal(context.Background()); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			r.Start(context.Background())
			time.Sleep(2 * time.Second) // not measured: the first calls open connections
			reportHeap(b, "heap-before-MiB")
			before := calls.Load()
			time.Sleep(10 * time.Second) // the time to measure
			after := calls.Load()
			reportHeap(b, "heap-after-MiB")
			r.Stop()
			b.ReportMetric(float64(after-before)/10, "calls/s")
		})
	}
}
