package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
)

// Counting what an organization has spent so far takes time if it has many members. If it takes
// longer than countPatience, the page says that the limit is being applied, and a worker continues.
const (
	limitPatience = 10 * time.Second
	countPatience = 5 * time.Second
)

// readLimit reads a form that sets a limit. message says what is wrong with it; it is empty if the
// form is valid.
func readLimit(c echo.Context, parse func(string) (int64, error)) (change models.LimitChange, form views.LimitForm, message string) {
	form = views.LimitForm{Sent: true, Choice: c.FormValue(views.FieldChoice), Entered: c.FormValue(views.FieldAmount)}
	seen := c.FormValue(views.FieldSeen)
	if seen != "" {
		n, err := strconv.ParseInt(seen, 10, 64)
		if err != nil {
			return change, form, "This form is out of date. Check your entries and send it again."
		}
		change.Seen = &n
	}
	limit, err := parse(form.Entered)
	switch {
	case form.Choice == views.ChoiceNone:
		if form.Entered != "" && (err != nil || change.Seen == nil || limit != *change.Seen) {
			return change, form, "You entered a limit, but selected the first option. Select the second option, or clear the field."
		}
	case form.Choice != views.ChoiceLimit:
		return change, form, "Choose whether there is a limit."
	case err != nil:
		return change, form, "The limit " + err.Error() + "."
	default:
		change.To = &limit
	}
	return change, form, ""
}

// outdated reports whether a change was refused because the value changed in the meantime, and
// returns the text for its field.
func outdated(err error) (message string, ok bool) {
	refused := (*models.Error)(nil)
	if !errors.As(err, &refused) || refused.Code != models.CodeChangedMeanwhile {
		return "", false
	}
	return refused.Detail, true
}

// refuseOrg shows the organization's page again, with the error at its field.
func (s *Server) refuseOrg(c echo.Context, viewer *models.Viewer, status int, page views.Org, field, message string) error {
	page.Frame.Errors = []ui.FormError{{Field: field, Message: message}}
	return s.showOrg(c, viewer, status, page)
}

// setOrgSpendLimit saves the spend limit of the organization. A limit that is already reached must be
// confirmed: it pauses overage for everyone, or does not end a pause.
func (s *Server) setOrgSpendLimit(c echo.Context, viewer *models.Viewer) error {
	change, form, message := readLimit(c, models.ParseAmount)
	page := views.Org{SpendForm: form}
	if message != "" {
		return s.refuseOrg(c, viewer, http.StatusUnprocessableEntity, page, views.FieldIDOrgSpendLimit, message)
	}
	if change.To != nil && c.FormValue(views.FieldConfirm) == "" {
		summary, err := models.OrganizationUsage(c.Request().Context(), s.db, s.catalogue, models.Now(s.now), viewer.Organization.ID)
		if err != nil {
			return err
		}
		current := summary.SpendLimitCents
		unseen := views.Seen(change.Seen) != views.Seen(current) // SetOrganization refuses it
		if !unseen && views.Seen(current) != views.Seen(change.To) && summary.HasPlan && summary.SpentCents() > 0 &&
			summary.Exceeds(*change.To) {
			page.SpendForm.Confirm = change.To
			page.Frame.Prefix = "Confirm: "
			return s.showOrg(c, viewer, http.StatusOK, page)
		}
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), countPatience)
	defer cancel()
	err := models.SetOrganization(ctx, s.db, s.catalogue, models.Now(s.now), viewer.User.Email, viewer.Organization.ID,
		models.OrganizationChange{SpendLimit: &change})
	if message, ok := outdated(err); ok {
		return s.refuseOrg(c, viewer, http.StatusConflict, page, views.FieldIDOrgSpendLimit, message)
	}
	switch {
	case errors.Is(err, models.ErrUnfinishedLimit):
		s.log.WarnContext(c.Request().Context(), "a spend limit is still being applied", "request_id", requestID(c),
			"organization", viewer.Organization.ID, "error", err.Error())
	case err != nil:
		return err
	}
	if change.To == nil {
		return s.done(c, "/org", orgLimitRemoved)
	}
	return s.done(c, "/org", orgLimitSaved)
}

// setOrgMemberLimit saves the default member limit.
func (s *Server) setOrgMemberLimit(c echo.Context, viewer *models.Viewer) error {
	change, form, message := readLimit(c, models.ParseUnits)
	page := views.Org{MemberForm: form}
	if message != "" {
		return s.refuseOrg(c, viewer, http.StatusUnprocessableEntity, page, views.FieldIDOrgMemberLimit, message)
	}
	err := models.SetOrganization(c.Request().Context(), s.db, s.catalogue, models.Now(s.now), viewer.User.Email, viewer.Organization.ID,
		models.OrganizationChange{MemberLimit: &change})
	if message, ok := outdated(err); ok {
		return s.refuseOrg(c, viewer, http.StatusConflict, page, views.FieldIDOrgMemberLimit, message)
	}
	if err != nil {
		return err
	}
	if change.To == nil {
		return s.done(c, "/org", memberLimitRemoved)
	}
	return s.done(c, "/org", memberLimitSaved)
}

// orgNotices return the message about a saved form, which is shown once.
func (s *Server) orgNotices(c echo.Context, w views.Widget[models.OrganizationSummary]) []ui.Notice {
	summary := w.Value
	n := ui.Notice{Kind: ui.Done}
	switch s.flashed(c, orgLimitSaved, orgLimitRemoved, memberLimitSaved, memberLimitRemoved) {
	case orgLimitSaved:
		n.Title = "Spend limit saved"
		if summary.SpendLimitCents != nil {
			n.Text = views.SpendConsequence(s.catalogue, summary, *summary.SpendLimitCents)
		}
	case orgLimitRemoved:
		n.Title, n.Text = "Spend limit removed", "The organization has no spend limit now."
	case memberLimitSaved:
		n.Title = "Default member limit saved"
		if summary.MemberLimit != nil {
			n.Text = views.MemberConsequence(s.catalogue, "a member", *summary.MemberLimit)
		}
	case memberLimitRemoved:
		n.Title, n.Text = "Default member limit removed", "Members' own limits still apply."
	default:
		return nil
	}
	return []ui.Notice{n}
}
