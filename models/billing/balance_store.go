package billing

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// balanceRow is a row of stripe_balances.
type balanceRow struct {
	bun.BaseModel `bun:"table:stripe_balances"`

	Payer                  string
	MeterEventName         string
	PeriodStart, PeriodEnd time.Time
	Part                   models.OveragePart
	Units, Cents           int64
	CheckedAt              time.Time
}

// writeBalances replaces the balances of the same payers, meters and periods. before, if not nil,
// runs first in the transaction. A lock serializes this among processes; otherwise two of them
// could each leave parts of the same balance.
func (r *Reporter) writeBalances(
	ctx context.Context, balances []models.OverageBalance, before func(context.Context, bun.Tx) error,
) error {
	return r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		lock := models.ForUpdate(tx.NewSelect().Model((*models.StripeState)(nil)).Column("id").Where("id = 1"))
		if err := lock.Scan(ctx, new(int)); err != nil {
			return err
		}
		if before != nil {
			if err := before(ctx, tx); err != nil {
				return err
			}
		}
		return replaceBalances(ctx, tx, balances)
	})
}

func replaceBalances(ctx context.Context, tx bun.Tx, balances []models.OverageBalance) error {
	var rows []balanceRow
	for _, b := range balances {
		if _, err := tx.NewDelete().Model((*balanceRow)(nil)).Where("payer = ? AND meter_event_name = ? AND period_start < ? AND period_end > ?",
			b.Payer, b.MeterEventName, b.Period.End, b.Period.Start).Exec(ctx); err != nil {
			return err
		}
		add := func(part models.OveragePart, o models.OverageSum) {
			rows = append(rows, balanceRow{
				Payer: b.Payer, MeterEventName: b.MeterEventName, PeriodStart: b.Period.Start, PeriodEnd: b.Period.End, Part: part,
				Units: o.Units, Cents: o.Cents,
				CheckedAt: b.CheckedAt,
			})
		}
		add(models.OverageDecided, b.Decided)
		add(models.OverageSent, b.Sent)
		add(models.OverageCounted, b.Counted)
		add(models.OverageInvoiced, b.Invoiced)
		for _, r := range b.Reasons {
			add(r.Part, r.OverageSum)
		}
	}
	for some := range slices.Chunk(rows, 500) {
		if _, err := tx.NewInsert().Model(&some).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Balances returns the balances of billing periods that ended after since, by payer, meter and
// period.
func Balances(ctx context.Context, db bun.IDB, since time.Time) ([]models.OverageBalance, error) {
	return readBalances(ctx, db, db.NewSelect().Model((*balanceRow)(nil)).Where("period_end > ?", since))
}

func readBalances(ctx context.Context, db bun.IDB, q *bun.SelectQuery) ([]models.OverageBalance, error) {
	var rows []balanceRow
	if err := q.Order("payer", "meter_event_name", "period_start").Scan(ctx, &rows); err != nil {
		return nil, fmt.Errorf("read balances: %w", err)
	}
	var balances []models.OverageBalance
	for _, row := range rows {
		n := len(balances)
		if n == 0 || balances[n-1].Payer != row.Payer || balances[n-1].MeterEventName != row.MeterEventName ||
			!balances[n-1].Period.Start.Equal(row.PeriodStart) {
			balances = append(balances, models.OverageBalance{
				Payer: row.Payer, MeterEventName: row.MeterEventName, CheckedAt: row.CheckedAt.UTC(),
				Period: models.Period{Start: row.PeriodStart.UTC(), End: row.PeriodEnd.UTC()},
			})
			n++
		}
		balances[n-1].Set(row.Part, models.OverageSum{Units: row.Units, Cents: row.Cents})
	}
	return balances, namePayers(ctx, db, balances)
}

// namePayers sets the names of organizations and people.
func namePayers(ctx context.Context, db bun.IDB, balances []models.OverageBalance) error {
	names := map[string]string{}
	queries := map[string]string{
		payerOrganization: "SELECT id, name FROM organizations WHERE id IN (?)",
		payerUser:         "SELECT id, email AS name FROM users WHERE id IN (?)",
	}
	for prefix, from := range queries {
		var ids []uuid.UUID
		for _, b := range balances {
			if text, ok := strings.CutPrefix(b.Payer, prefix); ok {
				if id, err := uuid.Parse(text); err == nil && !slices.Contains(ids, id) {
					ids = append(ids, id)
				}
			}
		}
		for some := range slices.Chunk(ids, 500) {
			var rows []struct {
				ID   uuid.UUID `bun:",type:uuid"`
				Name string
			}
			if err := db.NewRaw(from, bun.List(some)).Scan(ctx, &rows); err != nil {
				return fmt.Errorf("read the names of payers: %w", err)
			}
			for _, row := range rows {
				names[prefix+row.ID.String()] = row.Name
			}
		}
	}
	for i := range balances {
		balances[i].Name = names[balances[i].Payer]
	}
	return nil
}
