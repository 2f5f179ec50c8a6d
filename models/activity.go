package models

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// ActivityEvent is one use of units, as people see it.
type ActivityEvent struct {
	ID         uuid.UUID `bun:",type:uuid"`
	OccurredAt time.Time
	RecordedAt time.Time
	Quantity   int64
	// OverageQuantity is the part of Quantity that is billed, and OverageCents is its price.
	OverageQuantity int64
	OverageCents    int64
	// UsedAfter is the units used in the period after this event, when it was recorded.
	UsedAfter int64
	// Workspace is the Slack team; empty without one.
	Workspace      string
	IdempotencyKey *string
	HoldID         *uuid.UUID `bun:",type:uuid"`
	// VoidedAt is when the event was reversed; nil otherwise.
	VoidedAt   *time.Time
	VoidReason *string
}

// ActivityCursor is a position in a list of events, newest first.
type ActivityCursor struct {
	at time.Time
	id uuid.UUID
}

// ErrCursor means that a text is not the cursor of an earlier answer.
var ErrCursor = errors.New("must be the next_cursor of an earlier response")

// String returns the text that ParseCursor parses.
func (c ActivityCursor) String() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(c.at.UnixMicro(), 10) + ":" + c.id.String()))
}

// ParseCursor parses the text of a cursor. It returns ErrCursor.
func ParseCursor(text string) (*ActivityCursor, error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, ErrCursor
	}
	at, id, _ := strings.Cut(string(raw), ":")
	micros, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return nil, ErrCursor
	}
	c := &ActivityCursor{at: time.UnixMicro(micros).UTC()}
	if c.id, err = uuid.Parse(id); err != nil || c.String() != text {
		return nil, ErrCursor
	}
	return c, nil
}

// ActivityPage is a part of a person's events, newest first.
type ActivityPage struct {
	// Period is from the start of the first billing period that the query selects to the end of the
	// last one; the query's Whole if it selects none.
	Period Period
	Events []ActivityEvent
	// DeletedBefore is set if events of these periods were deleted: those that were recorded before
	// it and that nothing waits for. The usage records still count them.
	DeletedBefore *time.Time
	// Next continues the list; nil at its end.
	Next *ActivityCursor
}

// Activity returns the events of a person in the billing periods that a query selects, newest
// first, after a cursor (nil: from the start), and at most limit of them.
func Activity(ctx context.Context, db bun.IDB, user uuid.UUID, query PeriodQuery, after *ActivityCursor, limit int) (ActivityPage, error) {
	page := ActivityPage{Period: query.Whole}
	var records []UsageRecord
	err := db.NewSelect().Model(&records).Column("id", "billing_period_start", "billing_period_end").
		Where("user_id = ? AND billing_period_start >= ? AND billing_period_start < ?", user, query.Start, query.End).
		Order("billing_period_start DESC").Scan(ctx)
	if err != nil {
		return ActivityPage{}, fmt.Errorf("read the billing periods of a person: %w", err)
	}
	for i := range records {
		p := records[i].Period()
		if i == 0 {
			page.Period.End = p.End
		}
		page.Period.Start = p.Start
		if len(page.Events) > limit || after != nil && p.Start.After(after.at) {
			continue
		}
		// One record at a time, so that the index gives the events in their order.
		var events []ActivityEvent
		q := db.NewSelect().TableExpr("usage_events AS e").Join("LEFT JOIN workspaces AS w ON w.id = e.workspace_id").
			Column("e.id", "e.occurred_at", "e.recorded_at", "e.quantity", "e.overage_quantity", "e.overage_cents", "e.used_after",
				"e.idempotency_key", "e.hold_id", "e.voided_at", "e.void_reason").
			ColumnExpr("COALESCE(w.name, '') AS workspace").
			Where("e.user_id = ? AND e.record_id = ?", user, records[i].ID).
			Order("e.occurred_at DESC", "e.id DESC").Limit(int64(limit + 1 - len(page.Events)))
		if after != nil {
			q = q.Where("e.occurred_at <= ? AND (e.occurred_at < ? OR e.id < ?)", after.at, after.at, after.id)
		}
		if err := q.Scan(ctx, &events); err != nil {
			return ActivityPage{}, fmt.Errorf("read the activity of a person: %w", err)
		}
		page.Events = append(page.Events, events...)
	}
	if page.DeletedBefore, err = deletedBefore(ctx, db, user, records); err != nil {
		return ActivityPage{}, err
	}
	if len(page.Events) > limit {
		page.Events = page.Events[:limit]
		last := page.Events[limit-1]
		page.Next = &ActivityCursor{at: last.OccurredAt.UTC(), id: last.ID}
	}
	return page, nil
}

// deletedBefore returns PrunedBefore if events of the records were deleted, and otherwise nil.
func deletedBefore(ctx context.Context, db bun.IDB, user uuid.UUID, records []UsageRecord) (*time.Time, error) {
	if len(records) == 0 {
		return nil, nil
	}
	ids := make([]int64, len(records))
	for i := range records {
		ids[i] = records[i].ID
	}
	some, err := db.NewSelect().Model((*UsagePruned)(nil)).Where("user_id = ? AND record_id IN (?)", user, bun.List(ids)).Exists(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for deleted events of a person: %w", err)
	}
	if !some {
		return nil, nil
	}
	before, err := PrunedBefore(ctx, db)
	return &before, err
}
