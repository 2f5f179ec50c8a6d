package web

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
)

// auditPerPage is the number of audit log lines on a page.
const auditPerPage = 50

// opsPage is the operator's page.
func (s *Server) opsPage(c echo.Context, _ *models.Viewer) error {
	page := views.Ops{}
	if n, ok := opsNotices[s.flashed(c, slices.Collect(maps.Keys(opsNotices))...)]; ok {
		page.Frame.Notices = []ui.Notice{n}
	}
	return s.showOps(c, http.StatusOK, page)
}

// opsNotices are the messages that the page shows once after a form succeeded.
var opsNotices = map[flash]ui.Notice{
	keyRevoked:       {Kind: ui.Done, Title: "API key revoked"},
	keyRevokedBefore: {Kind: ui.Info, Title: "This API key was already revoked", Text: "Nothing was changed."},
	sendingPaused:    {Kind: ui.Done, Title: "Sending paused"},
	sendingResumed:   {Kind: ui.Done, Title: "Sending resumed"},
	stopEnded:        {Kind: ui.Done, Title: "The stop has ended", Text: "Sending is still paused. The reason is below."},
	sendingUnchanged: {Kind: ui.Info, Title: "Nothing was changed", Text: "The current state of sending is below."},
	customerRetried: {
		Kind: ui.Done, Title: "The reports are no longer blocked", Text: "They are sent unless sending is paused or stopped.",
	},
	customerFree: {Kind: ui.Info, Title: "Nothing was changed", Text: "No reports of this customer are blocked."},
	reportRetried: {
		Kind: ui.Done, Title: "The report is being retried",
		Text: "Look again in a minute. Nothing is sent while sending is paused or stopped.",
	},
	reportGivenUp:  {Kind: ui.Done, Title: "Report given up", Text: "The audit log has the reason."},
	webhookRemoved: {Kind: ui.Done, Title: "Webhook endpoint removed"},
}

// showOps renders the page. The caller sets the frame's notices and errors, the form and the new
// key.
func (s *Server) showOps(c echo.Context, status int, page views.Ops) error {
	notices, errs, prefix := page.Frame.Notices, page.Frame.Errors, page.Frame.Prefix
	page.Frame = s.frame(c)
	page.Frame.Notices, page.Frame.Errors, page.Frame.Prefix = notices, errs, prefix
	page.NoSignIn = !s.issuer.Configured()
	if page.Form.Token == "" {
		page.Form.Token = uuid.Must(uuid.NewV7()).String()
	}
	if page.WebhookForm.Token == "" {
		page.WebhookForm.Token = uuid.Must(uuid.NewV7()).String()
	}
	page.Notices = load(s, c, "notices", s.opsNotices)
	page.Keys = load(s, c, "keys", func(ctx context.Context) ([]models.APIKey, error) { return models.ListAPIKeys(ctx, s.db) })
	page.Unit, page.Catalogue = s.catalogue.UnitPlural, s.catalogue
	page.Refusals = load(s, c, "refusals", func(ctx context.Context) ([]models.RefusalCount, error) {
		return models.RefusalsSince(ctx, s.db, s.now().Add(-24*time.Hour))
	})
	giveUp, reason := page.Stripe.Value.GiveUp, page.Stripe.Value.Reason
	page.Stripe = load(s, c, "Stripe", s.opsStripe)
	page.Stripe.Value.GiveUp, page.Stripe.Value.Reason = giveUp, reason
	page.Frame.Errors = page.FieldsShown()
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

// makeKey creates an API key. It answers with the page itself and not with a redirect, because the
// key is shown only once and must not be stored anywhere. The form's token becomes the key's ID, so
// sending the form again does not create a second key.
func (s *Server) makeKey(c echo.Context, viewer *models.Viewer) error {
	form := views.KeyForm{Token: c.FormValue(views.FieldToken), Name: strings.TrimSpace(c.FormValue(views.FieldName)), Sent: true}
	for _, scope := range c.Request().PostForm[views.FieldScope] {
		form.Scopes = append(form.Scopes, models.Scope(scope))
	}
	id, err := uuid.Parse(form.Token)
	if err != nil {
		form.Token = ""
		return s.refuseKey(c, form, ui.FormError{Message: "This form is out of date. Check your entries and send it again."})
	}
	form.Token = id.String()
	list := strings.Join(c.Request().PostForm[views.FieldScope], ",")
	scopes, scopesErr := models.ParseScopes(list)
	form.RateLimit = c.FormValue(views.FieldRateLimit)
	limit, limitErr := models.ParseRateLimit(form.RateLimit)
	var key string
	err = s.db.InTx(c.Request().Context(), func(ctx context.Context, tx bun.Tx) (err error) {
		// The other fields are checked second, so that all errors are shown together.
		try, tryLimit := scopes, limit
		if scopesErr != nil {
			try = models.Scopes
		}
		if limitErr != nil {
			tryLimit = nil
		}
		if key, err = models.CreateAPIKeyWithID(ctx, tx, models.Now(s.now), id, form.Name, try, tryLimit); err != nil {
			return err
		}
		if scopesErr != nil || limitErr != nil {
			return errors.Join(scopesErr, limitErr)
		}
		if taken, err := models.OtherActiveKey(ctx, tx, id, form.Name); err != nil || taken {
			return errors.Join(errKeyNameTaken, err)
		}
		return models.Audit(ctx, tx, models.Now(s.now), viewer.User.Email, "apikey.create", form.Name, list+models.RateLimitNote(limit))
	})
	if errors.Is(err, models.ErrKeyExists) {
		return s.keyExists(c, form, id)
	}
	var invalid []ui.FormError
	if errors.Is(err, models.ErrKeyName) {
		invalid = append(invalid, ui.FormError{Field: views.FieldIDKeyName, Message: "Enter a name of 1 to 100 printable characters."})
	}
	if errors.Is(err, errKeyNameTaken) && !models.IsUnavailable(err) {
		invalid = append(invalid, ui.FormError{Field: views.FieldIDKeyName, Message: nameTaken})
	}
	if scopesErr != nil {
		invalid = append(invalid, ui.FormError{Field: views.FieldIDScope, Message: "Select at least one scope."})
	}
	if limitErr != nil {
		invalid = append(invalid, ui.FormError{
			Field: views.FieldIDRateLimit, Message: "Enter a whole number from 0 to 1,000,000, or leave the field empty.",
		})
	}
	if invalid != nil {
		return s.refuseKey(c, form, invalid...)
	}
	if err != nil {
		return err
	}
	return s.showOps(c, http.StatusOK, views.Ops{Frame: ui.Frame{Prefix: "API key created: "}, NewKey: key})
}

const nameTaken = "An active key already has this name. Choose another name, or revoke that key first."

// errKeyNameTaken means that an active key has the name. Without this rule, going back and sending
// the form again would create a second key that looks the same.
var errKeyNameTaken = errors.New("an active API key already has this name")

// refuseKey shows the form again with its entries and the errors.
func (s *Server) refuseKey(c echo.Context, form views.KeyForm, errs ...ui.FormError) error {
	return s.showOps(c, http.StatusUnprocessableEntity, views.Ops{Frame: ui.Frame{Errors: errs}, Form: form})
}

// keyExists answers a form that already created its key: after a reload, a double click or Back.
// Entries that differ from the key's stay in the form, with a new token, so sending them again
// creates another key.
func (s *Server) keyExists(c echo.Context, form views.KeyForm, id uuid.UUID) error {
	key, err := models.APIKeyByID(c.Request().Context(), s.db, id)
	if err != nil {
		return err
	}
	n := ui.Notice{Kind: ui.Caution, Focus: true, Title: "No second API key was created",
		Text: fmt.Sprintf("This form already created the key “%s”. A key is shown only once. "+
			"If you did not copy it, revoke it and create another one.", key.Name)}
	same := key.Name == form.Name && len(form.Scopes) > 0 && key.Scopes == strings.Join(c.Request().PostForm[views.FieldScope], ",") &&
		sameLimit(key.RateLimit, form.RateLimit)
	if form.Token = ""; same {
		form = views.KeyForm{}
	} else {
		n.Text += " Your new entries are below. To create another key with them, send the form again."
	}
	return s.showOps(c, http.StatusConflict, views.Ops{Frame: ui.Frame{Notices: []ui.Notice{n}}, Form: form})
}

// sameLimit reports whether a rate limit equals the one that was entered.
func sameLimit(limit *int64, entered string) bool {
	parsed, err := models.ParseRateLimit(entered)
	return err == nil && (limit == nil) == (parsed == nil) && (limit == nil || *limit == *parsed)
}

// revokeKeyPage asks for confirmation before a key is revoked.
func (s *Server) revokeKeyPage(c echo.Context, _ *models.Viewer) error {
	id, err := uuid.Parse(c.QueryParam(views.FieldID))
	if err != nil {
		return echo.ErrNotFound
	}
	key, err := models.APIKeyByID(c.Request().Context(), s.db, id)
	if errors.Is(err, models.ErrNoKey) {
		return echo.ErrNotFound
	}
	if err != nil {
		return err
	}
	if key.RevokedAt != nil {
		return s.done(c, "/ops", keyRevokedBefore)
	}
	return show(c, http.StatusOK, views.KeyRevokePage(views.KeyRevoke{Frame: s.frame(c), Key: *key}))
}

// revokeKey revokes an API key permanently.
func (s *Server) revokeKey(c echo.Context, viewer *models.Viewer) error {
	id, err := uuid.Parse(c.FormValue(views.FieldID))
	if err != nil {
		return echo.ErrNotFound
	}
	message := keyRevoked
	err = s.db.InTx(c.Request().Context(), func(ctx context.Context, tx bun.Tx) error {
		active, err := models.RevokeActiveAPIKey(ctx, tx, models.Now(s.now), id)
		if err != nil {
			return err
		}
		if !active {
			message = keyRevokedBefore
			return nil
		}
		return models.Audit(ctx, tx, models.Now(s.now), viewer.User.Email, "apikey.revoke", id.String(), "")
	})
	if errors.Is(err, models.ErrNoKey) {
		return echo.ErrNotFound
	}
	if err != nil {
		return err
	}
	return s.done(c, "/ops", message)
}
