package enforcement_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// TestRetention deletes the events of random histories of 30 months, older ones first. Whatever is
// deleted, no figure changes, verify finds nothing, and each key that is still guaranteed replays.
func TestRetention(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		t.Parallel()
		p := newPast(t, f, 8, 30, 13)
		p.later(t, 9)
		kept := map[string]int{}
		deletions := 0
		for _, keep := range []string{"forever", "2y", "18mo", "300d", "90d"} {
			before, events := p.figures(t), p.events(t)
			k, err := models.ParseKeepEvents(keep)
			must(t, err)
			horizon := time.Time{}
			if keep != "forever" {
				horizon = k.Horizon(f.now)
			}
			reasons := p.waits(t, events, horizon)
			for _, reason := range reasons {
				kept[reason]++
			}
			deleted := p.pass(t, keep)
			f.clean(t)
			same(t, p.figures(t), before)
			left := p.events(t)
			for id := range events {
				if stored := left[id] != nil; stored != (reasons[id] != "") {
					t.Errorf("keep %s: the event %s is stored: %v; why it must be: %q", keep, id, stored, reasons[id])
				}
			}
			if n := int64(len(events) - len(left)); n != deleted["usage_events"] {
				t.Errorf("keep %s: %d events are gone, but %d were deleted", keep, n, deleted["usage_events"])
			}
			deletions += len(events) - len(left)
			if again := p.pass(t, keep); len(again) > 0 {
				t.Errorf("keep %s: a second pass deleted %s", keep, again)
			}
		}
		if deletions < 120 || len(kept) < 9 {
			t.Errorf("%d events were deleted; kept: %v; want each kind of event", deletions, kept)
		}
		p.wantKeys(t)
		p.wantHolds(t)
	})
}

// wantKeys repeats all calls. Calls whose events are stored replay. Those of the guaranteed time are.
func (p *past) wantKeys(t *testing.T) {
	t.Helper()
	horizon, err := models.PrunedBefore(p.ctx, p.db)
	must(t, err)
	left := p.events(t)
	refused := 0
	for _, c := range p.consumed {
		if left[c.event] == nil {
			if !c.at.Before(horizon) {
				t.Errorf("the event of %s of %s is deleted, but its key is guaranteed", c.key, c.at)
			}
			outcomes, err := p.Record(p.ctx, []enforcement.PastEvent{
				{Person: by(c.email), Quantity: c.quantity, IdempotencyKey: c.key, OccurredAt: c.at},
			})
			must(t, err)
			if refused++; !isCode(outcomes[0].Err, models.CodeInvalidRequest) ||
				!strings.Contains(outcomes[0].Err.Error(), "may have been deleted") {
				t.Errorf("a late event of %s, whose key was deleted: %+v", c.at, outcomes[0])
			}
			continue
		}
		a, err := p.Consume(p.ctx, p.person(c.email), c.quantity, c.key)
		if err != nil || !a.Replayed || a.EventID != c.event {
			t.Errorf("a repeated call of %s: %+v, %v", c.at, a, err)
		}
	}
	if refused < 30 {
		t.Errorf("only %d events were refused", refused)
	}
	p.clean(t)
}

// wantHolds checks that no hold from before the horizon is left, unless its event is stored.
func (p *past) wantHolds(t *testing.T) {
	t.Helper()
	horizon, err := models.PrunedBefore(p.ctx, p.db)
	must(t, err)
	events := map[string]bool{}
	for _, e := range p.events(t) {
		if e.HoldID != nil {
			events[e.HoldID.String()] = true
		}
	}
	var holds []models.UsageHold
	must(t, p.db.NewSelect().Model(&holds).Scan(p.ctx))
	for _, h := range holds {
		if h.State == models.HoldSettled && !events[h.ID.String()] || h.State != models.HoldSettled && h.CreatedAt.Before(horizon) {
			t.Errorf("a hold of %s is %s", h.CreatedAt, h.State)
		}
	}
}

// TestRetentionStops cancels a pass at each of its statements. Each step is whole or nothing.
func TestRetentionStops(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		t.Parallel()
		p := newPast(t, f, 11, 14, 5)
		p.exec(t, "UPDATE stripe_reports SET state = 'verified'")
		p.later(t, 20)
		before := p.figures(t)
		stop := &stopper{}
		whole := f.db.DB
		f.db.DB = whole.WithQueryHook(stop)
		for n := 1; ; n++ {
			ctx, cancel := context.WithCancel(f.ctx)
			stop.left, stop.cancel = n, cancel
			r := p.retention(t, "18mo")
			_, err := r.Pass(ctx)
			cancel()
			stop.cancel = nil
			if err == nil {
				if n < 20 {
					t.Errorf("a pass had only %d statements", n)
				}
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			f.clean(t)
		}
		f.db.DB = whole
		same(t, p.figures(t), before)
		if f.clean(t) == len(p.consumed) {
			t.Error("nothing was deleted")
		}
	})
}

// stopper cancels a context before the statement at which left reaches 0.
type stopper struct {
	mu     sync.Mutex
	left   int
	cancel context.CancelFunc
}

func (s *stopper) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left--; s.left == 0 && s.cancel != nil {
		s.cancel()
	}
	return ctx
}

func (s *stopper) AfterQuery(context.Context, *bun.QueryEvent) {}

// TestRetentionBesideCalls deletes old events while the same people consume, settle holds, record
// late events and void old ones, and while a second process deletes too.
func TestRetentionBesideCalls(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		t.Parallel()
		p := newPast(t, f, 13, 12, 24)
		p.exec(t, "UPDATE stripe_reports SET state = 'verified'")
		var calls, passes sync.WaitGroup
		stopped := make(chan struct{})
		used := make([]int64, len(p.people))
		for i, email := range p.people {
			calls.Go(func() {
				for n := range 25 {
					key := fmt.Sprint("now-", email, n)
					if a, err := f.Consume(f.ctx, by(email), 1, key); err != nil {
						t.Error(err)
					} else if a.Verdict.Allowed {
						used[i]++
					}
					late := enforcement.PastEvent{
						Person: by(email), Quantity: 1, IdempotencyKey: key + "-late", OccurredAt: f.now.AddDate(0, 0, -80-n),
					}
					if _, err := f.Record(f.ctx, []enforcement.PastEvent{late}); err != nil {
						t.Error(err)
					}
					if a, err := f.Hold(f.ctx, by(email), 1, key, time.Hour); err != nil {
						t.Error(err)
					} else if a.Hold != nil {
						if _, err := f.Settle(f.ctx, a.Hold.ID, 1); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		calls.Go(func() {
			for i, c := range p.consumed {
				if i%2 == 0 { // an event that is voided now is not old enough
					continue
				}
				_, err := models.Void(f.ctx, f.db, f.catalogue, f.now, models.NewVoid{
					Actor: models.ActorShell, Email: c.email, IdempotencyKey: c.key, Reason: "by mistake", Reported: true,
				})
				if err != nil && !isCode(err, models.CodeUnknownEvent) {
					t.Error(err)
				}
			}
		})
		deleted := make([]int64, 2)
		for i := range deleted {
			passes.Go(func() {
				for {
					r := p.retention(t, "90d")
					rows, err := r.Pass(f.ctx)
					if err != nil {
						t.Error(err)
					}
					deleted[i] += rows["usage_events"]
					select {
					case <-stopped:
						return
					default:
					}
				}
			})
		}
		calls.Wait()
		close(stopped)
		passes.Wait()
		f.clean(t)
		if deleted[0]+deleted[1] < 30 {
			t.Errorf("%d of %d events were deleted", deleted, len(p.consumed))
		}
	})
}

// TestRetentionDoubtsAClockFarAhead runs a pass with a clock that is ten years ahead: nothing is
// deleted that a clock 62 days ahead would not delete.
func TestRetentionDoubtsAClockFarAhead(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		p := newPast(t, f, 3, 6, 6)
		p.exec(t, "UPDATE stripe_reports SET state = 'verified'")
		newest := f.now
		p.later(t, 0)
		f.now = f.now.AddDate(10, 0, 0)
		if deleted := p.pass(t, "18mo"); deleted["usage_events"] != 0 {
			t.Errorf("%s were deleted", deleted)
		}
		mark, err := models.PrunedBefore(f.ctx, f.db)
		must(t, err)
		if mark.After(newest.AddDate(0, -15, 0)) {
			t.Errorf("events of before %s are refused; the newest one is of %s", mark, newest)
		}
		f.clean(t)
	})
}
