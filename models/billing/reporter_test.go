package billing

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
)

// desk is a ledger with some usage and one process that reports it, with a clock that the test moves.
type desk struct {
	t         *testing.T
	ctx       context.Context
	db        *models.DB
	catalogue *models.Catalogue
	now       time.Time
	stripe    *stripetest.Stripe
	*Reporter
}

// carry is a transport of one function.
type carry func(*http.Request) (*http.Response, error)

func (c carry) RoundTrip(r *http.Request) (*http.Response, error) { return c(r) }

// onBoth runs a test on each database. transport is what carries requests; nil carries them to the stand-in.
func onBoth(t *testing.T, transport http.RoundTripper, test func(t *testing.T, d *desk)) {
	t.Helper()
	for name, address := range databases {
		t.Run(name, func(t *testing.T) { test(t, newDesk(t, address(t), transport)) })
	}
}

func newDesk(t *testing.T, address string, transport http.RoundTripper) *desk {
	t.Helper()
	d := &desk{t: t, ctx: t.Context(), now: time.Date(2026, 11, 20, 12, 5, 0, 0, time.UTC)}
	var err error
	d.catalogue, err = models.LoadCatalogue("")
	d.must(err)
	d.db, err = models.Open(d.ctx, address)
	d.must(err)
	t.Cleanup(func() { _ = d.db.Close() })
	d.stripe = stripetest.New(stripetest.Options{Now: d.clock, Rand: rand.New(rand.NewPCG(1, 1))})
	d.stripe.AddMeter(d.catalogue.MeterEventName)
	d.stripe.AddCustomer("cus_1", nil)
	if transport == nil {
		transport = d.stripe.Transport()
	}
	c, err := NewClient(ClientOptions{Key: "sk_test_desk", Transport: transport})
	d.must(err)
	d.Reporter = NewReporter(Options{DB: d.db, Client: c, Catalogue: d.catalogue, Now: d.clock, Log: slog.New(slog.DiscardHandler), Every: time.Minute, Rate: 1e9})
	return d
}

func (d *desk) clock() time.Time { return d.now }

func (d *desk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// use records units of a customer at an instant, in its calendar month.
func (d *desk) use(customer string, units int64, at time.Time) {
	d.t.Helper()
	d.useIn(models.CalendarMonth(at), customer, units, at)
}

// useIn records units in a billing period.
func (d *desk) useIn(period models.Period, customer string, units int64, at time.Time) {
	d.t.Helper()
	key := uuid.NewString()
	_, err := d.db.NewInsert().Model(&models.UsageEvent{
		ID: uuid.New(), Email: customer + "@example.com", Quantity: units, IdempotencyKey: &key, OccurredAt: at, RecordedAt: d.now, PlanID: "pro",
		BillingPeriodStart: period.Start, BillingPeriodEnd: period.End, StripeCustomerID: &customer,
	}).Exec(d.ctx)
	d.must(err)
}

// deliver sends all that is due.
func (d *desk) deliver() {
	d.t.Helper()
	for {
		found, err := d.DeliverStream(d.ctx)
		d.must(err)
		if !found {
			return
		}
	}
}

func (d *desk) reports() []models.StripeReport {
	d.t.Helper()
	var all []models.StripeReport
	d.must(d.db.NewSelect().Model(&all).Order("created_at", "minute").Scan(d.ctx))
	return all
}

func (d *desk) status() *Status {
	d.t.Helper()
	s, err := ReadStatus(d.ctx, d.db)
	d.must(err)
	return s
}

func answer(status int, body string) carry {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
}

func problem(kind, code, message, param string) string {
	return `{"error": {"type": ` + strconv.Quote(kind) + `, "code": ` + strconv.Quote(code) + `, "message": ` + strconv.Quote(message) + `, "param": ` + strconv.Quote(param) + `}}`
}

// Each row of the table of answers, through the SDK: what becomes of the report, its stream, and all sending.
func TestAnswers(t *testing.T) {
	const invalid = "invalid_request_error"
	rows := []struct {
		name   string
		answer carry
		// before is how often the report was attempted before, without an answer.
		before  int
		state   models.ReportState
		blocked bool
		stopped bool
		slower  bool
		// again says that the report is sent again by itself.
		again bool
	}{
		{name: "200", answer: answer(200, `{"object": "billing.meter_event", "identifier": "x"}`), state: models.ReportAccepted},
		{name: "exists, sent before", answer: answer(400, problem(invalid, "", "An event already exists with identifier x.", "")), before: 1, state: models.ReportAccepted},
		{name: "exists, never sent", answer: answer(400, problem(invalid, "", "An event already exists with identifier x.", "")), state: models.ReportConflict},
		{name: "transport", answer: func(*http.Request) (*http.Response, error) { return nil, errors.New("connection reset by peer") }, state: models.ReportUnknown, again: true},
		{name: "not JSON, 200", answer: answer(200, "<html>hello</html>"), state: models.ReportUnknown, again: true},
		{name: "not JSON, 502", answer: answer(502, "<html>bad gateway</html>"), state: models.ReportUnknown, again: true},
		{name: "500", answer: answer(500, problem("api_error", "", "Something went wrong", "")), state: models.ReportUnknown, again: true},
		{name: "503", answer: answer(503, problem("api_error", "", "Away", "")), state: models.ReportUnknown, again: true},
		{name: "409", answer: answer(409, problem(invalid, "lock_timeout", "Another request is at this customer", "")), state: models.ReportSealed, again: true},
		{name: "429 lock_timeout", answer: answer(429, problem(invalid, "lock_timeout", "This object cannot be accessed right now", "")), state: models.ReportSealed, again: true},
		{name: "429", answer: answer(429, problem(invalid, "rate_limit", "Too many requests", "")), state: models.ReportSealed, slower: true, again: true},
		{name: "401", answer: answer(401, problem(invalid, "", "Invalid API Key provided", "")), state: models.ReportSealed, stopped: true},
		{name: "403", answer: answer(403, problem(invalid, "", "The key may not do this", "")), state: models.ReportSealed, stopped: true},
		{name: "404", answer: answer(404, problem(invalid, "", "Unrecognized request URL", "")), state: models.ReportSealed, stopped: true},
		{name: "idempotency_error", answer: answer(400, problem("idempotency_error", "", "Keys for idempotent requests can only be used with the same parameters", "")), state: models.ReportSealed, stopped: true},
		{name: "no meter", answer: answer(400, problem(invalid, "no_meter", "No meter found with event name x.", "event_name")), state: models.ReportSealed, blocked: true},
		{name: "inactive meter", answer: answer(400, problem(invalid, "archived_meter", "The meter is inactive.", "event_name")), state: models.ReportSealed, blocked: true},
		{name: "no customer", answer: answer(400, problem(invalid, "resource_missing", "No such customer: 'cus_1'", "payload[stripe_customer_id]")), state: models.ReportSealed, blocked: true},
		{name: "too old", answer: answer(400, problem(invalid, "timestamp_too_far_in_past", "The timestamp must be within the past 35 days.", "timestamp")), state: models.ReportExpired},
		{name: "another 400", answer: answer(400, problem(invalid, "parameter_invalid", "Not like this", "value")), state: models.ReportSealed, again: true},
		{name: "another 400, the third", answer: answer(400, problem(invalid, "parameter_invalid", "Not like this", "value")), before: 2, state: models.ReportDead},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			onBoth(t, row.answer, func(t *testing.T, d *desk) {
				d.use("cus_1", 3, d.now.Add(-3*time.Hour))
				d.use("cus_2", 4, d.now.Add(-2*time.Hour))
				if _, err := d.Seal(d.ctx); err != nil {
					t.Fatal(err)
				}
				if row.before > 0 {
					first := d.now.Add(-time.Hour)
					_, err := d.db.NewUpdate().Model((*models.StripeReport)(nil)).Set("attempts = ?, state = ?, first_attempt_at = ?, last_attempt_at = ?", row.before, models.ReportUnknown, first, first).
						Where("stripe_customer_id = 'cus_1'").Exec(d.ctx)
					d.must(err)
				}
				rate := d.limit.rate
				found, err := d.DeliverStream(d.ctx)
				if err != nil || !found {
					t.Fatalf("delivered %t, %v", found, err)
				}
				r := d.reports()[0]
				if r.State != row.state || r.Attempts != row.before+1 {
					t.Errorf("the report is %s after %d attempts, want %s after %d", r.State, r.Attempts, row.state, row.before+1)
				}
				if again := r.NextAttemptAt != nil && r.NextAttemptAt.After(d.now) && (r.State == models.ReportSealed || r.State == models.ReportUnknown); again != row.again {
					t.Errorf("it is sent again later: %t, want %t (%v)", again, row.again, r.NextAttemptAt)
				}
				if row.state != models.ReportAccepted && (r.LastError == nil || *r.LastError == "") && !row.stopped && !row.blocked {
					t.Error("the report says nothing of the answer")
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
				var told int64
				d.must(d.db.NewSelect().Model((*models.UsageEvent)(nil)).ColumnExpr("COALESCE(SUM(quantity), 0)").Where("stripe_reported_at IS NOT NULL").Scan(d.ctx, &told))
				if want := map[bool]int64{true: 3}[row.state == models.ReportAccepted]; told != want {
					t.Errorf("%d units are marked as reported, want %d", told, want)
				}
				// Whatever is wrong with one, the other's stream goes on, unless it is wrong for all.
				found, err = d.DeliverStream(d.ctx)
				d.must(err)
				meter := strings.Contains(row.name, "meter")
				if goes := found; goes != (!row.stopped && !meter) {
					t.Errorf("the other customer's stream goes on: %t", goes)
				}
			})
		})
	}
}

// A value, an identifier, a customer and a timestamp never change from one attempt to the next; the idempotency key always does.
func TestAttemptsAreTheSame(t *testing.T) {
	var bodies []string
	keys := map[string]bool{}
	transport := carry(func(r *http.Request) (*http.Response, error) {
		body, _ := io.ReadAll(r.Body)
		bodies = append(bodies, string(body))
		keys[r.Header.Get("Idempotency-Key")] = true
		return nil, errors.New("lost")
	})
	d := newDesk(t, databases["sqlite"](t), transport)
	d.use("cus_1", 3, d.now.Add(-3*time.Hour))
	for range 200 {
		_, err := d.Seal(d.ctx)
		d.must(err)
		d.deliver()
		d.now = d.now.Add(17 * time.Minute)
		d.use("cus_1", 1, d.now.Add(-30*time.Hour)) // late, and of other hours
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

// Another account, or the other mode, is not reported to.
func TestAnotherAccount(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		d.started = true
		d.must(d.contact(d.ctx))
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		_, err := d.Seal(d.ctx)
		d.must(err)
		d.stripe.SetAccount("acct_other")
		d.contacted = false
		if err := d.contact(d.ctx); !errors.Is(err, errOtherAccount) {
			t.Errorf("the contact with another account: %v", err)
		}
		d.deliver()
		if n := len(d.stripe.Events()); n != 0 {
			t.Errorf("%d events went to another account", n)
		}
		if s := d.status(); s.State.Stopped == nil || !strings.Contains(*s.State.Stopped, "acct_other") || s.State.AccountID != "acct_standin" {
			t.Errorf("the state is %+v", s.State)
		}
		d.stripe.SetAccount("acct_standin")
		d.refused = nil
		d.must(d.contact(d.ctx))
		d.deliver()
		if n := len(d.stripe.Events()); n != 1 {
			t.Errorf("%d events went to the account, want 1", n)
		}
	})
}

func TestLiveKeyAndStandIn(t *testing.T) {
	for base, key := range map[string]string{"http://127.0.0.1:1": "sk_live_x", "http://localhost:1": "rk_live_x"} {
		if _, err := NewClient(ClientOptions{Key: key, APIBase: base}); !errors.Is(err, ErrLiveKey) {
			t.Errorf("a live key goes to %s: %v", base, err)
		}
	}
	for _, base := range []string{"http://stripe.example.com", "127.0.0.1:12111", "http://10.0.0.1", "http://127.0.0.1:1/path", "ftp://localhost"} {
		if _, err := NewClient(ClientOptions{Key: "sk_test_x", APIBase: base}); err == nil {
			t.Errorf("%s is taken for a stand-in", base)
		}
	}
}

// What the reporter asks has the shape that Stripe's specification gives it.
func TestReporterRequestsFitStripe(t *testing.T) {
	client, asked := mockClient(t)
	ctx := t.Context()
	if id, err := client.account(ctx); err != nil || id == "" {
		t.Errorf("the account is %q, %v", id, err)
	}
	if _, err := client.findMeter(ctx, "suggestions"); err != nil {
		t.Error(err)
	}
	minute := time.Date(2026, 11, 20, 9, 30, 0, 0, time.UTC)
	if _, err := client.total(ctx, "mtr_1", "cus_1", minute, minute.Add(time.Minute)); err != nil {
		t.Error(err)
	}
	if err := client.sendMeterEvent(ctx, &models.StripeReport{Identifier: "test:suggestions:1", MeterEventName: "suggestions", StripeCustomerID: "cus_1", Minute: minute, Value: 3, Attempts: 1}); err != nil {
		t.Error(err)
	}
	want := "GET /v1/account, GET /v1/billing/meters, GET /v1/billing/meters/mtr_1/event_summaries, POST /v1/billing/meter_events"
	if got := strings.Join(*asked, ", "); got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}
