package cli

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/models"
)

const (
	// retainEvery is how often a server looks for rows that are no longer needed, and retainAgain how
	// long it waits after an error.
	retainEvery = time.Hour
	retainAgain = 5 * time.Minute
	// restFactor is how long a server rests after each step of a deletion, in times of the step, so
	// that the database serves calls most of the time.
	restFactor = 9
)

// retain deletes rows that are no longer needed, until ctx ends. All processes of an installation do.
func (s *Settings) retain(ctx context.Context, d Deployment, log *slog.Logger, metrics prometheus.Registerer) {
	rows := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tollgate_retention_deleted_rows_total", Help: "Rows that were deleted because they are no longer needed.",
	}, []string{"table"})
	metrics.MustRegister(rows)
	for _, table := range models.RetentionTables {
		rows.WithLabelValues(table)
	}
	retention := models.Retention{DB: d.DB, Catalogue: d.Catalogue, Keep: s.KeepEvents, Clock: d.DB.EarlierClock(time.Now), Rest: rest}
	for {
		start := time.Now()
		deleted, err := retention.Pass(ctx)
		for table, n := range deleted {
			rows.WithLabelValues(table).Add(float64(n))
		}
		if len(deleted) > 0 {
			log.Info("deleted old rows", "keep_events", s.KeepEvents.String(), "rows", deleted)
		}
		pause := untilRetained(time.Since(start), err)
		if err != nil && ctx.Err() == nil {
			log.Warn("could not delete all old rows; retrying", "error", err, "after", pause.String())
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// untilRetained returns how long to wait after a pass that took a time and ended with err.
func untilRetained(took time.Duration, err error) time.Duration {
	if err != nil {
		return retainAgain
	}
	return max(0, retainEvery-took)
}

func rest(ctx context.Context, took time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(restFactor * took):
		return nil
	}
}
