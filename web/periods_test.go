package web

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// bought stores what a webhook stores after a purchase.
func (f *fixture) bought(email string, plan models.PlanID, start, end time.Time) {
	f.t.Helper()
	ctx := context.Background()
	id, err := models.EnsureUser(ctx, f.db, email, f.clock())
	must(f.t, err)
	_, err = f.db.NewInsert().Model(&models.Subscription{
		ID: uuid.Must(uuid.NewV7()), UserID: &id, PlanID: plan, Status: "active", CurrentPeriodStart: &start, CurrentPeriodEnd: &end,
		BillingCycleAnchor: &start, CreatedAt: f.clock(), UpdatedAt: f.clock(),
	}).Exec(ctx)
	must(f.t, err)
}

// TestReadsShowThePeriodThatCounts changes people's billing periods without calls, and compares the
// period that a check, the usage and the history show with that of the next consume.
func TestReadsShowThePeriodThatCounts(t *testing.T) {
	const email = "ada@example.com"
	onBoth(t, func(t *testing.T, f *fixture) {
		periods := func() (lines []string) {
			t.Helper()
			a := f.get("/v1/usage/" + email + "/history")
			a.want(t, 200, nil)
			for _, p := range a.body["periods"].([]any) {
				p := p.(map[string]any)
				of := p["period"].(map[string]any)
				lines = append(lines, fmt.Sprintf("%v %v %v %v", of["start"], of["end"], p["plan"], p["used"]))
			}
			return lines
		}
		consume := func(key string, quantity int) answer {
			t.Helper()
			a := f.post("/v1/consume", fmt.Sprintf(`{"email": %q, "quantity": %d, "idempotency_key": %q}`, email, quantity, key))
			a.want(t, 200, map[string]any{"allowed": true})
			return a
		}
		// agree consumes one unit after the reads, and compares.
		agree := func(key string) {
			t.Helper()
			checked, usage := f.post("/v1/check", fmt.Sprintf(`{"email": %q}`, email)), f.get("/v1/usage/"+email)
			counted := consume(key, 1)
			for what, read := range map[string]answer{"a check": checked, "the usage": usage} {
				for _, name := range []string{"period", "plan", "included"} {
					if got, want := fmt.Sprint(read.body[name]), fmt.Sprint(counted.body[name]); got != want {
						t.Errorf("%s says %s %s, the consume after it %s", what, name, got, want)
					}
				}
				if read.number("used")+1 != counted.number("used") {
					t.Errorf("%s says %d used, the consume after it %d", what, read.number("used"), counted.number("used"))
				}
			}
		}
		want := func(lines ...string) {
			t.Helper()
			if got := fmt.Sprintf("%q", periods()); got != fmt.Sprintf("%q", lines) {
				t.Errorf("the history is %s, want %q", got, lines)
			}
		}
		consume("a", 3)
		f.advance(time.Second)
		start := f.clock()
		end := start.AddDate(0, 1, 0)
		f.bought(email, "pro", start, end)
		stamp := func(at time.Time) string { return at.Format(time.RFC3339) }
		month := "2026-11-01T00:00:00Z " + stamp(start) + " free 3"
		want(month)
		agree("b")
		want(stamp(start)+" "+stamp(end)+" pro 1", month)

		// It ends with its period.
		f.advance(end.Sub(start) + time.Second)
		_, err := f.db.NewRaw("UPDATE subscriptions SET status = 'canceled', inactive_since = current_period_end").Exec(context.Background())
		must(t, err)
		want(stamp(start)+" "+stamp(end)+" pro 1", month)
		agree("c")
		want(stamp(end)+" 2027-01-01T00:00:00Z free 1", stamp(start)+" "+stamp(end)+" pro 1", month)
	})
}
