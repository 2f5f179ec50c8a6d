package billing

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/uptrace/bun"

	"tollgate/models"
)

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

// accountCheck checks, once in a process, that the key belongs to the account and mode of the
// stored customers and prices. With another key, Stripe has none of them, as if all had been
// deleted: everyone's plan would end, and sales and reports would go to another account.
type accountCheck struct {
	client *Client
	db     *models.DB
	// after, if not nil, gets the result of each check and returns the final one.
	after func(ctx context.Context, err error) error
	// turn is held during a check. The other callers wait for its result.
	turn   chan struct{}
	passed atomic.Bool
	// refused is the ErrOtherAccount of this process; nil without one. Its key never changes, so the
	// error stays.
	refused atomic.Pointer[error]
}

func newAccountCheck(client *Client, db *models.DB, after func(ctx context.Context, err error) error) *accountCheck {
	return &accountCheck{client: client, db: db, after: after, turn: make(chan struct{}, 1)}
}

// check returns ErrOtherAccount, or an error of Stripe or the database, unless the key passes. The
// first key of a new database sets its account and mode. An error other than ErrOtherAccount is
// not final: the next call checks again.
func (a *accountCheck) check(ctx context.Context) error {
	if a.passed.Load() {
		return nil
	}
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if a.passed.Load() {
		return nil
	}
	if refused := a.refused.Load(); refused != nil {
		return *refused
	}
	err := a.client.claimAccount(ctx, a.db)
	if errors.Is(err, ErrOtherAccount) {
		a.refused.Store(&err)
	}
	if a.after != nil {
		err = a.after(ctx, err)
	}
	a.passed.Store(err == nil)
	return err
}

func mode(live bool) string {
	if live {
		return "live mode"
	}
	return "test mode"
}
