package billing

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// voidFixture is an invoiceFixture whose usage the gate decides. Pro includes 75 units.
type voidFixture struct {
	*invoiceFixture
	gate *enforcement.Gate
}

func onBothVoids(t *testing.T, test func(t *testing.T, v *voidFixture)) {
	t.Helper()
	onBothInvoices(t, func(t *testing.T, o *invoiceFixture) {
		gate, err := enforcement.Open(o.ctx, o.db, enforcement.Options{
			Catalogue: o.catalogue, Now: o.clock, Log: slog.New(slog.DiscardHandler), QueueLimit: 64,
		})
		o.must(err)
		t.Cleanup(gate.Close)
		v := &voidFixture{o, gate}
		v.record(75, "included", o.now.Add(-4*time.Hour))
		test(t, v)
	})
}

// record records units that were used at a time.
func (v *voidFixture) record(units int64, key string, at time.Time) {
	v.t.Helper()
	outcomes, err := v.gate.Record(v.ctx, []enforcement.PastEvent{{
		Person: enforcement.Person{Email: "ada@example.com"}, Quantity: units, IdempotencyKey: key, OccurredAt: at,
	}})
	v.must(err)
	v.must(outcomes[0].Err)
}

func (v *voidFixture) try(key string, reported bool) (models.Voided, error) {
	return models.Void(v.ctx, v.db, v.catalogue, models.Now(v.clock), models.NewVoid{
		Actor: models.ActorShell, Email: "ada@example.com", IdempotencyKey: key, Reason: "by mistake", Reported: reported,
	})
}

// void voids an event, which may be in a report.
func (v *voidFixture) void(key string) {
	v.t.Helper()
	_, err := v.try(key, true)
	v.must(err)
}

func (v *voidFixture) wantVerified() {
	v.t.Helper()
	v.must(models.Verify(v.ctx, v.db, func(d models.Difference) { v.t.Error(d) }))
}

// A void before sealing keeps the event out of each report. After sealing, it needs permission, and
// the balance shows what Stripe bills too much.
func TestVoidsAndTheirBalances(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		hour := v.now.Add(-3 * time.Hour)
		for i := range 4 {
			v.record(int64(i+1), fmt.Sprint("k", i), hour)
		}
		v.void("k0")
		v.wantBalances("Nov 1: decided 9 $2.70, sent 0, counted 0, invoiced 0 $0.00; waiting 9 $2.70")
		v.seal()
		if r := v.reports(); len(r) != 1 || r[0].Value != 9 {
			t.Fatalf("the reports are %+v", r)
		}
		if _, err := v.try("k1", false); !errors.Is(err, models.ErrEventReported) {
			t.Errorf("a void without permission: %v", err)
		}
		v.void("k1")
		v.wantBalances("Nov 1: decided 7 $2.10, sent 0, counted 0, invoiced 0 $0.00; waiting 9 $2.70; to_credit -2 -$0.60")
		v.deliver()
		v.void("k2")
		if _, err := v.try("k2", false); err != nil {
			t.Errorf("a retry without permission: %v", err)
		}
		v.finalize(v.renew())
		v.wantBalances("Nov 1: decided 4 $1.20, sent 9, counted 9, invoiced 9 $2.70; to_credit -5 -$1.50")
		v.void("k3")
		v.void("included")
		v.wantBalances("Nov 1: decided 0 $0.00, sent 9, counted 9, invoiced 9 $2.70; to_credit -9 -$2.70")
		v.wantVerified()
	})
}

// An event is voided and sealed at the same time: either it is in no report, or the void says that
// it is in one.
func TestVoidsAndSealingAtOnce(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		const rounds, events = 6, 8
		for round := range rounds {
			at := v.now.Add(-3 * time.Hour)
			var sum int64
			for i := range events {
				v.record(1, fmt.Sprint(round, "-", i), at)
			}
			before := len(v.reports())
			var wg sync.WaitGroup
			var mu sync.Mutex
			var voided int64
			wg.Go(func() { v.seal() })
			for i := range events {
				wg.Go(func() {
					switch _, err := v.try(fmt.Sprint(round, "-", i), false); {
					case err == nil:
						mu.Lock()
						voided++
						mu.Unlock()
					case !errors.Is(err, models.ErrEventReported):
						t.Error(err)
					}
				})
			}
			wg.Wait()
			v.seal()
			for _, r := range v.reports()[before:] {
				sum += r.Value
			}
			if sum+voided != events {
				t.Errorf("round %d: %d of %d units are in reports, and %d were voided before", round, sum, events, voided)
			}
			v.wantVerified()
			v.now = v.now.Add(time.Hour)
		}
	})
}
