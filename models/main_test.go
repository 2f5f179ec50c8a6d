package models_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/models/modelstest"
)

func TestMain(m *testing.M) { modelstest.Main(m, models.Open) }

// noon is the tests' time: within a calendar month, on a whole microsecond.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// onBoth runs a test on a new database of each kind.
func onBoth(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		t.Parallel()
		test(t, newFixture(t, address))
	})
}

type fixture struct {
	db        *models.DB
	catalogue *models.Catalogue
	ctx       context.Context
}

func newFixture(t *testing.T, address string) *fixture {
	t.Helper()
	f := &fixture{ctx: t.Context(), catalogue: embedded(t)}
	var err error
	if f.db, err = models.Open(f.ctx, address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.db.Close() })
	return f
}

func embedded(t testing.TB) *models.Catalogue {
	t.Helper()
	c, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// exec runs a statement.
func (f *fixture) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := f.db.ExecContext(f.ctx, query, args...); err != nil {
		t.Fatal(err)
	}
}

// insert stores rows unchanged.
func (f *fixture) insert(t *testing.T, row any) {
	t.Helper()
	if _, err := f.db.NewInsert().Model(row).Exec(f.ctx); err != nil {
		t.Fatal(err)
	}
}

// all reads a table in the given order.
func all[T any](t *testing.T, f *fixture, order ...string) []T {
	t.Helper()
	var rows []T
	if err := f.db.NewSelect().Model(&rows).Order(order...).Scan(f.ctx); err != nil {
		t.Fatal(err)
	}
	return rows
}

// one reads the only row that meets the condition.
func one[T any](t *testing.T, f *fixture, where string, args ...any) T {
	t.Helper()
	var rows []T
	if err := f.db.NewSelect().Model(&rows).Where(where, args...).Scan(f.ctx); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 {
		t.Fatalf("%d rows of %T with %s %v, want 1", len(rows), *new(T), where, args)
	}
	return rows[0]
}

// wantError fails unless the error's text contains part.
func wantError(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Fatalf("error %v, want one with %q", err, part)
	}
}

func ptr[T any](v T) *T { return &v }

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// november is the calendar month of noon.
var november = models.CalendarMonth(noon)

// user returns the ID of the person with an email, and creates an unknown person.
func (f *fixture) user(t *testing.T, email string) uuid.UUID {
	t.Helper()
	id, err := models.EnsureUser(f.ctx, f.db, email, noon)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// use stores a record of the calendar month that contains at, with used units. Units beyond the
// included ones are billed if the plan has a rate.
func (f *fixture) use(t *testing.T, email string, at time.Time, plan models.PlanID, used int64) *models.UsageRecord {
	t.Helper()
	p, ok := f.catalogue.Plan(plan)
	if !ok {
		t.Fatalf("no plan %q", plan)
	}
	month := models.CalendarMonth(at)
	r := &models.UsageRecord{
		UserID: f.user(t, email), Email: email, BillingPeriodStart: month.Start, BillingPeriodEnd: month.End, PlanID: plan,
		SuggestionsIncluded: p.Included, SuggestionsUsed: used, OverageRateCents: p.OverageRateCents, Entitled: true, CreatedAt: at,
	}
	if p.OverageRateCents > 0 {
		r.OverageUsed = max(0, used-p.Included)
		r.OverageCents = r.OverageUsed * p.OverageRateCents
	}
	f.insert(t, r)
	return r
}

// organization creates an organization with Slack teams.
func (f *fixture) organization(t *testing.T, at time.Time, name string, teams ...string) uuid.UUID {
	t.Helper()
	o, err := models.CreateOrganization(f.ctx, f.db, at, name, teams)
	if err != nil {
		t.Fatal(err)
	}
	return o.ID
}

// member creates a person in a Slack team.
func (f *fixture) member(t *testing.T, email, team string) {
	t.Helper()
	f.link(t, linkOf(email, team, "U-"+email))
}

func (f *fixture) subscribe(t *testing.T, subscriber models.Subscriber, plan models.PlanID) {
	t.Helper()
	if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, noon, subscriber, plan); err != nil {
		t.Fatal(err)
	}
}

// audited returns the audit log as "actor action subject".
func (f *fixture) audited(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, e := range all[models.AuditEntry](t, f, "at", "id") {
		lines = append(lines, e.Actor+" "+e.Action+" "+e.Subject)
	}
	return lines
}

var _ bun.QueryHook = (*queries)(nil)

// queries is a hook that collects the executed statements.
type queries struct{ texts []string }

func (q *queries) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (q *queries) AfterQuery(_ context.Context, e *bun.QueryEvent) {
	q.texts = append(q.texts, e.Query)
}

// retain deletes what is no longer needed at now, and returns how many rows that were.
func (f *fixture) retain(t *testing.T, now time.Time, keep string) models.Deletions {
	t.Helper()
	k, err := models.ParseKeepEvents(keep)
	if err != nil {
		t.Fatal(err)
	}
	r := models.Retention{
		DB: f.db, Catalogue: f.catalogue, Keep: k, Clock: func(context.Context) (time.Time, error) { return now, nil },
	}
	deleted, err := r.Pass(f.ctx)
	if err != nil {
		t.Fatal(err)
	}
	return deleted
}
