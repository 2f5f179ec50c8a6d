package models

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/uptrace/bun"
)

// normalizeEmails rewrites addresses that an earlier ParseEmail stored in another form. If two
// people would get the same address, it changes nothing and returns an error that lists them.
// Addresses that ParseEmail refuses now stay the same. A later migration deletes the sessions and
// sign-in links of the old address.
func normalizeEmails(ctx context.Context, tx bun.Tx) error {
	var stored []string
	if err := tx.NewSelect().TableExpr("users").Column("email").Order("email").Scan(ctx, &stored); err != nil {
		return err
	}
	holders := make(map[string][]string, len(stored))
	var changed []string
	for _, email := range stored {
		normal, err := ParseEmail(email)
		if err != nil {
			normal = email
		}
		holders[normal] = append(holders[normal], email)
		if normal != email {
			changed = append(changed, normal)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	var same []error
	var pairs []any
	slices.Sort(changed)
	for _, normal := range slices.Compact(changed) {
		if len(holders[normal]) > 1 {
			same = append(same, fmt.Errorf("%q is the normal form of %q", normal, holders[normal]))
			continue
		}
		pairs = append(pairs, holders[normal][0], normal)
	}
	if len(same) > 0 {
		return fmt.Errorf("several users have the same email address in different spellings; for each address below, choose the user who keeps "+
			"it; change the address of the others, or delete their rows, in the tables users, usage_records, usage_events and usage_holds, "+
			"then start again: %w", errors.Join(same...))
	}
	values := strings.TrimSuffix(strings.Repeat("(?, ?), ", len(pairs)/2), ", ") // whose columns both databases call column1 and column2
	for _, table := range []string{"usage_events", "usage_holds", "usage_records", "users"} {
		query := "UPDATE " + table + " SET email = k.column2 FROM (VALUES " + values + ") AS k WHERE " + table + ".email = k.column1"
		if _, err := tx.NewRaw(query, pairs...).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}
