package models

import (
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// SubscriptionPeriod is a billing period that Stripe showed for a subscription.
type SubscriptionPeriod struct {
	bun.BaseModel `bun:"table:subscription_periods"`

	SubscriptionID   uuid.UUID `bun:",pk,type:uuid"`
	StripeCustomerID string
	PeriodStart      time.Time `bun:",pk"`
	PeriodEnd        time.Time
	// SaidAt is when Stripe showed the period. LearnedAt is when it was stored or last changed
	// here.
	SaidAt, LearnedAt time.Time
}

// Periods are billing periods, sorted and without overlap.
type Periods []Period

// NewPeriods sorts periods and removes overlaps: a period ends where the next one starts. Of two
// that start at the same time, the longer one counts.
func NewPeriods(all []Period) Periods {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b Period) int {
		if c := a.Start.Compare(b.Start); c != 0 {
			return c
		}
		return b.End.Compare(a.End)
	})
	var periods Periods
	for _, p := range all {
		p = Period{Start: p.Start.UTC(), End: p.End.UTC()}
		if n := len(periods); n > 0 {
			last := &periods[n-1]
			if last.Start.Equal(p.Start) {
				continue
			}
			if p.Start.Before(last.End) {
				last.End = p.Start
			}
		}
		periods = append(periods, p)
	}
	return periods
}

// At returns the period that contains t. Without one, it returns the time between the previous and
// the next period; a zero time means that there is no such period.
func (p Periods) At(t time.Time) (period Period, known bool) {
	i, _ := slices.BinarySearchFunc(p, t, func(period Period, t time.Time) int {
		if period.Start.After(t) {
			return 1
		}
		return -1
	}) // the first one that starts after t
	var gap Period
	if i < len(p) {
		gap.End = p[i].Start
	}
	if i > 0 {
		if p[i-1].Contains(t) {
			return p[i-1], true
		}
		gap.Start = p[i-1].End
	}
	return gap, false
}

// PeriodAt returns the period that contains t: a known one, or else the monthly step of the anchor
// or the calendar month, cut where known periods begin and end.
func (p Periods) PeriodAt(t time.Time, anchor *time.Time) Period {
	period, known := p.At(t)
	switch {
	case known:
		return period
	case anchor != nil:
		return AnchoredMonth(*anchor, t).clip(period.Start, period.End)
	}
	return CalendarMonth(t).clip(period.Start, period.End)
}

// monthOf returns the billing period that contains t within a known period: the whole period, or a
// monthly step if the period is longer, such as a year.
func monthOf(p Period, anchor *time.Time, t time.Time) Period {
	if p.End.Sub(p.Start) <= maxPeriod {
		return p
	}
	first := p.Start
	if anchor != nil && AnchoredMonth(*anchor, first).Start.Equal(first) {
		first = *anchor
	}
	return AnchoredMonth(first, t).clip(p.Start, p.End)
}

// paidFor is a subscription at Stripe that gives or gave a person a plan.
type paidFor struct {
	customer string
	// began is when it started to give its plan. ended is when it stopped; zero while it is active.
	began, ended time.Time
	anchor       *time.Time
	all          []Period
	periods      Periods
}

// period returns the billing period of a customer that contains t, if Stripe showed it. It is a
// period of the newest subscription that gave a plan at that time, and ends when that subscription
// ends or a newer one begins.
func (c *changes) period(customer string, t time.Time) (period Period, known bool) {
	if c == nil || customer == "" {
		return Period{}, false
	}
	var paid *paidFor
	for _, s := range c.paid {
		if s.customer == customer && !s.began.After(t) && (s.ended.IsZero() || s.ended.After(t)) && (paid == nil || s.began.After(paid.began)) {
			paid = s
		}
	}
	if paid == nil {
		return Period{}, false
	}
	if period, known = paid.periods.At(t); !known {
		return Period{}, false
	}
	period = monthOf(period, paid.anchor, t)
	for _, s := range c.paid {
		if s.customer == customer && s.began.After(t) && (s.ended.IsZero() || s.ended.After(s.began)) {
			period = period.clip(time.Time{}, s.began)
		}
	}
	return period.clip(time.Time{}, paid.ended), true
}
