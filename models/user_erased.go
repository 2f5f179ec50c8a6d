package models

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// erasedDomain is the domain of the labels of erased people. No mail server can have it.
// Source: https://www.rfc-editor.org/rfc/rfc2606#section-2
const erasedDomain = "erased.invalid"

// erasedText replaces a text that could identify an erased person.
const erasedText = "erased"

// ErasedPayload replaces the text of a webhook that is not to be stored.
const ErasedPayload = "{}"

// erasedLabel returns the label of an erased person: "<user id>@erased.invalid".
func erasedLabel(user uuid.UUID) string { return user.String() + "@" + erasedDomain }

// erasedUser returns the ID in the label of an erased person. ok is false for any other text.
func erasedUser(label string) (user uuid.UUID, ok bool) {
	local, domain, _ := strings.Cut(strings.ToLower(strings.TrimSpace(label)), "@")
	user, err := uuid.Parse(local)
	return user, err == nil && domain == erasedDomain
}

// IsErased reports whether a person was erased. It locks the person, so that no erasure begins before
// the transaction ends.
func IsErased(ctx context.Context, tx bun.Tx, user uuid.UUID) (bool, error) {
	var found []User
	if err := ForUpdate(tx.NewSelect().Model(&found).Column("erased_at").Where("id = ?", user)).Scan(ctx); err != nil {
		return false, fmt.Errorf("check whether the user %s was erased: %w", user, err)
	}
	return len(found) > 0 && found[0].ErasedAt != nil, nil
}
