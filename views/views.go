// Package views is everything that is seen. It draws plain values and asks nobody for more.
//
// A page takes a struct of values as models have them: units are whole numbers, money is in cents of the catalogue's
// currency, instants are drawn in UTC. How they are written is decided here.
package views

import (
	"fmt"
	"time"

	"tollgate/models"
	"tollgate/views/ui"
)

// Where the forms of the pages go. Each is a POST unless it says otherwise, and answers 303 unless it says otherwise.
const (
	// PathSignInSlack leads to the issuer; it takes FieldNext, a path of ours to come back to.
	PathSignInSlack = "/sign-in/slack"
	// PathSpendLimit takes FieldAmount (as typed) and, to confirm a limit below what is spent, FieldConfirm.
	PathSpendLimit = "/usage/spend-limit"
	// PathSpendLimitRemove takes nothing.
	PathSpendLimitRemove = "/usage/spend-limit/remove"
	// PathCheckout takes FieldPlan and leads to Stripe Checkout.
	PathCheckout = "/plans/checkout"
	// PathPortal takes nothing and leads to Stripe's Billing Portal.
	PathPortal = "/plans/portal"
	// PathReturn is where Stripe Checkout leads back to. It is a GET, with the plan and Checkout's session.
	PathReturn = "/plans/return"
	// PathSessionsEndOthers takes nothing.
	PathSessionsEndOthers = "/settings/sessions/end-others"
	// PathKeys takes FieldToken, FieldName, FieldRateLimit and any number of FieldScope; it answers with the page, because the key is shown
	// once.
	PathKeys = "/ops/keys"
	// PathKeyRevoke takes FieldID. As a GET it asks for confirmation.
	PathKeyRevoke = "/ops/keys/revoke"
	// PathStripePause and PathStripeResume take nothing.
	PathStripePause  = "/ops/stripe/pause"
	PathStripeResume = "/ops/stripe/resume"
	// PathStripeUnblock takes FieldID, a customer of Stripe's.
	PathStripeUnblock = "/ops/stripe/unblock"
	// PathReportRetry takes FieldID; PathReportGiveUp takes FieldReason as well.
	PathReportRetry  = "/ops/reports/retry"
	PathReportGiveUp = "/ops/reports/give-up"
)

// The names of the forms' fields.
const (
	FieldAmount    = "amount"
	FieldConfirm   = "confirm"
	FieldPlan      = "plan"
	FieldID        = "id"
	FieldName      = "name"
	FieldScope     = "scope"
	FieldRateLimit = "rate_limit"
	FieldReason    = "reason"
	FieldNext      = "next"
	FieldToken     = "token"
)

// sessionEnd is where the form goes that ends a session. It takes nothing.
func sessionEnd(id string) string { return "/settings/sessions/" + id + "/end" }

// Widget is a part of a page that comes from a query of its own, so that one that fails empties no page.
type Widget[T any] struct {
	Value T
	// Failed is the request's id when the query failed; Value is then not shown.
	Failed string
}

// Loaded is a widget whose query succeeded.
func Loaded[T any](value T) Widget[T] { return Widget[T]{Value: value} }

// Subscription is where a person's plan comes from and what will become of it.
type Subscription struct {
	Plan models.Plan
	// Status is Stripe's word; empty on the free plan. A canceled one says that the plan was free from EndsAt on.
	Status models.SubscriptionStatus
	// Organization is the name of who holds the subscription; empty when the person does.
	Organization string
	// EndsAt is set when the subscription was cancelled: at that time the free plan begins, or began.
	EndsAt *time.Time
	// Trial says that the base price is 0, until TrialEnd. TrialEnd may be nil if it is not known.
	Trial    bool
	TrialEnd *time.Time
	// ByHand says that the plan was assigned without Stripe, so that Stripe bills nothing of it.
	ByHand bool
	// Manageable says that the viewer may open Stripe's Billing Portal for it.
	Manageable bool
}

// basePriceCents returns what a month of the plan costs at present; of a team plan, a seat.
func (s *Subscription) basePriceCents() int64 {
	if s.Trial {
		return 0
	}
	return s.Plan.BasePriceCents
}

// trialTitle returns "Trial until Dec 14, 2026 (in 16 days)".
func (s *Subscription) trialTitle(now time.Time) string {
	if s.TrialEnd == nil {
		return "Trial"
	}
	return fmt.Sprintf("Trial until %s (%s)", ui.Day(*s.TrialEnd), ui.Relative(*s.TrialEnd, now))
}

// trialText returns what the trial's base price is, and what follows the trial.
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

// Comparison sets a period against the same number of days of the one before.
type Comparison struct {
	// Days is how many days are compared, today included.
	Days int
	// Used is the units of the current period's days.
	Used int64
	// Before is the units of the previous period's days; nil when there was no previous period.
	Before *int64
}

// billed says whether money is to be shown: not on a plan that costs nothing.
func billed(p models.Plan) bool { return p.BasePriceCents > 0 || p.OverageRateCents > 0 }
