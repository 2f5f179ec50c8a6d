package web

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// grantRequest adds included units for a person.
type grantRequest struct {
	PersonName
	Quantity       int64     `json:"quantity" minimum:"1" maximum:"1000000" doc:"Units to add."`
	Reason         string    `json:"reason" minLength:"1" maxLength:"255" doc:"Why, for the audit log."`
	ExpiresAt      time.Time `json:"expires_at,omitzero" doc:"RFC 3339, up to the end of the billing period. Default: the end of the period."`
	IdempotencyKey string    `json:"idempotency_key,omitempty" minLength:"1" maxLength:"255" doc:"Identifies the grant. A retry adds nothing."`
}

var grantFields = append(personFields(func(r *grantRequest) *PersonName { return &r.PersonName }),
	field[grantRequest]{"quantity", true, func(b *body, name string, into *grantRequest) error {
		return b.integer(name, 1, models.MaxGrant, &into.Quantity)
	}},
	field[grantRequest]{"reason", true, func(b *body, name string, into *grantRequest) error {
		return b.key(name, &into.Reason)
	}},
	field[grantRequest]{"expires_at", false, func(b *body, name string, into *grantRequest) error {
		return b.instant(name, &into.ExpiresAt)
	}},
	field[grantRequest]{"idempotency_key", false, func(b *body, name string, into *grantRequest) error {
		return b.key(name, &into.IdempotencyKey)
	}})

type grantAnswer struct {
	Decision
	Grant    grantBody `json:"grant"`
	Replayed bool      `json:"replayed" doc:"Whether an earlier call with the same key made the grant."`
}

type grantBody struct {
	ID        string    `json:"id" format:"uuid"`
	Quantity  int64     `json:"quantity" doc:"Units added."`
	Reason    string    `json:"reason"`
	ExpiresAt time.Time `json:"expires_at" doc:"When unused units are taken back."`
}

func (s *Server) grant(c echo.Context) error {
	var r grantRequest
	var person enforcement.Person
	err := s.decode(c, maxBody, func(b *body) error {
		err := readObject(b, grantFields, &r)
		person = b.person(&r.PersonName)
		return err
	})
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	g := models.NewGrant{Actor: actor(c), Quantity: r.Quantity, Reason: r.Reason}
	if !r.ExpiresAt.IsZero() {
		g.ExpiresAt = &r.ExpiresAt
	}
	if r.IdempotencyKey != "" {
		g.IdempotencyKey = &r.IdempotencyKey
	}
	now := models.Now(s.now)
	if g.UserID, err = s.linkedPerson(ctx, now, person); err != nil {
		return err
	}
	g.Email = person.Email
	granted, err := models.Grant(ctx, s.db, s.catalogue, now, g)
	if err != nil {
		return err
	}
	a := enforcement.Answer{Standing: granted.Standing, Verdict: models.Verdict{Allowed: true}, Replayed: granted.Replayed}
	return s.answer(c, &a, models.NotifyOnce, func(b []byte, a *enforcement.Answer) []byte {
		g := &granted.Grant
		b = append(b, `,"grant":{"id":"`...)
		b = appendUUID(b, g.ID)
		b = appendInt(b, `","quantity":`, g.Quantity)
		b = append(b, `,"reason":`...)
		b = appendString(b, g.Reason)
		b = append(b, `,"expires_at":"`...)
		b = appendTime(b, granted.Ends)
		return appendReplayed(append(b, `"}`...), a)
	})
}

// linkedPerson returns the person of a Slack identity, or a zero ID for a person that only an email
// names. With an email, it links the identity like all calls.
func (s *Server) linkedPerson(ctx context.Context, now time.Time, p enforcement.Person) (uuid.UUID, error) {
	if p.Slack == (models.SlackIdentity{}) {
		return uuid.Nil, nil
	}
	if p.Email == "" {
		known, err := models.PeopleByIdentity(ctx, s.db, []models.SlackIdentity{p.Slack})
		if err != nil {
			return uuid.Nil, err
		}
		if found, ok := known[p.Slack]; ok {
			return found.UserID, nil
		}
		return uuid.Nil, enforcement.ErrUnknownUser
	}
	links := []models.Link{{Email: p.Email, Slack: p.Slack}}
	people, err := models.LinkPeople(ctx, s.db, now, links)
	if err != nil {
		return uuid.Nil, err
	}
	models.LogLinked(ctx, s.log, links, people)
	return people[0].UserID, nil
}

// instant reads a time in RFC 3339.
func (b *body) instant(name string, into *time.Time) error {
	s, ok, err := b.text(name)
	if err != nil || !ok {
		return err
	}
	s = strings.ToUpper(s) // RFC 3339 allows lowercase t and z
	t, invalid := time.Parse(time.RFC3339, s)
	if invalid != nil || !instant.MatchString(s) {
		b.reject(name, "must be a time such as 2026-11-23T09:30:00Z (RFC 3339)")
		return nil
	}
	*into = t
	return nil
}
