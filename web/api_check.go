package web

import (
	"github.com/labstack/echo/v4"

	"tollgate/models/enforcement"
)

// CheckRequest asks whether a person may have more. Defaults are in the descriptions: a field with a default in its schema is
// required in the types of generated clients.
type CheckRequest struct {
	PersonName
	Quantity int64 `json:"quantity,omitempty" minimum:"1" maximum:"10000" doc:"Units asked for. Default: 1."`
}

var checkFields = append(personFields(func(r *CheckRequest) *PersonName { return &r.PersonName }),
	field[CheckRequest]{"quantity", false, func(b *body, name string, into *CheckRequest) error {
		return b.integer(name, 1, maxQuantity, &into.Quantity)
	}})

func (s *Server) check(c echo.Context) error {
	r := CheckRequest{Quantity: 1}
	var who enforcement.Person
	err := s.decode(c, maxBody, func(b *body) error {
		err := readObject(b, checkFields, &r)
		who = b.whom(&r.PersonName, 0)
		return err
	})
	if err != nil {
		return err
	}
	ctx, cancel := deciding(c)
	defer cancel()
	a, err := s.gate.Check(ctx, who, r.Quantity)
	if err != nil {
		return err
	}
	return s.answer(c, &a)
}
