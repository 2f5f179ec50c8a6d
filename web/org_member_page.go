package web

import (
	"errors"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
)

// member returns the member of the viewer's organization that the path names. A member of another
// organization is not found.
func (s *Server) member(c echo.Context, viewer *models.Viewer) (*models.User, error) {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return nil, echo.ErrNotFound
	}
	user, err := models.MemberOf(c.Request().Context(), s.db, viewer.Organization.ID, id)
	switch {
	case err != nil:
		return nil, err
	case user == nil && c.Request().Method == http.MethodPost:
		return nil, noSuchMember()
	case user == nil:
		return nil, echo.ErrNotFound
	}
	return user, nil
}

// noSuchMember answers a form about a person who is not a member, for example because the form was
// sent twice.
func noSuchMember() error {
	p := newProblem(models.CodeUnknownUser, "They may have been removed already. Nothing was changed.")
	p.Title = "Member not found"
	return p
}

// orgMemberPage shows an admin one member of the organization.
func (s *Server) orgMemberPage(c echo.Context, viewer *models.Viewer) error {
	user, err := s.member(c, viewer)
	if err != nil {
		return err
	}
	if ok, err := s.pastMemberPage(c, user); ok || err != nil {
		return err
	}
	return s.showMember(c, viewer, user, http.StatusOK, views.OrgMember{})
}

// showMember renders the page. The caller sets the errors and the states of the forms.
func (s *Server) showMember(c echo.Context, viewer *models.Viewer, user *models.User, status int, page views.OrgMember) error {
	errs := page.Frame.Errors
	if err := s.describeMember(c, viewer, user, &page); err != nil {
		return err
	}
	page.Frame.Errors = errs
	if len(errs) == 0 {
		page.Frame.Notices = s.memberNotices(c, user)
	}
	p := s.loadPerson(c, user.Email, user.CreatedAt, page.Frame.Now)
	page.Standing, page.Days, page.Months, page.Comparison, page.Moved = p.standing, p.days, p.months, p.comparison, p.moved
	page.Plan = s.catalogue.PlanOf(p.standing.Value.Plan)
	return show(c, status, views.OrgMemberPage(page))
}

// describeMember sets the frame and what the forms about a member depend on.
func (s *Server) describeMember(c echo.Context, viewer *models.Viewer, user *models.User, page *views.OrgMember) error {
	ctx, o := c.Request().Context(), viewer.Organization
	settings, err := models.OrganizationByID(ctx, s.db, o.ID)
	if err != nil {
		return err
	}
	admins, err := models.AdminsOf(ctx, s.db, o.ID)
	if err != nil {
		return err
	}
	held, err := models.SubscriptionOfOrganization(ctx, s.db, o.ID)
	if err != nil {
		return err
	}
	page.HasPlan = held != nil && held.Active()
	page.Frame, page.Catalogue, page.Organization = s.frame(c), s.catalogue, o.Name
	page.ID, page.Name, page.Email, page.Role, page.SignedUp = user.ID, user.Name, user.Email, user.Role, user.CreatedAt
	page.OwnLimit, page.DefaultLimit = user.MemberLimit, settings.MemberLimit
	page.Self, page.OnlyAdmin = user.ID == viewer.User.ID, len(admins) == 1 && admins[0].ID == user.ID
	return nil
}

// memberNotices return the message about a saved form, which is shown once.
func (s *Server) memberNotices(c echo.Context, user *models.User) []ui.Notice {
	switch s.flashed(c, ownLimitSaved, ownLimitRemoved, roleSaved) {
	case ownLimitSaved:
		n := ui.Notice{Kind: ui.Done, Title: "Member limit saved"}
		if user.MemberLimit != nil {
			n.Text = views.MemberConsequence(s.catalogue, "the member", *user.MemberLimit)
		}
		return []ui.Notice{n}
	case ownLimitRemoved:
		return []ui.Notice{{Kind: ui.Done, Title: "Member limit removed", Text: "If the organization has a default limit, it applies now."}}
	case roleSaved:
		return []ui.Notice{{Kind: ui.Done, Title: "Role saved"}}
	}
	return nil
}

// setMember saves a change that an admin made in a form about a member.
func (s *Server) setMember(c echo.Context, viewer *models.Viewer, user *models.User, change models.UserChange) error {
	change.Actor, change.Existing, change.KeepAdmin, change.UserID = viewer.User.Email, true, true, user.ID
	change.Form = &models.MemberForm{OrganizationID: viewer.Organization.ID, Role: models.Role(c.FormValue(views.FieldSeen))}
	_, err := models.SetUser(c.Request().Context(), s.db, models.Now(s.now), user.Email, change)
	if refused := (*models.Error)(nil); errors.As(err, &refused) && refused.Code == models.CodeUnknownUser {
		return noSuchMember()
	}
	return err
}

// refuseMember shows a member's page again, with the error at its field.
func (s *Server) refuseMember(
	c echo.Context, viewer *models.Viewer, user *models.User, status int, page views.OrgMember, field, message string,
) error {
	page.Frame.Errors = []ui.FormError{{Field: field, Message: message}}
	latest, err := models.MemberOf(c.Request().Context(), s.db, viewer.Organization.ID, user.ID)
	if err != nil {
		return err
	}
	if latest == nil {
		return noSuchMember()
	}
	return s.showMember(c, viewer, latest, status, page)
}

// setMemberLimit saves a member's own limit, or removes it.
func (s *Server) setMemberLimit(c echo.Context, viewer *models.Viewer) error {
	user, err := s.member(c, viewer)
	if err != nil {
		return err
	}
	change, form, message := readLimit(c, models.ParseUnits)
	page := views.OrgMember{LimitForm: form}
	if message != "" {
		return s.refuseMember(c, viewer, user, http.StatusUnprocessableEntity, page, views.FieldIDMemberLimit, message)
	}
	err = s.setMember(c, viewer, user, models.UserChange{MemberLimit: &change})
	if message, ok := outdated(err); ok {
		return s.refuseMember(c, viewer, user, http.StatusConflict, page, views.FieldIDMemberLimit, message)
	}
	if err != nil {
		return err
	}
	if change.To == nil {
		return s.done(c, views.PathMember(user.ID), ownLimitRemoved)
	}
	return s.done(c, views.PathMember(user.ID), ownLimitSaved)
}

// setRole makes a member an admin, or an admin a member.
func (s *Server) setRole(c echo.Context, viewer *models.Viewer) error {
	user, err := s.member(c, viewer)
	if err != nil {
		return err
	}
	role := models.Role(c.FormValue(views.FieldRole))
	page := views.OrgMember{EnteredRole: string(role)}
	if role != models.Member && role != models.Admin {
		page.EnteredRole = ""
		return s.refuseMember(c, viewer, user, http.StatusUnprocessableEntity, page, views.FieldIDRole, "Choose a role.")
	}
	err = s.setMember(c, viewer, user, models.UserChange{Role: &role})
	if message, ok := outdated(err); ok {
		page.EnteredRole = ""
		return s.refuseMember(c, viewer, user, http.StatusConflict, page, views.FieldIDRole, message)
	}
	switch {
	case errors.Is(err, models.ErrLastAdmin):
		page.EnteredRole = ""
		return s.refuseMember(c, viewer, user, http.StatusConflict, page, "", views.OnlyAdmin)
	case err != nil:
		return err
	case user.ID == viewer.User.ID && role == models.Member:
		return s.done(c, homePath, adminResigned)
	}
	return s.done(c, views.PathMember(user.ID), roleSaved)
}

// removeMemberPage asks for confirmation.
func (s *Server) removeMemberPage(c echo.Context, viewer *models.Viewer) error {
	user, err := s.member(c, viewer)
	if err != nil {
		return err
	}
	return s.showRemoval(c, viewer, user, http.StatusOK, "")
}

// showRemoval renders the page that asks for confirmation. message says why a removal was refused.
func (s *Server) showRemoval(c echo.Context, viewer *models.Viewer, user *models.User, status int, message string) error {
	var page views.OrgMember
	if err := s.describeMember(c, viewer, user, &page); err != nil {
		return err
	}
	page.Frame.Prefix = "Confirm: "
	if message != "" {
		page.Frame.Errors = []ui.FormError{{Message: message}}
	}
	return show(c, status, views.MemberRemovePage(page))
}

// removeMember removes a member from the organization.
func (s *Server) removeMember(c echo.Context, viewer *models.Viewer) error {
	user, err := s.member(c, viewer)
	if err != nil {
		return err
	}
	err = s.setMember(c, viewer, user, models.UserChange{Leaves: true})
	message, refused := outdated(err)
	switch {
	case refused:
	case errors.Is(err, models.ErrLastAdmin):
		message = views.OnlyAdmin
	case err != nil:
		return err
	case user.ID == viewer.User.ID:
		return s.done(c, homePath, memberLeft)
	default:
		return s.done(c, "/org/members", memberRemoved)
	}
	latest, err := models.MemberOf(c.Request().Context(), s.db, viewer.Organization.ID, user.ID)
	if err != nil {
		return err
	}
	if latest == nil {
		return noSuchMember()
	}
	return s.showRemoval(c, viewer, latest, http.StatusConflict, message)
}
