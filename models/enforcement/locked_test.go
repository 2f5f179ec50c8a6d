package enforcement_test

import (
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/enforcement"
	"tollgate/models/modelstest"
)

// lock creates a person whose row another program's session keeps locked until the returned
// function is called.
func (f *fixture) lock(t *testing.T, email string) (free func()) {
	t.Helper()
	f.exec(t, "INSERT INTO users (id, email, created_at) VALUES ('00000000-0000-7000-8000-000000000001', ?, ?)", email, f.now)
	other, err := sql.Open("pgx",
		f.db.URL+"&search_path=public&statement_timeout=0&lock_timeout=0&idle_in_transaction_session_timeout=0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	tx, err := other.BeginTx(f.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(f.ctx, "SELECT 1 FROM users FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLockedPersonBlocksNoOneElse locks one person's row in another session while many new people
// arrive, some of them to be linked. Calls for that person get a 503 with Retry-After. All other
// calls are decided.
func TestLockedPersonBlocksNoOneElse(t *testing.T) {
	f := newFixture(t, modelstest.Postgres(t))
	free := f.lock(t, "ada@example.com")
	slack := func(user string) models.SlackIdentity { return models.SlackIdentity{TeamID: "T1", UserID: user} }
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			email, user := fmt.Sprintf("p%d@example.com", i), fmt.Sprint("U", i)
			locked := i%100 == 7
			if locked {
				email = "ada@example.com"
			}
			who, start := by(email), time.Now()
			if i%3 > 0 {
				who.Slack = slack(user)
			}
			var err error
			if i%3 == 2 {
				_, err = f.Check(f.ctx, who, 1)
			} else {
				_, err = f.Consume(f.ctx, who, 1, fmt.Sprint("k", i))
			}
			var e *models.Error
			switch took := time.Since(start); {
			case locked && (!errors.As(err, &e) || e.Code != models.CodeUnavailable || e.RetryAfter == 0):
				t.Errorf("call %d for the locked person: %v", i, err)
			case !locked && err != nil:
				t.Errorf("call %d for another person: %v", i, err)
			case took > 15*time.Second:
				t.Errorf("call %d took %s", i, took)
			}
		})
	}
	wg.Wait()
	free()
	ada := enforcement.Person{Email: "ada@example.com", Slack: slack("ADA")}
	if a, err := f.Consume(f.ctx, ada, 1, "free"); err != nil || !a.Verdict.Allowed {
		t.Errorf("after the lock was released: %+v, %v", a.Verdict, err)
	}
	f.clean(t)
}

// TestLockedPersonDoesNotBlockANewWorkspace makes one gate wait for a locked person who is the
// first one of a workspace. At the same time, another gate must answer a call for a second person
// of that workspace.
func TestLockedPersonDoesNotBlockANewWorkspace(t *testing.T) {
	f := newFixture(t, modelstest.Postgres(t))
	other := f.another(t, 4096)
	f.lock(t, "ada@example.com")
	waited := make(chan error, 1)
	go func() {
		ada := enforcement.Person{Email: "ada@example.com", Slack: models.SlackIdentity{TeamID: "T1", UserID: "U1"}}
		_, err := f.Consume(f.ctx, ada, 1, "ada")
		waited <- err
	}()
	for blocked := 0; blocked == 0; {
		select {
		case err := <-waited:
			t.Fatalf("the call for the locked person did not wait: %v", err)
		case <-time.After(time.Millisecond):
		}
		err := f.db.QueryRowContext(f.ctx,
			"SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&blocked)
		if err != nil {
			t.Fatal(err)
		}
	}
	answered := make(chan error, 1)
	go func() {
		ben := enforcement.Person{Email: "ben@example.com", Slack: models.SlackIdentity{TeamID: "T1", UserID: "U2"}}
		_, err := other.Check(f.ctx, ben, 1)
		answered <- err
	}()
	select {
	case err := <-answered:
		if err != nil {
			t.Error(err)
		}
		if err := <-waited; err == nil {
			t.Error("the call for the locked person succeeded")
		}
	case err := <-waited:
		t.Errorf("the second person's call waited for the first one, which got %v; then it got %v", err, <-answered)
	}
}

// A locked person whose hold has expired delays no other organization.
func TestLockedHoldBlocksNoOtherOrganization(t *testing.T) {
	f := newFixture(t, modelstest.Postgres(t))
	l := newLimited(t, f)
	ada, bob := l.member("ada"), l.member("bob")
	f.consume(t, ada, included, "a")
	f.consume(t, bob, included, "b")
	l.spendLimit(new(int64(30)))
	_, err := f.Hold(f.ctx, by(ada), 1, "hold", time.Minute)
	l.must(err)
	f.now = f.now.Add(2 * time.Minute)
	tx := l.begin()
	_, err = tx.ExecContext(f.ctx, "SELECT 1 FROM users WHERE email = ? FOR UPDATE", ada)
	l.must(err)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if a, err := f.Consume(f.ctx, by(bob), 1, fmt.Sprint("b", i)); err == nil {
				t.Errorf("while the hold cannot be counted again: %+v", a.Verdict)
			}
		})
		wg.Go(func() {
			time.Sleep(time.Duration(i) * 100 * time.Millisecond)
			f.consume(t, fmt.Sprintf("p%d@example.com", i), 1, "p")
		})
	}
	wg.Wait()
	for i := range 10 {
		f.consume(t, fmt.Sprintf("q%d@example.com", i), 1, "q")
	}
	l.must(tx.Rollback())
	l.wants(bob, 1, "")
	l.spends("the hold was counted again", 30, 0)
}
