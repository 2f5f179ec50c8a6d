package demo_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/modelstest"
	"tollgate/web/demo"
)

func TestMain(m *testing.M) { modelstest.Main(m, models.Open) }

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, address string) *models.DB {
	t.Helper()
	db, err := models.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func catalogue(t *testing.T) *models.Catalogue {
	t.Helper()
	c, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func seed(t *testing.T, db *models.DB, now time.Time) {
	t.Helper()
	if made, err := demo.Seed(t.Context(), db, catalogue(t), now); err != nil || !made {
		t.Fatalf("made %v, %v", made, err)
	}
}

// seeded is a database that is seeded once, at noon, and copied by tests: under the race detector,
// seeding takes seconds.
var seeded struct {
	sync.Once
	content []byte
	err     error
}

// atNoon opens a copy of the database that was seeded at noon.
func atNoon(t *testing.T) *models.DB {
	t.Helper()
	seeded.Do(func() {
		file := filepath.Join(t.TempDir(), "seeded.db")
		db, err := models.Open(t.Context(), "sqlite:"+file)
		if err != nil {
			seeded.err = err
			return
		}
		_, err = demo.Seed(t.Context(), db, catalogue(t), noon)
		// Closing the last connection writes all of the log into the file.
		if seeded.err = errors.Join(err, db.Close()); seeded.err == nil {
			seeded.content, seeded.err = os.ReadFile(file)
		}
	})
	if seeded.err != nil {
		t.Fatal(seeded.err)
	}
	file := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(file, seeded.content, 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, "sqlite:"+file)
}

// rows returns a table's rows as lines of JSON, in the order of the key.
func rows[T any](t *testing.T, db *models.DB) []string {
	t.Helper()
	var all []T
	if err := db.NewSelect().Model(&all).Order("id").Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := make([]string, len(all))
	for i := range all {
		line, err := json.Marshal(all[i])
		if err != nil {
			t.Fatal(err)
		}
		// The two databases write UTC differently.
		lines[i] = strings.ReplaceAll(string(line), "+00:00", "Z")
	}
	return lines
}

func everything(t *testing.T, db *models.DB) []string {
	t.Helper()
	return slices.Concat(rows[models.Organization](t, db), rows[models.Workspace](t, db), rows[models.User](t, db),
		rows[models.Subscription](t, db), rows[models.UsageRecord](t, db), rows[models.UsageEvent](t, db))
}

// The same time makes the same rows, in every database of both kinds.
func TestSeedIsTheSameEachTime(t *testing.T) {
	want := everything(t, atNoon(t))
	if len(want) < 10_000 {
		t.Errorf("only %d rows", len(want))
	}
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		t.Parallel()
		db := open(t, address)
		seed(t, db, noon)
		got := everything(t, db)
		if len(got) != len(want) {
			t.Fatalf("%d rows, want %d", len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("row %d is\n%s, want\n%s", i, got[i], want[i])
			}
		}
	})
}

// On any day, the gate could have recorded the history.
func TestSeedVerifies(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T) (*models.DB, time.Time){
		"in the middle of a month": func(t *testing.T) (*models.DB, time.Time) { return atNoon(t), noon },
		"on the first instant of a year": func(t *testing.T) (*models.DB, time.Time) {
			db, now := open(t, modelstest.SQLite(t)), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
			seed(t, db, now)
			return db, now
		},
		"on a leap day": func(t *testing.T) (*models.DB, time.Time) {
			db, now := open(t, modelstest.SQLite(t)), time.Date(2028, 2, 29, 23, 59, 59, 999_999_000, time.UTC)
			seed(t, db, now)
			return db, now
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, now := prepare(t)
			if err := models.Verify(t.Context(), db, func(d models.Difference) { t.Error(d) }); err != nil {
				t.Fatal(err)
			}
			replay(t, db)
			isPrepared(t, db, now)
		})
	}
}

// isPrepared fails if a decision would change the figures of a current record before it uses the
// record.
func isPrepared(t *testing.T, db *models.DB, now time.Time) {
	t.Helper()
	before := readRecords(t, db)
	var wants []models.RecordKey
	for _, r := range before {
		if r.Period().Contains(now) {
			wants = append(wants, models.RecordKey{Email: r.Email, At: now})
		}
	}
	if len(wants) == 0 {
		return
	}
	if err := models.PrepareRecords(t.Context(), db, catalogue(t), now, wants); err != nil {
		t.Fatal(err)
	}
	after := readRecords(t, db)
	for i, want := range before {
		want.Entitled = after[i].Entitled
		if got := after[i]; !reflect.DeepEqual(got, want) {
			t.Fatalf("a record became\n%+v, was\n%+v", got, want)
		}
	}
}

// replay decides each event again, in order, and compares the stored figures.
func replay(t *testing.T, db *models.DB) {
	t.Helper()
	var events []models.UsageEvent
	if err := db.NewSelect().Model(&events).Order("occurred_at", "id").Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	used := map[int64]*models.Standing{}
	for _, e := range events {
		s := used[e.RecordID]
		if s == nil {
			s = &models.Standing{}
			used[e.RecordID] = s
		}
		s.Included, s.OverageRateCents, s.SpendLimitCents = e.Included, e.OverageRateCents, e.SpendLimitCents
		verdict := models.Decide(*s, e.Quantity)
		if !verdict.Allowed || verdict.Overage != e.OverageQuantity || verdict.OverageCents != e.OverageCents {
			t.Fatalf("%+v would have been %+v at %+v", e, verdict, s)
		}
		s.Add(e.Quantity, verdict)
		if e.UsedAfter != s.Used || e.OverageAfter != s.Overage || e.OverageCentsAfter != s.OverageCents {
			t.Fatalf("%+v counts %+v", e, s)
		}
		if period := (models.Period{Start: e.BillingPeriodStart, End: e.BillingPeriodEnd}); !period.Contains(e.OccurredAt) {
			t.Fatalf("%+v is not in its period", e)
		}
	}
}

func TestSeedIsVaried(t *testing.T) {
	db := atNoon(t)
	c := catalogue(t)

	entries, err := models.ListOrganizations(t.Context(), db, c)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(entries, func(e models.OrganizationEntry) bool { return e.PlanID == "business" })
	if i < 0 || entries[i].Members != 42 || entries[i].Teams != 2 {
		t.Fatalf("organizations %+v", entries)
	}
	usage, err := models.OrganizationUsage(t.Context(), db, c, noon, entries[i].ID)
	if err != nil {
		t.Fatal(err)
	}
	if usage.TopUsers[0].WarningLevel != models.Exceeded || usage.TopUsers[9].WarningLevel != models.Safe ||
		usage.ActiveUsers >= usage.TotalUsers {
		t.Errorf("the organization's month is %+v", usage)
	}

	var events []models.UsageEvent
	if err := db.NewSelect().Model(&events).Order("occurred_at").Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, last, plans := map[string]time.Time{}, map[string]time.Time{}, map[models.PlanID]bool{}
	months, weekend, week := map[string]int64{}, int64(0), int64(0)
	for _, e := range events {
		if _, ok := first[e.Email]; !ok {
			first[e.Email] = e.OccurredAt
		}
		last[e.Email] = e.OccurredAt
		plans[e.PlanID] = true
		months[e.OccurredAt.UTC().Format("2006-01")] += e.Quantity
		if day := e.OccurredAt.UTC().Weekday(); day == time.Saturday || day == time.Sunday {
			weekend += e.Quantity
		} else {
			week += e.Quantity
		}
		if !e.OccurredAt.Before(noon) {
			t.Fatalf("an event is in the future: %+v", e)
		}
	}
	if len(months) != 7 || len(plans) != 5 {
		t.Errorf("months %v, plans %v", months, plans)
	}
	if weekend*40 < week || weekend*5 > week { // weekends are quiet: two of seven days have less than a fifth of the other five
		t.Errorf("%d units on weekends and %d on other days", weekend, week)
	}
	newcomers, leavers := 0, 0
	for email := range first {
		if noon.Sub(first[email]) < 30*24*time.Hour {
			newcomers++
		}
		if noon.Sub(last[email]) > 60*24*time.Hour {
			leavers++
		}
	}
	if newcomers != 1 || leavers != 1 {
		t.Errorf("%d newcomers and %d leavers, want one of each", newcomers, leavers)
	}
	over := 0
	for _, r := range readRecords(t, db) {
		if r.SuggestionsUsed > r.SuggestionsIncluded {
			over++
		}
		if r.PlanID == models.FreePlan && r.SuggestionsUsed > r.SuggestionsIncluded {
			t.Errorf("a record of the free plan is over its limit: %+v", r)
		}
	}
	if over < 10 {
		t.Errorf("only %d records are over their limit", over)
	}
}

func readRecords(t *testing.T, db *models.DB) []models.UsageRecord {
	t.Helper()
	var records []models.UsageRecord
	if err := db.NewSelect().Model(&records).Order("id").Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	return records
}

func TestSecondSeedChangesNothing(t *testing.T) {
	db := atNoon(t)
	before := everything(t, db)
	made, err := demo.Seed(t.Context(), db, catalogue(t), noon.AddDate(0, 2, 0))
	if err != nil || made {
		t.Fatalf("made %v, %v", made, err)
	}
	if !slices.Equal(everything(t, db), before) {
		t.Error("the rows changed")
	}
}

// Seed adds nothing to a database that has other data.
func TestSeedNeedsAnEmptyDatabase(t *testing.T) {
	for name, use := range map[string]func(*models.DB) error{
		"a person": func(db *models.DB) error {
			_, err := models.SetUser(context.Background(), db, noon, "ada@example.com", models.UserChange{})
			return err
		},
		"an organization": func(db *models.DB) error {
			_, err := models.CreateOrganization(context.Background(), db, noon, "Real", nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := open(t, modelstest.SQLite(t))
			if err := use(db); err != nil {
				t.Fatal(err)
			}
			before := everything(t, db)
			if made, err := demo.Seed(t.Context(), db, catalogue(t), noon); !errors.Is(err, demo.ErrNotEmpty) || made {
				t.Errorf("made %v, %v", made, err)
			}
			if !slices.Equal(everything(t, db), before) {
				t.Error("the rows changed")
			}
		})
	}
}

// Other plan catalogs work, too.
func TestSeedOtherPlans(t *testing.T) {
	for name, src := range map[string]string{
		"only free": "",
		"a large and a paid one": `
  - {id: vast, name: Vast, type: team, description: d, base_price_cents: 1, included: 1000000000, overage_rate_cents: 5,
     features: [], call_to_action: c}
  - {id: metered, name: Metered, type: individual, description: d, base_price_cents: 0, included: 0, overage_rate_cents: 5,
     features: [], call_to_action: c}`,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := models.ParseCatalogue("plans.yaml", []byte(`unit: {singular: reply, plural: replies}
currency: eur
meter_event_name: replies
plans:
  - {id: free, name: Free, type: individual, description: d, base_price_cents: 0, included: 3, overage_rate_cents: 0,
     features: [], call_to_action: c}`+src))
			if err != nil {
				t.Fatal(err)
			}
			db := open(t, modelstest.SQLite(t))
			if made, err := demo.Seed(t.Context(), db, c, noon); err != nil || !made {
				t.Fatalf("made %v, %v", made, err)
			}
			if err := models.Verify(t.Context(), db, func(d models.Difference) { t.Error(d) }); err != nil {
				t.Fatal(err)
			}
			if n := len(readRecords(t, db)); n < 100 {
				t.Errorf("%d records", n)
			}
		})
	}
}
