package web

import (
	"net/url"

	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// usage answers what a check for one more unit would answer.
func (s *Server) usage(c echo.Context) error {
	email, err := emailParam(c)
	if err != nil {
		return err
	}
	ctx, cancel := deciding(c)
	defer cancel()
	a, err := s.gate.Check(ctx, enforcement.Person{Email: email}, 1)
	if err != nil {
		return err
	}
	return s.answer(c, &a, models.NotifyAlways)
}

func emailParam(c echo.Context) (string, error) {
	raw := c.Param("email")
	// Echo matches the escaped path if the URL has one. Then the parameter is still escaped.
	if c.Request().URL.RawPath != "" {
		unescaped, err := url.PathUnescape(raw)
		if err != nil {
			return "", invalid(FieldError{Path: "email", Message: models.ErrEmail.Error()})
		}
		raw = unescaped
	}
	email, err := models.ParseEmail(raw)
	if err != nil {
		return "", invalid(FieldError{Path: "email", Message: err.Error()})
	}
	return email, nil
}
