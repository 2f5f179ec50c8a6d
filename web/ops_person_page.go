package web

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
)

// planPatience is how long assigning or ending a plan may take: what each member may use is stored
// first.
const planPatience = 25 * time.Second

// outOfDate is the answer to a form that is too old or incomplete.
const outOfDate = "This form is out of date. Check your entries and send it again."

// anyPerson returns the person that the path names.
func (s *Server) anyPerson(c echo.Context) (models.UserEntry, error) {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return models.UserEntry{}, echo.ErrNotFound
	}
	user, err := models.UserByID(c.Request().Context(), s.db, id)
	if hasCode(err, models.CodeUnknownUser) {
		return models.UserEntry{}, echo.ErrNotFound
	}
	return user, err
}

func hasCode(err error, code models.Code) bool {
	refused := (*models.Error)(nil)
	return errors.As(err, &refused) && refused.Code == code
}

// opsPersonPage shows the operator a person's page as that person sees it, and what the operator can
// change.
func (s *Server) opsPersonPage(c echo.Context, _ *models.Viewer) error {
	user, err := s.anyPerson(c)
	if err != nil {
		return err
	}
	return s.showOpsPerson(c, &user, http.StatusOK, views.OpsPerson{})
}

// personNotices are the messages that the page shows once after a form succeeded.
var personNotices = map[flash]ui.Notice{
	grantAdded:       {Kind: ui.Done, Title: "Grant added"},
	grantAddedBefore: {Kind: ui.Info, Title: "This grant was already added", Text: "Nothing was changed."},
	planAssigned:     {Kind: ui.Done, Title: "Plan assigned"},
	planEnded:        {Kind: ui.Done, Title: "Plan ended"},
	planEndedBefore:  {Kind: ui.Info, Title: "This plan has already ended", Text: "Nothing was changed."},
	roleSaved:        {Kind: ui.Done, Title: "Role saved"},
}

// showOpsPerson renders the page. The caller sets the states of the forms and, if a form is refused,
// its errors.
func (s *Server) showOpsPerson(c echo.Context, user *models.UserEntry, status int, page views.OpsPerson, errs ...ui.FormError) error {
	ctx := c.Request().Context()
	known, err := models.IdentitiesOf(ctx, s.db, user.Email)
	if err != nil {
		return err
	}
	of := &models.Viewer{User: user.User}
	if user.OrganizationID != nil {
		of.Organization = &models.Organization{ID: *user.OrganizationID, Name: user.Organization}
		admins, err := models.AdminsOf(ctx, s.db, *user.OrganizationID)
		if err != nil {
			return err
		}
		page.OnlyAdmin = len(admins) == 1 && admins[0].ID == user.ID
	}
	page.Person, page.Identities, page.Usage = *user, known, s.loadUsage(c, of)
	page.Usage.ReadOnly, page.Usage.Subscription.Manageable, page.Usage.Subscription.OwnManageable = true, false, false
	page.Usage.Frame.Errors = errs
	if n, ok := personNotices[s.flashed(c, slices.Collect(maps.Keys(personNotices))...)]; ok && len(errs) == 0 {
		page.Usage.Frame.Notices = []ui.Notice{n}
	}
	page.Grants = load(s, c, "grants", func(ctx context.Context) ([]models.UsageGrant, error) {
		return models.CurrentGrants(ctx, s.db, page.Usage.Frame.Now, user.ID)
	})
	page.Subscriptions = load(s, c, "subscriptions", func(ctx context.Context) ([]models.Subscription, error) {
		return models.SubscriptionsFor(ctx, s.db, user.ID, user.OrganizationID)
	})
	for i, e := range errs { // a form that could not be loaded is not on the page
		grant := strings.HasPrefix(e.Field, "grant-") && page.Usage.Standing.Failed != ""
		if grant || e.Field == views.FieldIDPlan && page.Subscriptions.Failed != "" {
			errs[i].Field = ""
		}
	}
	if page.GrantForm.Token == "" {
		page.GrantForm.Token = uuid.Must(uuid.NewV7()).String()
	}
	return show(c, status, views.OpsPersonPage(page))
}

// opsGrant adds a grant. The form's token becomes the grant's idempotency key, so sending the form
// again adds nothing.
func (s *Server) opsGrant(c echo.Context, viewer *models.Viewer) error {
	user, err := s.anyPerson(c)
	if err != nil {
		return err
	}
	form := views.GrantForm{
		Token: c.FormValue(views.FieldToken), Quantity: c.FormValue(views.FieldQuantity),
		Reason: strings.TrimSpace(c.FormValue(views.FieldReason)), LastDay: c.FormValue(views.FieldLastDay),
	}
	refuse := func(status int, errs ...ui.FormError) error {
		return s.showOpsPerson(c, &user, status, views.OpsPerson{GrantForm: form}, errs...)
	}
	token, err := uuid.Parse(form.Token)
	if err != nil {
		form.Token = ""
		return refuse(http.StatusUnprocessableEntity, ui.FormError{Message: outOfDate})
	}
	form.Token = token.String()
	standing, err := s.standing(c.Request().Context(), user.Email)
	if err != nil {
		return err
	}
	now := models.Now(s.now)
	g := models.NewGrant{Actor: viewer.User.Email, UserID: user.ID, Reason: form.Reason, IdempotencyKey: &form.Token}
	var errs []ui.FormError
	if g.Quantity, err = models.ParseUnits(form.Quantity); err != nil || g.Quantity < 1 || g.Quantity > models.MaxGrant {
		errs = append(errs, ui.FormError{
			Field: views.FieldIDGrantQuantity, Message: "Enter a whole number from 1 to " + models.FormatCount(models.MaxGrant) + ".",
		})
	}
	if !models.IsReason(form.Reason) {
		errs = append(errs, ui.FormError{Field: views.FieldIDGrantReason, Message: noReason})
	}
	var message string
	if g.ExpiresAt, message = readLastDay(form.LastDay, now, standing.Period); message != "" {
		errs = append(errs, ui.FormError{Field: views.FieldIDGrantLastDay, Message: message})
	}
	if len(errs) > 0 {
		return refuse(http.StatusUnprocessableEntity, errs...)
	}
	earlier, err := models.GrantWithKey(c.Request().Context(), s.db, user.ID, form.Token)
	if err != nil {
		return err
	}
	if earlier == nil {
		if c.FormValue(views.FieldSeen) != views.SeenPeriod(standing.Period) {
			return refuse(http.StatusConflict, ui.FormError{
				Message: "Another billing period has begun since you opened this form. Check your entries and send it again.",
			})
		}
		granted, err := models.Grant(c.Request().Context(), s.db, s.catalogue, now, g)
		if err == nil && !granted.Replayed {
			return s.done(c, views.PathOpsPerson(user.ID), grantAdded)
		}
		if err != nil && !hasCode(err, models.CodeIdempotencyKeyReused) {
			return err
		}
		if earlier, err = models.GrantWithKey(c.Request().Context(), s.db, user.ID, form.Token); err != nil {
			return err
		}
	}
	if earlier != nil && earlier.Quantity == g.Quantity && earlier.Reason == g.Reason && sameTime(earlier.ExpiresAt, g.ExpiresAt) {
		return s.done(c, views.PathOpsPerson(user.ID), grantAddedBefore)
	}
	form.Token = ""
	return refuse(http.StatusConflict, ui.FormError{
		Message: "This form has already added a grant. To add another one with the entries below, send the form again.",
	})
}

// noReason says what a reason must be.
const noReason = "Enter a reason of 1 to 255 printable characters."

// sameTime reports whether two times are equal, or both nil.
func sameTime(a, b *time.Time) bool {
	return (a == nil) == (b == nil) && (a == nil || a.Equal(*b))
}

// readLastDay returns when a grant expires: at the end of its last day, or nil at the end of the
// period. message says what is wrong with the text.
func readLastDay(text string, now time.Time, period models.Period) (expires *time.Time, message string) {
	if text == "" {
		return nil, ""
	}
	day, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return nil, "Enter a date such as " + now.UTC().Format(time.DateOnly) + ", or leave the field empty."
	}
	after := day.AddDate(0, 0, 1)
	switch {
	case !after.After(now):
		return nil, "This day has passed. Enter " + now.UTC().Format(time.DateOnly) + " or later."
	case !day.Before(period.End):
		last := period.End.Add(-time.Microsecond).UTC()
		return nil, "A grant ends with the billing period. Enter " + last.Format(time.DateOnly) + " or earlier."
	case !after.Before(period.End):
		return nil, ""
	}
	return &after, ""
}

// opsPlan assigns a plan by hand: an individual one to the person, a team plan to their organization.
func (s *Server) opsPlan(c echo.Context, viewer *models.Viewer) error {
	user, err := s.anyPerson(c)
	if err != nil {
		return err
	}
	entered := c.FormValue(views.FieldPlan)
	refuse := func(status int, message string) error {
		return s.showOpsPerson(c, &user, status, views.OpsPerson{EnteredPlan: entered}, ui.FormError{Field: views.FieldIDPlan, Message: message})
	}
	plan, known := s.catalogue.Plan(models.PlanID(entered))
	if !known || plan.ID == models.FreePlan || plan.Type == models.Team && user.OrganizationID == nil {
		return refuse(http.StatusUnprocessableEntity, "Choose a plan.")
	}
	change := models.PlanByHand{Subscriber: models.Subscriber{Email: user.Email}, Plan: plan.ID, UserID: user.ID, Actor: viewer.User.Email}
	seen := c.FormValue(views.FieldSeen)
	if plan.Type == models.Team {
		change.Subscriber = models.Subscriber{OrganizationID: user.OrganizationID}
		seen = c.FormValue(views.FieldSeenOrganization)
		if c.FormValue(views.FieldOrganization) != user.OrganizationID.String() {
			return refuse(http.StatusConflict, movedMeanwhile)
		}
	}
	change.Seen = new(uuid.UUID)
	if seen != "" {
		if *change.Seen, err = uuid.Parse(seen); err != nil {
			return refuse(http.StatusUnprocessableEntity, outOfDate)
		}
	}
	_, err = models.AssignPlan(c.Request().Context(), s.db, s.catalogue, models.Now(s.now), change)
	if message, ok := outdated(err); ok {
		entered = ""
		return refuse(http.StatusConflict, message)
	}
	if err != nil {
		return err
	}
	return s.done(c, views.PathOpsPerson(user.ID), planAssigned)
}

// movedMeanwhile is the answer to a form about another organization than the person's.
const movedMeanwhile = "This person’s organization changed in the meantime. Check it and try again."

// planToEnd returns the subscription that a form or its confirmation names. It must belong to the
// person or to their organization.
func (s *Server) planToEnd(c echo.Context, id string) (user models.UserEntry, held models.Subscription, err error) {
	if user, err = s.anyPerson(c); err != nil {
		return user, held, err
	}
	wanted, err := uuid.Parse(id)
	if err != nil {
		return user, held, echo.ErrNotFound
	}
	all, err := models.SubscriptionsFor(c.Request().Context(), s.db, user.ID, user.OrganizationID)
	if err != nil {
		return user, held, err
	}
	i := slices.IndexFunc(all, func(s models.Subscription) bool { return s.ID == wanted })
	if i < 0 {
		return user, held, echo.ErrNotFound
	}
	return user, all[i], nil
}

// opsPlanEndPage asks for confirmation.
func (s *Server) opsPlanEndPage(c echo.Context, _ *models.Viewer) error {
	user, held, err := s.planToEnd(c, c.QueryParam(views.FieldID))
	if err != nil {
		return err
	}
	if done, err := s.notByHand(c, &user, &held); done {
		return err
	}
	page := views.PlanEnd{Frame: s.frame(c), Plan: s.catalogue.PlanOf(held.PlanID), Person: user, Subscription: held}
	page.Frame.Prefix = "Confirm: "
	return show(c, http.StatusOK, views.PlanEndPage(page))
}

// notByHand answers if a subscription cannot be ended here: it has ended, or it is at Stripe.
func (s *Server) notByHand(c echo.Context, user *models.UserEntry, held *models.Subscription) (done bool, err error) {
	switch {
	case held.StripeSubscriptionID != nil:
		return true, s.showOpsPerson(c, user, http.StatusConflict, views.OpsPerson{}, ui.FormError{
			Message: "This subscription is at Stripe. To end it, cancel " + *held.StripeSubscriptionID + " in Stripe.",
		})
	case !held.Active():
		return true, s.done(c, views.PathOpsPerson(user.ID), planEndedBefore)
	}
	return false, nil
}

// opsPlanEnd ends a plan that was assigned by hand.
func (s *Server) opsPlanEnd(c echo.Context, viewer *models.Viewer) error {
	user, held, err := s.planToEnd(c, c.FormValue(views.FieldID))
	if err != nil {
		return err
	}
	if done, err := s.notByHand(c, &user, &held); done {
		return err
	}
	ctx := c.Request().Context()
	who, err := models.SubscriberByHand(ctx, s.db, held.ID)
	if err != nil {
		return err
	}
	end := models.PlanByHand{Subscriber: who, Plan: models.FreePlan, Actor: viewer.User.Email, Seen: &held.ID}
	if who.OrganizationID == nil {
		end.UserID = user.ID
	}
	_, err = models.AssignPlan(ctx, s.db, s.catalogue, models.Now(s.now), end)
	if message, ok := outdated(err); ok {
		return s.showOpsPerson(c, &user, http.StatusConflict, views.OpsPerson{}, ui.FormError{Message: message})
	}
	if err != nil {
		return err
	}
	return s.done(c, views.PathOpsPerson(user.ID), planEnded)
}

// opsRole makes a member of an organization an admin, or an admin a member.
func (s *Server) opsRole(c echo.Context, viewer *models.Viewer) error {
	user, err := s.anyPerson(c)
	if err != nil {
		return err
	}
	role := models.Role(c.FormValue(views.FieldRole))
	page := views.OpsPerson{EnteredRole: string(role)}
	refuse := func(status int, field, message string) error {
		latest, err := s.anyPerson(c)
		if err != nil {
			return err
		}
		return s.showOpsPerson(c, &latest, status, page, ui.FormError{Field: field, Message: message})
	}
	switch {
	case user.OrganizationID == nil || c.FormValue(views.FieldOrganization) != user.OrganizationID.String():
		page.EnteredRole = ""
		return refuse(http.StatusConflict, "", movedMeanwhile)
	case role != models.Member && role != models.Admin:
		page.EnteredRole = ""
		return refuse(http.StatusUnprocessableEntity, views.FieldIDOpsRole, "Choose a role.")
	}
	_, err = models.SetUser(c.Request().Context(), s.db, models.Now(s.now), user.Email, models.UserChange{
		Actor: viewer.User.Email, Existing: true, UserID: user.ID, Role: &role,
		Form: &models.MemberForm{OrganizationID: *user.OrganizationID, Role: models.Role(c.FormValue(views.FieldSeen))},
	})
	if message, ok := outdated(err); ok {
		page.EnteredRole = ""
		return refuse(http.StatusConflict, views.FieldIDOpsRole, message)
	}
	if hasCode(err, models.CodeUnknownUser) {
		page.EnteredRole = ""
		return refuse(http.StatusConflict, "", movedMeanwhile)
	}
	if err != nil {
		return err
	}
	return s.done(c, views.PathOpsPerson(user.ID), roleSaved)
}
