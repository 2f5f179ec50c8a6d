package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
)

// auditPerPage is how many lines of the audit log a page shows.
const auditPerPage = 50

// opsPage is the operator's.
func (s *Server) opsPage(c echo.Context, _ *models.Viewer) error {
	return s.showOps(c, http.StatusOK, views.KeyForm{}, "", "")
}

func (s *Server) showOps(c echo.Context, status int, form views.KeyForm, newKey, reasonFault string) error {
	page := views.Ops{Frame: s.frame(c), Form: form, NewKey: newKey, NoSignIn: !s.issuer.Configured()}
	if c.QueryParam("saved") == revokedKey {
		page.Frame.Notices = append(page.Frame.Notices, ui.Notice{Kind: ui.Done, Title: "The key is revoked."})
	}
	if title, ok := stripeDone[c.QueryParam("saved")]; ok {
		page.Frame.Notices = append(page.Frame.Notices, ui.Notice{Kind: ui.Done, Title: title})
	}
	page.Keys = load(s, c, "keys", func(ctx context.Context) ([]models.APIKey, error) { return models.ListAPIKeys(ctx, s.db) })
	page.Unit = s.catalogue.UnitPlural
	page.Stripe = load(s, c, "Stripe", s.opsStripe)
	page.Stripe.Value.ReasonFault = reasonFault
	page.Audit = load(s, c, "audit log", func(ctx context.Context) (views.AuditLog, error) {
		number, err := strconv.Atoi(c.QueryParam("page"))
		if err != nil || number < 1 {
			number = 1
		}
		entries, total, err := models.AuditPage(ctx, s.db, number, auditPerPage)
		return views.AuditLog{Entries: entries, Page: number, Last: max(1, (total+auditPerPage-1)/auditPerPage)}, err
	})
	return show(c, status, views.OpsPage(page))
}

// revokedKey is what the page's address says after a key was revoked.
const revokedKey = "revoked"

// makeKey makes an API key. It answers with the page, as the key is shown this once.
func (s *Server) makeKey(c echo.Context, who *models.Viewer) error {
	form := views.KeyForm{Name: strings.TrimSpace(c.FormValue(views.FieldName))}
	for _, scope := range c.Request().PostForm[views.FieldScope] {
		form.Scopes = append(form.Scopes, models.Scope(scope))
	}
	list := strings.Join(c.Request().PostForm[views.FieldScope], ",")
	scopes, err := models.ParseScopes(list)
	if err != nil {
		form.ScopesFault = "Choose at least one of the scopes."
		return s.showOps(c, http.StatusUnprocessableEntity, form, "", "")
	}
	limit, err := models.ParseRateLimit(c.FormValue(views.FieldRateLimit))
	if form.RateLimit = c.FormValue(views.FieldRateLimit); err != nil {
		form.RateLimitFault = "Give a whole number from 0 to 1,000,000, or leave it empty."
		return s.showOps(c, http.StatusUnprocessableEntity, form, "", "")
	}
	var key string
	err = s.db.InTx(c.Request().Context(), func(ctx context.Context, tx bun.Tx) (err error) {
		if key, err = models.CreateLimitedAPIKey(ctx, tx, models.Now(s.now), form.Name, scopes, limit); err != nil {
			return err
		}
		return models.Audit(ctx, tx, models.Now(s.now), who.User.Email, "apikey.create", form.Name, list+models.RateLimitNote(limit))
	})
	if errors.Is(err, models.ErrKeyName) {
		form.NameFault = "Give it a name of 1 to 100 printable characters."
		return s.showOps(c, http.StatusUnprocessableEntity, form, "", "")
	}
	if err != nil {
		return err
	}
	return s.showOps(c, http.StatusOK, views.KeyForm{}, key, "")
}

// revokeKey ends an API key, for good.
func (s *Server) revokeKey(c echo.Context, who *models.Viewer) error {
	id, err := uuid.Parse(c.FormValue(views.FieldID))
	if err != nil {
		return echo.ErrNotFound
	}
	err = s.db.InTx(c.Request().Context(), func(ctx context.Context, tx bun.Tx) error {
		if err := models.RevokeAPIKey(ctx, tx, models.Now(s.now), id); err != nil {
			return err
		}
		return models.Audit(ctx, tx, models.Now(s.now), who.User.Email, "apikey.revoke", id.String(), "")
	})
	if errors.Is(err, models.ErrNoKey) {
		return echo.ErrNotFound
	}
	if err != nil {
		return err
	}
	return c.Redirect(http.StatusSeeOther, "/ops?saved="+revokedKey)
}
