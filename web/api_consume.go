package web

import (
	"github.com/labstack/echo/v4"

	"tollgate/models/enforcement"
)

// consumeRequest asks for units and records them.
type consumeRequest struct {
	CheckRequest
	IdempotencyKey string `json:"idempotency_key" minLength:"1" maxLength:"255" doc:"Names this piece of work: a retry with the same key gets the first answer." example:"C024BE91L-1763900000.000200"`
}

var consumeFields = append(lift(checkFields, func(r *consumeRequest) *CheckRequest { return &r.CheckRequest }),
	field[consumeRequest]{"idempotency_key", true, func(b *body, name string, into *consumeRequest) error {
		return b.key(name, &into.IdempotencyKey)
	}})

func (s *Server) consume(c echo.Context) error {
	r := consumeRequest{CheckRequest: CheckRequest{Quantity: 1}}
	var who enforcement.Person
	err := s.decode(c, maxBody, func(b *body) error {
		err := readObject(b, consumeFields, &r)
		who = b.whom(&r.PersonName, 0)
		return err
	})
	if err != nil {
		return err
	}
	ctx, cancel := deciding(c)
	defer cancel()
	a, err := s.gate.Consume(ctx, who, r.Quantity, r.IdempotencyKey)
	if err != nil {
		return err
	}
	return s.answer(c, &a, appendEvent)
}
