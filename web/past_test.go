package web

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/models"
)

// recordPast records units of a person at an instant in the past, in one event.
func (f *fixture) recordPast(email string, units int, at time.Time) {
	f.t.Helper()
	f.post("/v1/events", fmt.Sprintf(`{"events": [{"email": %q, "quantity": %d, "idempotency_key": "past-%d", "occurred_at": %q}]}`,
		email, units, at.Unix(), at.Format(time.RFC3339))).want(f.t, 200, nil)
}

// A past period has its own plan, limit, overage and days, on the member's page, on the page for
// admins and in the CSV. A change of plan does not change them.
func TestPastPeriodOfAPerson(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx := context.Background()
		catalogue := f.web.catalogue
		_, err := models.Subscribe(ctx, f.db, catalogue, f.clock(), models.Subscriber{Email: "ada@example.com"}, "starter")
		must(t, err)
		for i, units := range []int{20, 7} {
			f.post("/v1/consume", fmt.Sprintf(`{"email": "ada@example.com", "quantity": %d, "idempotency_key": "n%d"}`, units, i)).want(t, 200, nil)
		}
		november := f.clock()
		ada := f.user("ada@example.com")
		_, err = f.db.NewInsert().Model(&models.UsageRefusal{
			UserID: ada.ID, BillingPeriodStart: models.CalendarMonth(november).Start, Reason: models.SpendLimitReached, Count: 3, LastAt: november,
		}).Exec(ctx)
		must(t, err)
		f.advance(30 * 24 * time.Hour)
		_, err = models.Subscribe(ctx, f.db, catalogue, f.clock(), models.Subscriber{Email: "ada@example.com"}, "pro")
		must(t, err)
		f.post("/v1/consume", `{"email": "ada@example.com", "quantity": 4, "idempotency_key": "december"}`).want(t, 200, nil)

		browser := f.signedIn("ada@example.com")
		past := browser.get("/usage?period=2026-11")
		text := past.main()
		for _, want := range []string{
			"Starter plan in this billing period", "27 suggestions used", "Used 27 Included 25 Left 0 Percent used 108% Overage 2", "Exceeded",
			"Starter, per month $7.00", "Overage: 2 × $0.35 $0.70", "In this period $7.70", "Refused 3 times", "spend limit reached (3 times).",
			"Nov 1, 2026 to Nov 30, 2026 (UTC)", "Nov 23, 2026 27", "the month on this page", "Current billing period",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("the page of November does not say %q:\n%s", want, text)
			}
		}
		for _, want := range []string{
			`href="/usage/activity?period=2026-11"`, `href="/usage.csv?period=2026-11"`, `aria-label="Nov 2026" aria-current="true"`,
		} {
			if !strings.Contains(past.body, want) {
				t.Errorf("the page of November has no %s", want)
			}
		}
		for _, not := range []string{"so far,", "At this pace", "run out", "<form method=\"post\" action=\"/usage"} {
			if strings.Contains(past.body, not) {
				t.Errorf("the page of a past period has %q", not)
			}
		}
		rows := browser.get("/usage.csv?period=2026-11").csv(t)[1:]
		const month = "period 2026-11-01T00:00:00Z 2026-12-01T00:00:00Z starter 27 25 0 0 108 exceeded 2 70"
		if len(rows) != 31 || strings.Join(rows[0], " ") != month || rows[23][4] != "27" {
			t.Errorf("the file of November has %d rows: %q", len(rows), rows)
		}
		current := browser.get("/usage")
		if !strings.Contains(current.body, `href="/usage?period=2026-11"`) || strings.Count(current.body, `href="/usage"`) < 2 {
			t.Error("the months of the current page are not links")
		}
		for _, query := range []string{"?period=2026-12", "?period=2026-12-05"} {
			if got := browser.get("/usage" + query); got.main() != current.main() {
				t.Errorf("%s is not the current page:\n%s", query, got.main())
			}
		}
		if got := browser.get("/usage?period=2026-10").main(); !strings.Contains(got, "This billing period ended before sign-up") ||
			strings.Contains(got, "Percent used") {
			t.Errorf("the page of a month before sign-up says %q", got)
		}
		if rows := browser.get("/usage.csv?period=2026-10").csv(t)[1:]; len(rows) != 0 {
			t.Errorf("the file of a month before sign-up has %q", rows)
		}
		for _, query := range []string{"?period=", "?period=x", "?period=2026-13", "?period=2027-01", "?period=0000-01", "?period=9999-12",
			"?period=2026-11&period=2026-10", "?period=2026-11-31"} {
			for _, path := range []string{"/usage", "/usage.csv"} {
				got := browser.get(path + query)
				if got.status != http.StatusNotFound || !strings.Contains(got.main(), "Page not found There is no such billing period.") {
					t.Errorf("%s%s: %s %s, want 404", path, query, got.kind(), got.main())
				}
			}
		}
	})
}

// A period without usage says so, a late event makes a period, and an admin sees what the member
// sees.
func TestPastPeriodOfAMember(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.team("team")
		f.post("/v1/consume", fmt.Sprintf(memberCall, "ada", 1, "first")).want(t, 200, nil)
		f.recordPast("ada@example.com", 8, time.Date(2026, 1, 20, 10, 0, 0, 0, time.UTC))
		f.advance(70 * 24 * time.Hour)
		f.person("boss@example.com", "T1", models.Admin, false)
		admin, about := f.signedIn("boss@example.com"), "/org/members/"+f.user("ada@example.com").ID.String()
		for query, want := range map[string]string{
			"?period=2026-12": "0 suggestions used There was no usage in this billing period, so the plan", "?period=2026-11": "1 suggestion used",
			"?period=2026-01": "8 suggestions used", "?period=2025-12": "before sign-up",
		} {
			got := admin.get(about + query)
			if text := got.main(); got.status != http.StatusOK || !strings.Contains(text, want) || !strings.Contains(got.body, `href="`+about+`"`) {
				t.Errorf("%s does not say %q:\n%s", query, want, text)
			}
		}
		// The months lead up to the period, also to one that is older than six months.
		if got := admin.get(about + "?period=2026-01").main(); !strings.Contains(got, "Aug 2025") || !strings.Contains(got, "Jan 2026 8 5") {
			t.Errorf("the months of January are %s", got)
		}
		f.person("stranger@example.com", "T2", models.Admin, false)
		if got := f.signedIn("stranger@example.com").get(about + "?period=2026-11"); got.status != http.StatusNotFound {
			t.Errorf("an admin of another organization gets %s", got.kind())
		}
		if got := f.signedIn("ada@example.com").get(about + "?period=2026-11"); got.status != http.StatusForbidden {
			t.Errorf("a member gets %s", got.kind())
		}
	})
}

// The periods of a subscription begin on its day. Their links select them, and a month selects the
// period that began in it.
func TestPastPeriodOfASubscription(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		start := time.Date(2026, 11, 13, 14, 25, 0, 0, time.UTC)
		f.post("/v1/consume", fmt.Sprintf(ada, 3, "before")).want(t, 200, nil)
		f.bought("ada@example.com", "pro", start, start.AddDate(0, 1, 0))
		f.post("/v1/consume", fmt.Sprintf(ada, 5, "in")).want(t, 200, nil)
		f.advance(start.AddDate(0, 1, 1).Sub(f.clock()))
		_, err := f.db.NewRaw("UPDATE subscriptions SET current_period_start = ?, current_period_end = ?", start.AddDate(0, 1, 0),
			start.AddDate(0, 2, 0)).Exec(context.Background())
		must(t, err)
		f.post("/v1/consume", fmt.Sprintf(ada, 2, "next")).want(t, 200, nil)
		browser := f.signedIn("ada@example.com")
		current := browser.get("/usage")
		link := `href="/usage?period=2026-11-13"`
		if !strings.Contains(current.body, link) {
			t.Fatalf("the page has no %s:\n%s", link, current.main())
		}
		var used []string
		for _, query := range []string{"?period=2026-11-13", "?period=2026-11"} {
			page := browser.get("/usage" + query)
			_, figure, _ := strings.Cut(page.main(), "How much was used? ")
			figure, _, _ = strings.Cut(figure, " used")
			used = append(used, figure)
			// The month of November has the record from before the subscription, too.
			if marked := strings.Contains(page.body, `aria-label="Nov 2026" aria-current="true"`); marked != (query == "?period=2026-11-13") {
				t.Errorf("%s marks a month: %t", query, marked)
			}
		}
		if got := browser.get("/usage?period=2026-12"); got.main() != current.main() {
			t.Errorf("the month in which the current period began is not the current page:\n%s", got.main())
		}
		if used[0] != "8 suggestions" || used[1] != used[0] {
			t.Errorf("the period has %q", used)
		}
	})
}
