package billing

import (
	"context"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// minutes are the minutes of existing reports, by stream.
type minutes struct {
	taken map[stream]map[time.Time]bool
}

// takenMinutes reads the minutes in the hours of the slices.
func takenMinutes(ctx context.Context, tx bun.Tx, due []slice) (*minutes, error) {
	m := &minutes{taken: map[stream]map[time.Time]bool{}}
	first, last := due[0].from, due[0].from
	var customers, meters []string
	for _, s := range due {
		first = earlier(first, s.from)
		if s.from.After(last) {
			last = s.from
		}
		customers, meters = append(customers, s.customer), append(meters, s.meter)
	}
	slices.Sort(meters)
	return m, m.read(ctx, tx, slices.Compact(customers), slices.Compact(meters), first.Truncate(time.Hour), last.Truncate(time.Hour).
		Add(time.Hour))
}

func (m *minutes) read(ctx context.Context, tx bun.Tx, customers, meters []string, from, to time.Time) error {
	var found []models.StripeReport
	err := tx.NewSelect().Model(&found).Column("stripe_customer_id", "meter_event_name", "minute").
		Where("stripe_customer_id IN (?) AND meter_event_name IN (?) AND minute >= ? AND minute < ?", bun.List(customers),
			bun.List(meters), from, to).Scan(ctx)
	for _, f := range found {
		m.add(stream{f.StripeCustomerID, f.MeterEventName}, f.Minute.UTC())
	}
	return err
}

func (m *minutes) add(of stream, minute time.Time) {
	if m.taken[of] == nil {
		m.taken[of] = map[time.Time]bool{}
	}
	m.taken[of][minute] = true
}

// take returns a minute that no report of the customer and meter has, and marks it as taken. It
// prefers the slice's part of its hour, and otherwise the rest of its billing period. Minutes
// before the last event come first, because they are certainly in the period of the events; later
// ones may be in the next period until Stripe's state is read again. If a past period has no free
// minute, its events are billed in the first free minute after it.
func (m *minutes) take(ctx context.Context, tx bun.Tx, s *slice, now time.Time) (time.Time, bool, error) {
	until := s.until
	if !s.certain {
		until = s.from
	}
	if minute, ok := m.free(s.stream, s.from, until, s.last); ok {
		return minute, true, nil
	}
	if err := m.read(ctx, tx, []string{s.customer}, []string{s.meter}, s.period.Start, now); err != nil {
		return time.Time{}, false, err
	}
	if minute, ok := m.free(s.stream, s.period.Start, earlier(s.period.End, now), s.last); ok || s.period.End.After(now) {
		return minute, ok, nil
	}
	next := ceilMinute(s.period.End)
	minute, ok := m.free(s.stream, next, now, next.Add(-time.Minute))
	s.noMinute = ok
	return minute, ok, nil
}

// free takes the last free minute that begins in [start, end) and not after last, or else the first
// one after it.
func (m *minutes) free(of stream, start, end, last time.Time) (time.Time, bool) {
	middle := last.Truncate(time.Minute)
	for t := middle; !t.Before(start); t = t.Add(-time.Minute) {
		if !m.taken[of][t] {
			m.add(of, t)
			return t, true
		}
	}
	for t := middle.Add(time.Minute); t.Before(end); t = t.Add(time.Minute) {
		if !t.Before(start) && !m.taken[of][t] {
			m.add(of, t)
			return t, true
		}
	}
	return time.Time{}, false
}

// freeMinute returns a free minute in the hour of a time, and the slice of that hour. ok is false if
// there is none.
func freeMinute(ctx context.Context, tx bun.Tx, of stream, at, now time.Time) (s *slice, minute time.Time, ok bool, err error) {
	all, err := timelinesOf(ctx, tx, []string{of.customer})
	if err != nil {
		return nil, time.Time{}, false, err
	}
	known, hour := all[of.customer], at.Truncate(time.Hour)
	s = &slice{stream: of, period: known.at(at), last: at, from: hour, until: hour.Add(time.Hour)}
	s.from, s.until = later(s.from, s.period.Start), earlier(s.until, s.period.End)
	s.certain = known.readAt.IsZero() || !known.readAt.Before(s.until)
	taken, err := takenMinutes(ctx, tx, []slice{*s})
	if err != nil {
		return nil, time.Time{}, false, err
	}
	minute, ok, err = taken.take(ctx, tx, s, now)
	return s, minute, ok, err
}
