package web

import (
	"github.com/danielgtaylor/huma/v2"
	"github.com/labstack/echo/v4"

	"tollgate/models/enforcement"
)

// consumeRequest asks for units and records them.
type consumeRequest struct {
	CheckRequest
	IdempotencyKey string `json:"idempotency_key" minLength:"1" maxLength:"255"`
}

// TransformSchema adds what is too long for struct tags.
func (r consumeRequest) TransformSchema(registry huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["idempotency_key"].Description = "Identifies this work. Once the units are recorded, a retry gets the first answer."
	s.Properties["idempotency_key"].Examples = []any{"C024BE91L-1763900000.000200"}
	return r.CheckRequest.TransformSchema(registry, s)
}

var consumeFields = append(lift(checkFields, func(r *consumeRequest) *CheckRequest { return &r.CheckRequest }),
	field[consumeRequest]{"idempotency_key", true, func(b *body, name string, into *consumeRequest) error {
		return b.key(name, &into.IdempotencyKey)
	}})

func (s *Server) consume(c echo.Context) error {
	r := consumeRequest{CheckRequest: CheckRequest{Quantity: 1}}
	var person enforcement.Person
	err := s.decode(c, maxBody, func(b *body) error {
		err := readObject(b, consumeFields, &r)
		person = b.person(&r.PersonName)
		return err
	})
	if err != nil {
		return err
	}
	ctx, cancel := deciding(c)
	defer cancel()
	a, err := s.gate.Consume(ctx, person, r.Quantity, r.IdempotencyKey, silently(r.Notify)...)
	if err != nil {
		return err
	}
	return s.answer(c, s.countRefusal(&a), r.Notify, appendEvent)
}
