package web

import (
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
)

// organizationRequest changes an organization.
type organizationRequest struct {
	Name            *string `json:"name,omitempty" minLength:"1" maxLength:"200"`
	SpendLimitCents *int64  `json:"spend_limit_cents,omitempty" minimum:"0" maximum:"100000000" nullable:"true"`
	MemberLimit     *int64  `json:"member_limit,omitempty" minimum:"0" maximum:"1000000000" nullable:"true"`

	change models.OrganizationChange
}

var organizationFields = []field[organizationRequest]{
	{"name", false, func(b *body, name string, into *organizationRequest) error {
		s, ok, err := b.text(name)
		if ok {
			into.change.Name = &s
		}
		return err
	}},
	{"spend_limit_cents", false, func(b *body, name string, into *organizationRequest) error {
		return b.limit(name, models.MaxSpendLimitCents, &into.change.SpendLimit)
	}},
	{"member_limit", false, func(b *body, name string, into *organizationRequest) error {
		return b.limit(name, models.MaxMemberLimit, &into.change.MemberLimit)
	}},
}

// limit reads a limit; null means no limit.
func (b *body) limit(name string, most int64, into **models.LimitChange) error {
	change := &models.LimitChange{Unseen: true}
	if b.decoder.PeekKind() == 'n' {
		*into = change
		return b.decoder.SkipValue()
	}
	errs := len(b.fieldErrors)
	limit := new(int64)
	err := b.integer(name, 0, most, limit)
	if len(b.fieldErrors) == errs {
		change.To, *into = limit, change
	}
	return err
}

func (s *Server) changeOrganization(c echo.Context) error {
	id, err := organizationID(c)
	if err != nil {
		return err
	}
	var r organizationRequest
	if err := s.decode(c, maxBody, func(b *body) error { return readObject(b, organizationFields, &r) }); err != nil {
		return err
	}
	err = models.SetOrganization(c.Request().Context(), s.db, s.catalogue, models.Now(s.now), actor(c), id, r.change)
	if errors.Is(err, models.ErrUnfinishedLimit) {
		s.log.WarnContext(c.Request().Context(), "a spend limit is still being applied", "request_id", requestID(c), "organization", id,
			"error", err.Error())
		p := newProblem(models.CodeUnavailable, "The changes are stored, but the spend limit is not in force yet. Repeat the call.")
		p.retryAfter = time.Second
		return p
	}
	if err != nil {
		return err
	}
	return s.answerOrganization(c, id)
}

// userRequest changes a person.
type userRequest struct {
	Role           string  `json:"role,omitempty" enum:"member,admin"`
	MemberLimit    *int64  `json:"member_limit,omitempty" minimum:"0" maximum:"1000000000" nullable:"true"`
	OrganizationID *string `json:"organization_id,omitempty" format:"uuid" nullable:"true"`

	change models.UserChange
}

var userFields = []field[userRequest]{
	{"role", false, func(b *body, name string, into *userRequest) error {
		s, ok, err := b.text(name)
		role := models.Role(s)
		switch {
		case !ok:
		case role != models.Member && role != models.Admin:
			b.reject(name, `must be "member" or "admin"`)
		default:
			into.change.Role = &role
		}
		return err
	}},
	{"member_limit", false, func(b *body, name string, into *userRequest) error {
		return b.limit(name, models.MaxMemberLimit, &into.change.MemberLimit)
	}},
	{"organization_id", false, func(b *body, name string, into *userRequest) error {
		if b.decoder.PeekKind() == 'n' {
			into.change.Leaves = true
			return b.decoder.SkipValue()
		}
		s, ok, err := b.text(name)
		if !ok {
			return err
		}
		id, invalid := uuid.Parse(s)
		if invalid != nil || len(s) != 36 {
			b.reject(name, "must be the ID of an organization")
			return err
		}
		into.change.OrganizationID = &id
		return err
	}},
}

// userAnswer is a person and their place in an organization.
type userAnswer struct {
	ID             string  `json:"id" format:"uuid"`
	Email          string  `json:"email"`
	Name           string  `json:"name"`
	Role           string  `json:"role" enum:"member,admin"`
	MemberLimit    *int64  `json:"member_limit" doc:"The person's own limit; null means the organization's default."`
	OrganizationID *string `json:"organization_id" format:"uuid"`
}

func (s *Server) changeUser(c echo.Context) error {
	email, err := emailParam(c)
	if err != nil {
		return err
	}
	var r userRequest
	if err := s.decode(c, maxBody, func(b *body) error { return readObject(b, userFields, &r) }); err != nil {
		return err
	}
	r.change.Actor, r.change.Existing, r.change.KeepAdmin = actor(c), true, true
	ctx := c.Request().Context()
	u, err := models.SetUser(ctx, s.db, models.Now(s.now), email, r.change)
	switch {
	case errors.Is(err, models.ErrAdminWithoutOrganization):
		return invalid(FieldError{Path: "role", Message: "an admin needs an organization"})
	case errors.Is(err, models.ErrNoWorkspace):
		return invalid(FieldError{Path: "organization_id", Message: "must be an organization with a Slack team"})
	case errors.Is(err, models.ErrLastAdmin):
		path := "organization_id"
		if role := r.change.Role; role != nil && *role == models.Member && !r.change.Leaves {
			path = "role"
		}
		return invalid(FieldError{Path: path, Message: "this is the only admin of the organization; make another member an admin first"})
	case errors.Is(err, models.ErrLimitWithoutOrganization):
		return invalid(FieldError{Path: "member_limit", Message: err.Error()})
	case err != nil:
		return err
	}
	answer := userAnswer{ID: u.ID.String(), Email: u.Email, Name: u.Name, Role: string(u.Role), MemberLimit: u.MemberLimit}
	if u.WorkspaceID != nil {
		o, err := models.OrganizationOfWorkspace(ctx, s.db, *u.WorkspaceID)
		if err != nil {
			return err
		}
		answer.OrganizationID = new(o.String())
	}
	return writeJSON(c, answer)
}
