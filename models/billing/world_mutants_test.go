package billing

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tollgate/models"
)

// mutant is a part of the design that a simulation leaves out, to show that its absence is noticed.
type mutant int

const (
	none mutant = iota
	// noIdentifier sends each attempt with another identifier.
	noIdentifier
	// longGuard retries for 60 hours, after Stripe has forgotten the identifier.
	longGuard
	// sharedMinutes sends all reports of an hour with the hour's first minute.
	sharedMinutes
	// resummed recomputes the value at each attempt.
	resummed
	// noBoundaries seals the usage of an hour into one report, even if a billing period ends in it.
	noBoundaries
	// busyUnsent takes an attempt that is answered with 409 or 429 lock_timeout for unsent, and
	// sends the report again with a new identifier.
	busyUnsent
	// noUnseal keeps reports that were made before a change of the billing period became known.
	noUnseal
)

// spoil changes a request as the mutant does.
func (w *world) spoil(r *http.Request) (*http.Request, error) {
	if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/meter_events") {
		return r, nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	seconds, err := strconv.ParseInt(form.Get("timestamp"), 10, 64)
	if err != nil {
		return nil, err
	}
	hour := time.Unix(seconds, 0).UTC().Truncate(time.Hour)
	switch w.s.without {
	case noIdentifier:
		form.Set("identifier", "attempt "+w.key())
	case sharedMinutes:
		form.Set("timestamp", strconv.FormatInt(hour.Unix(), 10))
	case resummed:
		var units int64
		if err := w.db.NewRaw(`SELECT COALESCE(CAST(SUM(overage_quantity) AS bigint), 0) FROM usage_events
			WHERE stripe_customer_id = ? AND plan_id = ? AND occurred_at >= ? AND occurred_at < ? AND stripe_reported_at IS NULL`,
			form.Get("payload[stripe_customer_id]"), w.planOf(form.Get("event_name")), hour, hour.Add(time.Hour)).Scan(w.ctx, &units); err != nil {
			return nil, err
		}
		form.Set("payload[value]", strconv.FormatInt(max(units, 1), 10))
	}
	text := form.Encode()
	r = r.Clone(r.Context())
	r.Form = form
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	return r, nil
}

func (w *world) planOf(meter string) models.PlanID {
	return models.PlanID(strings.TrimPrefix(meter, w.catalogue.MeterOf("")))
}

// answered notes the reports that Stripe was too busy for.
func (w *world) answered(r *http.Request, res *http.Response) {
	if w.s.without != busyUnsent || r.Form == nil || res == nil {
		return
	}
	if res.StatusCode == http.StatusConflict || res.StatusCode == http.StatusTooManyRequests {
		w.busy = append(w.busy, r.Form.Get("identifier"))
	}
}

// delivered runs after a process has delivered a stream.
func (w *world) delivered() {
	for _, identifier := range w.busy {
		_, err := w.db.ExecContext(w.ctx, `UPDATE stripe_reports SET state = 'sealed', attempts = 0, first_attempt_at = NULL, identifier = ?
			WHERE identifier = ?`, "again "+w.key(), identifier)
		w.must(err)
	}
	w.busy = nil
}

// sealed runs after a process has sealed the due usage.
func (w *world) sealed() {
	if w.s.without != noBoundaries {
		return
	}
	var reports []models.StripeReport
	w.must(w.db.NewSelect().Model(&reports).Where("state = 'sealed' AND attempts = 0").
		Order("stripe_customer_id", "meter_event_name", "minute").Scan(w.ctx))
	for i := 1; i < len(reports); i++ {
		a, b := &reports[i-1], &reports[i]
		sameHour := a.Minute.Truncate(time.Hour).Equal(b.Minute.Truncate(time.Hour))
		if a.StripeCustomerID != b.StripeCustomerID || a.MeterEventName != b.MeterEventName || !sameHour || a.PeriodStart.Equal(b.PeriodStart) {
			continue
		}
		b.Value += a.Value
		for _, statement := range []string{
			fmt.Sprintf("UPDATE usage_events SET stripe_report_id = '%s' WHERE stripe_report_id = '%s'", b.ID, a.ID),
			fmt.Sprintf("UPDATE stripe_reports SET value = %d WHERE id = '%s'", b.Value, b.ID),
			fmt.Sprintf("DELETE FROM stripe_reports WHERE id = '%s'", a.ID),
		} {
			_, err := w.db.ExecContext(w.ctx, statement)
			w.must(err)
		}
	}
}

// mutate changes the database as the mutant does. The database is SQLite.
func (w *world) mutate() {
	if w.s.without != noUnseal {
		return
	}
	for _, trigger := range []string{
		`CREATE TRIGGER no_unseal BEFORE UPDATE OF stripe_report_id ON usage_events WHEN NEW.stripe_report_id IS NULL
			BEGIN SELECT RAISE(IGNORE); END`,
		`CREATE TRIGGER no_delete BEFORE DELETE ON stripe_reports BEGIN SELECT RAISE(IGNORE); END`,
		`CREATE TRIGGER no_refit BEFORE INSERT ON records_due BEGIN SELECT RAISE(IGNORE); END`,
	} {
		_, err := w.db.ExecContext(w.ctx, trigger)
		w.must(err)
	}
}
