package enforcement_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/enforcement"
	"tollgate/models/modelstest"
)

// TestEraseRemovesWhatIdentifiesAPerson searches all text columns of the schema.
func TestEraseRemovesWhatIdentifiesAPerson(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		m := f.markedPerson(t)
		before := f.markedColumns(t)
		if f.db.Postgres { // SQLite's IDs are text, too
			for _, c := range f.textColumns(t) {
				if name := c[0] + "." + c[1]; slices.Contains(before, name) == slices.Contains(namesNoOne, name) {
					t.Errorf("%s must either have a mark or be in namesNoOne", name)
				}
			}
		}
		f.clean(t)
		figures := f.figures(t, m.id)
		label, err := f.erasure().Run(f.ctx, markedEmail, m.id)
		must(t, err)
		if left := f.markedColumns(t); left != nil {
			t.Errorf("the mark is still in %q", left)
		}
		if after := f.figures(t, m.id); !slices.Equal(after, figures) {
			t.Errorf("the figures were\n%s\nand are now\n%s", strings.Join(figures, "\n"), strings.Join(after, "\n"))
		}
		f.clean(t)
		if want := m.id.String() + "@erased.invalid"; label != want {
			t.Errorf("the label is %q, want %q", label, want)
		}
		t.Run("nothing else is removed", func(t *testing.T) { f.checkOthers(t, m, label) })
		t.Run("the ledger goes on", func(t *testing.T) { f.checkLedger(t, m, label) })
	})
}

// checkOthers checks what an erasure leaves of other people's rows.
func (f *fixture) checkOthers(t *testing.T, m *marked, label string) {
	t.Helper()
	u, err := models.UserByLabel(f.ctx, f.db, label)
	must(t, err)
	if u.ErasedAt == nil || u.Name != "" || u.OrganizationID != nil || u.SlackUserID != nil {
		t.Errorf("the erased person is %+v", u)
	}
	var texts []string
	for _, query := range []string{
		`SELECT granted_by, reason FROM usage_grants WHERE user_id = ?`, `SELECT voided_by, reason FROM usage_voids WHERE user_id = ?`,
	} {
		texts = append(texts, f.rowsOf(t, query, m.bob)...)
	}
	want := []string{fmt.Sprint(label, "instead of "+label), fmt.Sprint(label, "for ("+label+").")}
	if !slices.Equal(texts, want) {
		t.Errorf("texts about Bob are %q, want %q", texts, want)
	}
	if keys := f.rowsOf(t, "SELECT idempotency_key FROM usage_events WHERE user_id = ?", m.bob); !slices.Equal(keys, []string{"b"}) {
		t.Errorf("Bob's keys are %q", keys)
	}
	erased := f.rowsOf(t, "SELECT subject, detail FROM audit_log WHERE action = 'user.erase'")
	if !slices.Equal(erased, []string{m.id.String() + " "}) && !slices.Equal(erased, []string{m.id.String()}) {
		t.Errorf("the audit log has %q", erased)
	}
	if n := f.rowsOf(t, "SELECT state FROM notices WHERE subject = ? AND state IN ('pending', 'delivering')", m.id); n != nil {
		t.Errorf("notices are still to be delivered: %q", n)
	}
	var n models.DueNotice
	must(t, f.db.NewSelect().Model(&n).Where("kind = ?", models.NoticeDigest).Scan(f.ctx))
	if n.Facts.Members[0].Name != "Bob" || n.Facts.Members[1].Name != label {
		t.Errorf("the daily summary has %+v", n.Facts.Members)
	}
	usage, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, f.now, m.acme)
	must(t, err)
	if usage.TotalUsers != 1 {
		t.Errorf("the organization has %d people, want only Bob", usage.TotalUsers)
	}
	// A second run changes nothing, whatever the address is.
	if again, err := f.erasure().Run(f.ctx, "other@example.com", m.id); err != nil || again != label {
		t.Errorf("a second run returned %q, %v", again, err)
	}
	if n := f.rowsOf(t, "SELECT id FROM audit_log WHERE action = 'user.erase'"); len(n) != 1 {
		t.Errorf("%d erasures in the audit log", len(n))
	}
}

// checkLedger checks that the erased person's usage can still be settled and voided, and that calls
// with the address concern a new person.
func (f *fixture) checkLedger(t *testing.T, m *marked, label string) {
	t.Helper()
	if _, err := models.ParseEmail(strings.ToUpper(label)); !errors.Is(err, models.ErrEmail) {
		t.Errorf("a call can name the label: %v", err)
	}
	settled, err := f.Settle(f.ctx, m.hold, 1)
	must(t, err)
	if s := settled.Standing; s.UserID != m.id || s.Email != label {
		t.Errorf("the hold was settled for %s, %s", s.UserID, s.Email)
	}
	voided, err := models.Void(f.ctx, f.db, f.catalogue, f.now, models.NewVoid{
		Actor: models.ActorShell, UserID: m.id, IdempotencyKey: m.event.String(), Reason: "wrong", Reported: true,
	})
	must(t, err)
	if voided.Void.EventID != m.event || voided.Void.Quantity != 4 {
		t.Errorf("voided %+v, want the event %s with 4 units", voided.Void, m.event)
	}
	for _, who := range []enforcement.Person{by(markedEmail), {Email: markedEmail, Slack: markedSlack}} {
		a, err := f.Consume(f.ctx, who, 4, "key-marked-2")
		must(t, err)
		if a.Standing.UserID == m.id || a.Standing.Used > 4 {
			t.Errorf("a retry with the address counts for %s: %+v", a.Standing.UserID, a)
		}
	}
	f.clean(t)
}

// TestErasureIsRefused checks that a refused erasure changes nothing.
func TestErasureIsRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme, err := models.CreateOrganization(f.ctx, f.db, f.now, "Acme", []string{"T1"})
		must(t, err)
		set := func(email string, change models.UserChange) uuid.UUID {
			u, err := models.SetUser(f.ctx, f.db, f.now, email, change)
			must(t, err)
			return u.ID
		}
		admin := set("admin@example.com", models.UserChange{OrganizationID: &acme.ID, Role: ptr(models.Admin)})
		member := set("member@example.com", models.UserChange{OrganizationID: &acme.ID})
		payer := set("payer@example.com", models.UserChange{})
		f.insert(t, &models.Subscription{ID: uuid.New(), UserID: &payer, PlanID: "pro", Status: models.StatusPastDue,
			StripeSubscriptionID: ptr("sub_1"), StripeCustomerID: ptr("cus_1"), CreatedAt: f.now, UpdatedAt: f.now})
		byHand := set("hand@example.com", models.UserChange{})
		_, err = models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: "hand@example.com"}, "pro")
		must(t, err)
		users := f.rowsOf(t, "SELECT * FROM users ORDER BY id")
		for _, test := range []struct {
			email string
			id    uuid.UUID
			part  string
			plan  bool // whether the preview says it, too
		}{
			{"admin@example.com", admin, "make another member an admin first", true},
			{"payer@example.com", payer, "the subscription sub_1 (plan pro), which has not ended: end it in Stripe first", true},
			{"hand@example.com", byHand, "end it first with tollgate subscription end ", true},
			{"member@example.com", payer, "the email belongs to another user now: " + member.String(), false},
			{"no one@example.com", member, "must be an email address", true},
			{"unknown@example.com", member, "No person has this email", false},
			{"member@example.com", uuid.New(), "unknown_user", false},
			{"", member, `"" must be an email address`, true},
			{member.String(), member, "must be an email address", true},
			// The label of a person who was not erased names no one.
			{member.String() + "@erased.invalid", member, "must be an email address", false},
			{member.String() + "@erased.invalid", payer, "must be an email address", false},
		} {
			_, err := f.erasure().Run(f.ctx, test.email, test.id)
			if err == nil || !strings.Contains(err.Error(), test.part) {
				t.Errorf("%s: %v, want %q", test.email, err, test.part)
			}
			if _, err := models.PlanErasure(f.ctx, f.db, test.email); test.plan && (err == nil || !strings.Contains(err.Error(), test.part)) {
				t.Errorf("the preview of %s: %v, want %q", test.email, err, test.part)
			}
		}
		if after := f.rowsOf(t, "SELECT * FROM users ORDER BY id"); !slices.Equal(after, users) {
			t.Errorf("users were\n%q\nand are\n%q", users, after)
		}
		if marks := f.rowsOf(t, "SELECT * FROM user_erasures"); marks != nil {
			t.Errorf("erasures have started: %q", marks)
		}
		// An admin who is alone may go.
		for _, one := range []struct {
			email string
			id    uuid.UUID
		}{{"member@example.com", member}, {"admin@example.com", admin}} {
			_, err := f.erasure().Run(f.ctx, one.email, one.id)
			must(t, err)
		}
		// The ID of an erased person with the address of someone else erases no one.
		if _, err := f.erasure().Run(f.ctx, "payer@example.com", member); err == nil ||
			!strings.Contains(err.Error(), "this person was erased before; the email belongs to another user now: "+payer.String()) {
			t.Errorf("an erased person with the address of another one: %v", err)
		}
		_, err = models.PlanErasure(f.ctx, f.db, payer.String()+"@erased.invalid")
		if err == nil || !strings.Contains(err.Error(), "unknown_user") {
			t.Errorf("the label of a person who was not erased: %v", err)
		}
		f.clean(t)
	})
}

// TestAnAddressThatWasUsedAgain erases a person whose earlier address belongs to someone else, and one
// whose address is used again before the erasure ends.
func TestAnAddressThatWasUsedAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		slack := models.SlackIdentity{TeamID: "T1", UserID: "U1"}
		a, err := f.Consume(f.ctx, enforcement.Person{Email: "old@example.com", Slack: slack}, 1, "a")
		must(t, err)
		id := a.Standing.UserID
		_, err = f.Consume(f.ctx, enforcement.Person{Email: "new@example.com", Slack: slack}, 1, "b")
		must(t, err)
		_, err = models.SetUser(f.ctx, f.db, f.now, "old@example.com", models.UserChange{Operator: ptr(true)})
		must(t, err)
		e := f.erasure()
		rests := 0
		e.Rest = func(context.Context, time.Duration) error {
			if rests++; rests == 1 { // the person is cut off
				f.now = f.now.Add(time.Minute)
				_, err := models.SetUser(f.ctx, f.db, f.now, "new@example.com", models.UserChange{Operator: ptr(true)})
				must(t, err)
			}
			return nil
		}
		label, err := e.Run(f.ctx, "new@example.com", id)
		must(t, err)
		if rests < 3 {
			t.Errorf("it rested %d times", rests)
		}
		subjects := f.rowsOf(t, "SELECT subject FROM audit_log WHERE action = 'user.set' ORDER BY at, id")
		want := []string{"old@example.com", label, "new@example.com"} // the second says that the person left
		if !slices.Equal(subjects, want) {
			t.Errorf("the audit log has %q, want %q", subjects, want)
		}
		if emails := f.rowsOf(t, "SELECT DISTINCT email FROM usage_events WHERE user_id = ?", id); !slices.Equal(emails, []string{label}) {
			t.Errorf("the events have %q", emails)
		}
	})
}

// TestEachTableIsInTheDocument checks that docs/erasure.md says what happens to each table.
func TestEachTableIsInTheDocument(t *testing.T) {
	document, err := os.ReadFile("../../docs/erasure.md")
	must(t, err)
	f := newFixture(t, modelstest.SQLite(t))
	tables := f.rowsOf(t, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'bun_%'")
	if len(tables) < 30 {
		t.Errorf("only %d tables", len(tables))
	}
	for _, table := range tables {
		if !strings.Contains(string(document), "`"+table+"`") {
			t.Errorf("docs/erasure.md does not say what happens to %s", table)
		}
	}
}
