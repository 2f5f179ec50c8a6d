package web

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

type healthAnswer struct {
	Status  string `json:"status" enum:"ok"`
	Version string `json:"version"`
}

// healthz says that the process runs.
func (s *Server) healthz(c echo.Context) error {
	return c.JSON(http.StatusOK, healthAnswer{Status: "ok", Version: s.version})
}

// readyz says that calls can be recorded here, and go on to be: the database takes writes, and the server is not stopping.
func (s *Server) readyz(c echo.Context) error {
	if s.stop.draining.Load() {
		return errDraining
	}
	if err := s.gate.Ready(c.Request().Context()); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, healthAnswer{Status: "ok", Version: s.version})
}
