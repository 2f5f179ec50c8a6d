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

// State returns the state of sending.
func State(ctx context.Context, db bun.IDB) (models.StripeState, error) {
	var s models.StripeState
	if err := db.NewSelect().Model(&s).Where("id = 1").Scan(ctx); err != nil {
		return s, fmt.Errorf("read the state of sending: %w", err)
	}
	return s, nil
}

// ErrOtherAccount means that the key belongs to another account or mode than the stored data.
var ErrOtherAccount = errors.New("the key belongs to another Stripe account or mode than the data in this database")

// claimAccount checks that the key belongs to the account and mode of this database. The first key
// sets them. It returns ErrOtherAccount, or an error of Stripe or the database.
func (c *Client) claimAccount(ctx context.Context, db *models.DB) error {
	account, err := c.account(ctx)
	if err != nil {
		return err
	}
	return db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewUpdate().Model((*models.StripeState)(nil)).Set("account_id = ?", account).Where("id = 1 AND account_id = ''").
			Exec(ctx); err != nil {
			return err
		}
		if _, err := tx.NewUpdate().Model((*models.StripeState)(nil)).Set("livemode = ?", c.Live).Where("id = 1 AND livemode IS NULL").
			Exec(ctx); err != nil {
			return err
		}
		s, err := State(ctx, tx)
		if err != nil {
			return err
		}
		return c.fits(s, account)
	})
}

// compareAccount is claimAccount without writing: any key matches a database without an account.
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

// fits returns ErrOtherAccount if the key, which belongs to this account, is not for the stored
// one. If a key may not read its account, only its mode is compared.
func (c *Client) fits(s models.StripeState, account string) error {
	if s.Livemode == nil || (account == "" || s.AccountID == "" || s.AccountID == account) && *s.Livemode == c.Live {
		return nil
	}
	return fmt.Errorf("%w: the data belongs to %s (%s), the key to %s (%s)", ErrOtherAccount, s.AccountID, mode(*s.Livemode),
		account, mode(c.Live))
}

// accountCheck checks the key's account once in a process.
type accountCheck struct {
	accountMu    sync.Mutex
	accountKnown bool
}

// checkAccount checks that the key belongs to the account and mode of the stored customers and
// prices. With another key, Stripe has none of them, as if all had been deleted: everyone's plan
// would end, and sales would go to another account.
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

// onceADay calls do if a day has passed since the time in a column of the state, in one process
// only. If do fails, the next process to check after retry calls it again.
func onceADay(ctx context.Context, db *models.DB, now time.Time, column string, retry time.Duration, do func() error) error {
	const day = 24 * time.Hour
	note := func(ctx context.Context, at time.Time, where string, args ...any) (int64, error) {
		res, err := db.NewUpdate().Model((*models.StripeState)(nil)).Set("? = ?", bun.Ident(column), at).Where("id = 1").
			Where(where, args...).Exec(ctx)
		if err != nil {
			return 0, fmt.Errorf("store the time of %s: %w", column, err)
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
