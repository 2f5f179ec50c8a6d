package web

import (
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// holdRequest sets units aside.
type holdRequest struct {
	PersonName
	Quantity       int64  `json:"quantity" minimum:"1" maximum:"10000" doc:"Units to set aside."`
	IdempotencyKey string `json:"idempotency_key" minLength:"1" maxLength:"255"`
	TTLSeconds     int64  `json:"ttl_seconds,omitempty" minimum:"1" maximum:"86400"`

	Notify models.Notify `json:"notify,omitempty" enum:"once,always,never"`
}

// TransformSchema adds the descriptions that are too long for struct tags.
func (r holdRequest) TransformSchema(registry huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["idempotency_key"].Description = "Identifies this hold. The keys of holds and of events are separate, so an event " +
		"can have the same key."
	s.Properties["ttl_seconds"].Description = "Seconds until the hold expires. Default: 120. A hold expires at the latest 30 minutes " +
		"after its billing period."
	return describeNotify(r.PersonName.TransformSchema(registry, s))
}

var holdFields = append(personFields(func(r *holdRequest) *PersonName { return &r.PersonName }),
	field[holdRequest]{"quantity", true, func(b *body, name string, into *holdRequest) error {
		return b.integer(name, 1, maxQuantity, &into.Quantity)
	}},
	field[holdRequest]{"idempotency_key", true, func(b *body, name string, into *holdRequest) error {
		return b.key(name, &into.IdempotencyKey)
	}},
	field[holdRequest]{"ttl_seconds", false, func(b *body, name string, into *holdRequest) error {
		return b.integer(name, 1, maxTTL, &into.TTLSeconds)
	}},
	field[holdRequest]{"notify", false, func(b *body, name string, into *holdRequest) error {
		return b.notify(name, &into.Notify)
	}})

func (s *Server) hold(c echo.Context) error {
	r := holdRequest{TTLSeconds: defaultTTL}
	var person enforcement.Person
	err := s.decode(c, maxBody, func(b *body) error {
		err := readObject(b, holdFields, &r)
		person = b.person(&r.PersonName)
		return err
	})
	if err != nil {
		return err
	}
	ctx, cancel := deciding(c)
	defer cancel()
	a, err := s.gate.Hold(ctx, person, r.Quantity, r.IdempotencyKey, time.Duration(r.TTLSeconds)*time.Second, silently(r.Notify)...)
	if err != nil {
		return err
	}
	return s.answer(c, s.countRefusal(&a), r.Notify, appendHoldOf)
}

func appendHoldOf(b []byte, a *enforcement.Answer) []byte { return appendHold(b, a.Hold) }

// settleRequest turns a hold into recorded usage.
type settleRequest struct {
	Quantity int64         `json:"quantity" minimum:"1" maximum:"10000" doc:"Units used, at most the hold's quantity. The rest is released."`
	Notify   models.Notify `json:"notify,omitempty" enum:"once,always,never"`
}

// TransformSchema adds a description that is too long for the struct tag.
func (settleRequest) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return describeNotify(s)
}

var settleFields = []field[settleRequest]{
	{"quantity", true, func(b *body, name string, into *settleRequest) error {
		return b.integer(name, 1, maxQuantity, &into.Quantity)
	}},
	{"notify", false, func(b *body, name string, into *settleRequest) error {
		return b.notify(name, &into.Notify)
	}},
}

func (s *Server) settle(c echo.Context) error {
	var r settleRequest
	if err := s.decode(c, maxBody, func(b *body) error { return readObject(b, settleFields, &r) }); err != nil {
		return err
	}
	id, err := holdID(c)
	if err != nil {
		return err
	}
	ctx, cancel := deciding(c)
	defer cancel()
	a, err := s.gate.Settle(ctx, id, r.Quantity, silently(r.Notify)...)
	if err != nil {
		return err
	}
	return s.answer(c, &a, r.Notify, appendEvent, appendHoldOf)
}

func (s *Server) release(c echo.Context) error {
	if err := s.emptyBody(c); err != nil {
		return err
	}
	id, err := holdID(c)
	if err != nil {
		return err
	}
	ctx, cancel := deciding(c)
	defer cancel()
	a, err := s.gate.Release(ctx, id)
	if err != nil {
		return err
	}
	return s.answer(c, &a, models.NotifyOnce, appendHoldOf)
}

// holdID reads the ID in the path. An invalid ID is treated as an unknown hold.
func holdID(c echo.Context) (uuid.UUID, error) {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil || len(c.Param("id")) != 36 {
		return uuid.UUID{}, &models.Error{Code: models.CodeUnknownHold, Detail: "There is no hold with this ID."}
	}
	return id, nil
}
