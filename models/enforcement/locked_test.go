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

// TestALockedPersonHoldsNobodyUp has a stranger's session keep one person's row locked while many new people arrive, some of
// them to be linked. The person is told to come back; everybody else is served.
func TestALockedPersonHoldsNobodyUp(t *testing.T) {
	f := newFixture(t, modelstest.Postgres(t))
	f.exec(t, "INSERT INTO users (id, email, created_at) VALUES ('00000000-0000-7000-8000-000000000001', 'ada@example.com', ?)", f.now)
	stranger, err := sql.Open("pgx", f.db.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stranger.Close() })
	tx, err := stranger.BeginTx(f.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(f.ctx, "SELECT 1 FROM users FOR UPDATE"); err != nil {
		t.Fatal(err)
	}

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
			var fault *models.Error
			switch took := time.Since(start); {
			case locked && (!errors.As(err, &fault) || fault.Code != models.CodeUnavailable || fault.RetryAfter == 0):
				t.Errorf("call %d for the locked person: %v", i, err)
			case !locked && err != nil:
				t.Errorf("call %d for another one: %v", i, err)
			case took > 15*time.Second:
				t.Errorf("call %d took %s", i, took)
			}
		})
	}
	wg.Wait()
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if a, err := f.Consume(f.ctx, enforcement.Person{Email: "ada@example.com", Slack: slack("ADA")}, 1, "free"); err != nil || !a.Verdict.Allowed {
		t.Errorf("once the lock is gone: %+v, %v", a.Verdict, err)
	}
	f.clean(t)
}
