package models_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/modelstest"
)

func TestCurrentUsage(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.use(t, "ada@example.com", noon.AddDate(0, -1, 0), "pro", 70)
		current := f.use(t, "ada@example.com", noon, "pro", 12)
		f.use(t, "bob@example.com", noon.AddDate(0, -1, 0), "free", 5)
		f.use(t, "eve@example.com", noon.AddDate(0, 1, 0), "free", 1)
		for _, test := range []struct {
			email string
			at    time.Time
			want  int64 // units used; -1 for no record
		}{
			{"ada@example.com", noon, 12},
			{"ada@example.com", november.Start, 12},
			{"ada@example.com", november.Start.Add(-time.Microsecond), 70},
			{"ada@example.com", november.End.Add(-time.Microsecond), 12},
			{"ada@example.com", november.End, -1},
			{"bob@example.com", noon, -1},
			{"eve@example.com", noon, -1},
			{"unknown@example.com", noon, -1},
		} {
			r, err := models.CurrentUsage(f.ctx, f.db, test.at, test.email)
			switch {
			case err != nil:
				t.Errorf("%s at %v: %v", test.email, test.at, err)
			case (r == nil) != (test.want < 0) || r != nil && r.SuggestionsUsed != test.want:
				t.Errorf("%s at %v: %+v, want %d used", test.email, test.at, r, test.want)
			}
		}
		r, err := models.CurrentUsage(f.ctx, f.db, noon, "ada@example.com")
		if err != nil || r.ID != current.ID || r.Period() != november || r.PlanID != "pro" || r.SuggestionsIncluded != 75 {
			t.Errorf("got %+v, %v", r, err)
		}
	})
}

func TestUsageHistory(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for i := range 9 {
			f.use(t, "ada@example.com", november.Start.AddDate(0, -i, 0), "pro", int64(i))
		}
		f.use(t, "ada@example.com", november.End, "pro", 99)
		f.use(t, "bob@example.com", noon, "free", 3)
		history := func(email string, months int) []int64 {
			t.Helper()
			records, err := models.UsageHistory(f.ctx, f.db, noon, email, months)
			if err != nil {
				t.Fatal(err)
			}
			var used []int64
			for _, r := range records {
				used = append(used, r.SuggestionsUsed)
			}
			return used
		}
		if got := history("ada@example.com", models.DefaultHistoryMonths); !slices.Equal(got, []int64{0, 1, 2, 3, 4, 5}) {
			t.Errorf("six months back: %v", got)
		}
		if got := history("ada@example.com", 2); !slices.Equal(got, []int64{0, 1}) {
			t.Errorf("two months back: %v", got)
		}
		if got := history("bob@example.com", 6); !slices.Equal(got, []int64{3}) {
			t.Errorf("a new person's history: %v", got)
		}
		if got := history("unknown@example.com", 6); len(got) != 0 {
			t.Errorf("an unknown person's history: %v", got)
		}
	})
}

func TestOrganizationUsage(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		id := f.organization(t, noon, "Quiet Fox Ltd", "T1", "T2")
		f.subscribe(t, models.Subscriber{OrganizationID: &id}, "business")
		// Twelve people in two teams used something, three of them the same amount. One used nothing, one
		// has no record, and one has only a record of October. A person of another organization used
		// most.
		for i, used := range []int64{7, 80, 7, 120, 95, 1, 2, 3, 4, 7, 99, 40} {
			email := fmt.Sprintf("p%02d@example.com", i)
			f.member(t, email, []string{"T1", "T2"}[i%2])
			f.use(t, email, noon, "business", used)
		}
		f.exec(t, "UPDATE users SET name = 'Ida Example' WHERE email = 'p03@example.com'")
		f.member(t, "idle@example.com", "T1")
		held := f.use(t, "idle@example.com", noon, "business", 0)
		f.exec(t, "UPDATE usage_records SET units_held = 50 WHERE id = ?", held.ID)
		f.member(t, "never@example.com", "T1")
		f.member(t, "gone@example.com", "T2")
		f.use(t, "gone@example.com", noon.AddDate(0, -1, 0), "business", 500)
		f.organization(t, noon, "Elsewhere", "T9")
		f.member(t, "stranger@example.com", "T9")
		f.use(t, "stranger@example.com", noon, "business", 1000)

		s, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, noon, id)
		if err != nil {
			t.Fatal(err)
		}
		if s.ID != id || s.Name != "Quiet Fox Ltd" || s.Plan != "business" || s.Period != november {
			t.Errorf("the summary is %+v", s)
		}
		// 465 over 15 people is 31.
		if s.TotalUsers != 15 || s.ActiveUsers != 12 || s.TotalSuggestions != 465 || s.AverageHundredths != 3100 {
			t.Errorf("the totals are %+v", s)
		}
		want := []models.RankedUser{
			{1, "p03@example.com", "Ida Example", 120, 20, 0, 0, 100, 120, models.Exceeded},
			{2, "p10@example.com", "", 99, 0, 0, 0, 100, 99, models.Critical},
			{3, "p04@example.com", "", 95, 0, 0, 0, 100, 95, models.Critical},
			{4, "p01@example.com", "", 80, 0, 0, 0, 100, 80, models.Warning},
			{5, "p11@example.com", "", 40, 0, 0, 0, 100, 40, models.Safe},
			{6, "p00@example.com", "", 7, 0, 0, 0, 100, 7, models.Safe},
			{7, "p02@example.com", "", 7, 0, 0, 0, 100, 7, models.Safe},
			{8, "p09@example.com", "", 7, 0, 0, 0, 100, 7, models.Safe},
			{9, "p08@example.com", "", 4, 0, 0, 0, 100, 4, models.Safe},
			{10, "p07@example.com", "", 3, 0, 0, 0, 100, 3, models.Safe},
		}
		if !slices.Equal(s.TopUsers, want) {
			t.Errorf("top users\n%+v, want\n%+v", s.TopUsers, want)
		}

		// The next month has begun, without usage so far.
		if s, err = models.OrganizationUsage(f.ctx, f.db, f.catalogue, november.End, id); err != nil {
			t.Fatal(err)
		}
		if s.TotalUsers != 15 || s.ActiveUsers != 0 || s.TotalSuggestions != 0 || s.AverageHundredths != 0 || len(s.TopUsers) != 0 {
			t.Errorf("in December, the summary is %+v", s)
		}
	})
}

func TestOrganizationUsageAverage(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for _, test := range []struct {
			users, total, hundredths int64
			number                   float64
		}{
			{0, 0, 0, 0}, {1, 0, 0, 0}, {3, 1, 33, 0.33}, {3, 2, 67, 0.67}, {8, 1, 13, 0.13}, {8, 3, 38, 0.38}, {7, 100, 1429, 14.29},
			{6, 5, 83, 0.83},
		} {
			team := fmt.Sprintf("T%dx%d", test.users, test.total)
			id := f.organization(t, noon, team, team)
			for i := range test.users {
				email := fmt.Sprintf("p%d@%s.example.com", i, team)
				f.member(t, email, team)
				if i == 0 {
					f.use(t, email, noon, "pro", test.total)
				}
			}
			s, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, noon, id)
			if err != nil {
				t.Fatal(err)
			}
			if s.TotalUsers != test.users || s.AverageHundredths != test.hundredths || s.AveragePerUser() != test.number {
				t.Errorf("%d of %d people: %d hundredths, %v; want %d, %v", test.total, s.TotalUsers, s.AverageHundredths, s.AveragePerUser(),
					test.hundredths, test.number)
			}
		}
	})
}

// The figures of each person are those of a decision: the current plan, and no units of a period
// that their subscription ended.
func TestOrganizationUsageAgreesWithTheGate(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		id := f.organization(t, noon, "Quiet Fox Ltd", "T1")
		for _, email := range []string{"ada@example.com", "bob@example.com"} {
			f.member(t, email, "T1")
			f.use(t, email, noon, "free", 5)
		}
		f.subscribe(t, models.Subscriber{OrganizationID: &id}, "team")
		s, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, noon, id)
		if err != nil {
			t.Fatal(err)
		}
		if u := s.TopUsers[0]; u.Included != 50 || u.PercentUsed != 10 || u.WarningLevel != models.Safe {
			t.Errorf("an upgrade is not applied: %+v", u)
		}

		// A Stripe subscription since the 10th: earlier units belong to another period.
		start := time.Date(2026, 11, 10, 8, 30, 0, 0, time.UTC)
		end := start.AddDate(0, 1, 0)
		f.insert(t, &models.Subscription{
			ID: newID(), OrganizationID: &id, PlanID: "business", Status: models.StatusActive, StripeSubscriptionID: ptr("sub_1"),
			StripeCustomerID:   ptr("cus_1"),
			BillingCycleAnchor: &start, CurrentPeriodStart: &start, CurrentPeriodEnd: &end, CreatedAt: noon.Add(time.Second), UpdatedAt: noon,
		})
		if s, err = models.OrganizationUsage(f.ctx, f.db, f.catalogue, noon, id); err != nil {
			t.Fatal(err)
		}
		if want := (models.Period{Start: start, End: end}); s.Period != want || s.Plan != "business" || s.TotalUsers != 2 ||
			s.ActiveUsers != 0 || s.TotalSuggestions != 0 {
			t.Errorf("before a new record began: %+v", s)
		}
		if err := models.PrepareRecords(f.ctx, f.db, f.catalogue, noon, []models.RecordKey{{Email: "ada@example.com", At: noon}}); err != nil {
			t.Fatal(err)
		}
		f.exec(t, "UPDATE usage_records SET suggestions_used = 3 WHERE billing_period_start = ?", start)
		if s, err = models.OrganizationUsage(f.ctx, f.db, f.catalogue, noon, id); err != nil {
			t.Fatal(err)
		}
		if s.ActiveUsers != 1 || s.TotalSuggestions != 3 || s.TopUsers[0].Email != "ada@example.com" || s.TopUsers[0].Included != 100 {
			t.Errorf("after one new record began: %+v", s)
		}
	})
}

// The forecast has no more overage than the organization's spend limit allows, and none while a
// payment is past due, because overage is then refused.
func TestOrganizationForecast(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		id := f.organization(t, noon, "Quiet Fox Ltd", "T1")
		f.member(t, "ada@example.com", "T1")
		f.subscribe(t, models.Subscriber{OrganizationID: &id}, "team")
		f.use(t, "ada@example.com", noon, "team", 52)
		f.exec(t, "UPDATE usage_records SET overage_used = 2, overage_cents = 50")
		for _, test := range []struct {
			status models.SubscriptionStatus
			more   bool
		}{{models.StatusActive, true}, {models.StatusPastDue, false}} {
			f.exec(t, "UPDATE subscriptions SET status = ?", test.status)
			s, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, noon, id)
			if err != nil {
				t.Fatal(err)
			}
			if s.Forecast == nil || s.Forecast.Units > 2 != test.more || s.Forecast.Cents > 50 != test.more {
				t.Errorf("%s: forecast %+v", test.status, s.Forecast)
			}
		}
		f.exec(t, "UPDATE subscriptions SET status = 'active'")
		// Of 60 units, 50 are included, 2 are overage, and 8 stay unbilled, because they were recorded while
		// the payment was past due.
		f.exec(t, "UPDATE usage_records SET suggestions_used = 60")
		s, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, noon, id)
		if err != nil {
			t.Fatal(err)
		}
		if units, _ := (models.Standing{Used: 60, Period: s.Period}).Forecast(noon); s.Forecast == nil || s.Forecast.Units != 2+units-60 {
			t.Errorf("with units that are not billed: forecast %+v", s.Forecast)
		}
		f.exec(t, "UPDATE usage_records SET suggestions_used = 52")
		for limit, want := range map[int64]models.Overage{
			40: {Units: 2, Cents: 50}, 50: {Units: 2, Cents: 50}, 74: {Units: 2, Cents: 50}, 75: {Units: 3, Cents: 75}, 110: {Units: 4, Cents: 100},
		} {
			change := models.OrganizationChange{SpendLimit: &models.LimitChange{To: &limit, Unseen: true}}
			if s := f.usageAfter(t, id, change); s.Forecast == nil || *s.Forecast != want {
				t.Errorf("with a spend limit of %d cents: forecast %+v, want %+v", limit, s.Forecast, want)
			}
		}
	})
}

// usageAfter returns an organization's usage after a change of its limits.
func (f *fixture) usageAfter(t *testing.T, id uuid.UUID, change models.OrganizationChange) models.OrganizationSummary {
	t.Helper()
	if err := models.SetOrganization(f.ctx, f.db, f.catalogue, noon, models.ActorShell, id, change); err != nil {
		t.Fatal(err)
	}
	s, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, noon, id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The forecast of a member's overage ends at the member limit.
func TestOrganizationForecastUnderMemberLimits(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		id := f.organization(t, noon, "Quiet Fox Ltd", "T1")
		f.member(t, "ada@example.com", "T1")
		f.subscribe(t, models.Subscriber{OrganizationID: &id}, "team")
		f.use(t, "ada@example.com", noon, "team", 52)
		f.exec(t, "UPDATE usage_records SET overage_used = 2, overage_cents = 50")
		for limit, want := range map[int64]models.Overage{
			10: {Units: 2, Cents: 50}, 50: {Units: 2, Cents: 50}, 52: {Units: 2, Cents: 50}, 53: {Units: 3, Cents: 75}, 55: {Units: 5, Cents: 125},
		} {
			change := models.OrganizationChange{MemberLimit: &models.LimitChange{To: &limit, Unseen: true}}
			if s := f.usageAfter(t, id, change); s.Forecast == nil || *s.Forecast != want {
				t.Errorf("with a member limit of %d: forecast %+v, want %+v", limit, s.Forecast, want)
			}
		}
	})
}

func TestOrganizationUsageUnknown(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		_, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, noon, newID())
		var coded *models.Error
		if !errors.As(err, &coded) || coded.Code != models.CodeUnknownOrganization {
			t.Errorf("got %v", err)
		}
	})
}

// No query of a page scans a growing table.
func TestUsageQueriesUseIndexes(t *testing.T) {
	f := newFixture(t, modelstest.Postgres(t))
	f.exec(t, `INSERT INTO organizations SELECT md5('o' || n)::uuid, 'Organization ' || n, now() FROM generate_series(1, 240) n`)
	f.exec(t, `INSERT INTO workspaces SELECT md5('w' || n)::uuid, md5('o' || n)::uuid, 'T' || n, '', now() FROM generate_series(1, 240) n`)
	f.exec(t, `INSERT INTO users (id, email, workspace_id, slack_user_id, created_at)
		SELECT md5('u' || n)::uuid, 'p' || n || '@example.com', md5('w' || (n % 240 + 1))::uuid, 'U' || n, now()
		FROM generate_series(1, 12000) n`)
	f.exec(t, `INSERT INTO usage_records (user_id, email, billing_period_start, billing_period_end, plan_id, suggestions_included,
		suggestions_used, overage_rate_cents,
			entitled, created_at)
		SELECT md5('u' || n)::uuid, 'p' || n || '@example.com', s, s + interval '1 month', 'team', 50, n % 60, 25, true, now()
		FROM generate_series(1, 12000) n, generate_series(timestamptz '2026-06-01', '2026-11-01', interval '1 month') s`)
	// The triggers would look up each person.
	f.exec(t, `ALTER TABLE subscriptions DISABLE TRIGGER USER`)
	f.exec(t, `INSERT INTO subscriptions (id, user_id, plan_id, status, created_at, updated_at)
		SELECT md5('s' || n || y)::uuid, md5('u' || n)::uuid, 'pro', CASE WHEN y = 2026 THEN 'active'
		ELSE 'canceled' END, make_timestamptz(y, 1, 1, 0, 0, 0), now()
		FROM generate_series(1, 12000) n, generate_series(2023, 2026) y`)
	f.exec(t, `INSERT INTO subscriptions (id, organization_id, plan_id, status, created_at, updated_at)
		SELECT md5('os' || n)::uuid, md5('o' || n)::uuid, 'team', 'active', now(), now() FROM generate_series(1, 240) n`)
	f.exec(t, "ANALYZE")
	org := one[models.Organization](t, f, "name = ?", "Organization 7")
	another := one[models.Organization](t, f, "name = ?", "Organization 240")

	var ran queries
	f.db.DB = f.db.WithQueryHook(&ran)
	if _, err := models.CurrentUsage(f.ctx, f.db, noon, "p77@example.com"); err != nil {
		t.Fatal(err)
	}
	if _, err := models.UsageHistory(f.ctx, f.db, noon, "p77@example.com", 6); err != nil {
		t.Fatal(err)
	}
	s, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, noon, org.ID)
	if err != nil || s.TotalUsers != 50 {
		t.Fatalf("%+v, %v", s, err)
	}
	// In this organization, people have their own plans.
	f.exec(t, "UPDATE subscriptions SET status = 'canceled' WHERE organization_id = ?", another.ID)
	if s, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, noon, another.ID); err != nil || s.Plan != models.FreePlan ||
		s.Included < 50*75 {
		t.Fatalf("%+v, %v", s, err)
	}
	var ended models.PastUsageCache
	if _, err := ended.OrganizationMonths(f.ctx, f.db, noon, &s, noon, 6); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ended.OrganizationDays(f.ctx, f.db, noon, s.Period, s.ID); err != nil {
		t.Fatal(err)
	}
	for _, o := range []models.Organization{org, another} {
		for _, sort := range []models.MemberSort{
			models.SortName, models.SortEmail, models.SortUsed, models.SortIncluded, models.SortPercent, models.SortLevel, models.SortOverage,
			models.SortLastPeriod,
		} {
			for _, level := range []models.WarningLevel{"", models.Safe} {
				if _, err := models.FindMembers(f.ctx, f.db, f.catalogue, noon, o.ID, models.MemberQuery{Sort: sort, Level: level, Page: 2,
					PerPage: 10}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if len(ran.texts) < 80 {
		t.Fatalf("only these statements ran: %q", ran.texts)
	}
	scan := regexp.MustCompile(`Seq Scan on (users|usage_records|usage_events|usage_holds|subscriptions)\b`)
	for _, text := range ran.texts {
		if !strings.HasPrefix(text, "SELECT") {
			continue
		}
		var lines []string
		if err := f.db.NewRaw("EXPLAIN "+text).Scan(f.ctx, &lines); err != nil {
			t.Fatalf("explain %s: %v", text, err)
		}
		for _, line := range lines {
			if scan.MatchString(line) {
				t.Errorf("%s\n%s", text, line)
			}
		}
	}
}
