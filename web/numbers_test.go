package web

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// subscribe assigns a plan by hand.
func (f *fixture) subscribe(subscriber models.Subscriber, plan models.PlanID) {
	f.t.Helper()
	_, err := models.Subscribe(context.Background(), f.db, f.web.catalogue, f.clock(), subscriber, plan)
	must(f.t, err)
}

// organization creates an organization with Slack teams.
func (f *fixture) organization(name string, teams ...string) uuid.UUID {
	f.t.Helper()
	o, err := models.CreateOrganization(context.Background(), f.db, f.clock(), name, teams)
	must(f.t, err)
	return o.ID
}

// used records past usage, which no limit refuses.
func (f *fixture) used(email string, quantity int, at time.Time) {
	f.t.Helper()
	f.post("/v1/events", fmt.Sprintf(`{"events": [{"email": %q, "quantity": %d, "idempotency_key": %q, "occurred_at": %q}]}`,
		email, quantity, uuid.NewString(), at.Format(time.RFC3339))).want(f.t, 200, map[string]any{"results.status": "recorded"})
}

func (a answer) number(name string) int64 { return int64(a.body[name].(float64)) }

// TestNumbersAreTheSameEverywhere compares the pages about a person with the API and with the
// person's record, after each of 100 random consumes.
func TestNumbersAreTheSameEverywhere(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme := f.organization("Acme", "T1")
		f.subscribe(models.Subscriber{OrganizationID: &acme}, "business")
		emails := []string{"free@example.com", "pro@example.com", "starter@example.com", "team@example.com"}
		f.person(emails[3], "T1", models.Member, false)
		f.subscribe(models.Subscriber{Email: emails[1]}, "pro")
		f.subscribe(models.Subscriber{Email: emails[2]}, "starter")
		browsers := map[string]*browser{}
		for _, email := range emails {
			browsers[email] = f.signedIn(email)
		}
		if p := browsers[emails[2]].post("/usage/spend-limit", map[string][]string{"amount": {"8.75"}}); p.status != http.StatusSeeOther {
			t.Fatalf("the spend limit: %s %s", p.kind(), p.main())
		}
		random := rand.New(rand.NewPCG(7, 11))
		over, refused := 0, 0
		for i := range 100 {
			email, quantity := emails[random.IntN(len(emails))], 1+random.IntN(12)
			if email == emails[0] {
				quantity = 1 + random.IntN(3)
			}
			consumed := f.post("/v1/consume", fmt.Sprintf(`{"email": %q, "quantity": %d, "idempotency_key": "k%d"}`, email, quantity, i))
			consumed.want(t, 200, nil)
			if consumed.body["allowed"] == false {
				refused++
			}
			checked, asked := f.post("/v1/check", fmt.Sprintf(`{"email": %q, "notify": "always"}`, email)), f.get("/v1/usage/"+email)
			for name, value := range checked.body {
				if got := fmt.Sprint(asked.body[name]); got != fmt.Sprint(value) {
					t.Errorf("%s of %s: usage says %s, check %v", name, email, got, value)
				}
			}
			if f.sameNumbers(browsers[email], email, checked); checked.number("overage") > 0 {
				over++
			}
			if t.Failed() {
				t.Fatalf("after consume %d of %d by %s", i, quantity, email)
			}
		}
		if over < 10 || refused < 10 {
			t.Errorf("only %d consumes beyond the plan and %d refused", over, refused)
		}
	})
}

// sameNumbers compares a person's page, table, file and record with a check.
func (f *fixture) sameNumbers(b *browser, email string, checked answer) {
	t := f.t
	t.Helper()
	n := func(name string) string { return models.FormatCount(checked.number(name)) }
	p := b.get("/usage")
	want := fmt.Sprintf("%s used of %s suggestions included: %s%% used, %s left.", n("used"), n("included"), n("percent_used"), n("remaining"))
	if checked.number("overage") > 0 {
		want += " " + n("overage") + " beyond the plan."
	}
	if got := textOf(p.find("desc", "id", "meter-d")); got != want {
		t.Errorf("the meter says %q, want %q", got, want)
	}
	months := table(p.section("months"))
	if len(months) != 1+models.HistoryMonths {
		t.Fatalf("the months' table is %q", months)
	}
	row := []string{"Nov 2026 , so far", n("used"), n("included"), n("overage")}
	if len(months[0]) == 5 {
		row = append(row, f.web.catalogue.FormatMoney(checked.number("overage_cents")))
	}
	if got := months[len(months)-1]; !slices.Equal(got[1:], row[1:]) || !strings.HasSuffix(got[0], ", so far") {
		t.Errorf("the months' table ends with %q, want %q", got, row)
	}
	raw := func(name string) string { return fmt.Sprint(checked.number(name)) }
	file := b.get("/usage.csv").csv(t)
	var days int64
	found := false
	for _, r := range file[1:] {
		switch {
		case r[0] == "period" && r[1] == "2026-11-01T00:00:00Z":
			found = true
			want := []string{
				"period", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", checked.body["plan"].(string), raw("used"), raw("included"),
				raw("held"), raw("remaining"), raw("percent_used"), checked.body["warning_level"].(string), raw("overage"), raw("overage_cents"),
			}
			if !slices.Equal(r, want) {
				t.Errorf("the file says %q, want %q", r, want)
			}
		case r[0] == "day":
			var units int64
			if _, err := fmt.Sscan(r[4], &units); err != nil {
				t.Errorf("a day of %q units", r[4])
			}
			days += units
		}
	}
	if !found || days != checked.number("used") {
		t.Errorf("the file's days have %d of %s units, its month is there: %t", days, raw("used"), found)
	}
	r, err := models.CurrentUsage(context.Background(), f.db, f.clock(), email)
	must(t, err)
	if (r == nil) != (checked.number("used") == 0) && r == nil || r != nil && r.SuggestionsUsed != checked.number("used") {
		t.Errorf("the record is %+v, check says %s used", r, raw("used"))
	}
}

// fiveHundred returns a catalog whose free plan includes 500 units.
func fiveHundred(t testing.TB) *models.Catalogue {
	c, err := models.ParseCatalogue("plans.yaml", []byte(`unit: {singular: suggestion, plural: suggestions}
currency: usd
meter_event_name: suggestions
plans:
  - {id: free, name: Free, type: individual, description: d, base_price_cents: 0, included: 500,
     overage_rate_cents: 0, features: [], call_to_action: c}
`))
	must(t, err)
	return c
}

func TestTheSevenBoundaries(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		f := newFixture(t, address, func(o *Options) { o.Catalogue = fiveHundred(t) })
		for _, c := range []struct {
			used            int
			word, left, pct string
		}{
			{399, "Safe", "101 suggestions left", "79%"}, {400, "Warning", "100 suggestions left", "80%"},
			{474, "Warning", "26 suggestions left", "94%"},
			{475, "Critical", "25 suggestions left", "95%"}, {499, "Critical", "1 suggestion left", "99%"},
			{500, "Exceeded", "0 suggestions left", "100%"},
			{501, "Exceeded", "0 suggestions left", "100%"},
		} {
			email := fmt.Sprintf("u%d@example.com", c.used)
			b := f.signedIn(email)
			f.used(email, c.used, f.clock())
			p := b.get("/usage")
			if text := textOf(p.section("left")); !strings.HasPrefix(strings.TrimPrefix(text, "How much is left? "), c.left+" "+c.word+" ") ||
				!strings.Contains(text, "Percent used "+c.pct) {
				t.Errorf("%d of 500: %s", c.used, text)
			}
			f.get("/v1/usage/"+email).want(t, 200, map[string]any{"warning_level": strings.ToLower(c.word)})
			if settings := b.get("/settings"); strings.Contains(settings.main(), "Nothing right now") != (c.word == "Safe") {
				t.Errorf("%d of 500, notices: %s", c.used, settings.main())
			}
		}
	})
}

func TestTheResetIsShownInFull(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	b := f.signedIn("ada@example.com")
	for _, c := range []struct {
		now   time.Time
		words string
	}{
		{time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), "in 8 days"}, {time.Date(2026, 11, 29, 23, 0, 0, 0, time.UTC), "in 2 days"},
		{time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC), "in 1 day"}, {time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC), "in 14 hours"},
		{time.Date(2026, 11, 30, 23, 29, 0, 0, time.UTC), "in 31 minutes"},
		{time.Date(2026, 11, 30, 23, 59, 59, 0, time.UTC), "in less than a minute"},
	} {
		f.set(c.now)
		b.follow(f.link("ada@example.com"))
		p := b.get("/usage")
		if text := textOf(p.section("reset")); !strings.Contains(text, "Dec 1, 2026, 00:00 UTC ("+c.words+")") {
			t.Errorf("at %v: %s", c.now, text)
		}
	}
	f.set(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
	if text := textOf(b.get("/usage").section("reset")); !strings.Contains(text, "Jan 1, 2027, 00:00 UTC (in 31 days)") {
		t.Errorf("at the reset: %s", text)
	}
}
