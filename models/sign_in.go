package models

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// SignInLinkLife is how long a one-time link is good for.
const SignInLinkLife = 10 * time.Minute

// maxPersonName is in characters.
const maxPersonName = 200

// ErrSlackIdentity is that a Slack team or user is named by what cannot be an id.
var ErrSlackIdentity = errors.New("the id of a Slack team or user is " + SlackIDRule)

// SignInLink lets somebody sign in once. It is removed when it is used.
type SignInLink struct {
	bun.BaseModel `bun:"table:sign_in_links"`

	// TokenHash is the SHA-256 of the link's token.
	TokenHash []byte `bun:",pk"`
	Email     string
	CreatedAt time.Time
	ExpiresAt time.Time
}

// CreateSignInLink makes a one-time link for somebody who is known and returns its token; only the token's hash is
// stored. It returns ErrEmail for what cannot be an address, and an Error with CodeUnknownUser.
func CreateSignInLink(ctx context.Context, db *DB, now time.Time, email string) (string, error) {
	given := email
	email, err := ParseEmail(given)
	if err != nil {
		return "", fmt.Errorf("make a sign-in link: %q %w", given, err)
	}
	// 26 letters and digits of base32, 130 bits of chance: nothing in it that a chat program takes for markup.
	token := rand.Text()
	hash := sha256.Sum256([]byte(token))
	err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if known, err := tx.NewSelect().Model((*User)(nil)).Where("email = ?", email).Exists(ctx); err != nil {
			return err
		} else if !known {
			return &Error{Code: CodeUnknownUser, Detail: fmt.Sprintf("Nobody has the email %s; make them known with: tollgate user set %s", email, email)}
		}
		link := SignInLink{TokenHash: hash[:], Email: email, CreatedAt: now, ExpiresAt: now.Add(SignInLinkLife)}
		if _, err := tx.NewInsert().Model(&link).Exec(ctx); err != nil {
			return err
		}
		return Audit(ctx, tx, now, ActorShell, "sign_in_link.create", email, "")
	})
	if err != nil {
		return "", fmt.Errorf("make a sign-in link for %s: %w", email, err)
	}
	return token, nil
}

// SignInLinkEmail says whom a link signs in, and changes nothing. It returns an Error with CodeUnknownLink for a link that
// is used, expired or was never made.
func SignInLinkEmail(ctx context.Context, db bun.IDB, now time.Time, token string) (string, error) {
	hash := sha256.Sum256([]byte(token))
	var emails []string
	err := db.NewSelect().Model((*SignInLink)(nil)).Column("email").Where("token_hash = ? AND expires_at > ?", hash[:], now).Scan(ctx, &emails)
	if err != nil {
		return "", fmt.Errorf("look at a sign-in link: %w", err)
	}
	if len(emails) == 0 {
		return "", errUnknownLink()
	}
	return emails[0], nil
}

// UseSignInLink returns whom a link signs in, and is the only one to do so: of all who come with the same token one gets
// the answer and the others an Error with CodeUnknownLink.
func UseSignInLink(ctx context.Context, db *DB, now time.Time, token string) (string, error) {
	hash := sha256.Sum256([]byte(token))
	var emails []string
	err := db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		emails = nil
		_, err := tx.NewDelete().Model((*SignInLink)(nil)).Where("token_hash = ? AND expires_at > ?", hash[:], now).Returning("email").Exec(ctx, &emails)
		if err != nil {
			return err
		}
		if len(emails) == 0 {
			return errUnknownLink()
		}
		return Audit(ctx, tx, now, emails[0], "sign_in_link.use", emails[0], "")
	})
	if err != nil {
		return "", fmt.Errorf("use a sign-in link: %w", err)
	}
	return emails[0], nil
}

func errUnknownLink() *Error {
	return &Error{Code: CodeUnknownLink, Detail: "This link was used before, is older than 10 minutes, or is not complete. Ask whoever sent it for a new one."}
}

// SignInBySlack returns the email of the person whom Slack knows by this identity, and notes their name. It is the
// identity that counts: the email, which Slack must have verified, is only asked when nobody has the identity yet. Then it
// links the identity to that email's usage, made when missing.
//
// A Slack team decides which emails its people have, so an email alone moves nobody from one team to another and makes
// nobody of an unknown team an operator: both are an Error with CodeSignInRefused. It returns ErrEmail and ErrSlackIdentity
// for what cannot be one.
func SignInBySlack(ctx context.Context, db *DB, now time.Time, slack SlackIdentity, email, name string) (string, error) {
	for _, id := range []string{slack.TeamID, slack.UserID} {
		if !IsSlackID(id) {
			return "", fmt.Errorf("sign in by Slack: %w", ErrSlackIdentity)
		}
	}
	email, err := ParseEmail(email)
	if err != nil {
		return "", fmt.Errorf("sign in by Slack: the email %w", err)
	}
	err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		known, err := EmailsOf(ctx, tx, []SlackIdentity{slack})
		if err != nil {
			return err
		}
		if of, ok := known[slack]; ok {
			email = of
		} else if err := linkBySignIn(ctx, db, tx, now, Link{Email: email, Slack: slack}); err != nil {
			return err
		}
		return setName(ctx, tx, email, name)
	})
	if err != nil {
		return "", fmt.Errorf("sign in %s by Slack: %w", email, err)
	}
	return email, nil
}

// linkBySignIn links an identity that nobody has to the person with the email.
func linkBySignIn(ctx context.Context, db *DB, tx bun.Tx, now time.Time, l Link) error {
	var user User
	if err := lockUser(ctx, db, tx, now, l.Email, &user); err != nil {
		return err
	}
	team, err := workspaceByTeam(ctx, tx, l.Slack.TeamID)
	if err != nil {
		return err
	}
	inTeam := team != nil && user.WorkspaceID != nil && *user.WorkspaceID == team.ID
	if !inTeam && (user.WorkspaceID != nil || user.Operator) {
		return &Error{Code: CodeSignInRefused, Detail: "Somebody of another Slack workspace has your email address here. Whoever runs this service can put you in your workspace."}
	}
	return linkPeople(ctx, db, tx, now, []Link{l})
}

// SignInByEmail returns the email in the form that it is stored in, of a person whom an issuer other than Slack vouches
// for; it makes them when they are new, and notes their name.
func SignInByEmail(ctx context.Context, db *DB, now time.Time, email, name string) (string, error) {
	email, err := ParseEmail(email)
	if err != nil {
		return "", fmt.Errorf("sign in by email: it %w", err)
	}
	err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := ensureUsers(ctx, tx, []string{email}, now); err != nil {
			return err
		}
		return setName(ctx, tx, email, name)
	})
	if err != nil {
		return "", fmt.Errorf("sign in %s: %w", email, err)
	}
	return email, nil
}

// setName keeps what a person is called; an issuer that does not say takes no name away.
func setName(ctx context.Context, tx bun.IDB, email, name string) error {
	name = strings.TrimSpace(printable(name))
	if name == "" {
		return nil
	}
	if utf8.RuneCountInString(name) > maxPersonName {
		name = string([]rune(name)[:maxPersonName])
	}
	_, err := tx.NewUpdate().Model((*User)(nil)).Set("name = ?, folded_name = ?", name, strings.ToLower(name)).
		Where("email = ? AND (name <> ? OR folded_name IS NULL)", email, name).Exec(ctx)
	return err
}

// printable is a text of somebody else's without what cannot be shown or stored.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || isNotPrint(r) {
			return -1
		}
		return r
	}, s)
}

// AdminsOf returns an organization's admins, by email; ten at most, as a list of people to ask.
func AdminsOf(ctx context.Context, db bun.IDB, organization uuid.UUID) ([]User, error) {
	var admins []User
	err := db.NewSelect().Model(&admins).Where("role = ?", Admin).Where("workspace_id IN (SELECT id FROM workspaces WHERE organization_id = ?)", organization).
		Order("email").Limit(10).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("find the admins of the organization %s: %w", organization, err)
	}
	return admins, nil
}
