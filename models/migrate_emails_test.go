package models_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"tollgate/models"
)

const normalizeEmails = "20261128040000"

// forget makes a migration run again at the next start.
func (f *fixture) forget(t *testing.T, migration string) {
	t.Helper()
	f.exec(t, `DELETE FROM bun_migrations WHERE name = ?`, migration)
}

func (f *fixture) emails(t *testing.T, table string) []string {
	t.Helper()
	var emails []string
	if err := f.db.NewSelect().TableExpr(table).Column("email").Order("email").Scan(f.ctx, &emails); err != nil {
		t.Fatal(err)
	}
	return emails
}

// An earlier release stored addresses as given, in lowercase. The person keeps the usage under the
// normalized address.
func TestStoredEmailsAreNormalized(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const old, normal = "a\u0308da@exämple.com", "äda@xn--exmple-cua.com"
		keys := []models.RecordKey{{Email: old, At: noon}, {Email: "bob@example.com", At: noon}}
		if err := models.PrepareRecords(f.ctx, f.db, f.catalogue, noon, keys); err != nil {
			t.Fatal(err)
		}
		key := "k1"
		f.insert(t, &models.UsageEvent{
			ID: uuid.New(), UserID: f.user(t, old), RecordID: 1, Email: old, Quantity: 1, IdempotencyKey: &key, OccurredAt: noon, RecordedAt: noon,
			Figures: models.Figures{PlanID: "free", BillingPeriodStart: noon, BillingPeriodEnd: noon.AddDate(0, 1, 0)},
		})
		f.forget(t, normalizeEmails)
		names, err := f.db.Migrate(f.ctx)
		if err != nil || !slices.Equal(names, []string{normalizeEmails + "_normalize_emails"}) {
			t.Fatalf("applied %q, %v", names, err)
		}
		for _, table := range []string{"users", "usage_records"} {
			if got := f.emails(t, table); !slices.Equal(got, []string{"bob@example.com", normal}) {
				t.Errorf("%s has %q", table, got)
			}
		}
		if got := f.emails(t, "usage_events"); !slices.Equal(got, []string{normal}) {
			t.Errorf("usage_events has %q", got)
		}
	})
}

// Two people whose addresses have the same normal form are listed, and nothing is changed.
func TestEmailsThatCollideStopTheMigration(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		given := []string{"a\u0308da@example.com", "äda@example.com", "bob@exa\u0308mple.com", "bob@exämple.com", "eve@exämple.com"}
		for _, email := range given {
			f.insert(t, &models.User{ID: uuid.New(), Email: email, Role: models.Member, CreatedAt: noon})
		}
		f.forget(t, normalizeEmails)
		_, err := f.db.Migrate(f.ctx)
		if err == nil {
			t.Fatal("the migration succeeded")
		}
		for _, want := range []string{`"äda@example.com" is the normal form of ["äda@example.com" "äda@example.com"]`,
			`"bob@xn--exmple-cua.com" is the normal form of`} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the error does not say %s: %v", want, err)
			}
		}
		if strings.Contains(err.Error(), "eve@") {
			t.Errorf("the error names a person whose address is unique: %v", err)
		}
		slices.Sort(given)
		if got := f.emails(t, "users"); !slices.Equal(got, given) {
			t.Errorf("users has %q, want %q", got, given)
		}
	})
}
