//go:build linux

package main

import "time"

// The plan of everyone in the benchmark. Included is far more than a run can use, so that every
// answer has the level "safe" and all servers' answers have the same size.
const (
	benchPlan        = "business"
	benchIncluded    = 100_000_000
	benchOverageRate = 20
)

// consumeRequest is the body of a consume call. A check has no key.
type consumeRequest struct {
	Email          string `json:"email"`
	Quantity       int64  `json:"quantity"`
	IdempotencyKey string `json:"idempotency_key"`
}

// decision has the fields of the gate's answer, in the same order. It is declared here and not
// imported from the product, so that the other servers cost what a user's own server would cost.
type decision struct {
	Allowed          bool    `json:"allowed"`
	Reason           *string `json:"reason"`
	WarningLevel     string  `json:"warning_level"`
	Email            string  `json:"email"`
	Plan             string  `json:"plan"`
	Used             int64   `json:"used"`
	Held             int64   `json:"held"`
	Included         int64   `json:"included"`
	Remaining        int64   `json:"remaining"`
	PercentUsed      int64   `json:"percent_used"`
	Overage          int64   `json:"overage"`
	OverageRateCents int64   `json:"overage_rate_cents"`
	OverageCents     int64   `json:"overage_cents"`
	SpendLimitCents  *int64  `json:"spend_limit_cents"`
	MemberLimit      *int64  `json:"member_limit"`
	Period           period  `json:"period"`
	UsageURL         string  `json:"usage_url"`
	Notice           *string `json:"notice"`
	Slack            *struct {
		ResponseType string `json:"response_type"`
		Text         string `json:"text"`
		Blocks       []any  `json:"blocks"`
	} `json:"slack"`
}

type period struct {
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

// consumed is the answer to a consume call.
type consumed struct {
	decision
	EventID  string `json:"event_id"`
	Replayed bool   `json:"replayed"`
}

// monthOf returns the calendar month in UTC that contains t.
func monthOf(t time.Time) period {
	start := time.Date(t.UTC().Year(), t.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
	return period{Start: start, End: start.AddDate(0, 1, 0)}
}

// decide returns the answer for a person who has used this many units. No one reaches a limit in
// the benchmark, so there are no levels above "safe" and no messages.
func decide(email string, used int64, allowed bool, p period) decision {
	return decision{
		Allowed: allowed, WarningLevel: "safe", Email: email, Plan: benchPlan, Used: used, Included: benchIncluded,
		Remaining: benchIncluded - used, PercentUsed: used * 100 / benchIncluded, OverageRateCents: benchOverageRate,
		Period: p, UsageURL: "http://127.0.0.1:8080/usage",
	}
}
