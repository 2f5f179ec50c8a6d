package billing

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// statements collects the executed statements, with their arguments.
type statements struct{ texts []string }

func (s *statements) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (s *statements) AfterQuery(_ context.Context, e *bun.QueryEvent) {
	s.texts = append(s.texts, e.Query)
}

// No statement of the reporter scans a growing table: neither the events that are reported already
// nor the reports that are settled. Counting all reports by state is left out: only operators and
// metrics ask for it.
func TestStatementsUseIndexes(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		d := newReporterFixture(t, address, nil)
		history(t, d)
		var ran statements
		d.db.DB = d.db.WithQueryHook(&ran)
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.use("cus_1", 4, d.now.Add(-2*time.Hour))
		d.seal()
		d.deliver()
		d.now = d.now.Add(25 * time.Hour)
		d.read()
		key := stream{"cus_1", d.meter()}
		periods, err := d.periods(d.ctx, key)
		d.must(err)
		for _, p := range periods {
			_, err := d.compare(d.ctx, key, p, false)
			d.must(err)
		}
		d.must(d.balance(d.ctx, key))
		if len(ran.texts) < 30 {
			t.Fatalf("only these statements ran: %q", ran.texts)
		}
		explain, scan := "EXPLAIN ", regexp.MustCompile(`Seq Scan on (stripe_reports|usage_events|stripe_streams|subscriptions)\b`)
		if !d.db.Postgres {
			explain, scan = "EXPLAIN QUERY PLAN ", regexp.MustCompile(
				`^SCAN (stripe_report|stripe_reports|usage_event|usage_events|e|stripe_stream|subscription|s)$`)
		}
		seen := map[string]bool{}
		for _, text := range ran.texts {
			if verb, _, _ := strings.Cut(text, " "); verb != "SELECT" && verb != "UPDATE" && verb != "WITH" {
				continue
			}
			for _, line := range plan(t, d, explain+text) {
				if line = strings.TrimSpace(line); scan.MatchString(line) && !seen[line+text] {
					seen[line+text] = true
					t.Errorf("%s\n%s", text, line)
				}
			}
		}
	})
}

// oldCustomer returns one of 676 customer IDs.
func oldCustomer(n int) string { return "cus_old" + string(rune('a'+n%26)) + string(rune('a'+n/26%26)) }

// history inserts the usage of many customers, all of it reported and settled.
func history(t *testing.T, d *reporterFixture) {
	t.Helper()
	var events []models.UsageEvent
	var reports []models.StripeReport
	flush := func() {
		t.Helper()
		_, err := d.db.NewInsert().Model(&events).Exec(d.ctx)
		d.must(err)
		_, err = d.db.NewInsert().Model(&reports).Exec(d.ctx)
		d.must(err)
		events, reports = nil, nil
	}
	month := models.CalendarMonth(d.now)
	for n := range 12_000 {
		customer := oldCustomer(n)
		at := month.Start.Add(time.Duration(n) * time.Minute)
		r := models.StripeReport{
			ID: d.newID(), StripeCustomerID: customer, MeterEventName: d.meter(), Minute: at.Truncate(time.Minute), PeriodStart: month.Start,
			PeriodEnd: month.End,
			Value:     1, Counts: models.CountsQuantity, State: models.ReportVerified, Attempts: 1, FirstAttemptAt: &at, LastAttemptAt: &at,
			AcceptedAt: &at, VerifiedAt: &at, CreatedAt: at,
		}
		r.Identifier = d.identifier(r.MeterEventName, r.ID.String())
		reports = append(reports, r)
		key := r.Identifier
		events = append(events, models.UsageEvent{
			ID: d.newID(), RecordID: int64(n), Email: customer + "@example.com", Quantity: 1, OverageQuantity: int64(n % 2),
			IdempotencyKey: &key, OccurredAt: at, RecordedAt: at,
			Figures: models.Figures{PlanID: "pro", BillingPeriodStart: month.Start, BillingPeriodEnd: month.End}, StripeCustomerID: &customer,
			StripeReportedAt: &at, StripeReportID: &r.ID,
		})
		if len(events) == 500 {
			flush()
		}
	}
	var streams []models.StripeStream
	var users []models.User
	var subscriptions []models.Subscription
	for n := range 26 * 26 {
		customer := oldCustomer(n)
		streams = append(streams, models.StripeStream{StripeCustomerID: customer, MeterEventName: d.meter()})
		users = append(users, models.User{ID: d.newID(), Email: customer + "@example.com", Role: models.Member, CreatedAt: d.now})
		subscriptions = append(subscriptions, models.Subscription{
			ID: d.newID(), UserID: &users[n].ID, PlanID: "pro", Status: models.StatusActive, StripeCustomerID: &customer,
			CurrentPeriodStart: &month.Start, CurrentPeriodEnd: &month.End, CreatedAt: d.now, UpdatedAt: d.now,
		})
	}
	for _, rows := range []any{&streams, &users, &subscriptions} {
		_, err := d.db.NewInsert().Model(rows).Exec(d.ctx)
		d.must(err)
	}
	_, err := d.db.ExecContext(d.ctx, "ANALYZE")
	d.must(err)
}

// plan returns the database's query plan for a statement.
func plan(t *testing.T, d *reporterFixture, statement string) []string {
	t.Helper()
	rows, err := d.db.DB.DB.QueryContext(d.ctx, statement)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	defer func() { _ = rows.Close() }()
	var lines []string
	for rows.Next() {
		var line string
		into := []any{&line}
		if !d.db.Postgres {
			into = []any{new(int), new(int), new(int), &line}
		}
		d.must(rows.Scan(into...))
		lines = append(lines, line)
	}
	d.must(rows.Err())
	return lines
}
