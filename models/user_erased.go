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

// ErasedPayload replaces the text of a webhook about an erased person's Stripe customer.
const ErasedPayload = "{}"

// erasedLabel returns the label of an erased person: "<user id>@erased.invalid".
func erasedLabel(user uuid.UUID) string { return user.String() + "@" + erasedDomain }

// ErasedUser returns the ID in the label of an erased person. ok is false for any other text.
func ErasedUser(label string) (user uuid.UUID, ok bool) {
	local, domain, _ := strings.Cut(strings.ToLower(strings.TrimSpace(label)), "@")
	user, err := uuid.Parse(local)
	return user, err == nil && domain == erasedDomain
}

// IsErased reports whether a person was erased.
func IsErased(ctx context.Context, db bun.IDB, user uuid.UUID) (bool, error) {
	erased, err := db.NewSelect().Model((*User)(nil)).Where("id = ? AND erased_at IS NOT NULL", user).Exists(ctx)
	if err != nil {
		return false, fmt.Errorf("check whether the user %s was erased: %w", user, err)
	}
	return erased, nil
}
