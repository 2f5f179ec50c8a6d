package notify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"tollgate/models"
)

// outcome is the outcome of an attempt.
type outcome struct {
	result models.AttemptOutcome
	detail string
	// after is how long to wait before the next attempt of a delivery that was not sent; 0 means the
	// normal delay.
	after time.Duration
	// gone means that the webhook endpoint does not exist anymore.
	gone bool
}

func sent() outcome                 { return outcome{result: models.AttemptSent} }
func notSent(detail string) outcome { return outcome{result: models.AttemptNotSent, detail: detail} }
func failed(detail string) outcome  { return outcome{result: models.AttemptFailed, detail: detail} }
func unknown(detail string) outcome { return outcome{result: models.AttemptUnknown, detail: detail} }

// job is a delivery that this process attempts until its lease ends.
type job struct {
	row      models.NoticeDelivery
	notice   models.DueNotice
	to       *models.NoticeRecipient
	endpoint *models.WebhookEndpoint
	message  message
	// unsubscribe is the token of the mail's unsubscribe link.
	unsubscribe string
}

// deliver attempts one due delivery of a channel. It reports whether there was one.
func (w *Worker) deliver(ctx context.Context, channel models.NoticeChannel) (bool, error) {
	if channel == models.ChannelSlack {
		if err := w.slack.findTeam(ctx); err != nil {
			return false, err
		}
	}
	j, found, err := w.claim(ctx, channel)
	if err != nil || j == nil {
		return found, err
	}
	ctx, span := w.Tracer.Start(ctx, "notice", trace.WithAttributes(
		attribute.String("tollgate.delivery", j.row.ID.String()), attribute.String("tollgate.notice.kind", string(j.notice.Kind)),
		attribute.String("tollgate.channel", string(channel)), attribute.Int64("tollgate.attempt", j.row.Attempts)))
	defer span.End()
	out := w.send(ctx, j)
	if out.result == models.AttemptFailed || out.result == models.AttemptUnknown && channel != models.ChannelWebhook {
		w.Log.Warn("a notice was not delivered", "delivery", j.row.ID, "channel", channel, "kind", j.notice.Kind, "outcome", out.result,
			"detail", out.detail)
	}
	return true, w.finish(ctx, j, out)
}

// send makes an attempt. It may continue for a short time after Stop. Without its outcome, it would be
// unknown.
func (w *Worker) send(ctx context.Context, j *job) outcome {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), callPatience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(stopPatience, cancel) })
	defer stop()
	call, span := w.Tracer.Start(call, string(j.row.Channel), trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	var out outcome
	switch j.row.Channel {
	case models.ChannelSlack:
		out = w.slack.send(call, j)
	case models.ChannelMail:
		out = w.mail.send(call, j)
	case models.ChannelWebhook:
		out = w.webhooks.send(call, j)
	}
	out.detail = oneLine(w.secrets(j).Replace(out.detail)) // the other server may repeat what it got
	span.SetAttributes(attribute.String("tollgate.outcome", string(out.result)))
	if out.result != models.AttemptSent {
		span.SetStatus(codes.Error, "") // without the other server's message
	}
	return out
}

// secrets removes the secrets of an attempt from a text.
func (w *Worker) secrets(j *job) *models.Redactor {
	all := []string{w.SlackToken, j.unsubscribe}
	if w.SMTP != nil {
		all = append(all, w.SMTP.Secrets()...)
	}
	return models.NewRedactor(all...)
}

// claim claims the delivery of a channel that has been due longest, and counts its attempt. If the
// recipient is not to get it anymore, found is true without a job.
func (w *Worker) claim(ctx context.Context, channel models.NoticeChannel) (claimed *job, found bool, err error) {
	now := w.now()
	due := func(db bun.IDB) *bun.SelectQuery {
		return db.NewSelect().Model((*models.NoticeDelivery)(nil)).
			Where("state = ? AND channel = ? AND next_attempt_at <= ?", models.DeliveryPending, channel, now).
			Order("next_attempt_at").Limit(1)
	}
	if some, err := due(w.DB).Exists(ctx); err != nil || !some {
		return nil, false, err
	}
	err = w.DB.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		claimed, found = nil, false
		var rows []models.NoticeDelivery
		if err := models.ForUpdateSkipLocked(due(tx).Model(&rows)).Scan(ctx); err != nil || len(rows) == 0 {
			return err
		}
		found = true
		j := &job{row: rows[0]}
		why, err := w.load(ctx, tx, now, j)
		if err != nil {
			return err
		}
		if why != "" {
			return w.end(ctx, tx, &j.row, models.DeliverySkipped, why, nil)
		}
		r := &j.row
		r.State, r.Attempts, r.NextAttemptAt = models.DeliverySending, r.Attempts+1, nil
		r.LeaseToken, r.LeasedUntil = new(uuid.New()), new(now.Add(leaseTime))
		if channel == models.ChannelMail {
			j.unsubscribe = rand.Text()
			r.UnsubscribeHash = models.HashUnsubscribe(j.unsubscribe)
		}
		if channel == models.ChannelWebhook && r.Payload == nil {
			payload, err := w.payload(j)
			if err != nil {
				return err
			}
			r.Payload = &payload
		}
		if _, err := tx.NewUpdate().Model(r).Column("state", "attempts", "next_attempt_at", "lease_token", "leased_until",
			"unsubscribe_hash", "payload").WherePK().Exec(ctx); err != nil {
			return err
		}
		attempt := models.NoticeAttempt{DeliveryID: r.ID, Number: r.Attempts, At: now, Outcome: models.AttemptSending}
		if _, err := tx.NewInsert().Model(&attempt).Exec(ctx); err != nil {
			return err
		}
		claimed = j
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("claim a delivery: %w", err)
	}
	return claimed, found, nil
}

// load reads what the attempt needs. why says why the recipient is not to get the notice anymore; it is
// empty if they are.
func (w *Worker) load(ctx context.Context, tx bun.Tx, now time.Time, j *job) (why string, err error) {
	var notices []models.DueNotice
	if err := tx.NewSelect().Model(&notices).Where("id = ?", j.row.NoticeID).Scan(ctx); err != nil {
		return "", err
	}
	if len(notices) == 0 {
		return "the notice was deleted", nil
	}
	j.notice = notices[0]
	webhook := j.row.Channel == models.ChannelWebhook
	if !j.notice.ExpiresAt.After(now) && (!webhook || j.row.Attempts == 0) {
		return "the notice expired", nil
	}
	applies, err := j.notice.StillTrue(ctx, tx)
	if err != nil {
		return "", err
	}
	if !applies {
		return "the subscription changed", nil
	}
	subject, err := w.subject(ctx, tx, &j.notice)
	if err != nil {
		return "", err
	}
	if webhook {
		var endpoints []models.WebhookEndpoint
		if err := tx.NewSelect().Model(&endpoints).Where("id = ?", j.row.Recipient).Scan(ctx); err != nil {
			return "", err
		}
		switch {
		case len(endpoints) == 0:
			return "the endpoint was removed", nil
		case endpoints[0].DisabledAt != nil:
			return "the endpoint is disabled", nil
		}
		j.endpoint = &endpoints[0]
		j.message = w.message(&j.notice, subject)
		return "", nil
	}
	if j.to, err = models.NoticeRecipientByID(ctx, tx, j.row.Recipient); err != nil {
		return "", err
	}
	if j.to == nil {
		return "the person was deleted", nil
	}
	if why := j.to.Refuses(&j.notice, j.row.Channel, w.team()); why != "" {
		return why, nil
	}
	j.message = w.message(&j.notice, subject)
	return "", nil
}

// finish stores the outcome of an attempt, unless the lease ended and another process took over.
func (w *Worker) finish(ctx context.Context, j *job, out outcome) error {
	w.attempts.WithLabelValues(string(j.row.Channel), string(out.result)).Inc()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storePatience)
	defer cancel()
	err := w.DB.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		var rows []models.NoticeDelivery
		q := tx.NewSelect().Model(&rows).
			Where("id = ? AND state = ? AND lease_token = ?", j.row.ID, models.DeliverySending, *j.row.LeaseToken)
		if err := models.ForUpdate(q).Scan(ctx); err != nil || len(rows) == 0 {
			return err
		}
		return w.store(ctx, tx, w.now(), &rows[0], out)
	})
	if err != nil {
		return fmt.Errorf("store the outcome of the delivery %s: %w", j.row.ID, err)
	}
	return nil
}

// store stores the outcome of a locked delivery's current attempt.
func (w *Worker) store(ctx context.Context, tx bun.Tx, now time.Time, r *models.NoticeDelivery, out outcome) error {
	if _, err := tx.NewUpdate().Model((*models.NoticeAttempt)(nil)).Set("outcome = ?, detail = ?", out.result, out.detail).
		Where("delivery_id = ? AND number = ?", r.ID, r.Attempts).Exec(ctx); err != nil {
		return err
	}
	switch {
	case out.result == models.AttemptSent:
		return w.end(ctx, tx, r, models.DeliverySent, "", &now)
	case out.gone:
		if _, err := tx.NewUpdate().Model((*models.WebhookEndpoint)(nil)).Set("disabled_at = ?, reason = ?", now, out.detail).
			Where("id = ? AND disabled_at IS NULL", r.Recipient).Exec(ctx); err != nil {
			return err
		}
		return w.end(ctx, tx, r, models.DeliveryFailed, out.detail, nil)
	case out.result == models.AttemptFailed:
		return w.end(ctx, tx, r, models.DeliveryFailed, out.detail, nil)
	case out.result == models.AttemptUnknown && r.Channel != models.ChannelWebhook:
		return w.end(ctx, tx, r, models.DeliveryUnknown, out.detail, nil)
	}
	delay, more := w.delay(r, out)
	if !more {
		return w.end(ctx, tx, r, models.DeliveryFailed, out.detail, nil)
	}
	_, err := tx.NewUpdate().Model((*models.NoticeDelivery)(nil)).
		Set("state = ?, next_attempt_at = ?, last_error = ?, lease_token = NULL, leased_until = NULL", models.DeliveryPending, now.Add(delay),
			out.detail).Where("id = ?", r.ID).Exec(ctx)
	return err
}

// end stores the final state of a locked delivery. With the last one, its notice is done.
func (w *Worker) end(
	ctx context.Context, tx bun.Tx, r *models.NoticeDelivery, state models.DeliveryState, why string, at *time.Time,
) error {
	if _, err := tx.NewUpdate().Model((*models.NoticeDelivery)(nil)).
		Set("state = ?, last_error = ?, sent_at = ?, next_attempt_at = NULL, lease_token = NULL, leased_until = NULL", state, why, at).
		Where("id = ?", r.ID).Exec(ctx); err != nil {
		return err
	}
	// The lock makes two transactions that end the last two deliveries see each other.
	var notices []models.DueNotice
	if err := models.ForUpdate(tx.NewSelect().Model(&notices).Where("id = ?", r.NoticeID)).Scan(ctx); err != nil || len(notices) == 0 {
		return err
	}
	_, err := tx.NewUpdate().Model((*models.DueNotice)(nil)).Set("state = ?", models.NoticeDone).
		Where("id = ? AND NOT EXISTS (SELECT 1 FROM notice_deliveries d WHERE d.notice_id = ? AND d.state IN (?, ?))", r.NoticeID, r.NoticeID,
			models.DeliveryPending, models.DeliverySending).Exec(ctx)
	return err
}

// The delays after attempts of Slack messages and mail that were not sent double from minDelay to
// maxDelay. They end when the notice expires.
const (
	minDelay = 30 * time.Second
	maxDelay = time.Hour
)

// webhookDelays are the delays after the attempts of a webhook: ten attempts in at most three days.
// Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
var webhookDelays = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour,
	20 * time.Hour,
}

// delay returns how long to wait before the next attempt. more is false after a webhook's last one.
// Up to a fifth of the delay is random, so that what failed together is not retried together.
func (w *Worker) delay(r *models.NoticeDelivery, out outcome) (delay time.Duration, more bool) {
	jitter := func(d time.Duration) time.Duration { return d - time.Duration(w.Random()*float64(d)/5) }
	if r.Channel == models.ChannelWebhook {
		if int(r.Attempts) > len(webhookDelays) {
			return 0, false
		}
		return max(jitter(webhookDelays[r.Attempts-1]), min(out.after, maxDelay)), true
	}
	d := min(maxDelay, minDelay<<min(r.Attempts-1, 20))
	return max(jitter(d), min(out.after, maxDelay)+time.Duration(w.Random()*float64(out.after)/10)), true
}

// maxDetail is the maximum length of what is stored about an attempt, in characters.
const maxDetail = 300

// oneLine returns a text of another server as operators see it.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)), " ")
	if letters := []rune(s); len(letters) > maxDetail {
		return string(letters[:maxDetail-1]) + "…"
	}
	return s
}

// errorText returns the text of an error without a request's URL, which may be secret.
func errorText(err error) string {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}
