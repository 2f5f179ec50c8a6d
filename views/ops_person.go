package views

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/views/ui"
)

// OpsPerson is what the operator sees and changes of a person, and the person's own page.
type OpsPerson struct {
	Person models.UserEntry
	// Identities are the person's identities at sign-in providers.
	Identities models.Identities
	// Usage is the person's own page. It is read-only.
	Usage Usage
	// Grants are those of the current billing period.
	Grants Widget[[]models.UsageGrant]
	// Subscriptions are those of the person and of their organization, newest first.
	Subscriptions Widget[[]models.Subscription]
	// OnlyAdmin means that the person's organization has no other admin.
	OnlyAdmin bool
	GrantForm GrantForm
	// EnteredPlan and EnteredRole are what was sent, if the form is shown again.
	EnteredPlan string
	EnteredRole string
}

// GrantForm is the form that adds a grant. If it is shown again, it keeps its entries.
type GrantForm struct {
	// Token is the grant's idempotency key, so that a form that is sent twice adds one grant.
	Token                     string
	Quantity, Reason, LastDay string
}

// The IDs of fields that can be invalid.
const (
	FieldIDGrantQuantity = "grant-quantity"
	FieldIDGrantReason   = "grant-reason"
	FieldIDGrantLastDay  = "grant-last-day"
	FieldIDPlan          = "assign-plan"
	FieldIDOpsRole       = "person-role"
	FieldIDVoidReason    = "void-reason"
)

// PathOpsPerson returns the path of a person's page for the operator.
func PathOpsPerson(id uuid.UUID) string { return "/ops/people/" + id.String() }

// PathOpsGrant takes FieldToken, FieldSeen (the start of the billing period), FieldQuantity,
// FieldReason and FieldLastDay.
func PathOpsGrant(id uuid.UUID) string { return PathOpsPerson(id) + "/grants" }

// PathOpsActivity returns the path of the person's activity.
func PathOpsActivity(id uuid.UUID) string { return PathOpsPerson(id) + "/activity" }

// PathOpsVoided returns the address of the list with a voided event: the person's activity in the
// billing period of the event.
func PathOpsVoided(v *models.UsageVoid) string {
	period := models.Period{Start: v.BillingPeriodStart, End: v.BillingPeriodEnd}
	return PathOpsActivity(v.UserID) + "?" + FieldPeriod + "=" + models.FormatPeriod(period)
}

// PathOpsVoid takes FieldKey or FieldHold, FieldPeriod and FieldCursor (the part of the list to
// return to), and FieldReason. As a GET it asks for confirmation.
func PathOpsVoid(id uuid.UUID) string { return PathOpsPerson(id) + "/void" }

// PathOpsPlan takes FieldPlan, FieldOrganization, FieldSeen and FieldSeenOrganization.
func PathOpsPlan(id uuid.UUID) string { return PathOpsPerson(id) + "/plan" }

// PathOpsPlanEnd takes FieldID, the ID of the subscription. As a GET it asks for confirmation.
func PathOpsPlanEnd(id uuid.UUID) string { return PathOpsPerson(id) + "/plan/end" }

// PathOpsRole takes FieldSeen, FieldOrganization and FieldRole.
func PathOpsRole(id uuid.UUID) string { return PathOpsPerson(id) + "/role" }

func (d OpsPerson) called() string { return displayName(d.Person.Name, d.Person.Email) }

func (d OpsPerson) identitiesText() string {
	if list := d.Identities.List(); len(list) > 0 {
		return strings.Join(list, ", ")
	}
	return "None: known only by email"
}

// homeID is the ID of the person's organization; empty without one.
func (d OpsPerson) homeID() string {
	if d.Person.OrganizationID == nil {
		return ""
	}
	return d.Person.OrganizationID.String()
}

// seenPeriod repeats the billing period that the operator sees. A grant counts only in it.
func (d OpsPerson) seenPeriod() string { return SeenPeriod(d.Usage.Standing.Value.Period) }

// SeenPeriod returns the value of the hidden field that repeats a billing period.
func SeenPeriod(p models.Period) string { return fmt.Sprint(p.Start.Unix()) }

func (d OpsPerson) lastDayHint() string {
	end := d.Usage.Standing.Value.Period.End
	return fmt.Sprintf("A date such as %s, in UTC. Unused %s are taken back after this day. If you leave the field empty, they are "+
		"taken back when the period ends: %s.",
		end.Add(-time.Microsecond).UTC().Format(time.DateOnly), d.Usage.Catalogue.UnitPlural, models.FormatReset(end))
}

// grantEnd says until when a grant counts.
func (d OpsPerson) grantEnd(g models.UsageGrant) string {
	switch {
	case g.EndedAt != nil && g.TakenBack == 0:
		return "Expired " + models.FormatReset(*g.EndedAt) + "; all were used"
	case g.EndedAt != nil:
		return fmt.Sprintf("Expired %s; %s taken back", models.FormatReset(*g.EndedAt), models.FormatCount(g.TakenBack))
	case g.ExpiresAt != nil:
		return models.FormatReset(*g.ExpiresAt)
	}
	return "End of the period"
}

// SeenPlan returns the value of the hidden field that repeats the plan that was assigned by hand to a
// person (organization is nil) or to an organization.
func SeenPlan(all []models.Subscription, organization *uuid.UUID) string {
	for i := range all {
		s := &all[i]
		if s.StripeSubscriptionID == nil && s.Active() && (s.OrganizationID != nil) == (organization != nil) {
			return s.ID.String()
		}
	}
	return ""
}

// active returns the subscriptions that give a plan.
func (d OpsPerson) active() (list []models.Subscription) {
	for _, s := range d.Subscriptions.Value {
		if s.Active() {
			list = append(list, s)
		}
	}
	return list
}

// holder returns who has a subscription.
func (d OpsPerson) holder(s models.Subscription) string {
	if s.OrganizationID != nil {
		return d.Person.Organization
	}
	return d.called()
}

// assignable returns the plans that can be assigned: individual ones to the person, and team plans to
// their organization.
func (d OpsPerson) assignable() (plans []models.Plan) {
	for _, p := range d.Usage.Catalogue.Plans {
		if p.ID != models.FreePlan && (p.Type == models.Individual || d.Person.OrganizationID != nil) {
			plans = append(plans, p)
		}
	}
	return plans
}

// assignText says whom a plan is assigned to.
func (d OpsPerson) assignText(p models.Plan) string {
	if p.Type == models.Team {
		return fmt.Sprintf("For all members of %s, with %s each.", d.Person.Organization, d.Usage.Catalogue.Units(p.Included))
	}
	text := fmt.Sprintf("Only for %s, with %s.", d.called(), d.Usage.Catalogue.Units(p.Included))
	if d.paidBy() {
		text += " It has no effect while the plan of " + ui.Sentence(d.Person.Organization+" applies")
	}
	return text
}

// paidBy reports whether the person's organization has a plan.
func (d OpsPerson) paidBy() bool {
	for _, s := range d.active() {
		if s.OrganizationID != nil {
			return true
		}
	}
	return false
}

// planID returns the ID of a plan's radio button. An error links to the first one.
func (d OpsPerson) planID(i int, p models.Plan) string {
	if i == 0 {
		return FieldIDPlan
	}
	return FieldIDPlan + "-" + string(p.ID)
}

func (d OpsPerson) roleText() string {
	if d.Person.OrganizationID == nil {
		return "This person is in no organization, so they have no role."
	}
	text := d.called() + " is " + map[models.Role]string{models.Admin: "an admin", models.Member: "a member"}[d.Person.Role] + " of "
	text += ui.Sentence(d.Person.Organization)
	if d.OnlyAdmin {
		text += " The organization has no other admin."
	}
	return text
}

func (d OpsPerson) chosenRole(role models.Role) bool {
	if d.EnteredRole != "" {
		return d.EnteredRole == string(role)
	}
	return d.Person.Role == role
}

func opsRoleID(role models.Role) string {
	if role == models.Member {
		return FieldIDOpsRole
	}
	return FieldIDOpsRole + "-" + string(role)
}

// OpsVoid is the page that asks for confirmation before an event is voided.
type OpsVoid struct {
	Frame     ui.Frame
	Catalogue *models.Catalogue
	Person    models.UserEntry
	Event     models.UsageEvent
	// Reason is what was entered, if the form is shown again.
	Reason string
	// Period and Cursor are the part of the list to return to; empty for its start.
	Period, Cursor string
}

// Back returns the address of the part of the list.
func (d OpsVoid) Back() string {
	return Activity{Selected: d.Period}.url(PathOpsActivity(d.Person.ID), d.Cursor)
}

func (d OpsVoid) hold() string {
	if d.Event.HoldID == nil {
		return ""
	}
	return d.Event.HoldID.String()
}

func (d OpsVoid) key() string {
	if d.Event.IdempotencyKey == nil {
		return ""
	}
	return *d.Event.IdempotencyKey
}

func (d OpsVoid) overage() string {
	return eventOverage(d.Catalogue, d.Event.OverageQuantity, d.Event.OverageCents)
}

// consequence says what the void does.
func (d OpsVoid) consequence() string {
	text := d.Catalogue.Units(d.Event.Quantity) + " no longer count"
	if d.Event.Quantity == 1 {
		text += "s"
	}
	text += " in the billing period of the event. Decisions made since then do not change."
	switch {
	case d.Event.OverageQuantity == 0:
		return text
	case d.Event.StripeReportID != nil:
		return text + " The overage is already in a report to Stripe. If Stripe bills this report, a negative report takes the " +
			"overage back, or a credit note if the invoice is already final. If Tollgate can make neither, /ops lists the void with what to do."
	case d.Event.StripeCustomerID == nil:
		return text + " Tollgate does not bill this overage. If you have billed it by hand, credit it yourself."
	}
	return text + " The overage is not in a report to Stripe yet, so it will not be billed."
}

// OpsActivity is what only the operator sees of a person's events.
type OpsActivity struct {
	Person uuid.UUID
	// Voids are those of the events on the page, by the event's ID.
	Voids map[uuid.UUID]models.UsageVoid
	// Cursor is the position of this part of the list; empty for its start.
	Cursor string
}

// voidURL returns the address of the page that asks for confirmation to void an event.
func (d Activity) voidURL(e models.ActivityEvent) string {
	query := url.Values{}
	switch {
	case e.HoldID != nil:
		query.Set(FieldHold, e.HoldID.String())
	case e.IdempotencyKey != nil:
		query.Set(FieldKey, *e.IdempotencyKey)
	}
	if d.Selected != "" {
		query.Set(FieldPeriod, d.Selected)
	}
	if d.Operator.Cursor != "" {
		query.Set(FieldCursor, d.Operator.Cursor)
	}
	return PathOpsVoid(d.Operator.Person) + "?" + query.Encode()
}

// voidLabel names the event for screen readers, which do not see its row.
func (d Activity) voidLabel(e models.ActivityEvent) string {
	return "Void " + d.Catalogue.Units(e.Quantity) + " of " + e.OccurredAt.UTC().Format("Jan 2, 15:04:05")
}

// voidStateText says what happens at Stripe after a void.
func voidStateText(v models.UsageVoid) string {
	switch v.State {
	case models.VoidNotReported:
		return "Not reported to Stripe"
	case models.VoidWaiting:
		return "Not taken back at Stripe yet"
	case models.VoidReported:
		return "Taken back with a negative report"
	case models.VoidCredited:
		return "Credited"
	case models.VoidNotBilled:
		return "Not billed"
	}
	return string(v.State)
}

// PlanEnd is the page that asks for confirmation before a plan that was assigned by hand ends.
type PlanEnd struct {
	Frame        ui.Frame
	Plan         models.Plan
	Person       models.UserEntry
	Subscription models.Subscription
}

func (d PlanEnd) holder() string {
	return OpsPerson{Person: d.Person}.holder(d.Subscription)
}

func (d PlanEnd) consequence() string {
	who := d.holder()
	if d.Subscription.OrganizationID != nil {
		who = "all members of " + who
	}
	return "This plan and its overage price end immediately for " + who +
		". The included units stay until the current billing period ends. Anyone who has another plan continues on that one."
}
