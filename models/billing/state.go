package billing

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// State returns the row that says whether anything is sent.
func State(ctx context.Context, db bun.IDB) (models.StripeState, error) {
	var s models.StripeState
	if err := db.NewSelect().Model(&s).Where("id = 1").Scan(ctx); err != nil {
		return s, fmt.Errorf("read the state of sending: %w", err)
	}
	return s, nil
}

// ErrOtherAccount says that the key is another account's than everything here is of.
var ErrOtherAccount = errors.New("the key is of another account at Stripe than what is kept here, or of its other mode")

// claimAccount sees to it that the key is of the account and mode that this database is of: the first that is seen. It returns
// ErrOtherAccount, or what is wrong with Stripe or the database.
func (c *Client) claimAccount(ctx context.Context, db *models.DB) error {
	account, err := c.account(ctx)
	if err != nil {
		return err
	}
	return db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewUpdate().Model((*models.StripeState)(nil)).Set("account_id = ?", account).Where("id = 1 AND account_id = ''").Exec(ctx); err != nil {
			return err
		}
		if _, err := tx.NewUpdate().Model((*models.StripeState)(nil)).Set("livemode = ?", c.Live).Where("id = 1 AND livemode IS NULL").Exec(ctx); err != nil {
			return err
		}
		s, err := State(ctx, tx)
		if err != nil {
			return err
		}
		return c.fits(s, account)
	})
}

// compareAccount is claimAccount that writes nothing: a database that is of no account yet fits every key.
func (c *Client) compareAccount(ctx context.Context, db *models.DB) error {
	account, err := c.account(ctx)
	if err != nil {
		return err
	}
	s, err := State(ctx, db)
	if err != nil {
		return err
	}
	return c.fits(s, account)
}

// fits returns ErrOtherAccount when the key, which is of this account, is not of the one that is kept. A key that may not read its
// account is taken by its mode alone.
func (c *Client) fits(s models.StripeState, account string) error {
	if s.Livemode == nil || (account == "" || s.AccountID == "" || s.AccountID == account) && *s.Livemode == c.Live {
		return nil
	}
	return fmt.Errorf("%w: this database is of %s (%s), and the key of %s (%s)", ErrOtherAccount, s.AccountID, mode(*s.Livemode), account, mode(c.Live))
}

// accountCheck finds out once in a process that its key is of the right account.
type accountCheck struct {
	accountMu    sync.Mutex
	accountKnown bool
}

// checkAccount sees to it that the key is of the account and mode that all customers and prices here are of. With another one's key
// Stripe knows none of them, as if they had all been deleted: everybody's plan would end, and what is sold would be paid elsewhere.
func (a *accountCheck) checkAccount(ctx context.Context, client *Client, db *models.DB) error {
	a.accountMu.Lock()
	known := a.accountKnown
	a.accountMu.Unlock()
	if known {
		return nil
	}
	if err := client.claimAccount(ctx, db); err != nil {
		return err
	}
	a.accountMu.Lock()
	defer a.accountMu.Unlock()
	a.accountKnown = true
	return nil
}

func mode(live bool) string {
	if live {
		return "live mode"
	}
	return "test mode"
}

// onceADay does something when a day has passed since the time in a column of the state, in one process of all. When it fails,
// whoever looks next after retry does it again.
func onceADay(ctx context.Context, db *models.DB, now time.Time, column string, retry time.Duration, do func() error) error {
	const day = 24 * time.Hour
	note := func(ctx context.Context, at time.Time, where string, args ...any) (int64, error) {
		res, err := db.NewUpdate().Model((*models.StripeState)(nil)).Set("? = ?", bun.Ident(column), at).Where("id = 1").Where(where, args...).Exec(ctx)
		if err != nil {
			return 0, fmt.Errorf("note in the state when %s was: %w", column, err)
		}
		return res.RowsAffected()
	}
	if n, err := note(ctx, now, "? IS NULL OR ? <= ?", bun.Ident(column), bun.Ident(column), now.Add(-day)); err != nil || n == 0 {
		return err
	}
	if err := do(); err != nil {
		_, failed := note(context.WithoutCancel(ctx), now.Add(retry-day), "? = ?", bun.Ident(column), now)
		return errors.Join(err, failed)
	}
	return nil
}
