package models

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// SignInLinkLife is the lifetime of a one-time link.
const SignInLinkLife = 10 * time.Minute

// maxPersonName is the maximum length of a name, in characters.
const maxPersonName = 200

// ErrSlackIdentity means that a Slack team or user ID is invalid.
var ErrSlackIdentity = errors.New("the id of a Slack team or user is " + SlackIDRule)

// SignInLink lets a person sign in once. It is deleted when it is used.
type SignInLink struct {
	bun.BaseModel `bun:"table:sign_in_links"`

	// TokenHash is the SHA-256 of the link's token.
	TokenHash []byte `bun:",pk"`
	// UserID is the person that the link signs in, even if their email changes.
	UserID    uuid.UUID `bun:",type:uuid"`
	CreatedAt time.Time
	ExpiresAt time.Time
}

// CreateSignInLink creates a one-time link for a person and returns its token; only the token's
// hash is stored. It returns ErrEmail for an invalid address, and an Error with CodeUnknownUser.
func CreateSignInLink(ctx context.Context, db *DB, now time.Time, email string) (string, error) {
	given := email
	email, err := ParseEmail(given)
	if err != nil {
		return "", fmt.Errorf("create a sign-in link: %q %w", given, err)
	}
	// 26 letters and digits of base32, which is 130 random bits, without characters that a chat
	// program treats as markup.
	token := rand.Text()
	hash := sha256.Sum256([]byte(token))
	err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		var users []uuid.UUID
		if err := tx.NewSelect().Model((*User)(nil)).Column("id").Where("email = ?", email).Scan(ctx, &users); err != nil {
			return err
		}
		if len(users) == 0 {
			return &Error{Code: CodeUnknownUser, Detail: fmt.Sprintf("No user has the email %s; create one with: tollgate user set %s "+
				"(and the same --database or --config)", email, email)}
		}
		link := SignInLink{TokenHash: hash[:], UserID: users[0], CreatedAt: now, ExpiresAt: now.Add(SignInLinkLife)}
		if _, err := tx.NewInsert().Model(&link).Exec(ctx); err != nil {
			return err
		}
		return Audit(ctx, tx, now, ActorShell, "sign_in_link.create", email, "")
	})
	if err != nil {
		return "", fmt.Errorf("create a sign-in link for %s: %w", email, err)
	}
	return token, nil
}

// SignInLinkEmail returns the current email of the person that a link signs in. It changes nothing.
// It returns an Error with CodeUnknownLink if the link was used, has expired or never existed.
func SignInLinkEmail(ctx context.Context, db bun.IDB, now time.Time, token string) (string, error) {
	hash := sha256.Sum256([]byte(token))
	var emails []string
	err := db.NewSelect().TableExpr("sign_in_links AS l").Join("JOIN users AS u ON u.id = l.user_id").Column("u.email").
		Where("l.token_hash = ? AND l.expires_at > ?", hash[:], now).Scan(ctx, &emails)
	if err != nil {
		return "", fmt.Errorf("look at a sign-in link: %w", err)
	}
	if len(emails) == 0 {
		return "", errUnknownLink()
	}
	return emails[0], nil
}

// UseSignInLink returns the person that a link signs in, once: of all calls with the same token,
// one gets the person, and the others get an Error with CodeUnknownLink.
func UseSignInLink(ctx context.Context, db *DB, now time.Time, token string) (LinkedPerson, error) {
	hash := sha256.Sum256([]byte(token))
	var person LinkedPerson
	err := db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		var users []uuid.UUID
		_, err := tx.NewDelete().Model((*SignInLink)(nil)).Where("token_hash = ? AND expires_at > ?", hash[:], now).Returning("user_id").
			Exec(ctx, &users)
		if err != nil {
			return err
		}
		if len(users) == 0 {
			return errUnknownLink()
		}
		person = LinkedPerson{UserID: users[0]}
		if err := tx.NewSelect().Model((*User)(nil)).Column("email").Where("id = ?", person.UserID).Scan(ctx, &person.Email); err != nil {
			return err
		}
		return Audit(ctx, tx, now, person.Email, "sign_in_link.use", person.Email, "")
	})
	if err != nil {
		return LinkedPerson{}, fmt.Errorf("use a sign-in link: %w", err)
	}
	return person, nil
}

func errUnknownLink() *Error {
	return &Error{Code: CodeUnknownLink, Detail: "This link was used before, is older than 10 minutes, or is not complete. Ask " +
		"whoever sent it for a new one."}
}

// ErrUnverifiedEmail means that the person's identity is unknown, and the issuer gave no verified
// email for them.
var ErrUnverifiedEmail = errors.New("the identity is unknown, and the issuer has not verified an email")

// SignInBySlack returns the person with this Slack identity, and stores their name. It follows the
// rules of LinkPeople. The email must
// be empty unless Slack has verified it; a known identity needs none.
//
// A verified email links an identity also to an admin or operator in an organization of the
// identity's team. It returns an Error with
// CodeSignInRefused if the email is that of an operator without a workspace, and also
// ErrUnverifiedEmail, ErrEmail and ErrSlackIdentity.
func SignInBySlack(ctx context.Context, db *DB, now time.Time, slack SlackIdentity, email, name string) (LinkedPerson, error) {
	for _, id := range []string{slack.TeamID, slack.UserID} {
		if !IsSlackID(id) {
			return LinkedPerson{}, fmt.Errorf("sign in with Slack: %w", ErrSlackIdentity)
		}
	}
	return signIn(ctx, db, now, "sign in with Slack", email, name, func(ctx context.Context, tx bun.Tx) ([]LinkedPerson, error) {
		known, err := PeopleByIdentity(ctx, tx, []SlackIdentity{slack})
		return slices.Collect(maps.Values(known)), err
	}, func(ctx context.Context, tx bun.Tx, email string) (LinkedPerson, error) {
		people, err := linkPeople(ctx, db, tx, now, []Link{{Email: email, Slack: slack, verified: true}})
		if err != nil {
			return LinkedPerson{}, err
		}
		return people[0], nil
	}, true)
}

// signIn finds the person with known, or else by their verified email with link, and stores their
// name. If relink is true, it also calls link for a known person with a verified email. It notes that
// the email is verified if it is the person's label.
func signIn(ctx context.Context, db *DB, now time.Time, what, email, name string,
	known func(context.Context, bun.Tx) ([]LinkedPerson, error),
	link func(ctx context.Context, tx bun.Tx, email string) (LinkedPerson, error), relink bool) (LinkedPerson, error) {
	var person LinkedPerson
	err := db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		people, err := known(ctx, tx)
		if err != nil {
			return err
		}
		isKnown := len(people) > 0
		if isKnown {
			person = people[0]
		} else if email == "" {
			return ErrUnverifiedEmail
		}
		if email != "" && (!isKnown || relink) {
			normal, err := ParseEmail(email)
			switch {
			case err == nil:
				person, err = link(ctx, tx, normal)
			case isKnown: // who needs no email
				err = nil
			default:
				err = fmt.Errorf("the email %w", err)
			}
			if err != nil {
				return err
			}
		}
		if err := NoteVerifiedEmail(ctx, tx, now, person.UserID, email); err != nil {
			return err
		}
		return setName(ctx, tx, person.UserID, name)
	})
	if err != nil {
		return LinkedPerson{}, fmt.Errorf("%s: %w", what, err)
	}
	return person, nil
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

// ErrSubject means that the issuer's subject for a person is invalid.
var ErrSubject = errors.New("the subject must have 1 to 255 printable characters")

// SignInByIssuer returns the person with this identity, and stores their name. A known identity
// needs no email. Otherwise the email, which must be empty unless the issuer has verified it, finds
// or creates the person, and the identity is linked to them. It returns ErrUnverifiedEmail,
// ErrEmail or ErrSubject.
func SignInByIssuer(ctx context.Context, db *DB, now time.Time, identity IssuerIdentity, email, name string) (LinkedPerson, error) {
	if s := identity.Subject; s == "" || len(s) > 255 || printable(s) != s {
		return LinkedPerson{}, fmt.Errorf("sign in with %s: %w", identity.Issuer, ErrSubject)
	}
	return signIn(ctx, db, now, "sign in with "+identity.Issuer, email, name, func(ctx context.Context, tx bun.Tx) ([]LinkedPerson, error) {
		var known []LinkedPerson
		err := tx.NewSelect().TableExpr("users AS u").ColumnExpr("u.id AS user_id, u.email").
			Where("u.id = (SELECT user_id FROM issuer_identities WHERE issuer = ? AND subject = ?)", identity.Issuer, identity.Subject).
			Scan(ctx, &known)
		return known, err
	}, func(ctx context.Context, tx bun.Tx, email string) (LinkedPerson, error) {
		var err error
		linked := identity
		linked.CreatedAt = now
		// Under the lock, so that a person who is being erased gets no new identity.
		var user User
		if err = lockUser(ctx, tx, now, email, &user); err != nil {
			return LinkedPerson{}, err
		}
		linked.UserID = user.ID
		_, err = tx.NewInsert().Model(&linked).Exec(ctx)
		return LinkedPerson{UserID: linked.UserID, Email: email}, err
	}, false)
}

// NoteVerifiedEmail notes that a sign-in or Slack has verified an email, so that mail may go to it. It
// does nothing if the email is empty or is not the person's label. A trigger removes the note when
// the label changes.
func NoteVerifiedEmail(ctx context.Context, db bun.IDB, now time.Time, user uuid.UUID, email string) error {
	normal, err := ParseEmail(email)
	if email == "" || err != nil || isPlaceholder(normal) {
		return nil //nolint:nilerr // a known person needs no email
	}
	_, err = db.NewUpdate().Model((*User)(nil)).Set("email_verified_at = ?", now).
		Where("id = ? AND email = ? AND email_verified_at IS NULL", user, normal).Exec(ctx)
	if err != nil {
		return fmt.Errorf("note that an email is verified: %w", err)
	}
	return nil
}

// setName stores a person's name. An empty name does not overwrite the stored one.
func setName(ctx context.Context, tx bun.IDB, user uuid.UUID, name string) error {
	name = strings.TrimSpace(printable(name))
	if name == "" {
		return nil
	}
	if utf8.RuneCountInString(name) > maxPersonName {
		name = string([]rune(name)[:maxPersonName])
	}
	_, err := tx.NewUpdate().Model((*User)(nil)).Set("name = ?, folded_name = ?", name, strings.ToLower(name)).
		Where("id = ? AND (name <> ? OR folded_name IS NULL) AND erased_at IS NULL", user, name).Exec(ctx)
	return err
}

// printable removes from a text what cannot be displayed or stored.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || isNotPrint(r) {
			return -1
		}
		return r
	}, s)
}
