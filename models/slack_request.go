package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// SlackRequest is a request from Slack that was answered, so that a repeated one is not.
type SlackRequest struct {
	bun.BaseModel `bun:"table:slack_requests"`

	// ID is "event:" and the event's ID, or "command:" and the request's signature.
	ID string `bun:",pk"`
	// ExpiresAt is when Slack can no longer repeat the request.
	ExpiresAt time.Time
}

// slackRequestLife is how long a request is stored. Slack repeats an event for up to a day, and a
// signature is accepted for a few minutes.
const slackRequestLife = 48 * time.Hour

// TakeSlackRequest stores a request. It reports whether the request is new; of two processes that
// store it at the same time, only one gets true.
func TakeSlackRequest(ctx context.Context, db bun.IDB, now time.Time, id string) (isNew bool, err error) {
	result, err := db.NewInsert().Model(&SlackRequest{ID: id, ExpiresAt: now.Add(slackRequestLife)}).On("CONFLICT (id) DO NOTHING").Exec(ctx)
	if err != nil {
		return false, fmt.Errorf("store a request from Slack: %w", err)
	}
	n, err := result.RowsAffected()
	return n == 1, err
}
