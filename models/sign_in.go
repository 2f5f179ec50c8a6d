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

// ErrUnverifiedEmail means that a person who is not known by their identity has no email that the issuer has verified.
var ErrUnverifiedEmail = errors.New("the identity is not known, and the issuer has verified no email")

// SignInBySlack returns the email of the person with this Slack identity, and stores their name. A known identity
// needs no email. Otherwise the email, which must be empty unless Slack has verified it, finds the person or makes a new one, and the
// identity is linked to them.
//
// A Slack team decides which emails its people have, so an email alone moves nobody from one team to another and makes
// no one of an unknown team an operator: both return an Error with CodeSignInRefused. SignInBySlack also returns ErrUnverifiedEmail,
// ErrEmail and ErrSlackIdentity.
func SignInBySlack(ctx context.Context, db *DB, now time.Time, slack SlackIdentity, email, name string) (string, error) {
	for _, id := range []string{slack.TeamID, slack.UserID} {
		if !IsSlackID(id) {
			return "", fmt.Errorf("sign in with Slack: %w", ErrSlackIdentity)
		}
	}
	return signIn(ctx, db, "sign in with Slack", email, name, func(ctx context.Context, tx bun.Tx) (string, error) {
		known, err := EmailsOf(ctx, tx, []SlackIdentity{slack})
		return known[slack], err
	}, func(ctx context.Context, tx bun.Tx, email string) error {
		return linkBySignIn(ctx, db, tx, now, Link{Email: email, Slack: slack})
	})
}

// signIn finds the person by known, or else by their verified email with link, and stores their name.
func signIn(ctx context.Context, db *DB, what, email, name string, known func(context.Context, bun.Tx) (string, error),
	link func(ctx context.Context, tx bun.Tx, email string) error) (string, error) {
	var person string
	err := db.InTx(ctx, func(ctx context.Context, tx bun.Tx) (err error) {
		if person, err = known(ctx, tx); err != nil {
			return err
		}
		if person == "" {
			if email == "" {
				return ErrUnverifiedEmail
			}
			if person, err = ParseEmail(email); err != nil {
				return fmt.Errorf("the email %w", err)
			}
			if err := link(ctx, tx, person); err != nil {
				return err
			}
		}
		return setName(ctx, tx, person, name)
	})
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	return person, nil
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
	_, err = linkPeople(ctx, db, tx, now, []Link{l})
	return err
}

// IssuerIdentity is a person at an OpenID issuer other than Slack.
// Source: https://openid.net/specs/openid-connect-core-1_0.html#ClaimStability
type IssuerIdentity struct {
	bun.BaseModel `bun:"table:issuer_identities"`

	Issuer    string    `bun:",pk"`
	Subject   string    `bun:",pk"`
	UserID    uuid.UUID `bun:",type:uuid"`
	CreatedAt time.Time
}

// ErrSubject means that an issuer identifies a person by something that cannot be a subject.
var ErrSubject = errors.New("the subject must have 1 to 255 printable characters")

// SignInByIssuer returns the email of the person with this identity, and stores their name. A known identity needs no email.
// Otherwise the email, which must be empty unless the issuer has verified it, finds the person or makes a new one, and the identity is
// linked to them. It returns ErrUnverifiedEmail, ErrEmail and ErrSubject.
func SignInByIssuer(ctx context.Context, db *DB, now time.Time, identity IssuerIdentity, email, name string) (string, error) {
	if s := identity.Subject; s == "" || len(s) > 255 || printable(s) != s {
		return "", fmt.Errorf("sign in with %s: %w", identity.Issuer, ErrSubject)
	}
	return signIn(ctx, db, "sign in with "+identity.Issuer, email, name, func(ctx context.Context, tx bun.Tx) (string, error) {
		var emails []string
		err := tx.NewSelect().Model((*User)(nil)).Column("email").
			Where("id = (SELECT user_id FROM issuer_identities WHERE issuer = ? AND subject = ?)", identity.Issuer, identity.Subject).Scan(ctx, &emails)
		if err != nil || len(emails) == 0 {
			return "", err
		}
		return emails[0], nil
	}, func(ctx context.Context, tx bun.Tx, email string) error {
		if err := ensureUsers(ctx, tx, []string{email}, now); err != nil {
			return err
		}
		linked := identity
		linked.CreatedAt = now
		if err := tx.NewSelect().Model((*User)(nil)).Column("id").Where("email = ?", email).Scan(ctx, &linked.UserID); err != nil {
			return err
		}
		_, err := tx.NewInsert().Model(&linked).Exec(ctx)
		return err
	})
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
