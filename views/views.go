// Package views holds the pages. Each page draws the plain values that it is given and loads
// nothing itself.
//
// A page takes a struct of the models' values: units are whole numbers, money is in cents of the
// catalog's currency, and times are shown in UTC. This package decides how they are written.
package views

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"tollgate/models"
	"tollgate/views/ui"
)

// The paths that the pages' forms post to. Unless noted otherwise, the method is POST and the
// response is a 303.
const (
	// PathSignInSlack redirects to the issuer. It takes FieldNext, the local path to return to.
	PathSignInSlack = "/sign-in/slack"
	// PathSpendLimit takes FieldAmount (as typed) and, to confirm a limit that is already exceeded,
	// FieldConfirm.
	PathSpendLimit = "/usage/spend-limit"
	// PathSpendLimitRemove takes nothing.
	PathSpendLimitRemove = "/usage/spend-limit/remove"
	// PathOrgSpendLimit and PathOrgMemberLimit take FieldSeen, FieldChoice and FieldAmount. The first one
	// also takes FieldConfirm, to confirm a limit that is already reached.
	PathOrgSpendLimit  = "/org/spend-limit"
	PathOrgMemberLimit = "/org/member-limit"
	// PathCheckout takes FieldPlan and redirects to Stripe Checkout.
	PathCheckout = "/plans/checkout"
	// PathPortal redirects to Stripe's Billing Portal. FieldOrganization selects the customer: "true" is
	// that of the organization of which the viewer is an admin, and "false" the viewer's own. Without
	// the field, it is the customer whose subscription gives the viewer their plan, if they may manage
	// it; otherwise the viewer's own or, for an admin, the organization's.
	PathPortal = "/plans/portal"
	// PathReturn is where Stripe Checkout returns to. It is a GET, with the plan and Checkout's
	// session.
	PathReturn = "/plans/return"
	// PathSessionsEndOthers takes nothing.
	PathSessionsEndOthers = "/settings/sessions/end-others"
	// PathNotices takes any number of FieldChannel and FieldLevel.
	PathNotices = "/settings/notices"
	// PathUnsubscribe takes FieldToken, the token of a mail's unsubscribe link, in its query. As a GET it
	// asks for confirmation. Its response is a page. Mail programs send the form, too.
	PathUnsubscribe = "/unsubscribe"
	// PathWebhooks takes FieldToken and FieldURL. Its response is the page itself, because the secret is
	// shown only once. PathWebhookRemove takes FieldID. As a GET it asks for confirmation.
	PathWebhooks      = "/ops/webhooks"
	PathWebhookRemove = "/ops/webhooks/remove"
	// PathKeys takes FieldToken, FieldName, FieldRateLimit and any number of FieldScope. Its response
	// is the page itself, because the key is shown only once.
	PathKeys = "/ops/keys"
	// PathKeyRevoke takes FieldID. As a GET it asks for confirmation.
	PathKeyRevoke = "/ops/keys/revoke"
	// PathStripePause and PathStripeResume take nothing.
	PathStripePause  = "/ops/stripe/pause"
	PathStripeResume = "/ops/stripe/resume"
	// PathStripeUnblock takes FieldID, the ID of a Stripe customer.
	PathStripeUnblock = "/ops/stripe/unblock"
	// PathReportRetry takes FieldID. PathReportGiveUp takes FieldID and FieldReason.
	PathReportRetry  = "/ops/reports/retry"
	PathReportGiveUp = "/ops/reports/give-up"
)

// The names of the forms' fields.
const (
	FieldAmount    = "amount"
	FieldConfirm   = "confirm"
	FieldChoice    = "choice"
	FieldSeen      = "seen"
	FieldRole      = "role"
	FieldPlan      = "plan"
	FieldID        = "id"
	FieldName      = "name"
	FieldScope     = "scope"
	FieldRateLimit = "rate_limit"
	FieldReason    = "reason"
	FieldNext      = "next"
	FieldToken     = "token"
	FieldQuantity  = "quantity"
	FieldLastDay   = "last_day"
	FieldKey       = "key"
	FieldHold      = "hold"
	FieldPeriod    = "period"
	FieldCursor    = "cursor"
	FieldChannel   = "channel"
	FieldLevel     = "level"
	FieldURL       = "url"

	FieldOrganization     = "organization"
	FieldSeenOrganization = "seen_organization"
)

// sessionEnd returns the path of the form that ends a session. It takes nothing.
func sessionEnd(id string) string { return "/settings/sessions/" + id + "/end" }

// Widget is a part of a page that has its own query. If the query fails, the rest of the page is
// still shown.
type Widget[T any] struct {
	Value T
	// Failed is the request ID if the query failed. Value is then not shown.
	Failed string
}

// Loaded returns a widget whose query succeeded.
func Loaded[T any](value T) Widget[T] { return Widget[T]{Value: value} }

// Subscription is the source of a person's plan and its future.
type Subscription struct {
	Plan models.Plan
	// Status is one of Stripe's; empty on the free plan. If it is canceled, the plan has been free
	// since EndsAt.
	Status models.SubscriptionStatus
	// Organization is the name of the organization whose active subscription gives the plan; empty if
	// the plan is the person's own.
	Organization string
	// Shared means that it is an organization's, on its members' pages and on its own.
	Shared bool
	// ForMembers means that the page is about all members of the organization, not about one person.
	ForMembers bool
	// EndsAt is set if the subscription was canceled. It is the time at which the free plan begins or
	// began.
	EndsAt *time.Time
	// Trial means that the base price is 0 until TrialEnd. TrialEnd is nil if it is unknown.
	Trial    bool
	TrialEnd *time.Time
	// Suspended means that it gives no plan, because it is unpaid or paused at Stripe.
	Suspended bool
	// ByHand means that the plan was assigned without Stripe, so Stripe does not bill it.
	ByHand bool
	// Manageable means that the viewer may open Stripe's Billing Portal for it.
	Manageable bool
	// StripeConnected means that this server bills through Stripe, and that plans can be bought.
	StripeConnected bool
	// NoAdmin means that the viewer's organization has no admin; only set if the page needs it.
	NoAdmin bool
	// OwnPlan is the name of the plan that the person subscribes to at Stripe although Organization
	// gives them their plan; empty without one. OwnManageable means that they may open the portal for it.
	OwnPlan       string
	OwnManageable bool
}

// basePriceCents returns the current monthly price of the plan, for a team plan per seat.
func (s *Subscription) basePriceCents() int64 {
	if s.Trial {
		return 0
	}
	return s.Plan.BasePriceCents
}

// whoMoves says who moves to which plan when the subscription ends.
func (s *Subscription) whoMoves() string {
	switch {
	case s.ForMembers:
		return "members without a plan of their own move to the free plan"
	case s.Shared:
		return "you move to the free plan, or to your own plan if you have one"
	}
	return "you move to the free plan"
}

// whoIsFree says who is on the free plan because the subscription gives no plan.
func (s *Subscription) whoIsFree() string {
	if s.ForMembers {
		return "members without a plan of their own are on the free plan"
	}
	return "you are on the free plan"
}

// isOthers reports whether only an admin of the viewer's organization, who is someone else, can manage it.
func (s *Subscription) isOthers() bool { return s.Shared && !s.ForMembers && !s.Manageable }

// neverPaidTitle is the title of the notice about a first payment that did not succeed.
func (s *Subscription) neverPaidTitle() string {
	if s.isOthers() {
		return "Your organization's first payment did not succeed"
	}
	return "The first payment did not succeed"
}

// ask says whom a viewer who may not manage the subscription can ask for a step.
func (s *Subscription) ask(step string) string {
	organization := cmp.Or(s.Organization, "your organization")
	switch {
	case !s.StripeConnected:
		return "Stripe is not connected here at the moment. To " + step + ", ask the operator of this service."
	case s.NoAdmin:
		return fmt.Sprintf("Only an admin of %s can %s, and there is none. Ask the operator of this service to make someone an admin.",
			organization, step)
	}
	return ui.Sentence(fmt.Sprintf("To %s, ask an admin of %s", step, organization))
}

// trialTitle returns "Trial until Dec 14, 2026 (in 16 days)".
func (s *Subscription) trialTitle(now time.Time) string {
	if s.TrialEnd == nil {
		return "Trial"
	}
	return fmt.Sprintf("Trial until %s (%s)", ui.Day(*s.TrialEnd), ui.Relative(*s.TrialEnd, now))
}

// trialText returns the base price during the trial and the price after it.
func (s *Subscription) trialText(c *models.Catalogue) string {
	text := fmt.Sprintf("The base price is %s during the trial.", c.FormatMoney(0))
	if s.TrialEnd != nil {
		text = fmt.Sprintf("The base price is %s until %s.", c.FormatMoney(0), models.FormatReset(*s.TrialEnd))
	}
	switch {
	case s.Organization != "":
		return ui.Sentence("Your plan comes from "+s.Organization) + " " + text
	case s.EndsAt != nil, s.Plan.BasePriceCents == 0:
		return text
	}
	return text + fmt.Sprintf(" After that, %s costs %s %s.", s.Plan.Name, c.FormatMoney(s.Plan.BasePriceCents), priceUnit(s.Plan))
}

// billed reports whether the pages show money, which they do unless the plan costs nothing.
func billed(p models.Plan) bool { return p.BasePriceCents > 0 || p.OverageRateCents > 0 }

// hasOverageCost reports whether overage was billed in one of the months, under whatever plan.
func hasOverageCost(months []models.PastPeriod) bool {
	return slices.ContainsFunc(months, func(m models.PastPeriod) bool { return m.OverageCents > 0 })
}
