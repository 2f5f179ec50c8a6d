package web

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestAClientThatLeavesIsNoError closes the connection at many moments while a page is created.
func TestAClientThatLeavesIsNoError(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.organization("Acme", "T1")
		f.person("ada@example.com", "T1", "admin", true)
		ada := f.signedIn("ada@example.com")
		out := &lines{}
		f.web.log = slog.New(slog.NewTextHandler(out, nil))
		for _, path := range []string{"/usage", "/org", "/org/members", "/ops", "/settings", "/plans", "/usage.csv", "/nothing"} {
			for i := range 40 {
				ctx, leave := context.WithCancel(t.Context())
				timer := time.AfterFunc(time.Duration(i)*100*time.Microsecond, leave)
				r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, http.NoBody)
				for name, value := range ada.cookies {
					r.AddCookie(&http.Cookie{Name: name, Value: value})
				}
				f.web.echo.ServeHTTP(httptest.NewRecorder(), r)
				timer.Stop()
				leave()
			}
			for _, line := range out.take() {
				if strings.Contains(line, "level=ERROR") {
					t.Errorf("%s: %s", path, line)
				}
			}
		}
	})
}
