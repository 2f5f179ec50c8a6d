package web

import (
	"github.com/danielgtaylor/huma/v2"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// CheckRequest asks whether a person may have more. The descriptions contain the defaults, because
// generated clients treat a field with a default in its schema as required.
type CheckRequest struct {
	PersonName
	Quantity int64         `json:"quantity,omitempty" minimum:"1" maximum:"10000" doc:"Units requested. Default: 1."`
	Notify   models.Notify `json:"notify,omitempty" enum:"once,always,never"`
}

// TransformSchema adds the descriptions that are too long for struct tags.
func (r CheckRequest) TransformSchema(registry huma.Registry, s *huma.Schema) *huma.Schema {
	return describeNotify(r.PersonName.TransformSchema(registry, s))
}

// describeNotify adds the description of the field notify.
func describeNotify(s *huma.Schema) *huma.Schema {
	s.Properties["notify"].Description = "Which answers have a Slack message. \"once\": each refusal, and the first consume, hold or " +
		"settlement at each warning level; an allowed check has no message. \"always\": each answer with a notice. \"never\": none. " +
		"Default: \"once\"."
	return s
}

var checkFields = append(personFields(func(r *CheckRequest) *PersonName { return &r.PersonName }),
	field[CheckRequest]{"quantity", false, func(b *body, name string, into *CheckRequest) error {
		return b.integer(name, 1, maxQuantity, &into.Quantity)
	}}, field[CheckRequest]{"notify", false, func(b *body, name string, into *CheckRequest) error {
		return b.notify(name, &into.Notify)
	}})

func (s *Server) check(c echo.Context) error {
	r := CheckRequest{Quantity: 1}
	var person enforcement.Person
	err := s.decode(c, maxBody, func(b *body) error {
		err := readObject(b, checkFields, &r)
		person = b.person(&r.PersonName)
		return err
	})
	if err != nil {
		return err
	}
	ctx, cancel := deciding(c)
	defer cancel()
	a, err := s.gate.Check(ctx, person, r.Quantity)
	if err != nil {
		return err
	}
	return s.answer(c, s.countRefusal(&a), r.Notify)
}
