package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// UsagePruned is the sum of a usage record's events that retention deleted. The record still counts
// them. A record with such a sum is fixed: its period never changes, because the events that would
// have to move are gone.
type UsagePruned struct {
	bun.BaseModel `bun:"table:usage_pruned"`

	UserID   uuid.UUID `bun:",pk,type:uuid"`
	RecordID int64     `bun:",pk"`
	// Events is their number. Units, Overage and Cents leave out voided events, as the record does.
	Events, Units, Overage, Cents int64
}

// ReportPruned is what a report counts of the events and voids that retention deleted.
type ReportPruned struct {
	bun.BaseModel `bun:"table:stripe_reports_pruned"`

	ReportID uuid.UUID `bun:",pk,type:uuid"`
	// Units are of the kind that the report counts, and include voided events; negative for a report
	// that takes back a voided event.
	Units int64
}

// retentionMark is the only row of its table.
type retentionMark struct {
	bun.BaseModel `bun:"table:retention"`

	ID           int64 `bun:",pk"`
	PrunedBefore time.Time
}

// PrunedBefore returns the time before which events may have been deleted; the zero value if none
// were. It never decreases.
func PrunedBefore(ctx context.Context, db bun.IDB) (time.Time, error) {
	var marks []retentionMark
	if err := db.NewSelect().Model(&marks).Where("id = 1").Scan(ctx); err != nil {
		return time.Time{}, fmt.Errorf("read the time before which events are deleted: %w", err)
	}
	if len(marks) == 0 {
		return time.Time{}, nil
	}
	return marks[0].PrunedBefore.UTC(), nil
}

// raisePrunedBefore stores the time before which events may be deleted from now on. It must be
// committed before the first of them is deleted, so that each transaction of the gate either finds
// an event's key or refuses the event as too old.
func raisePrunedBefore(ctx context.Context, db bun.IDB, before time.Time) error {
	_, err := db.NewInsert().Model(&retentionMark{ID: 1, PrunedBefore: before}).On("CONFLICT (id) DO UPDATE").
		Set("pruned_before = EXCLUDED.pruned_before").Where("retention_mark.pruned_before < EXCLUDED.pruned_before").Exec(ctx)
	if err != nil {
		return fmt.Errorf("store the time before which events are deleted: %w", err)
	}
	return nil
}

// prunedQuery selects the people's records with deleted events.
func prunedQuery(db bun.IDB, people any) *bun.SelectQuery {
	return db.NewSelect().Model((*UsagePruned)(nil)).Column("user_id", "record_id").Where("user_id IN (?)", people)
}

// addPruned notes a record with deleted events.
func (p persons) addPruned(row scanner) error {
	var user uuid.UUID
	var record int64
	err := row.Scan(&user, &record)
	if found := p[user]; found != nil {
		if found.pruned == nil {
			found.pruned = map[int64]bool{}
		}
		found.pruned[record] = true
	}
	return err
}

// addSums adds sums of deleted events to those that are stored.
func addSums(ctx context.Context, tx bun.Tx, records []UsagePruned, reports []ReportPruned) error {
	if len(records) > 0 {
		if _, err := tx.NewInsert().Model(&records).On("CONFLICT (user_id, record_id) DO UPDATE").
			Set("events = usage_pruned.events + EXCLUDED.events, units = usage_pruned.units + EXCLUDED.units").
			Set("overage = usage_pruned.overage + EXCLUDED.overage, cents = usage_pruned.cents + EXCLUDED.cents").Exec(ctx); err != nil {
			return err
		}
	}
	if len(reports) == 0 {
		return nil
	}
	_, err := tx.NewInsert().Model(&reports).On("CONFLICT (report_id) DO UPDATE").
		Set("units = report_pruned.units + EXCLUDED.units").Exec(ctx)
	return err
}
