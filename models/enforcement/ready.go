package enforcement

import (
	"context"
	"errors"
	"sync"
	"time"

	"tollgate/models"
)

const (
	// trusted is how long a recorded group shows that the next one can be recorded.
	trusted = time.Second
	// manyFailures is how many groups must fail within failedLately for the gate to be unavailable,
	// even if other groups succeeded: on a full disk, a small group may still fit where a large one
	// does not.
	manyFailures = 3
	failedLately = 2 * time.Second
	// probeEvery is the minimum time between two probes. probePatience is the maximum time of a
	// probe.
	probeEvery    = time.Second
	probePatience = 2500 * time.Millisecond
)

// failures remembers when the last groups failed because of the database, oldest first. Locked
// records and lost races do not count.
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

// lately returns how many groups failed within failedLately, at most manyFailures.
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

// Ready returns nil if the gate can record, and otherwise the reason why it cannot. While groups
// are recorded, it only asks whether the database answers. Otherwise it writes one row, at most
// once per second, so that a process that gets no calls because it was not ready finds out when it
// is ready again.
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

// answers checks with a cheap query whether the database answers.
func answers(ctx context.Context, db *models.DB) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probePatience)
	defer cancel()
	if _, err := db.ExecContext(ctx, "SELECT 1"); err != nil {
		return models.Unavailable(err)
	}
	return nil
}

// probe remembers the outcome of the last test write.
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
