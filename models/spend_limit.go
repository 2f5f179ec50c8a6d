package models

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// MaxSpendLimitCents is one million in the currency, and MaxMemberLimit one billion units. They
// keep all products within 64 bits.
const (
	MaxSpendLimitCents = 100_000_000
	MaxMemberLimit     = 1_000_000_000
)

// ErrAmount means that a text is not a valid amount of money.
var ErrAmount = errors.New("must be an amount such as 25 or 12.50, from 0 to 1,000,000")

// ParseAmount parses an amount of money as people type it, and returns cents: "25", "12.5",
// "12,50", "$ 1,000.00". It returns ErrAmount.
func ParseAmount(text string) (int64, error) {
	text = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), "$"))
	whole, part := text, ""
	if i := strings.LastIndexAny(text, ".,"); i >= 0 && len(text)-i <= 3 {
		whole, part = text[:i], text[i+1:]
		if part == "" {
			return 0, ErrAmount
		}
	}
	if groups := strings.Split(whole, ","); len(groups) > 1 {
		for i, g := range groups {
			if len(g) != 3 && (i > 0 || g == "" || len(g) > 3) {
				return 0, ErrAmount
			}
		}
		whole = strings.Join(groups, "")
	}
	if whole == "" || len(whole) > 9 || strings.Trim(whole+part, "0123456789") != "" {
		return 0, ErrAmount
	}
	cents, err := strconv.ParseInt(whole+part+strings.Repeat("0", 2-len(part)), 10, 64)
	if err != nil || cents > MaxSpendLimitCents {
		return 0, ErrAmount
	}
	return cents, nil
}

// SetSpendLimit sets the maximum price of a person's overage in a billing period, in cents; nil
// means no limit. It applies from the next decision, and is added to the audit log. Setting the
// current limit again does nothing. It returns an Error with CodeUnknownUser.
func SetSpendLimit(ctx context.Context, db *DB, c *Catalogue, now time.Time, actor string, id uuid.UUID, cents *int64) error {
	err := db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		var user User
		if err := lockUserByID(ctx, tx, id, &user); errors.Is(err, errSetAgain) {
			return &Error{Code: CodeUnknownUser, Detail: "This person does not exist anymore."}
		} else if err != nil {
			return err
		}
		if equal(user.SpendLimitCents, cents) {
			return nil
		}
		if _, err := tx.NewUpdate().Model((*User)(nil)).Set("spend_limit_cents = ?", cents).Where("id = ?", id).Exec(ctx); err != nil {
			return err
		}
		return Audit(ctx, tx, now, actor, "spend_limit.set", user.Email, c.limitText(user.SpendLimitCents)+" to "+c.limitText(cents))
	})
	if err != nil {
		return fmt.Errorf("set the spend limit of the user %s: %w", id, err)
	}
	return nil
}

func (c *Catalogue) limitText(cents *int64) string {
	if cents == nil {
		return "no limit"
	}
	return c.FormatMoney(*cents)
}
