package web

import (
	"errors"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// voidRequest names an event to reverse.
type voidRequest struct {
	PersonName
	IdempotencyKey string `json:"idempotency_key,omitempty" minLength:"1" maxLength:"255" doc:"The event's key."`
	HoldID         string `json:"hold_id,omitempty" format:"uuid" doc:"The settled hold whose event to reverse."`
	Reason         string `json:"reason" minLength:"1" maxLength:"255" doc:"Why, for the audit log and the person's activity."`

	hold uuid.UUID
}

// TransformSchema replaces the descriptions of PersonName: a void links no identity.
func (voidRequest) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["email"].Description = "The person's email address. It is trimmed and converted to lowercase."
	s.Properties["slack_team_id"].Description = "The Slack team ID; requires slack_user_id. Both IDs together identify the person."
	s.Properties["slack_user_id"].Description = "The person's Slack user ID; requires slack_team_id."
	return s
}

var voidFields = append(personFields(func(r *voidRequest) *PersonName { return &r.PersonName }),
	field[voidRequest]{"idempotency_key", false, func(b *body, name string, into *voidRequest) error {
		return b.key(name, &into.IdempotencyKey)
	}},
	field[voidRequest]{"hold_id", false, func(b *body, name string, into *voidRequest) error {
		s, ok, err := b.text(name)
		if err != nil || !ok {
			return err
		}
		id, invalid := uuid.Parse(s)
		if invalid != nil || len(s) != 36 || id == uuid.Nil {
			b.reject(name, "must be the ID of a hold")
		}
		into.hold, into.HoldID = id, s
		return nil
	}},
	field[voidRequest]{"reason", true, func(b *body, name string, into *voidRequest) error {
		return b.key(name, &into.Reason)
	}})

type voidAnswer struct {
	ConsumeAnswer
	Voided voidedBody `json:"voided"`
}

type voidedBody struct {
	Quantity     int64     `json:"quantity" doc:"Units given back."`
	Overage      int64     `json:"overage" doc:"The part of the quantity that was overage."`
	OverageCents int64     `json:"overage_cents" doc:"The price of the overage, in cents before tax."`
	VoidedAt     time.Time `json:"voided_at"`
	Reason       string    `json:"reason"`
}

// event checks that the request names one event, and returns its person. A hold names the person.
func (r *voidRequest) event(b *body) (person enforcement.Person) {
	switch {
	case len(b.fieldErrors) > 0:
	case r.HoldID == "" && r.IdempotencyKey == "":
		b.reject("idempotency_key", "is required unless hold_id is given")
	case r.HoldID == "":
		return b.person(&r.PersonName)
	case r.IdempotencyKey != "":
		b.reject("idempotency_key", "must not be given together with hold_id")
	case r.PersonName != PersonName{}:
		b.reject("hold_id", "must not be given together with a person")
	}
	return person
}

func (s *Server) void(c echo.Context) error {
	var r voidRequest
	var person enforcement.Person
	err := s.decode(c, maxBody, func(b *body) error {
		err := readObject(b, voidFields, &r)
		person = r.event(b)
		return err
	})
	if err != nil {
		return err
	}
	voided, err := models.Void(c.Request().Context(), s.db, s.catalogue, models.Now(s.now), models.NewVoid{
		Actor: actor(c), HoldID: r.hold, Email: person.Email, Slack: person.Slack, IdempotencyKey: r.IdempotencyKey, Reason: r.Reason,
		Reported: keyOf(c).Allows(models.ScopeManage),
	})
	if errors.Is(err, models.ErrEventReported) {
		return newProblem(codeInsufficientScope, "The event is already in a report to Stripe. To void it, use an API key with the scope manage.")
	}
	if err != nil {
		return err
	}
	a := enforcement.Answer{
		Standing: voided.Standing, Verdict: models.Verdict{Allowed: true}, EventID: voided.Void.EventID, Replayed: voided.Replayed,
	}
	return s.answer(c, &a, models.NotifyOnce, appendEvent, func(b []byte, _ *enforcement.Answer) []byte {
		v := &voided.Void
		b = appendInt(b, `,"voided":{"quantity":`, v.Quantity)
		b = appendInt(b, `,"overage":`, v.OverageQuantity)
		b = appendInt(b, `,"overage_cents":`, v.OverageCents)
		b = append(b, `,"voided_at":"`...)
		b = appendTime(b, v.VoidedAt)
		b = append(b, `","reason":`...)
		b = appendString(b, v.Reason)
		return append(b, '}')
	})
}
