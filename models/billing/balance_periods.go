package billing

import (
	"cmp"
	"context"
	"slices"
	"time"

	"tollgate/models"
)

// span is a time that may be a billing period.
type span struct {
	models.Period
	// known means that a subscription or an invoice at Stripe has this period. Otherwise it comes
	// from events and reports, whose records may begin or end within a billing period when a member
	// joins or leaves.
	known bool
}

// billedPeriods returns the billing periods of the last 35 days in which a customer has overage or
// an invoice for it.
func (r *Reporter) billedPeriods(ctx context.Context, of stream, known *billedCustomer, now time.Time) ([]models.Period, error) {
	since := now.Add(-totalsReach)
	labels, err := r.periods(ctx, of)
	if err != nil {
		return nil, err
	}
	var spans []span
	for _, s := range known.subscriptions {
		if s.CurrentPeriodStart != nil && s.CurrentPeriodEnd != nil && s.CurrentPeriodEnd.After(since) &&
			s.CurrentPeriodStart.Before(*s.CurrentPeriodEnd) {
			spans = append(spans, span{models.Period{Start: s.CurrentPeriodStart.UTC(), End: s.CurrentPeriodEnd.UTC()}, true})
		}
	}
	mine := slices.Clone(labels)
	for _, l := range known.lines {
		if l.PeriodEnd.After(since) {
			p := models.Period{Start: l.PeriodStart.UTC(), End: l.PeriodEnd.UTC()}
			spans = append(spans, span{p, true})
			if l.MeterEventName == of.meter {
				mine = append(mine, p)
			}
		}
	}
	for _, p := range labels {
		spans = append(spans, span{p, false})
	}
	return slices.DeleteFunc(mergeSpans(spans), func(p models.Period) bool {
		return !slices.ContainsFunc(mine, func(m models.Period) bool { return m.Start.Before(p.End) && p.Start.Before(m.End) })
	}), nil
}

// mergeSpans returns billing periods without overlap. A span within a known period is a part of it.
// A known period that begins within another one ends that one.
func mergeSpans(spans []span) []models.Period {
	slices.SortFunc(spans, func(a, b span) int {
		known := func(s span) int {
			if s.known {
				return 0
			}
			return 1
		}
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(known(a), known(b)), b.End.Compare(a.End))
	})
	var merged []span
	for _, s := range spans {
		n := len(merged)
		if n == 0 || !s.Start.Before(merged[n-1].End) {
			merged = append(merged, s)
			continue
		}
		last := &merged[n-1]
		switch {
		case s.known == last.known && (s.End.Equal(last.End) || s.Start.Equal(last.Start)), last.known && !s.known && !s.End.After(last.End):
			// a part of it
		case last.known && !s.known:
			merged = append(merged, span{models.Period{Start: last.End, End: s.End}, false})
		case s.Start.Equal(last.Start):
			last.End, last.known = s.End, s.known
		default:
			last.End = s.Start
			merged = append(merged, s)
		}
	}
	periods := make([]models.Period, len(merged))
	for i, s := range merged {
		periods[i] = s.Period
	}
	return periods
}
