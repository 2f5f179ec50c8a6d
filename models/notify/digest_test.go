package notify

import (
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/models"
)

// use stores a record of the current month for a member.
func (f *fixture) use(email string, used int64) {
	f.t.Helper()
	month := models.CalendarMonth(f.clock())
	id, err := models.EnsureUser(f.t.Context(), f.db, email, noon)
	must(f.t, err)
	r := &models.UsageRecord{UserID: id, Email: email, BillingPeriodStart: month.Start, BillingPeriodEnd: month.End, PlanID: "free",
		SuggestionsIncluded: 5, SuggestionsUsed: used, Entitled: true, CreatedAt: noon}
	_, err = f.db.NewInsert().Model(r).On("CONFLICT (user_id, billing_period_start) DO UPDATE").
		Set("suggestions_used = EXCLUDED.suggestions_used").Exec(f.t.Context())
	must(f.t, err)
}

func TestAdminsGetADailyDigest(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.person("ada@example.com", "T1", "U1")
		f.person("bob@example.com", "T1", "U2")
		f.person("eve@example.com", "T2", "U3")
		f.setRole("ada@example.com", models.Admin)
		mails := func(what string, wanted int) {
			t.Helper()
			f.drain(f.worker())
			want(t, what, len(f.smtp.list()), wanted)
		}
		tomorrow := func() { f.advance(24 * time.Hour) }
		f.use("bob@example.com", 3)
		f.use("eve@example.com", 5) // an organization without an admin
		mails("no member at a level", 0)
		f.use("bob@example.com", 4)
		f.now.Store(new(noon.Truncate(24 * time.Hour).Add(7 * time.Hour)))
		mails("before the hour", 0)
		f.now.Store(&noon)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { f.drain(f.worker()) })
		}
		all.Wait()
		mails("a member at a level, four workers", 1)
		text := mailParts(t, f.smtp.list()[0])["text/plain"]
		for _, wanted := range []string{
			"bob@example.com: 4 of 5 included suggestions used (warning)", "https://tollgate.example.com/org/members",
		} {
			if !strings.Contains(text, wanted) {
				t.Errorf("the mail has no %q: %s", wanted, text)
			}
		}
		f.use("bob@example.com", 5)
		mails("another level on the same day", 1)
		tomorrow()
		mails("another level on the next day", 2)
		tomorrow()
		mails("nothing changed", 2)
		tomorrow()
		f.use("ada@example.com", 6)
		mails("another member", 3)
		tomorrow()
		f.use("ada@example.com", 1)
		f.use("bob@example.com", 1)
		mails("no member at a level anymore", 3)
		tomorrow()
		f.use("ada@example.com", 6)
		f.use("bob@example.com", 5)
		mails("the same members", 3)
		for f.clock().Month() == noon.Month() {
			tomorrow()
		}
		f.use("ada@example.com", 6)
		f.use("bob@example.com", 5)
		mails("the same members in the next month", 4)
	})
}
