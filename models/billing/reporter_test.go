package billing

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/models"
)

// Each row of the table of answers goes through the SDK. The test checks the state of the report,
// its stream, and all sending.
func TestAnswers(t *testing.T) {
	const invalid = "invalid_request_error"
	rows := []struct {
		name   string
		answer roundTripFunc
		// before is the number of earlier attempts without an answer, and refusals the number of
		// earlier refusals.
		before, refusals int
		state            models.ReportState
		blocked          bool
		stopped          bool
		slower           bool
		// again reports whether the report is sent again automatically.
		again bool
	}{
		{name: "200", answer: answer(200, `{"object": "billing.meter_event", "identifier": "x"}`), state: models.ReportAccepted},
		{name: "exists, sent before", answer: answer(400, problem(invalid, "", "An event already exists with identifier x.", "")),
			before: 1, state: models.ReportAccepted},
		{name: "exists, never sent", answer: answer(400, problem(invalid, "", "An event already exists with identifier x.", "")),
			state: models.ReportConflict},
		{name: "transport", answer: func(*http.Request) (*http.Response, error) { return nil, errors.New("connection reset by peer") },
			state: models.ReportUnknown, again: true},
		{name: "not JSON, 200", answer: answer(200, "<html>hello</html>"), state: models.ReportUnknown, again: true},
		{name: "not JSON, 502", answer: answer(502, "<html>bad gateway</html>"), state: models.ReportUnknown, again: true},
		{name: "500", answer: answer(500, problem("api_error", "", "Something went wrong", "")), state: models.ReportUnknown, again: true},
		{name: "503", answer: answer(503, problem("api_error", "", "Away", "")), state: models.ReportUnknown, again: true},
		{name: "409", answer: answer(409, problem(invalid, "lock_timeout", "Another request is at this customer", "")),
			state: models.ReportSealed, again: true},
		{name: "429 lock_timeout", answer: answer(429, problem(invalid, "lock_timeout", "This object cannot be accessed right now", "")),
			state: models.ReportSealed, again: true},
		{name: "429", answer: answer(429, problem(invalid, "rate_limit", "Too many requests", "")), state: models.ReportSealed,
			slower: true, again: true},
		{name: "401", answer: answer(401, problem(invalid, "", "Invalid API Key provided", "")), state: models.ReportSealed, stopped: true},
		{name: "403", answer: answer(403, problem(invalid, "", "The key may not do this", "")), state: models.ReportSealed, stopped: true},
		{name: "404", answer: answer(404, problem(invalid, "", "Unrecognized request URL", "")), state: models.ReportSealed, stopped: true},
		{name: "idempotency_error", answer: answer(400, problem("idempotency_error", "",
			"Keys for idempotent requests can only be used with the same parameters", "")), state: models.ReportSealed, stopped: true},
		{name: "no meter", answer: answer(400, problem(invalid, "no_meter", "No meter found with event name x.", "event_name")),
			state: models.ReportSealed, blocked: true},
		{name: "inactive meter", answer: answer(400, problem(invalid, "archived_meter", "The meter is inactive.", "event_name")),
			state: models.ReportSealed, blocked: true},
		{name: "no customer", answer: answer(400, problem(invalid, "resource_missing", "No such customer: 'cus_1'",
			"payload[stripe_customer_id]")), state: models.ReportSealed, blocked: true},
		{name: "too old", answer: answer(400, problem(invalid, "timestamp_too_far_in_past",
			"The timestamp must be within the past 35 days.", "timestamp")), state: models.ReportExpired},
		{name: "another 400", answer: answer(400, problem(invalid, "parameter_invalid", "Not like this", "value")),
			state: models.ReportSealed, again: true},
		{name: "another 400, the third", answer: answer(400, problem(invalid, "parameter_invalid", "Not like this", "value")), refusals: 2,
			state: models.ReportDead},
		{name: "another 400 after two unknown answers", answer: answer(400,
			problem(invalid, "parameter_invalid", "Not like this", "value")), before: 2, state: models.ReportUnknown, again: true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			onBoth(t, row.answer, func(t *testing.T, d *reporterFixture) {
				d.use("cus_1", 3, d.now.Add(-3*time.Hour))
				d.use("cus_2", 4, d.now.Add(-2*time.Hour))
				if _, err := d.Seal(d.ctx); err != nil {
					t.Fatal(err)
				}
				if row.before > 0 {
					first := d.now.Add(-time.Hour)
					_, err := d.db.NewUpdate().Model((*models.StripeReport)(nil)).
						Set("attempts = ?, state = ?, first_attempt_at = ?, last_attempt_at = ?", row.before, models.ReportUnknown, first, first).
						Where("stripe_customer_id = 'cus_1'").Exec(d.ctx)
					d.must(err)
				}
				_, err := d.db.NewUpdate().Model((*models.StripeReport)(nil)).Set("refusals = ?", row.refusals).
					Where("stripe_customer_id = 'cus_1'").Exec(d.ctx)
				d.must(err)
				rate := d.limit.rate
				found, err := d.DeliverStream(d.ctx)
				if err != nil || !found {
					t.Fatalf("delivered %t, %v", found, err)
				}
				r := d.reports()[0]
				if r.State != row.state || r.Attempts != row.before+1 {
					t.Errorf("the report is %s after %d attempts, want %s after %d", r.State, r.Attempts, row.state, row.before+1)
				}
				if again := r.NextAttemptAt != nil && r.NextAttemptAt.After(d.now) && (r.State == models.ReportSealed ||
					r.State == models.ReportUnknown); again != row.again {
					t.Errorf("the report is sent again: %t, want %t (%v)", again, row.again, r.NextAttemptAt)
				}
				if row.state != models.ReportAccepted && (r.LastError == nil || *r.LastError == "") && !row.stopped && !row.blocked {
					t.Error("the report has no error")
				}
				s := d.status()
				if stopped := s.State.Stopped != nil; stopped != row.stopped {
					t.Errorf("all sending is stopped: %t, want %t", stopped, row.stopped)
				}
				if blocked := len(s.Blocked) > 0; blocked != row.blocked {
					t.Errorf("streams are blocked: %t, want %t", blocked, row.blocked)
				}
				if slower := d.limit.rate < rate; slower != row.slower {
					t.Errorf("the process slows down: %t, want %t", slower, row.slower)
				}
				var reported int64
				d.must(d.db.NewSelect().Model((*models.UsageEvent)(nil)).ColumnExpr("COALESCE(SUM(overage_quantity), 0)").
					Where("stripe_reported_at IS NOT NULL").Scan(d.ctx, &reported))
				if want := map[bool]int64{true: 3}[row.state == models.ReportAccepted]; reported != want {
					t.Errorf("%d units are marked as reported, want %d", reported, want)
				}
				// The stream of the other customer continues, unless the problem affects all streams.
				found, err = d.DeliverStream(d.ctx)
				d.must(err)
				meter := strings.Contains(row.name, "meter")
				if found != (!row.stopped && !meter) {
					t.Errorf("the other customer's stream continues: %t", found)
				}
			})
		})
	}
}

// A meter that refuses all events also blocks customers who appear later, until a process starts.
func TestAMeterThatRefusesAllEvents(t *testing.T) {
	calls, inactive := 0, true
	onBoth(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
		if r.Method != http.MethodPost {
			return answer(200, `{"id": "acct_standin", "object": "account"}`)(r)
		}
		calls++
		if inactive {
			return answer(400, problem("invalid_request_error", "archived_meter", "The meter is inactive.", "event_name"))(r)
		}
		return answer(200, `{"object": "billing.meter_event"}`)(r)
	}), func(t *testing.T, d *reporterFixture) {
		calls, inactive = 0, true
		for i := range 3 {
			d.use(fmt.Sprintf("cus_%d", i), 3, d.now.Add(-3*time.Hour))
			d.seal()
			d.deliver()
			d.now = d.now.Add(time.Hour)
		}
		if s := d.status(); calls != 1 || len(s.Blocked) != 1 {
			t.Errorf("%d calls and %d blocked streams, want 1 and 1", calls, len(s.Blocked))
		}
		inactive = false
		again := NewReporter(d.options)
		again.started.Store(true)
		d.must(again.account.check(d.ctx))
		d.deliver()
		if s := d.status(); calls != 4 || len(s.Blocked) != 0 {
			t.Errorf("after a start, %d calls and %d blocked streams, want 4 and 0", calls, len(s.Blocked))
		}
	})
}

// The value, identifier, customer and timestamp are the same at each attempt. The idempotency key
// always differs.
func TestAttemptsAreTheSame(t *testing.T) {
	var bodies []string
	keys := map[string]bool{}
	transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		body, _ := io.ReadAll(r.Body)
		bodies = append(bodies, string(body))
		keys[r.Header.Get("Idempotency-Key")] = true
		return nil, errors.New("lost")
	})
	d := newReporterFixture(t, databases["sqlite"](t), transport)
	d.use("cus_1", 3, d.now.Add(-3*time.Hour))
	for range 200 {
		d.seal()
		d.deliver()
		d.now = d.now.Add(17 * time.Minute)
		d.use("cus_1", 1, d.now.Add(-30*time.Hour)) // late, in other hours
	}
	first := bodies[0]
	same := 0
	for _, b := range bodies {
		if b == first {
			same++
		}
	}
	r := d.reports()[0]
	if same != r.Attempts || r.Attempts < 5 {
		t.Errorf("the first report was attempted %d times, %d of them the same", r.Attempts, same)
	}
	if len(keys) != len(bodies) {
		t.Errorf("%d attempts have %d idempotency keys", len(bodies), len(keys))
	}
	if last := r.LastAttemptAt.Sub(*r.FirstAttemptAt); last >= 23*time.Hour {
		t.Errorf("it was sent again after %v", last)
	}
}

// A report that Stripe certainly did not accept is sent later, however long sending was off.
func TestRefusedWithoutEffectIsSentAnyTimeLater(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.use("cus_gone", 4, d.now.Add(-3*time.Hour))
		d.seal()
		d.deliver() // there is no such customer
		d.stripe.SetKey("sk_test_other")
		d.use("cus_1", 5, d.now.Add(-2*time.Hour))
		d.seal()
		d.deliver() // the key is revoked
		d.now = d.now.Add(48 * time.Hour)
		d.stripe.SetKey("sk_test_desk")
		d.stripe.AddCustomer("cus_gone", nil)
		d.must(Resume(d.ctx, d.db, d.now, "op"))
		d.must(Unblock(d.ctx, d.db, d.now, "op", "cus_gone"))
		d.hours(30)
		for _, r := range d.reports() {
			if r.State != models.ReportVerified {
				t.Errorf("the report of %s is %s after %d attempts", r.StripeCustomerID, r.State, r.Attempts)
			}
		}
	})
}

func TestPausedForTwoDaysAfterTooManyRequests(t *testing.T) {
	var d *reporterFixture
	transport, again := meterEvents(&d, func(n int, r *http.Request) (*http.Response, error) {
		if n == 1 {
			return answer(429, `{"error": {"type": "invalid_request_error", "code": "rate_limit", "message": "Too many requests"}}`)(r)
		}
		return nil, nil
	})
	onBoth(t, transport, func(t *testing.T, of *reporterFixture) {
		d = of
		again()
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.seal()
		d.deliver()
		d.must(Pause(d.ctx, d.db, d.now, "op"))
		d.now = d.now.Add(48 * time.Hour)
		d.must(Resume(d.ctx, d.db, d.now, "op"))
		d.hours(30)
		if r := d.reports()[0]; r.State != models.ReportVerified {
			t.Errorf("the report is %s after %d attempts", r.State, r.Attempts)
		}
	})
}

// A report that was sent without an answer, of a customer that Stripe has since deleted, ends in a
// visible state.
func TestUnknownReportOfAnUnknownCustomer(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.use("cus_missing", 3, d.now.Add(-3*time.Hour))
		d.seal()
		d.stripe.SetOutage(true)
		d.deliver()
		d.now = d.now.Add(24 * time.Hour)
		d.stripe.SetOutage(false)
		d.hours(60)
		if s := d.status(); d.reports()[0].State == models.ReportUnknown || len(s.Blocked) != 1 {
			t.Errorf("the report is %s, and the blocked streams are %+v", d.reports()[0].State, s.Blocked)
		}
	})
}

// A report stays with the meter that it was sealed for, and so does its replacement.
func TestTheMeterIsRenamed(t *testing.T) {
	var d *reporterFixture
	lost := 0
	transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		if lost < 2 && strings.HasSuffix(r.URL.Path, "/meter_events") {
			if lost++; lost == 1 { // first an answer is lost, then a request
				_, _ = d.stripe.Transport().RoundTrip(r)
			}
			return nil, errors.New("lost")
		}
		return d.stripe.Transport().RoundTrip(r)
	})
	onBoth(t, transport, func(t *testing.T, of *reporterFixture) {
		d, lost = of, 0
		d.stripe.AddCustomer("cus_2", nil)
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.use("cus_2", 4, d.now.Add(-3*time.Hour))
		d.seal()
		d.deliver()
		old, renamed := d.meter(), *d.catalogue
		renamed.MeterEventName = "suggestions_v2"
		d.stripe.AddMeter(renamed.MeterOf("pro"))
		o := d.options
		o.Catalogue = &renamed
		d.Reporter = NewReporter(o)
		d.now = d.now.Add(24 * time.Hour)
		d.hours(60)
		d.use("cus_1", 1, d.now.Add(-3*time.Hour))
		d.seal()
		d.deliver()
		var sum int64
		for _, e := range d.stripe.Events() {
			sum += e.Value
		}
		states := map[models.ReportState]int{}
		for _, r := range d.reports() {
			states[r.State]++
			if r.Value > 1 && r.MeterEventName != old {
				t.Errorf("the report of %d units is for %s, want %s", r.Value, r.MeterEventName, old)
			}
		}
		if sum != 8 || states[models.ReportVerified] != 2 || states[models.ReportMissing] != 1 || states[models.ReportAccepted] != 1 {
			t.Errorf("Stripe received %d units, want 8; the reports are %v", sum, states)
		}
	})
}

// The reporter's requests match Stripe's specification.
func TestReporterRequestsFitStripe(t *testing.T) {
	client, asked := mockClient(t)
	ctx := t.Context()
	if id, err := client.account(ctx); err != nil || id == "" {
		t.Errorf("the account is %q, %v", id, err)
	}
	if _, err := client.meters(ctx); err != nil {
		t.Error(err)
	}
	minute := time.Date(2026, 11, 20, 9, 30, 0, 0, time.UTC)
	if _, err := client.total(ctx, "mtr_1", "cus_1", minute, minute.Add(time.Minute)); err != nil {
		t.Error(err)
	}
	if err := client.sendMeterEvent(ctx, &models.StripeReport{Identifier: "test:suggestions:1", MeterEventName: "suggestions",
		StripeCustomerID: "cus_1", Minute: minute, Value: 3, Attempts: 1}); err != nil {
		t.Error(err)
	}
	want := "GET /v1/account, GET /v1/billing/meters, GET /v1/billing/meters/mtr_1/event_summaries, POST /v1/billing/meter_events"
	if got := strings.Join(*asked, ", "); got != want {
		t.Errorf("the requests are %s, want %s", got, want)
	}
}

// While a stream waits after a failure, newly sealed reports are not sent before the wait is over.
// One report that is never answered does not delay the others for long.
func TestAFailureIsWaitedOut(t *testing.T) {
	var d *reporterFixture
	calls := 0
	transport, again := meterEvents(&d, func(n int, _ *http.Request) (*http.Response, error) {
		if calls = n; n <= 12 {
			return nil, errors.New("connection reset")
		}
		return nil, nil
	})
	onBoth(t, transport, func(t *testing.T, of *reporterFixture) {
		d, calls = of, 0
		again()
		d.random = func() float64 { return 0.999 }
		d.use("cus_1", 1, d.now.Add(-3*time.Hour))
		d.seal()
		next := func() time.Time {
			t.Helper()
			var stream models.StripeStream
			d.must(d.db.NewSelect().Model(&stream).Scan(d.ctx))
			return stream.NextAttemptAt.UTC()
		}
		for n := 1; n <= 12; n++ {
			d.now = next()
			d.deliver()
			if calls != n {
				t.Fatalf("%d calls, want %d", calls, n)
			}
			wait := next().Sub(d.now)
			if n == 3 || n == 12 { // a short wait, and one of a quarter of an hour
				d.use("cus_1", 1, d.now.Add(-3*time.Hour).Add(time.Duration(n)*time.Minute))
				d.seal()
				d.deliver()
				if calls != n {
					t.Errorf("called again immediately, in a wait of %s", wait)
				}
				if now := next().Sub(d.now); now != min(wait, failurePatience) {
					t.Errorf("a new report waits %s, in a wait of %s", now, wait)
				}
			}
		}
		d.hours(2)
		if sent := d.stripe.Total("cus_1", d.now.Add(-24*time.Hour), d.now); sent != 3 {
			t.Errorf("%d units arrived, want 3", sent)
		}
	})
}

// After a meter is replaced, reports are read back from the new meter and the old one.
func TestAMeterIsReplaced(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.seal()
		d.hours(30)
		old, err := d.meters(d.ctx, d.meter())
		d.must(err)
		_, err = d.client.api.BillingMeters.Deactivate(old[0], nil)
		d.must(err)
		made := d.stripe.AddMeter(d.meter())
		d.now = d.now.Add(metersLife)
		d.use("cus_1", 4, d.now.Add(-3*time.Hour))
		d.seal()
		d.hours(30)
		if now, err := d.meters(d.ctx, d.meter()); err != nil || !slices.Equal(now, []string{made, old[0]}) {
			t.Errorf("the meters are %q, %v; the old one is %q, the new one %q", now, err, old, made)
		}
		totals, err := d.Totals(d.ctx, true)
		d.must(err)
		d.hours(30)
		for _, total := range totals {
			if total.Difference != 0 {
				t.Errorf("the totals differ: %+v", total)
			}
		}
		if all := d.reports(); len(all) != 2 || all[0].State != models.ReportVerified || all[1].State != models.ReportVerified {
			t.Errorf("the reports are %+v", all)
		}
	})
}

// Reports are delivered while the list of meters hangs.
func TestAMetersListMayHang(t *testing.T) {
	hang, asked := make(chan struct{}), make(chan struct{}, 10)
	var d *reporterFixture
	transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/billing/meters") {
			asked <- struct{}{}
			<-hang
		}
		return d.stripe.Transport().RoundTrip(r)
	})
	d = newReporterFixture(t, databases["sqlite"](t), transport)
	d.use("cus_1", 3, d.now.Add(-3*time.Hour))
	d.seal()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = d.Totals(d.ctx, false)
	}()
	<-asked
	d.must(d.account.check(d.ctx))
	d.deliver()
	if all := d.reports(); all[0].State != models.ReportAccepted {
		t.Errorf("the report is %s", all[0].State)
	}
	close(hang)
	<-done
}

// A second subscription becomes known while a process sends. The customer's next report is not
// sent.
func TestHeldBackWhileSending(t *testing.T) {
	var d *reporterFixture
	transport, again := meterEvents(&d, func(n int, _ *http.Request) (*http.Response, error) {
		if n == 1 {
			_, err := d.db.NewInsert().Model(&models.StripeCustomer{ID: "cus_1", HeldSubscriptions: new("sub_1 sub_2"), CreatedAt: d.now}).
				Exec(d.ctx)
			return nil, err
		}
		return nil, nil
	})
	onBoth(t, transport, func(t *testing.T, of *reporterFixture) {
		d = of
		again()
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.use("cus_1", 4, d.now.Add(-2*time.Hour))
		d.seal()
		d.deliver()
		states := map[models.ReportState]int{}
		for _, r := range d.reports() {
			states[r.State]++
		}
		if states[models.ReportAccepted] != 1 || states[models.ReportSealed] != 1 {
			t.Errorf("the reports are %v", states)
		}
		_, err := d.db.ExecContext(d.ctx, "UPDATE stripe_customers SET held_subscriptions = NULL")
		d.must(err)
		d.deliver()
		if got := d.stripe.Total("cus_1", d.now.Add(-24*time.Hour), d.now); got != 7 {
			t.Errorf("Stripe has %d units, want 7", got)
		}
	})
}
