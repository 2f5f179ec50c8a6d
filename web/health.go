package web

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

type healthAnswer struct {
	Status  string `json:"status" enum:"ok"`
	Version string `json:"version"`
}

// healthz answers that the process is running.
func (s *Server) healthz(c echo.Context) error {
	return c.JSON(http.StatusOK, healthAnswer{Status: "ok", Version: s.version})
}

// readyz answers whether calls can be recorded: the database accepts writes, and the server is not
// stopping.
func (s *Server) readyz(c echo.Context) error {
	if s.stop.draining.Load() {
		return errDraining
	}
	if err := s.gate.Ready(c.Request().Context()); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, healthAnswer{Status: "ok", Version: s.version})
}
