package models_test

import (
	"testing"
	"time"

	"tollgate/models"
)

// TestSlackRequests stores requests from Slack. A repeated one is not new, until it is too old for
// Slack to repeat it.
func TestSlackRequests(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for i, test := range []struct {
			after time.Duration
			id    string
			want  bool
		}{{0, "a", true}, {0, "a", false}, {47 * time.Hour, "a", false}, {47 * time.Hour, "b", true}, {49 * time.Hour, "a", true}} {
			now := noon.Add(test.after)
			f.retain(t, now, "forever")
			if got, err := models.TakeSlackRequest(f.ctx, f.db, now, test.id); got != test.want || err != nil {
				t.Errorf("%d: %t, %v; want %t", i, got, err, test.want)
			}
		}
	})
}
