package web

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"tollgate/models"
)

type healthAnswer struct {
	Status  string `json:"status" enum:"ok"`
	Version string `json:"version"`
}

// healthz says that the process runs.
func (s *Server) healthz(c echo.Context) error {
	return c.JSON(http.StatusOK, healthAnswer{Status: "ok", Version: s.version})
}

// readyz says that it can decide: the database answers.
func (s *Server) readyz(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), 2*time.Second)
	defer cancel()
	if _, err := s.db.ExecContext(ctx, "SELECT 1"); err != nil {
		return models.Unavailable(err)
	}
	return c.JSON(http.StatusOK, healthAnswer{Status: "ok", Version: s.version})
}
