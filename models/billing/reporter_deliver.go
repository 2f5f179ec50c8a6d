package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"tollgate/models"
)

// stopPatience is how long a stopping process waits for the answers to open calls.
const stopPatience = 5 * time.Second

// sendable selects the reports of a stream that may be sent: sealed ones, and unknown ones while
// Stripe still knows their identifier. Its last argument is the end of the resend guard.
const sendable = `stripe_customer_id = ? AND meter_event_name = ? AND state IN ('sealed', 'unknown')
	AND (first_attempt_at IS NULL OR first_attempt_at > ?)`

// DeliverStream claims a stream with something to send, and sends its due reports one after
// another. It returns false if there is no such stream. No transaction is open during the calls to
// Stripe.
func (r *Reporter) DeliverStream(ctx context.Context) (bool, error) {
	if err := r.limit.wait(ctx); err != nil {
		return false, nil
	}
	l, found, err := r.claim(ctx)
	if err != nil || l == nil {
		return found, err
	}
	for {
		more, err := r.deliver(ctx, l)
		if err != nil || !more {
			return true, err
		}
		if err := r.limit.wait(ctx); err != nil {
			return true, r.release(context.WithoutCancel(ctx), l)
		}
		if more, err = r.next(ctx, l); err != nil || !more {
			return true, err
		}
	}
}

// deliver sends the report of a lease and stores the answer. It returns true if the lease continues
// because more reports are due.
func (r *Reporter) deliver(ctx context.Context, l *lease) (more bool, err error) {
	ctx, span := r.tracer.Start(ctx, "report", trace.WithAttributes(
		attribute.String("tollgate.report", l.report.Identifier), attribute.Int("tollgate.attempt", l.report.Attempts)))
	defer span.End()
	o := r.send(ctx, l)
	if o.verdict != accepted {
		span.SetStatus(codes.Error, "") // without Stripe's message
	}
	// Store the answer even if the process is about to stop.
	return r.recordAnswer(context.WithoutCancel(ctx), l, o)
}

// send makes the call. It is canceled before the lease ends, and not made at all if the process was
// frozen until then.
func (r *Reporter) send(ctx context.Context, l *lease) outcome {
	until := l.stream.LeasedUntil.Sub(r.now()) - leaseMargin
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(requestTimeout, until))
	defer cancel()
	// A stopping process waits briefly for the answer. Without it, the report may stay unknown for
	// a day.
	forget := context.AfterFunc(ctx, func() { time.AfterFunc(stopPatience, cancel) })
	defer forget()
	call, span := r.tracer.Start(call, "Stripe meter event", trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	err := r.client.sendMeterEvent(call, &l.report)
	if err != nil {
		span.SetStatus(codes.Error, "")
		if e := stripeError(err); e != nil {
			span.SetAttributes(semconv.HTTPResponseStatusCode(e.HTTPStatusCode))
		}
	}
	return classify(err, l.report.Attempts)
}

// next counts the attempt of the stream's next report, if the lease is still ours and a report is
// due.
func (r *Reporter) next(ctx context.Context, l *lease) (more bool, err error) {
	err = r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		more = false
		held, err := r.holds(ctx, tx, l)
		if err != nil || !held {
			return err
		}
		s, err := State(ctx, tx)
		if err != nil {
			return err
		}
		back, err := heldBack(ctx, tx, &l.stream)
		if err != nil {
			return err
		}
		if s.Stopped != nil || s.Paused != nil || back {
			return r.endLease(ctx, tx, l, time.Time{})
		}
		more, err = r.begin(ctx, tx, l)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("begin the next report of %s: %w", l.stream.StripeCustomerID, err)
	}
	return more, nil
}

// begin selects the due report of a locked stream that has waited longest, and commits the attempt
// before the first byte is sent. If none is due, it ends the lease.
func (r *Reporter) begin(ctx context.Context, tx bun.Tx, l *lease) (bool, error) {
	now := r.now()
	var due []models.StripeReport
	if err := tx.NewSelect().Model(&due).Where(sendable, l.stream.StripeCustomerID, l.stream.MeterEventName, now.Add(-r.guard)).
		Where("next_attempt_at <= ?", now).Order("next_attempt_at", "minute").Limit(1).Scan(ctx); err != nil {
		return false, err
	}
	if len(due) == 0 {
		return false, r.endLease(ctx, tx, l, time.Time{})
	}
	l.report, l.before = due[0], due[0].State
	l.report.State, l.report.LastAttemptAt = models.ReportUnknown, &now
	l.report.Attempts++
	if l.report.FirstAttemptAt == nil {
		l.report.FirstAttemptAt = &now
	}
	begun, err := tx.NewUpdate().Model(&l.report).Column("state", "attempts", "first_attempt_at", "last_attempt_at").WherePK().
		Where("state = ?", l.before).Exec(ctx)
	if err != nil {
		return false, err
	}
	if n, err := begun.RowsAffected(); err != nil || n == 0 { // it was taken back
		return false, errors.Join(err, r.endLease(ctx, tx, l, time.Time{}))
	}
	until := now.Add(leaseTime)
	l.stream.LeaseToken, l.stream.LeasedUntil = &l.token, &until
	_, err = tx.NewUpdate().Model(&l.stream).Column("lease_token", "leased_until").WherePK().Exec(ctx)
	return true, err
}

// recordAnswer stores the meaning of the answer in one transaction. It returns true if the lease
// continues because more reports are due.
func (r *Reporter) recordAnswer(ctx context.Context, l *lease, o outcome) (more bool, err error) {
	if o.verdict == tooFast {
		r.limit.halve()
	}
	err = r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		more = false
		held, err := r.holds(ctx, tx, l)
		if err != nil {
			return err
		}
		now := r.now()
		// If another process took over the expired lease, it knows the outcome of its own attempt.
		// But it remains true that Stripe accepted ours.
		if !held && o.verdict != accepted {
			return nil
		}
		wait, err := r.judge(ctx, tx, l, o, now)
		if err != nil || !held {
			return err
		}
		if wait == 0 && o.verdict != misconfigured && l.stream.Blocked == nil {
			due, err := tx.NewSelect().Model((*models.StripeReport)(nil)).Where(sendable, l.stream.StripeCustomerID, l.stream.MeterEventName,
				now.Add(-r.guard)).
				Where("next_attempt_at <= ?", now).Exists(ctx)
			if err != nil || due {
				more = due
				return err
			}
		}
		return r.endLease(ctx, tx, l, now.Add(wait))
	})
	if err != nil {
		return false, fmt.Errorf("store the response to report %s: %w", l.report.Identifier, err)
	}
	if o.verdict == misconfigured {
		return false, r.stop(ctx, o.text)
	}
	return more, nil
}

// judge updates the report, and its stream if the answer is about it. It returns how long the
// stream must wait.
func (r *Reporter) judge(ctx context.Context, tx bun.Tx, l *lease, o outcome, now time.Time) (time.Duration, error) {
	report, stream := l.report, &l.stream
	at := func(t time.Time) *time.Time { return &t }
	var wait time.Duration
	if o.text != "" {
		report.LastError = &o.text
	}
	stream.Failures++
	switch o.verdict {
	case accepted:
		stream.Failures = 0
		report.State, report.AcceptedAt, report.NextAttemptAt, report.LastError = models.ReportAccepted, &now, at(now.Add(firstRead)), nil
		if _, err := tx.NewUpdate().Model((*models.UsageEvent)(nil)).Set("stripe_reported_at = ?", now).
			Where("stripe_report_id = ?", report.ID).Exec(ctx); err != nil {
			return 0, err
		}
	case clash:
		report.State, report.NextAttemptAt = models.ReportConflict, at(now.Add(firstRead))
	case unknown:
		delay := r.jitter(report.Attempts)
		report.NextAttemptAt = at(now.Add(delay))
		// A report without an answer delays the other reports of its stream by a minute per
		// attempt.
		wait = min(delay, time.Minute)
	case busy, tooFast:
		report.State = l.before
		wait = min(r.jitter(stream.Failures), 2*time.Minute)
		report.NextAttemptAt = at(now.Add(wait))
	case misconfigured:
		report.State = l.before
	case noMeter:
		report.State = l.before
		// While this stream is blocked, no stream of the meter is claimed, including new ones. A
		// process that starts tries them again.
		stream.Blocked, stream.BlockedKind = new("The meter accepts no events. "+o.text), models.BlockedByMeter
		if _, err := tx.NewUpdate().Model((*models.StripeStream)(nil)).
			Set("blocked = ?, blocked_kind = ?", *stream.Blocked, stream.BlockedKind).
			Where("meter_event_name = ? AND blocked IS NULL", stream.MeterEventName).Exec(ctx); err != nil {
			return 0, err
		}
	case noCustomer:
		report.State = l.before
		stream.Blocked, stream.BlockedKind = &o.text, models.BlockedByCustomer
	case tooOld:
		report.State, report.NextAttemptAt = models.ReportExpired, readLater(l, now)
	case refused:
		// Attempts without an answer do not count, because they say nothing about the report.
		report.Refusals++
		report.State, report.NextAttemptAt = l.before, at(now.Add(r.jitter(report.Attempts)))
		if report.Refusals >= deadAfter {
			report.State, report.NextAttemptAt = models.ReportDead, readLater(l, now)
		}
	}
	if report.State.Failed() || stream.Blocked != nil {
		r.log.Warn("a report to Stripe needs an operator's attention", "report", report.Identifier, "customer", report.StripeCustomerID,
			"units", report.Value, "state", report.State, "answer", o.text)
	}
	if l.before == models.ReportSealed && (report.State == models.ReportSealed || report.State.Failed()) {
		report.FirstAttemptAt = nil // Stripe said that nothing came of it, and nothing did of those before
	}
	_, err := tx.NewUpdate().Model(&report).
		Column("state", "refusals", "first_attempt_at", "next_attempt_at", "accepted_at", "last_error").
		WherePK().Where("state = ?", models.ReportUnknown).Exec(ctx)
	return wait, err
}

// readLater returns when to read a report that Stripe refused for good: never, unless it may have
// accepted an earlier attempt.
func readLater(l *lease, now time.Time) *time.Time {
	if l.before != models.ReportUnknown {
		return nil
	}
	t := now.Add(firstRead)
	return &t
}
