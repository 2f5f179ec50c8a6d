package web

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/charts"
	"tollgate/views/ui"
)

// historySpan covers all periods that a page shows, in months of any length.
const historySpan = (models.HistoryMonths + 1) * 32 * 24 * time.Hour

// usagePage shows a member's own usage.
func (s *Server) usagePage(c echo.Context, viewer *models.Viewer) error {
	if ok, err := s.pastUsagePage(c, viewer); ok || err != nil {
		return err
	}
	return s.showUsage(c, viewer, http.StatusOK, views.SpendLimit{}, "")
}

// showUsage renders the page with the state of its form. invalid says what is wrong with the
// amount; it is empty if the amount is valid.
func (s *Server) showUsage(c echo.Context, viewer *models.Viewer, status int, limit views.SpendLimit, invalid string) error {
	page := s.loadUsage(c, viewer)
	standing := page.Standing
	if viewer.Organization != nil && !viewer.IsAdmin() && page.MentionsAdmins() {
		page.Subscription.NoAdmin = load(s, c, "admins", func(ctx context.Context) (bool, error) {
			admins, err := models.AdminsOf(ctx, s.db, viewer.Organization.ID)
			return err == nil && len(admins) == 0, err
		}).Value
	}
	page.Limit = limit
	switch {
	case invalid != "":
		e := ui.FormError{Message: invalid}
		if standing.Failed == "" && standing.Value.OverageRateCents > 0 { // the form is on the page
			e.Field = views.FieldIDAmount
		}
		page.Frame.Errors = []ui.FormError{e}
	case limit.Confirm != nil:
		page.Frame.Prefix = "Confirm: "
	default:
		page.Frame.Notices = s.limitNotices(c, standing)
	}
	return show(c, status, views.UsagePage(page))
}

// loadUsage reads a person's page.
func (s *Server) loadUsage(c echo.Context, of *models.Viewer) views.Usage {
	page := views.Usage{Frame: s.frame(c), Catalogue: s.catalogue}
	if of.Organization != nil {
		page.Organization = of.Organization.Name
	}
	p := s.loadPerson(c, of.User.Email, of.User.CreatedAt, page.Frame.Now)
	page.Standing, page.Days, page.Months, page.Comparison, page.Moved = p.standing, p.days, p.months, p.comparison, p.moved
	page.Subscription = s.subscription(c, of, p.standing)
	page.Refusals = load(s, c, "refusals", func(ctx context.Context) ([]models.RefusalCount, error) {
		return models.RefusalsOf(ctx, s.db, of.User.ID, p.standing.Value.Period)
	})
	if units, ok := p.standing.Value.Forecast(page.Frame.Now); ok && p.standing.Failed == "" {
		page.Forecast = &units
	}
	if at, ok := p.standing.Value.RunsOut(page.Frame.Now); ok && p.standing.Failed == "" {
		page.RunsOut = &at
	}
	return page
}

// limitNotices return the message about the last form, which is shown once.
func (s *Server) limitNotices(c echo.Context, standing views.Widget[models.Standing]) []ui.Notice {
	limit := standing.Value.SpendLimitCents
	switch s.flashed(c, limitSaved, limitRemoved, adminResigned, memberLeft) {
	case limitSaved:
		n := ui.Notice{Kind: ui.Done, Title: "Spend limit saved"}
		if limit != nil {
			n.Text = fmt.Sprintf("Extra %s are paused when one more would exceed %s in a billing period.",
				s.catalogue.UnitPlural, s.catalogue.FormatMoney(*limit))
			if standing.Value.OverageCents > 0 {
				n.Text += " Your overage so far is still billed."
			}
		}
		return []ui.Notice{n}
	case limitRemoved:
		n := ui.Notice{Kind: ui.Done, Title: "Spend limit removed"}
		if standing.Failed == "" && limit == nil {
			n.Text = "You have no spend limit of your own now. This applies immediately."
		}
		return []ui.Notice{n}
	case adminResigned:
		return []ui.Notice{{Kind: ui.Done, Title: "You are no longer an admin", Text: "Another admin can make you one again."}}
	case memberLeft:
		return []ui.Notice{{Kind: ui.Done, Title: "You have left the organization"}}
	}
	return nil
}

// person is the data of the pages about one person.
type person struct {
	standing views.Widget[models.Standing]
	days     views.Widget[charts.Daily]
	months   views.Widget[[]models.PastPeriod]
	// moved is the overage that moved between these periods.
	moved      []models.MovedOverage
	comparison views.Widget[models.Comparison]
}

// loadPerson reads a person's standing and records. Without a standing, the other parts fail too,
// because they are compared with it.
func (s *Server) loadPerson(c echo.Context, email string, signedUp, now time.Time) person {
	var p person
	p.standing = load(s, c, "standing", func(ctx context.Context) (models.Standing, error) {
		return s.standing(ctx, email)
	})
	history := load(s, c, "history", func(ctx context.Context) ([]models.UsageRecord, error) {
		byEmail, err := models.RecordsSince(ctx, s.db, now.Add(-historySpan), []string{email})
		return byEmail[email], err
	})
	for _, failed := range []string{p.standing.Failed, history.Failed} {
		if failed != "" {
			p.days.Failed, p.months.Failed, p.comparison.Failed = failed, failed, failed
			return p
		}
	}
	standing, records := p.standing.Value, history.Value
	p.months = views.Loaded(models.Months(standing, records, signedUp, models.HistoryMonths))
	p.moved = models.MovedOverages(records, p.months.Value[0].Period.Start)
	days := models.DaysOf(standing, records, signedUp)
	p.days = views.Loaded(charts.Daily{
		Period: standing.Period, Now: now, Used: days.Used, Previous: days.Previous, Included: standing.Included,
	})
	p.comparison = views.Loaded(days.Compare(now))
	return p
}

// subscription returns the viewer's plan and its subscription. The plan is that of the standing,
// which is the one that counts.
func (s *Server) subscription(c echo.Context, viewer *models.Viewer, standing views.Widget[models.Standing]) views.Subscription {
	shown := views.Subscription{Plan: s.catalogue.PlanOf(standing.Value.Plan), StripeConnected: s.shop != nil}
	held := load(s, c, "subscription", func(ctx context.Context) (*models.Held, error) {
		return models.SubscriptionOf(ctx, s.db, viewer.User.Email)
	}).Value
	if held != nil {
		if held.Active() {
			shown.Organization = held.Organization // it no longer gives the plan after its subscription has ended
		}
		if shown.Organization != "" {
			shown.OwnPlan, shown.OwnManageable = s.ownPlan(c, viewer), s.shop != nil
		}
		s.addState(&shown, &held.Subscription, viewer)
	}
	return shown
}

// ownPlan returns the name of the plan that the viewer subscribes to at Stripe; empty without one.
func (s *Server) ownPlan(c echo.Context, viewer *models.Viewer) string {
	own := load(s, c, "own subscription", func(ctx context.Context) (*models.Subscription, error) {
		return models.OwnAtStripe(ctx, s.db, viewer.User.ID)
	}).Value
	if own == nil {
		return ""
	}
	return s.catalogue.PlanOf(own.PlanID).Name
}

// addState adds the state of a subscription, when it ends, and whether the viewer may manage it in
// Stripe.
func (s *Server) addState(shown *views.Subscription, held *models.Subscription, viewer *models.Viewer) {
	shown.Status, shown.EndsAt, shown.Shared = held.Status, utc(held.CancelAt), held.OrganizationID != nil
	if shown.Trial = held.InTrial(s.now()); shown.Trial {
		shown.TrialEnd = utc(held.TrialEnd)
	}
	shown.ByHand = held.Active() && held.StripeSubscriptionID == nil
	shown.Manageable = s.mayManage(held, viewer)
	shown.Suspended = held.Suspended()
	if !held.Active() && !shown.Suspended && !held.Status.NeverPaid() {
		shown.Status = models.StatusCanceled
		if shown.EndsAt == nil {
			shown.EndsAt = utc(&held.UpdatedAt)
		}
	}
}

// mayManage reports whether the viewer may open Stripe's portal for a subscription: it is theirs,
// or their organization's and they are an admin.
func (s *Server) mayManage(held *models.Subscription, viewer *models.Viewer) bool {
	return s.shop != nil && held.StripeCustomerID != nil &&
		(held.OrganizationID == nil || viewer.IsAdmin() && *held.OrganizationID == viewer.Organization.ID)
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	return new(t.UTC())
}

// setSpendLimit saves the spend limit. A limit that is already reached must be confirmed:
// it stops the person immediately, or does not end a pause.
func (s *Server) setSpendLimit(c echo.Context, viewer *models.Viewer) error {
	entered := c.FormValue(views.FieldAmount)
	cents, err := models.ParseAmount(entered)
	if err != nil {
		form := views.SpendLimit{Entered: entered, Sent: true}
		return s.showUsage(c, viewer, http.StatusUnprocessableEntity, form, "The limit "+err.Error()+".")
	}
	if c.FormValue(views.FieldConfirm) == "" {
		standing, err := s.standing(c.Request().Context(), viewer.User.Email)
		if err != nil {
			return err
		}
		current := standing
		standing.SpendLimitCents = &cents
		stops := cents < standing.OverageCents || models.Decide(standing, 1).Reason == models.SpendLimitReached
		if same := current.SpendLimitCents != nil && *current.SpendLimitCents == cents; stops && !same {
			form := views.SpendLimit{Entered: entered, Sent: true, Confirm: &cents}
			return s.showUsage(c, viewer, http.StatusOK, form, "")
		}
	}
	return s.saveSpendLimit(c, viewer, &cents)
}

func (s *Server) removeSpendLimit(c echo.Context, viewer *models.Viewer) error {
	return s.saveSpendLimit(c, viewer, nil)
}

func (s *Server) saveSpendLimit(c echo.Context, viewer *models.Viewer, cents *int64) error {
	u := &viewer.User
	if err := models.SetSpendLimit(c.Request().Context(), s.db, s.catalogue, models.Now(s.now), u.Email, u.ID, cents); err != nil {
		return err
	}
	if cents == nil {
		return s.done(c, homePath, limitRemoved)
	}
	return s.done(c, homePath, limitSaved)
}

// usageCSV sends the data of /usage as a file: one row per billing period, then one row per day of
// the current period. For a past period, it has the row and the days of that period.
func (s *Server) usageCSV(c echo.Context, viewer *models.Viewer) error {
	now := models.Now(s.now)
	if past, err := s.pastPerson(c, &viewer.User, now); err != nil {
		return err
	} else if past != nil {
		return sendPastUsage(c, past)
	}
	p := s.loadPerson(c, viewer.User.Email, viewer.User.CreatedAt, now)
	if p.standing.Failed != "" || p.months.Failed != "" {
		if err := c.Request().Context().Err(); err != nil {
			return err // the client left
		}
		return models.Unavailable(fmt.Errorf("the figures for the CSV file could not be loaded: request %s", requestID(c)))
	}
	standing := p.standing.Value
	return writeCSV(c, "usage-"+now.Format(time.DateOnly)+".csv", func(row func(...any)) {
		row(usageColumns...)
		for _, m := range p.months.Value {
			switch {
			case m.Current:
				row(usageRow(standing)...)
			case !m.BeforeSignUp:
				row(usageRow(models.Standing{
					Period: m.Period, Plan: m.Plan, Used: m.Used, Included: m.Included, Overage: m.Overage, OverageCents: m.OverageCents,
				})...)
			}
		}
		for _, d := range p.days.Value.Until() {
			row(dayRow(d, standing.Plan)...)
		}
	})
}

// usageColumns are the columns of the file.
var usageColumns = []any{"row", "start", "end", "plan", "used", "included", "held", "remaining", "percent_used", "warning_level",
	"overage", "overage_cents"}

func usageRow(s models.Standing) []any {
	return []any{"period", s.Period.Start, s.Period.End, s.Plan, s.Used, s.Included, s.Held, s.Remaining(), s.PercentUsed(), s.Level(),
		s.Overage, s.OverageCents}
}

func dayRow(d charts.Date, plan models.PlanID) []any {
	return []any{"day", d.Date, d.Date.AddDate(0, 0, 1), plan, d.Used, "", "", "", "", "", "", ""}
}
