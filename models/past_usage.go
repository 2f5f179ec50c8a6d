package models

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"
)

// PastUsage is a person's usage in a billing period that has ended.
type PastUsage struct {
	// Standing has the figures of the period: its plan, its limit and what was used. Its Period is
	// from the start of the first billing period that the query selects to the end of the last one; the
	// query's Whole without records.
	Standing Standing
	// Recorded means that there is a usage record. Without one, the period has no plan and no limit.
	Recorded bool
	// BeforeSignUp means that the person did not exist yet.
	BeforeSignUp bool
	// Payer is the result of PayerOf for the period's last record; nil if unknown. SeveralPayers means
	// that an earlier payer has some or all of the overage in this period. It is false if the last plan
	// is the free one, because that plan's payer has none.
	Payer         *string
	SeveralPayers bool
	// Days are those of this period and of the one before it.
	Days Days
	// Months are the newest six, or the six up to this period if it is older.
	Months []PastPeriod
	// Moved is the overage that moved between the months.
	Moved []MovedOverage
}

// NewPastUsage sums up a person's records of the billing periods that a query selects. current is
// the person's standing now. The records are those since SinceForPast.
func NewPastUsage(current Standing, records []UsageRecord, signedUp time.Time, q PeriodQuery) PastUsage {
	u := PastUsage{Standing: Standing{UserID: current.UserID, Email: current.Email, Period: q.Whole}}
	s := &u.Standing
	var selected []UsageRecord
	for i := range records {
		r := &records[i]
		if !q.contains(r.BillingPeriodStart) {
			continue
		}
		if !u.Recorded {
			s.Period.Start = r.Period().Start
		}
		u.Recorded, s.Period.End = true, r.Period().End
		selected = append(selected, *r)
		// A period that a new subscription cut short has the larger limit, as in Months.
		if included := r.SuggestionsIncluded + r.Granted; s.Used == 0 && s.OverageCents == 0 {
			s.Included = included
		} else {
			s.Included = max(s.Included, included)
		}
		s.Used, s.Overage, s.OverageCents = s.Used+r.SuggestionsUsed, s.Overage+r.OverageUsed, s.OverageCents+r.OverageCents
		s.Plan, s.OverageRateCents, s.SpendLimitCents, s.MemberLimit = r.PlanID, r.OverageRateCents, r.SpendLimitCents, r.MemberLimit
		u.Payer = r.Payer
	}
	u.SeveralPayers = s.Plan != FreePlan && slices.ContainsFunc(selected, func(r UsageRecord) bool {
		return r.OverageUsed > 0 && r.Payer != nil && u.Payer != nil && *r.Payer != *u.Payer
	})
	u.BeforeSignUp = !u.Recorded && !s.Period.End.After(signedUp)
	before := s.Period.Previous()
	u.Days = Days{
		Period: s.Period, Used: daysOf(s.Period, selected), Previous: daysOf(before, records),
		Known: signedUp.Before(s.Period.Start),
	}
	if u.Months = monthsUpTo(current, records, signedUp, s.Period); u.BeforeSignUp {
		u.Months = Months(current, records, signedUp, HistoryMonths)
	}
	u.Moved = MovedOverages(records, u.Months[0].Period.Start)
	return u
}

// daysOf adds up the days of the records that began in a period.
func daysOf(period Period, records []UsageRecord) []int64 {
	var days []int64
	for i := range records {
		r := &records[i]
		if !period.Contains(r.BillingPeriodStart) {
			continue
		}
		for day, units := range r.Daily.Units() {
			at := DayOf(period.Start, r.BillingPeriodStart) + day
			for len(days) <= at {
				days = append(days, 0)
			}
			days[at] += units
		}
	}
	return days
}

// monthsUpTo returns six months with the selected one among them: the newest ones if it is one of
// them, otherwise those up to it. Nothing is older than the person and their records.
func monthsUpTo(current Standing, records []UsageRecord, signedUp time.Time, selected Period) []PastPeriod {
	oldest := signedUp
	if len(records) > 0 && records[0].BillingPeriodStart.Before(oldest) {
		oldest = records[0].BillingPeriodStart
	}
	n := 1
	for start := current.Period.Start; start.After(selected.Start) && start.After(oldest); n++ {
		start = monthsAfter(current.Period.Start, -n)
	}
	if n > HistoryMonths {
		n += HistoryMonths - 1
	}
	return Months(current, records, signedUp, max(n, HistoryMonths))[:HistoryMonths]
}

// SinceForPast returns a time such that the records since then suffice for NewPastUsage.
func (q PeriodQuery) SinceForPast(now time.Time) time.Time {
	from := now
	if q.Start.Before(from) {
		from = q.Start
	}
	return from.Add(-(HistoryMonths + 1) * maxPeriod)
}

// WasTrial reports whether a trial covered a billing period that a Stripe customer paid for.
func WasTrial(ctx context.Context, db bun.IDB, payer *string, period Period) (bool, error) {
	if payer == nil || byHand(*payer) {
		return false, nil
	}
	found, err := db.NewSelect().Model((*Subscription)(nil)).
		Where("stripe_customer_id = ? AND created_at < ? AND trial_end >= ?", *payer, period.End, period.End).Exists(ctx)
	if err != nil {
		return false, fmt.Errorf("read the trials of a customer: %w", err)
	}
	return found, nil
}
