package models

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// Identities are a person's email and their identities at sign-in providers.
type Identities struct {
	// Email is the address in its normal form.
	Email string
	// UserID is the zero value if no person has the email.
	UserID uuid.UUID
	// Slack is the zero value if the person is not linked to Slack.
	Slack SlackIdentity
	// Issuers are the person's identities at other OpenID issuers, oldest first.
	Issuers []IssuerIdentity
}

// IdentitiesOf returns the identities of the person whose label an email is. It returns ErrEmail
// for anything that cannot be an address.
func IdentitiesOf(ctx context.Context, db bun.IDB, email string) (Identities, error) {
	given := email
	email, err := ParseEmail(given)
	if err != nil {
		return Identities{}, fmt.Errorf("find the identities of a person: %q %w", given, err)
	}
	var found []struct {
		ID          uuid.UUID
		SlackTeamID string
		SlackUserID string
	}
	err = db.NewSelect().TableExpr("users AS u").
		Join("LEFT JOIN workspaces AS w ON w.id = u.workspace_id AND u.slack_user_id IS NOT NULL").Column("u.id").
		ColumnExpr("COALESCE(w.slack_team_id, '') AS slack_team_id, COALESCE(u.slack_user_id, '') AS slack_user_id").
		Where("u.email = ?", email).Scan(ctx, &found)
	if err != nil || len(found) == 0 {
		return Identities{Email: email}, wrapIdentities(email, err)
	}
	ids := Identities{Email: email, UserID: found[0].ID, Slack: SlackIdentity{TeamID: found[0].SlackTeamID, UserID: found[0].SlackUserID}}
	err = db.NewSelect().Model(&ids.Issuers).Where("user_id = ?", ids.UserID).Order("created_at", "issuer", "subject").Scan(ctx)
	return ids, wrapIdentities(email, err)
}

func wrapIdentities(email string, err error) error {
	if err != nil {
		return fmt.Errorf("find the identities of %s: %w", email, err)
	}
	return nil
}

// Describe returns a sentence about the email's identities, for an operator who is about to grant
// the email a role.
func (i *Identities) Describe() string {
	if i.UserID == uuid.Nil {
		return "No person has the email " + i.Email + " yet. If the command succeeds, it creates one."
	}
	known := i.List()
	if len(known) == 0 {
		return fmt.Sprintf("%s belongs to the user %s, who is not linked to Slack or another sign-in provider yet. The "+
			"first person who signs in with this verified address can get the role. Make sure that the address belongs to the person "+
			"whom you mean.", i.Email, i.UserID)
	}
	return fmt.Sprintf("%s belongs to the user %s: %s.", i.Email, i.UserID, strings.Join(known, ", "))
}

// List returns the person's identities, in words.
func (i *Identities) List() (known []string) {
	if i.Slack != (SlackIdentity{}) {
		known = append(known, fmt.Sprintf("Slack user %s in team %s", i.Slack.UserID, i.Slack.TeamID))
	}
	for _, issuer := range i.Issuers {
		known = append(known, fmt.Sprintf("subject %q at %s", issuer.Subject, issuer.Issuer))
	}
	return known
}
