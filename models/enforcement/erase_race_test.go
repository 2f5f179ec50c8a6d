package enforcement_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// TestErasureReachesOtherProcesses erases people whom another gate remembers.
func TestErasureReachesOtherProcesses(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme, err := models.CreateOrganization(f.ctx, f.db, f.now, "Acme", []string{"T1"})
		must(t, err)
		for _, email := range []string{"admin@example.com", "boss@example.com"} {
			_, err := models.SetUser(f.ctx, f.db, f.now, email, models.UserChange{OrganizationID: &acme.ID, Role: ptr(models.Admin)})
			must(t, err)
		}
		there := f.another(t, 100)
		for i, who := range []enforcement.Person{
			by("ada@example.com"),
			{Email: "bob@example.com", Slack: models.SlackIdentity{TeamID: "T1", UserID: "UB"}},
			// An admin without an identity is known only by the address.
			{Email: "boss@example.com", Slack: models.SlackIdentity{TeamID: "T1", UserID: "UBOSS"}},
		} {
			var id uuid.UUID
			for n := range 3 {
				a, err := there.Consume(f.ctx, who, 1, fmt.Sprint("before", n))
				must(t, err)
				id = a.Standing.UserID
			}
			before := f.figures(t, id)
			_, err := f.erasure().Run(f.ctx, who.Email, id)
			must(t, err)
			for n := range 3 {
				a, err := there.Consume(f.ctx, who, 1, fmt.Sprint("after", n))
				must(t, err)
				if a.Standing.UserID == id || a.Standing.Used != int64(n+1) {
					t.Errorf("%d: call %d after the erasure counts for %s with %d used; erased is %s", i, n, a.Standing.UserID, a.Standing.Used, id)
				}
				checked, err := there.Check(f.ctx, who, 1)
				must(t, err)
				if checked.Standing.UserID == id {
					t.Errorf("%d: a check is about the erased person", i)
				}
			}
			if after := f.figures(t, id); !slices.Equal(after, before) {
				t.Errorf("%d: the figures were\n%q\nand are\n%q", i, before, after)
			}
		}
		f.clean(t)
	})
}

// TestASignInDuringAnErasure stores what a sign-in that was under way may still store.
func TestASignInDuringAnErasure(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		m := f.markedPerson(t)
		e := f.erasure()
		e.Rest = func(context.Context, time.Duration) error {
			return models.SaveSession(f.ctx, f.db, f.now, []byte(fmt.Sprint("late", uuid.New())), m.id, "Browser of marked", []byte{})
		}
		_, err := e.Run(f.ctx, markedEmail, m.id)
		must(t, err)
		// The last step deleted all sessions but the one that the last rest stored, which is not valid.
		hashes := f.rowsOf(t, "SELECT CAST(token_hash AS text) FROM sessions WHERE user_id = ?", m.id)
		if len(hashes) != 1 {
			t.Errorf("%d sessions are left, want the one after the last step", len(hashes))
		}
		must(t, models.SaveSession(f.ctx, f.db, f.now, []byte("last"), m.id, "", []byte{}))
		if v, _, err := models.FindSession(f.ctx, f.db, f.now, []byte("last")); v != nil || err != nil {
			t.Errorf("a session of the erased person shows %+v, %v", v, err)
		}
		// The same identities belong to new people.
		p, err := models.SignInBySlack(f.ctx, f.db, f.now, markedSlack, markedEmail, "Marked Person")
		must(t, err)
		q, err := models.SignInByIssuer(f.ctx, f.db, f.now, models.IssuerIdentity{Issuer: "https://issuer.example.com", Subject: "sub-marked"},
			markedEmail, "Marked Person")
		must(t, err)
		if p.UserID == m.id || q.UserID != p.UserID {
			t.Errorf("signed in as %s and %s; the erased person is %s", p.UserID, q.UserID, m.id)
		}
	})
}

// TestAnInterruptedErasureContinues ends an erasure after each of its steps, and runs it again.
func TestAnInterruptedErasureContinues(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		m := f.markedPerson(t)
		figures := f.figures(t, m.id)
		stopped := errors.New("stopped")
		for after := 1; ; after++ {
			e := f.erasure()
			n := 0
			e.Rest = func(context.Context, time.Duration) error {
				if n++; n == after%3+1 { // other steps, each time
					return stopped
				}
				return nil
			}
			email := markedEmail
			if after > 1 { // the person has no address anymore
				email = "anyone@example.com"
				plan, err := models.PlanErasure(f.ctx, f.db, m.id.String()+"@erased.invalid")
				must(t, err)
				if !plan.Started {
					t.Errorf("after %d runs, the preview does not say that it started", after)
				}
			}
			_, err := e.Run(f.ctx, email, m.id)
			if after > 100 {
				t.Fatal("it does not end")
			}
			if errors.Is(err, stopped) {
				if marks := f.rowsOf(t, "SELECT user_id FROM user_erasures"); len(marks) == 0 {
					break // it was the last step
				}
				f.clean(t)
				continue
			}
			must(t, err)
			break
		}
		if left := f.markedColumns(t); left != nil {
			t.Errorf("the mark is still in %q", left)
		}
		if after := f.figures(t, m.id); !slices.Equal(after, figures) {
			t.Errorf("the figures were\n%q\nand are\n%q", figures, after)
		}
		if n := f.rowsOf(t, "SELECT id FROM audit_log WHERE action = 'user.erase'"); len(n) != 1 {
			t.Errorf("%d erasures in the audit log", len(n))
		}
	})
}

// TestTwoErasuresAtOnce erases the same person from two processes. Both succeed, and one writes the
// entry of the audit log.
func TestTwoErasuresAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		m := f.markedPerson(t)
		figures := f.figures(t, m.id)
		start, done := make(chan struct{}), make(chan error)
		for range 2 {
			go func() {
				<-start
				_, err := f.erasure().Run(f.ctx, markedEmail, m.id)
				done <- err
			}()
		}
		close(start)
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		// The first erasure ends just before the second one cuts the person off.
		n := f.markedPersonAgain(t)
		hook := &afterQuery{part: `FROM "usage_voids"`, do: func() {
			_, err := f.erasure().Run(f.ctx, markedEmail, n)
			must(t, err)
		}}
		second := f.erasure()
		second.DB = &models.DB{}
		*second.DB = *f.db
		second.DB.DB = f.db.WithQueryHook(hook)
		if _, err := second.Run(f.ctx, markedEmail, n); err != nil || !hook.done {
			t.Errorf("the second erasure: %v, %v", err, hook.done)
		}
		if left := f.markedColumns(t); left != nil {
			t.Errorf("the mark is still in %q", left)
		}
		if after := f.figures(t, m.id); !slices.Equal(after, figures) {
			t.Errorf("the figures were\n%q\nand are\n%q", figures, after)
		}
		if entries := f.rowsOf(t, "SELECT id FROM audit_log WHERE action = 'user.erase'"); len(entries) != 2 {
			t.Errorf("%d erasures in the audit log, want one per person", len(entries))
		}
		f.clean(t)
	})
}

// TestAnAddressThatChangesDuringAnErasure gives the person another address and name after the erasure
// has read what identifies them.
func TestAnAddressThatChangesDuringAnErasure(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		who := enforcement.Person{Email: "first@example.com", Slack: markedSlack}
		a, err := f.Consume(f.ctx, who, 1, "a")
		must(t, err)
		id := a.Standing.UserID
		hook := &afterQuery{part: `FROM "usage_voids"`, do: func() {
			who.Email = markedEmail
			_, err := f.Consume(f.ctx, who, 1, "b")
			must(t, err)
			_, err = models.SignInBySlack(f.ctx, f.db, f.now, markedSlack, markedEmail, "Marked Person")
			must(t, err)
			_, err = models.CreateSignInLink(f.ctx, f.db, f.now, markedEmail)
			must(t, err)
		}}
		e := f.erasure()
		e.DB = &models.DB{}
		*e.DB = *f.db
		e.DB.DB = f.db.WithQueryHook(hook)
		_, err = e.Run(f.ctx, markedEmail, id)
		must(t, err)
		if !hook.done {
			t.Fatal("nothing changed in the meantime")
		}
		if left := f.markedColumns(t); left != nil {
			t.Errorf("the mark is still in %q", left)
		}
		f.clean(t)
	})
}

// TestAFormDuringAnErasure stores an entry of the audit log just after the person was cut off, as a form
// that was under way does.
func TestAFormDuringAnErasure(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		id := f.markedPersonAgain(t)
		e := f.erasure()
		late := false
		e.Rest = func(context.Context, time.Duration) error {
			if late {
				return nil
			}
			late = true
			f.now = f.now.Add(time.Second)
			return models.Audit(f.ctx, f.db, f.now, markedEmail, "apikey.revoke", uuid.NewString(), "by marked@example.com")
		}
		_, err := e.Run(f.ctx, markedEmail, id)
		must(t, err)
		if left := f.markedColumns(t); left != nil || !late {
			t.Errorf("the mark is still in %q", left)
		}
	})
}

// TestANoticeThatIsBeingSentDuringAnErasure lets another process store the answer of a mail server.
func TestANoticeThatIsBeingSentDuringAnErasure(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		m := f.markedPerson(t)
		f.exec(t, "UPDATE notice_deliveries SET state = 'sending', leased_until = ?, last_error = '' WHERE channel = 'mail'",
			f.now.Add(time.Minute))
		done := make(chan error)
		go func() {
			_, err := f.erasure().Run(f.ctx, markedEmail, m.id)
			done <- err
		}()
		sending := []string{"notice_attempts.detail"} // everything else is removed before
		for !slices.Equal(f.markedColumns(t), append(sending, "user_erasures.texts")) {
			select {
			case err := <-done:
				t.Fatalf("the erasure did not wait: %v", err)
			default:
			}
		}
		f.exec(t, `UPDATE notice_deliveries SET state = 'failed', leased_until = NULL, last_error = '550 marked@example.com'
			WHERE channel = 'mail'`)
		must(t, <-done)
		if left := f.markedColumns(t); left != nil {
			t.Errorf("the mark is still in %q", left)
		}
	})
}

// TestRetentionDuringAnErasure deletes old events while their person is erased.
func TestRetentionDuringAnErasure(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		var id uuid.UUID
		for month := range 3 {
			f.now = time.Date(2024, time.Month(1+month), 10, 12, 0, 0, 0, time.UTC)
			for i := range 20 {
				a, err := f.Consume(f.ctx, by(markedEmail), 1, fmt.Sprintf("key-marked-%d-%d", month, i))
				must(t, err)
				id = a.Standing.UserID
			}
		}
		f.consume(t, "bob@example.com", 1, "b")
		const records = "SELECT id, suggestions_used, daily FROM usage_records WHERE user_id = ? ORDER BY id"
		used := f.rowsOf(t, records, id)
		f.now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		f.consume(t, "bob@example.com", 1, "c") // retention believes the clock only near the newest event
		keep, err := models.ParseKeepEvents("400d")
		must(t, err)
		deleted, done := models.Deletions{}, make(chan error)
		go func() {
			r := models.Retention{DB: f.db, Catalogue: f.catalogue, Keep: keep,
				Clock: func(context.Context) (time.Time, error) { return f.now, nil }}
			var err error
			deleted, err = r.Pass(f.ctx)
			done <- err
		}()
		_, err = f.erasure().Run(f.ctx, markedEmail, id)
		must(t, err)
		must(t, <-done)
		if deleted["usage_events"] == 0 {
			t.Errorf("nothing was deleted: %s", deleted)
		}
		if left := f.markedColumns(t); left != nil {
			t.Errorf("the mark is still in %q", left)
		}
		if after := f.rowsOf(t, records, id); !slices.Equal(after, used) {
			t.Errorf("the records were\n%q\nand are\n%q", used, after)
		}
		f.clean(t)
	})
}
