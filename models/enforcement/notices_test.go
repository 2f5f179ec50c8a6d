package enforcement_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// notices returns the stored notices, those that will be delivered with a star.
func (f *fixture) notices(t *testing.T) string {
	t.Helper()
	var rows []models.DueNotice
	must(t, f.db.NewSelect().Model(&rows).Scan(f.ctx))
	var texts []string
	for _, n := range rows {
		text := string(n.Kind)
		if n.Threshold > 0 {
			text += fmt.Sprint(" ", n.Threshold)
		}
		if n.State == models.NoticePending {
			text += "*"
		}
		texts = append(texts, fmt.Sprintf("%s at %d", text, n.Facts.Used))
	}
	slices.Sort(texts)
	return strings.Join(texts, ", ")
}

func (f *fixture) wantNotices(t *testing.T, what, want string) {
	t.Helper()
	if got := f.notices(t); got != want {
		t.Errorf("%s: the notices are %q, want %q", what, got, want)
	}
	f.exec(t, "DELETE FROM notices")
}

// The transaction of a decision stores its notices. Of several, only the most important one is to be
// delivered. Holds reach nothing before they are settled.
func TestNoticesOfDecisions(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		_, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: ada}, "pro") // 75 units, $0.30
		must(t, err)
		f.consume(t, ada, 59, "a")
		f.wantNotices(t, "59 of 75", "")
		f.consume(t, ada, 17, "b")
		f.wantNotices(t, "from 59 to 76 of 75", "first_overage* at 76, included 100 at 76, included 80 at 76, included 95 at 76")

		user, err := models.UserByEmail(f.ctx, f.db, ada)
		must(t, err)
		limit := func(cents int64) {
			t.Helper()
			must(t, models.SetSpendLimit(f.ctx, f.db, f.catalogue, f.now, models.ActorShell, user.ID, &cents))
		}
		limit(100)
		h, err := f.Hold(f.ctx, by(ada), 2, "h", time.Minute)
		must(t, err)
		f.wantNotices(t, "all but 10 cents are on hold", "")
		_, err = f.Settle(f.ctx, h.Hold.ID, 2)
		must(t, err)
		f.wantNotices(t, "the settled hold reaches the limit", "spend_limit* at 78")
		f.consume(t, ada, 1, "refused")
		f.wantNotices(t, "a refusal", "")
		limit(130)
		f.consume(t, ada, 1, "c")
		f.wantNotices(t, "the raised limit", "spend_limit* at 79")
		limit(1000)
		f.consume(t, ada, 1, "d")
		f.wantNotices(t, "far from the limit", "")
		limit(90)
		f.consume(t, ada, 1, "e") // the record is prepared before it is decided
		f.wantNotices(t, "a limit below the use", "spend_limit* at 80")

		// Usage of an ended period notifies no one; recorded usage of the current one does.
		f.now = time.Date(2026, 12, 2, 12, 0, 0, 0, time.UTC)
		past := func(key string, units int64, at time.Time) {
			t.Helper()
			_, err := f.Record(f.ctx, []enforcement.PastEvent{{Person: by(ada), Quantity: units, IdempotencyKey: key, OccurredAt: at}})
			must(t, err)
		}
		past("late", 50, f.now.AddDate(0, 0, -4))
		f.wantNotices(t, "late usage", "")
		past("now", 72, f.now)
		f.wantNotices(t, "recorded usage", "included 80 at 72, included 95* at 72")
		_, err = models.Void(f.ctx, f.db, f.catalogue, f.now, models.NewVoid{
			Actor: models.ActorShell, Email: ada, IdempotencyKey: "now", Reason: "by mistake",
		})
		must(t, err)
	})
}

// Processes that decide at once, and retries, store each notice once.
func TestNoticesAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		_, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: ada}, "pro")
		must(t, err)
		gates := []*enforcement.Gate{f.Gate, f.another(t, 4096), f.another(t, 4096)}
		var wg sync.WaitGroup
		for w := range 12 {
			wg.Go(func() {
				for i := range 7 {
					key := fmt.Sprint("k", w, "-", i)
					for n := range 2 {
						if _, err := gates[(w+n)%len(gates)].Consume(f.ctx, by(ada), 1, key); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		f.wantNotices(t, "84 of 75", "first_overage* at 76, included 100* at 75, included 80* at 60, included 95* at 72")
		f.clean(t)
	})
}

// The notice that the included units are used says so if the organization's limit pauses extra ones,
// also if the gate remembers the member's record.
func TestANoticeKnowsTheOrganizationsLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada, bob := l.member("ada"), l.member("bob")
		l.spendLimit(new(int64(30))) // a unit costs 30 cents
		f.consume(t, ada, included+1, "a")
		f.exec(t, "DELETE FROM notices")
		f.consume(t, bob, 1, "b")
		for n := range included - 1 {
			f.consume(t, bob, 1, fmt.Sprint("b", n))
		}
		var rows []models.DueNotice
		must(t, f.db.NewSelect().Model(&rows).Where("threshold = 100").Scan(f.ctx))
		if len(rows) != 1 || rows[0].Facts.NextRefusal != models.OrganizationSpendLimitReached {
			t.Errorf("the notices are %+v", rows)
		}
	})
}

// The admins of an organization are notified once of each limit that its members reach.
func TestNoticeOfAnOrganizationsLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada, bob := l.member("ada"), l.member("bob")
		l.spendLimit(new(int64(100))) // a unit costs 30 cents
		note := func(what, want string) {
			t.Helper()
			for range 2 {
				must(t, models.NoteOrganizationLimits(f.ctx, f.db, f.catalogue, f.now))
			}
			var rows []models.DueNotice
			must(t, f.db.NewSelect().Model(&rows).Where("subject_kind = ?", models.SubjectOrganization).Order("created_at").Scan(f.ctx))
			var texts []string
			for _, n := range rows {
				texts = append(texts, fmt.Sprintf("%s %d of %d", n.Kind, n.Facts.OrganizationSpendCents, *n.Facts.OrganizationLimitCents))
			}
			if got := strings.Join(texts, ", "); got != want {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		f.consume(t, ada, included+2, "a")
		note("60 of 100 cents", "")
		f.consume(t, bob, included+1, "b")
		note("90 of 100 cents", "organization_spend_limit 90 of 100")
		f.now = f.now.Add(time.Minute)
		l.spendLimit(new(int64(120)))
		note("the raised limit", "organization_spend_limit 90 of 100")
		f.consume(t, bob, 1, "c")
		note("120 of 120 cents", "organization_spend_limit 90 of 100, organization_spend_limit 120 of 120")
	})
}
