package enforcement

import (
	"context"
	"errors"
	"sync"
	"time"

	"tollgate/models"
)

const (
	// trusted is for how long a recorded group shows that the next one can be recorded.
	trusted = time.Second
	// manyFailures groups that failed within failedLately show that calls cannot be relied on to be recorded, even when some groups
	// in between succeeded: on a full disk, a small group may still fit where a large one does not.
	manyFailures = 3
	failedLately = 2 * time.Second
	// probeEvery is the least time between two probes, and probePatience the most that one may take.
	probeEvery    = time.Second
	probePatience = 2500 * time.Millisecond
)

// failures remembers when the last groups failed because of the database, the oldest first. Locked records and lost races do not
// count.
type failures struct {
	mu sync.Mutex
	at [manyFailures]time.Time
}

func (f *failures) add(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	copy(f.at[:], f.at[1:])
	f.at[manyFailures-1] = now
}

// lately returns how many of the last groups that failed did so within failedLately.
func (f *failures) lately(now time.Time) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, at := range f.at {
		if now.Sub(at) < failedLately {
			n++
		}
	}
	return n
}

// Ready returns nil if the gate can record, and otherwise the reason why it cannot. While groups are recorded it only asks whether
// the database answers. Otherwise it writes one row, at most once a second, so that a process which gets no calls because it was
// not ready finds out by itself that it is again.
func (g *Gate) Ready(ctx context.Context) error {
	now := time.Now()
	recorded, failed := false, false
	for _, q := range g.writers {
		n := q.failures.lately(now)
		if n >= manyFailures {
			return models.Unavailable(errors.New("the last groups of calls could not be recorded"))
		}
		failed = failed || n > 0
		recorded = recorded || now.Sub(time.Unix(0, q.recorded.Load())) < trusted
	}
	if recorded && !failed {
		return answers(ctx, g.db)
	}
	return g.probe.run(ctx, g.db)
}

// answers asks whether the database is there at this moment, which costs it next to nothing.
func answers(ctx context.Context, db *models.DB) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probePatience)
	defer cancel()
	if _, err := db.ExecContext(ctx, "SELECT 1"); err != nil {
		return models.Unavailable(err)
	}
	return nil
}

// probe remembers the outcome of the last write that was made to see whether the database takes one.
type probe struct {
	mu  sync.Mutex
	at  time.Time
	err error
}

func (p *probe) run(ctx context.Context, db *models.DB) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.at) < probeEvery {
		if p.err != nil {
			return p.err
		}
		return answers(ctx, db)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probePatience)
	defer cancel()
	p.err = nil
	if err := models.ProbeWrite(ctx, db); err != nil {
		p.err = models.Unavailable(err)
	}
	p.at = time.Now()
	return p.err
}
