package models_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// The test changes everything that a record repeats, with plain SQL. Each time, the database itself
// marks the record as not entitled, preparing corrects it, and verify finds a record that is still
// marked.
func TestChangesTakeARecordOutOfUse(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		catalogue, err := models.LoadCatalogue("")
		if err != nil {
			t.Fatal(err)
		}
		identity := models.SlackIdentity{TeamID: "T1", UserID: "U1"}
		if _, err := models.LinkPeople(f.ctx, f.db, noon, []models.Link{{Email: "ada@example.com", Slack: identity}}); err != nil {
			t.Fatal(err)
		}
		keys := []models.RecordKey{{Email: "ada@example.com", At: noon}}
		prepare := func() *models.UsageRecord {
			t.Helper()
			if err := models.PrepareRecords(f.ctx, f.db, catalogue, noon, keys); err != nil {
				t.Fatal(err)
			}
			r, err := models.CurrentUsage(f.ctx, f.db, noon, "ada@example.com")
			if err != nil || r == nil || !r.Entitled {
				t.Fatalf("after preparing: %+v, %v", r, err)
			}
			return r
		}
		if r := prepare(); r.PlanID != "free" || r.Slack() != identity {
			t.Fatalf("prepared as %+v", r)
		}
		subscribe := `INSERT INTO subscriptions (id, organization_id, plan_id, status, stripe_customer_id, created_at, updated_at)
			SELECT '00000000-0000-7000-8000-000000000001', organization_id, 'business', 'active', 'cus_1', ?, ? FROM workspaces`
		changes := []struct {
			statement string
			args      []any
			plan      models.PlanID
			included  int64
		}{
			{"UPDATE users SET spend_limit_cents = 500", nil, "free", 5},
			{subscribe, []any{noon, noon}, "business", 100},
			{"UPDATE subscriptions SET plan_id = 'team'", nil, "team", 100},
			{"UPDATE subscriptions SET stripe_customer_id = 'cus_2'", nil, "team", 100},
			{"UPDATE users SET slack_user_id = 'U2'", nil, "team", 100},
			{"INSERT INTO organizations (id, name, created_at) SELECT '00000000-0000-7000-8000-000000000002', 'Another', ?", []any{noon}, "", 0},
			{"UPDATE workspaces SET organization_id = '00000000-0000-7000-8000-000000000002'", nil, "free", 100},
			{"UPDATE subscriptions SET organization_id = '00000000-0000-7000-8000-000000000002'", nil, "team", 100},
			{"UPDATE users SET workspace_id = NULL", nil, "free", 100},
			{"UPDATE users SET workspace_id = (SELECT id FROM workspaces)", nil, "team", 100},
			{"DELETE FROM subscriptions", nil, "free", 100},
		}
		for _, c := range changes {
			f.exec(t, c.statement, c.args...)
			r, err := models.CurrentUsage(f.ctx, f.db, noon, "ada@example.com")
			if err != nil {
				t.Fatal(err)
			}
			if c.plan == "" {
				continue // changes no person
			}
			if r.Entitled {
				t.Errorf("%s: the record is still marked as entitled", c.statement)
			}
			if r = prepare(); r.PlanID != c.plan || r.SuggestionsIncluded != c.included {
				t.Errorf("%s: plan %s with %d included, want %s with %d", c.statement, r.PlanID, r.SuggestionsIncluded, c.plan, c.included)
			}
			if lines := f.verify(t); len(lines) > 0 {
				t.Errorf("%s: %v", c.statement, lines)
			}
		}
		f.exec(t, "UPDATE users SET spend_limit_cents = 900")
		f.exec(t, "UPDATE usage_records SET entitled = true")
		if lines := f.verify(t); len(lines) != 1 {
			t.Errorf("verify of an outdated record: %v", lines)
		}
	})
}

// Two processes take turns, one whose catalog lacks a person's plan and one whose catalog has it,
// as while a plan is being added. The first one gives the free plan's units, and the second one
// what was sold, whichever came first.
func TestAPlanMissingFromACatalog(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		with, err := models.ParseCatalogue("new.yaml", []byte(plans))
		if err != nil {
			t.Fatal(err)
		}
		without, err := models.ParseCatalogue("old.yaml", []byte(strings.ReplaceAll(plans, "id: crew", "id: team")))
		if err != nil {
			t.Fatal(err)
		}
		o, err := models.CreateOrganization(f.ctx, f.db, noon, "Crew", []string{"T1"})
		if err != nil {
			t.Fatal(err)
		}
		for _, email := range []string{"ada@example.com", "bob@example.com"} {
			if _, err := models.SetUser(f.ctx, f.db, noon, email, models.UserChange{OrganizationID: &o.ID}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := models.Subscribe(f.ctx, f.db, with, noon, models.Subscriber{OrganizationID: &o.ID}, "crew"); err != nil {
			t.Fatal(err)
		}
		for i, turn := range []struct {
			catalogue *models.Catalogue
			email     string
			included  int64
			rate      int64
		}{
			{without, "ada@example.com", 3, 0}, {with, "ada@example.com", 40, 12}, {without, "ada@example.com", 40, 0},
			{with, "ada@example.com", 40, 12},
			{with, "bob@example.com", 40, 12}, {without, "bob@example.com", 40, 0}, {with, "bob@example.com", 40, 12},
		} {
			r, err := models.CurrentUsage(f.ctx, f.db, noon, turn.email)
			if err != nil {
				t.Fatal(err)
			}
			if r != nil {
				if s, ready := turn.catalogue.Standing(r, noon); ready {
					t.Errorf("turn %d uses %+v unchanged", i, s)
				}
			}
			foreseen := f.foresee(t, turn.catalogue, turn.email, noon)
			if err := models.PrepareRecords(f.ctx, f.db, turn.catalogue, noon, []models.RecordKey{{Email: turn.email, At: noon}}); err != nil {
				t.Fatal(err)
			}
			if r, err = models.CurrentUsage(f.ctx, f.db, noon, turn.email); err != nil {
				t.Fatal(err)
			}
			s, ready := turn.catalogue.Standing(r, noon)
			if !ready || s.Plan != "crew" || s.Included != turn.included || s.OverageRateCents != turn.rate || s != foreseen {
				t.Errorf("turn %d: %+v, ready %t; foreseen was %+v", i, s, ready, foreseen)
			}
			if lines := f.verify(t); len(lines) > 0 {
				t.Errorf("turn %d: %v", i, lines)
			}
		}
		if plans, err := models.UnknownPlans(f.ctx, f.db, without); err != nil || !slices.Equal(plans,
			[]models.UnknownPlan{{ID: "crew", Subscriptions: 1}}) {
			t.Errorf("without the plan, the catalog lacks %v, %v", plans, err)
		}
		if plans, err := models.UnknownPlans(f.ctx, f.db, with); err != nil || len(plans) > 0 {
			t.Errorf("with the plan, the catalog lacks %v, %v", plans, err)
		}
	})
}

// An earlier release, whose catalog lacked a plan, wrote records of the free plan for people with
// subscriptions. The migration corrects them.
func TestMigrationCorrectsRecordsOfMissingPlans(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for _, at := range []time.Time{noon.AddDate(0, -1, 0), noon} {
			for _, email := range []string{"ada@example.com", "bob@example.com", "eve@example.com"} {
				if email == "bob@example.com" && at.Equal(noon) {
					continue // used only last month
				}
				if err := models.PrepareRecords(f.ctx, f.db, f.catalogue, at, []models.RecordKey{{Email: email, At: at}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		f.exec(t, `INSERT INTO subscriptions (id, user_id, plan_id, status, created_at, updated_at)
			SELECT id, id, 'gold', 'active', ?, ?
			FROM users WHERE email <> 'eve@example.com'`, noon, noon)
		f.exec(t, "UPDATE usage_records SET entitled = true")
		if lines := f.verify(t); len(lines) != 2 {
			t.Fatalf("before the migration: %v", lines)
		}
		name := "sqlite"
		if f.db.Postgres {
			name = "postgres"
		}
		statements, err := os.ReadFile("migrations/" + name + "/20261128000000_plans_out_of_catalogue.tx.up.sql")
		if err != nil {
			t.Fatal(err)
		}
		f.exec(t, string(statements))
		if lines := f.verify(t); len(lines) > 0 {
			t.Errorf("after the migration: %v", lines)
		}
		if r, err := models.CurrentUsage(f.ctx, f.db, noon, "eve@example.com"); err != nil || !r.Entitled {
			t.Errorf("a person without a subscription: %+v, %v", r, err)
		}
	})
}

// A person with a record of the calendar month joins an organization that pays by the year and
// whose current month began earlier. No event announces the next month, so the record has to end
// on its own.
func TestARecordEndsWithTheSubscriptionsPeriod(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const email = "ada@example.com"
		prepared := func(now time.Time) models.Period {
			t.Helper()
			foreseen := f.foresee(t, f.catalogue, email, now).Period
			if err := models.PrepareRecords(f.ctx, f.db, f.catalogue, now, []models.RecordKey{{Email: email, At: now}}); err != nil {
				t.Fatal(err)
			}
			r, err := models.CurrentUsage(f.ctx, f.db, now, email)
			if err != nil || r.Period() != foreseen {
				t.Errorf("at %v, the foreseen period was %v, and the record is %+v, %v", now, foreseen, r, err)
			}
			return r.Period()
		}
		prepared(noon)
		o, err := models.CreateOrganization(f.ctx, f.db, noon, "Acme", []string{"T1"})
		if err != nil {
			t.Fatal(err)
		}
		step := noon.Add(36 * time.Hour)
		anchor := step.AddDate(0, -1, 0)
		f.exec(t, `INSERT INTO subscriptions (id, organization_id, plan_id, status, billing_cycle_anchor, current_period_start,
			current_period_end, created_at, updated_at)
			SELECT '00000000-0000-7000-8000-000000000001', id, 'business', 'active', ?, ?, ?, ?, ? FROM organizations`, anchor, anchor,
			anchor.AddDate(1, 0, 0), noon, noon)
		if _, err := models.SetUser(f.ctx, f.db, noon, email, models.UserChange{OrganizationID: &o.ID}); err != nil {
			t.Fatal(err)
		}
		if p := prepared(noon); p != (models.Period{Start: november.Start, End: step}) {
			t.Errorf("in the organization, the record is %v", p)
		}
		if p := prepared(step); p != (models.Period{Start: step, End: step.AddDate(0, 1, 0)}) {
			t.Errorf("in its next month, the record is %v", p)
		}
		// Without a subscription, a period continues to its end.
		f.exec(t, "UPDATE subscriptions SET status = 'canceled'")
		if p := prepared(step.Add(time.Hour)); p != (models.Period{Start: step, End: step.AddDate(0, 1, 0)}) {
			t.Errorf("after the subscription's end, the record is %v", p)
		}
		if lines := f.verify(t); len(lines) > 0 {
			t.Error(lines)
		}
	})
}

// A subscription begins shortly before a month that already has a record, from an event that was a
// little early.
func TestANewPeriodFitsBetweenItsNeighbors(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const email = "ada@example.com"
		december := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
		prepare := func(now, at time.Time) {
			t.Helper()
			if err := models.PrepareRecords(f.ctx, f.db, f.catalogue, now, []models.RecordKey{{Email: email, At: at}}); err != nil {
				t.Fatal(err)
			}
		}
		prepare(december.Add(-3*time.Minute), december.Add(time.Minute))
		start := december.Add(-time.Minute)
		f.exec(t, `INSERT INTO subscriptions (id, user_id, plan_id, status, billing_cycle_anchor, current_period_start,
			current_period_end, created_at, updated_at)
			SELECT '00000000-0000-7000-8000-000000000001', id, 'pro', 'active', ?, ?, ?, ?, ? FROM users`, start, start,
			start.AddDate(0, 1, 0), start, start)
		now := december.Add(-30 * time.Second)
		r, err := models.CurrentUsage(f.ctx, f.db, now, email)
		if err != nil || r != nil {
			t.Fatalf("%+v, %v", r, err)
		}
		foreseen := f.foresee(t, f.catalogue, email, now).Period
		prepare(now, now)
		if r, err = models.CurrentUsage(f.ctx, f.db, now, email); err != nil || r.Period() != foreseen || !foreseen.End.Equal(december) {
			t.Errorf("the foreseen period was %v, the record is %+v, %v", foreseen, r, err)
		}
	})
}

// foresee returns the standing that a record will have once it is prepared.
func (f *fixture) foresee(t *testing.T, c *models.Catalogue, email string, at time.Time) models.Standing {
	t.Helper()
	key := models.RecordKey{Email: email, At: at}
	ahead, err := models.ReadAhead(f.ctx, f.db, c, at, []models.RecordKey{key})
	if err != nil {
		t.Fatal(err)
	}
	r, err := models.CurrentUsage(f.ctx, f.db, at, email)
	if err != nil {
		t.Fatal(err)
	}
	s, _, _ := ahead.Standing(key, r)
	return s
}

// When a subscription begins in the middle of a month, the month's record ends where the
// subscription's period begins.
func TestASubscriptionBeginsInTheMiddleOfAMonth(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		catalogue, err := models.LoadCatalogue("")
		if err != nil {
			t.Fatal(err)
		}
		at := func(now time.Time) *models.UsageRecord {
			t.Helper()
			if err := models.PrepareRecords(f.ctx, f.db, catalogue, now, []models.RecordKey{{Email: "ada@example.com", At: now}}); err != nil {
				t.Fatal(err)
			}
			r, err := models.CurrentUsage(f.ctx, f.db, now, "ada@example.com")
			if err != nil || r == nil {
				t.Fatalf("%v: %v, %v", now, r, err)
			}
			return r
		}
		want := func(r *models.UsageRecord, start, end time.Time, plan models.PlanID) {
			t.Helper()
			if p := r.Period(); !p.Start.Equal(start) || !p.End.Equal(end) || r.PlanID != plan {
				t.Errorf("%s from %v to %v, want %s from %v to %v", r.PlanID, p.Start, p.End, plan, start, end)
			}
		}
		day := func(month time.Month, d int) time.Time { return time.Date(2026, month, d, 0, 0, 0, 0, time.UTC) }
		want(at(noon), day(11, 1), day(12, 1), "free")
		begin := noon.Add(-time.Hour)
		f.exec(t, `INSERT INTO subscriptions (id, user_id, plan_id, status, billing_cycle_anchor, current_period_start,
			current_period_end, created_at, updated_at)
			SELECT '00000000-0000-7000-8000-000000000001', id, 'pro', 'active', ?, ?, ?, ?, ? FROM users`, begin, begin,
			begin.AddDate(0, 1, 0), noon, noon)
		// A late event from before does not extend the month.
		if err := models.PrepareRecords(f.ctx, f.db, catalogue, noon,
			[]models.RecordKey{{Email: "ada@example.com", At: day(11, 10)}}); err != nil {
			t.Fatal(err)
		}
		want(at(noon), begin, begin.AddDate(0, 1, 0), "pro")
		// The period is over and Stripe has not sent the next one: it is a monthly step from the anchor.
		want(at(day(12, 25)), begin.AddDate(0, 1, 0), begin.AddDate(0, 2, 0), "pro")
		f.exec(t, "UPDATE subscriptions SET status = 'canceled'")
		want(at(day(12, 26)), begin.AddDate(0, 1, 0), begin.AddDate(0, 2, 0), "free")
		// Then calendar months follow, starting where the last period ended.
		want(at(time.Date(2027, 1, 25, 0, 0, 0, 0, time.UTC)), begin.AddDate(0, 2, 0), time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC), "free")
		history, err := models.UsageHistory(f.ctx, f.db, time.Date(2027, 1, 25, 0, 0, 0, 0, time.UTC), "ada@example.com", 6)
		if err != nil || len(history) != 4 || !history[3].BillingPeriodEnd.Equal(begin) {
			t.Errorf("%d periods, %v; the first one ends %v", len(history), err, history[len(history)-1].BillingPeriodEnd)
		}
		if lines := f.verify(t); len(lines) > 0 {
			t.Error(lines)
		}
	})
}

// An event slightly ahead of time makes the next period's record. A later change of the person's
// plan must also mark the current record.
func TestARecordMadeEarlyHidesNoEarlierOne(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		now := models.Now(time.Now) // the triggers use the database's clock
		next := models.CalendarMonth(now).End
		prepare := func() {
			t.Helper()
			keys := []models.RecordKey{{Email: "ada@example.com", At: now}, {Email: "ada@example.com", At: next}}
			if err := models.PrepareRecords(f.ctx, f.db, f.catalogue, now, keys); err != nil {
				t.Fatal(err)
			}
		}
		prepare()
		identity := models.SlackIdentity{TeamID: "T1", UserID: "U1"}
		for change, do := range map[string]func(){
			"a person's plan": func() { f.subscribe(t, models.Subscriber{Email: "ada@example.com"}, "pro") },
			"a workspace": func() {
				if _, err := models.LinkPeople(f.ctx, f.db, now, []models.Link{{Email: "ada@example.com", Slack: identity}}); err != nil {
					t.Fatal(err)
				}
			},
			"a spend limit": func() { f.exec(t, "UPDATE users SET spend_limit_cents = 700") },
		} {
			f.exec(t, "UPDATE usage_records SET entitled = true")
			do()
			for _, r := range all[models.UsageRecord](t, f, "billing_period_start") {
				if r.Entitled {
					t.Errorf("%s changed, and the record of %s is still marked as entitled", change, r.BillingPeriodStart.Format(time.DateOnly))
				}
			}
		}
		f.exec(t, "UPDATE usage_records SET entitled = true")
		if lines := f.verify(t); len(lines) != 2 {
			t.Errorf("verify of two outdated records: %q", lines)
		}
		prepare()
		r, err := models.CurrentUsage(f.ctx, f.db, now, "ada@example.com")
		if err != nil || r == nil || r.PlanID != "pro" || r.SuggestionsIncluded != 75 || *r.SpendLimitCents != 700 || r.Slack() != identity {
			t.Errorf("prepared again: %+v, %v", r, err)
		}
	})
}

// A person joins an organization while it is given a plan. Whichever commits last, the person has
// the plan.
func TestJoiningAnOrganizationThatIsGivenAPlan(t *testing.T) {
	for _, last := range []string{"the plan", "the person", "the workspace"} {
		t.Run(last, func(t *testing.T) {
			f := newFixture(t, modelstest.Postgres(t))
			id := f.organization(t, noon, "Joined", "T1")
			f.organization(t, noon, "Another", "T2")
			f.member(t, "ada@example.com", "T2")
			prepare := func() {
				t.Helper()
				if err := models.PrepareRecords(f.ctx, f.db, f.catalogue, noon, []models.RecordKey{{Email: "ada@example.com", At: noon}}); err != nil {
					t.Fatal(err)
				}
			}
			prepare()
			give := `INSERT INTO subscriptions (id, organization_id, plan_id, status, created_at, updated_at)
				VALUES ('00000000-0000-7000-8000-000000000001', ?, 'business', 'active', ?, ?)`
			join := `UPDATE users SET workspace_id = (SELECT id FROM workspaces WHERE slack_team_id = 'T1') WHERE email = 'ada@example.com'`
			if last == "the workspace" {
				join = `UPDATE workspaces SET organization_id = '` + id.String() + `' WHERE slack_team_id = 'T2'`
			}
			first, second := join, give
			firstArgs, secondArgs := []any(nil), []any{id, noon, noon}
			if last != "the plan" {
				first, second, firstArgs, secondArgs = second, first, secondArgs, firstArgs
			}
			tx, err := f.db.BeginTx(f.ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.ExecContext(f.ctx, first, firstArgs...); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := f.db.ExecContext(f.ctx, second, secondArgs...)
				done <- err
			}()
			// The second statement either completes or waits for a lock of the first one.
			for {
				var waiting int
				if err := f.db.NewSelect().TableExpr("pg_stat_activity").ColumnExpr("COUNT(*)").
					Where("datname = current_database() AND wait_event_type = 'Lock'").Scan(f.ctx, &waiting); err != nil {
					t.Fatal(err)
				}
				if waiting > 0 || len(done) > 0 {
					break
				}
			}
			if len(done) > 0 && last != "the plan" {
				prepare() // it did not wait, so the record is made before the plan is visible
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			r, err := models.CurrentUsage(f.ctx, f.db, noon, "ada@example.com")
			if err == nil && !r.Entitled { // as the gate sees it
				prepare()
				r, err = models.CurrentUsage(f.ctx, f.db, noon, "ada@example.com")
			}
			if err != nil || !r.Entitled || r.PlanID != "business" {
				t.Errorf("the record has the plan %s, entitled %t, %v; want business", r.PlanID, r.Entitled, err)
			}
			if lines := f.verify(t); len(lines) > 0 {
				t.Errorf("verify: %q", lines)
			}
		})
	}
}
