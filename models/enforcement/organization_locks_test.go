package enforcement_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// begin starts a transaction, as another process does. The test may end it; otherwise it is rolled
// back.
func (l limited) begin() bun.Tx {
	l.t.Helper()
	tx, err := l.db.BeginTx(l.ctx, nil)
	l.must(err)
	_, err = tx.ExecContext(l.ctx, "SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = 400")
	l.must(err)
	l.t.Cleanup(func() { _ = tx.Rollback() })
	return tx
}

// whileWaiting starts do. It calls then when do waits for a lock, or has ended.
func (l limited) whileWaiting(do func() error, then func()) {
	l.t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	for waiting := 0; waiting == 0; {
		select {
		case err := <-done:
			done <- err
			waiting = 1
		case <-time.After(5 * time.Millisecond):
			l.must(l.db.QueryRowContext(l.ctx,
				"SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waiting))
		}
	}
	then()
	l.must(<-done)
}

func (l limited) set(change models.OrganizationChange) error {
	return models.SetOrganization(l.ctx, l.db, l.catalogue, l.now, "ada@acme.example", l.id, change)
}

func limitTo(limit int64) *models.LimitChange { return &models.LimitChange{To: &limit, Unseen: true} }

// New limits also apply to records of transactions that began before them and end after them.
func TestLimitsWaitForRecordsBeingMade(t *testing.T) {
	f := newFixture(t, modelstest.Postgres(t))
	l := newLimited(t, f)
	f.consume(t, l.member("bob"), 1, "b")
	l.member("ada")
	var members []models.User
	l.must(f.db.NewSelect().Model(&members).Where("email LIKE 'ada@%'").Scan(f.ctx))
	ada := members[0]
	tx := l.begin()
	_, err := tx.ExecContext(f.ctx, "SELECT 1 FROM users WHERE id = ? FOR UPDATE", ada.ID)
	l.must(err)
	carl := models.User{ID: uuid.New(), Email: "carl@acme.example", Role: models.Member, WorkspaceID: ada.WorkspaceID, CreatedAt: f.now}
	_, err = tx.NewInsert().Model(&carl).Exec(f.ctx)
	l.must(err)
	for _, u := range []models.User{ada, carl} {
		var r models.UsageRecord
		l.must(f.db.NewSelect().Model(&r).Where("email LIKE 'bob@%'").Scan(f.ctx))
		r.ID, r.UserID, r.Email = 0, u.ID, u.Email
		_, err = tx.ExecContext(f.ctx, f.db.NewInsert().Model(&r).String())
		l.must(err)
	}
	l.whileWaiting(func() error { return l.set(models.OrganizationChange{SpendLimit: limitTo(60)}) }, func() { l.must(tx.Commit()) })
	var counted int
	l.must(f.db.NewSelect().Model((*models.UsageRecord)(nil)).ColumnExpr("COUNT(organization_record_id)").Scan(f.ctx, &counted))
	if counted != 3 {
		t.Errorf("the organization's record counts %d usage records, want 3", counted)
	}
	f.consume(t, carl.Email, included+1, "c")
	l.wants(ada.Email, included+1, models.OrganizationSpendLimitReached)

	tx = l.begin()
	dora := models.User{ID: uuid.New(), Email: "dora@acme.example", Role: models.Member, WorkspaceID: ada.WorkspaceID, CreatedAt: f.now}
	_, err = tx.NewInsert().Model(&dora).Exec(f.ctx)
	l.must(err)
	var r models.UsageRecord
	l.must(f.db.NewSelect().Model(&r).Where("email LIKE 'bob@%'").Scan(f.ctx))
	r.ID, r.UserID, r.Email = 0, dora.ID, dora.Email
	_, err = tx.ExecContext(f.ctx, f.db.NewInsert().Model(&r).String())
	l.must(err)
	l.whileWaiting(func() error { return l.set(models.OrganizationChange{MemberLimit: limitTo(3)}) }, func() { l.must(tx.Commit()) })
	l.wants(dora.Email, 3, models.MemberLimitReached) // one is used
}

// A limit that is set again while another process still removes it counts everything.
func TestSpendLimitSetAgainDuringRemoval(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada, bob := l.member("ada"), l.member("bob")
		f.consume(t, ada, included+1, "a")
		f.consume(t, bob, included+1, "b")
		l.spendLimit(new(int64(60)))
		f.exec(t, "UPDATE organizations SET spend_limit_cents = NULL")
		f.exec(t, "UPDATE organization_records SET spend_limit_cents = NULL")
		remover, err := models.Open(f.ctx, f.db.URL)
		l.must(err)
		defer func() { _ = remover.Close() }()
		hook := &afterQuery{part: "NOT counted OR", do: func() { l.spendLimit(new(int64(60))) }}
		remover.DB = remover.WithQueryHook(hook)
		l.must(models.FinishSpendLimits(f.ctx, remover, f.catalogue, f.now, nil))
		if !hook.done {
			t.Fatal("the limit was not set in the meantime")
		}
		l.spends("set again", 60, 0)
		l.wants(bob, 1, models.OrganizationSpendLimitReached)
	})
}

// afterQuery runs do once, after a query with part.
type afterQuery struct {
	part string
	do   func()
	done bool
}

func (*afterQuery) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (a *afterQuery) AfterQuery(_ context.Context, e *bun.QueryEvent) {
	if !a.done && strings.Contains(e.Query, a.part) {
		a.done = true
		a.do()
	}
}

// A change of both limits takes its locks in the gate's order.
func TestSetBothLimitsWithoutDeadlock(t *testing.T) {
	f := newFixture(t, modelstest.Postgres(t))
	l := newLimited(t, f)
	ada := l.member("ada")
	f.consume(t, ada, 1, "a")
	l.spendLimit(new(int64(100)))
	tx := l.begin()
	for _, lock := range []string{
		"SELECT 1 FROM users WHERE email = ? FOR UPDATE", "SELECT 1 FROM usage_records WHERE email = ? FOR UPDATE",
	} {
		_, err := tx.ExecContext(f.ctx, lock, ada)
		l.must(err)
	}
	l.whileWaiting(func() error {
		return l.set(models.OrganizationChange{SpendLimit: limitTo(200), MemberLimit: limitTo(70)})
	}, func() {
		_, err := tx.ExecContext(f.ctx, "SELECT 1 FROM organizations WHERE id = ? FOR SHARE", l.id) // before a new period's record
		l.must(err)
		_, err = tx.ExecContext(f.ctx, "UPDATE organization_records SET overage_cents = overage_cents")
		l.must(err)
		l.must(tx.Commit())
	})
	l.wants(ada, 70, models.MemberLimitReached)
}

// A locked person delays only the change of their own organization.
func TestFinishOtherSpendLimits(t *testing.T) {
	f := newFixture(t, modelstest.Postgres(t))
	l := newLimited(t, f)
	ada := l.member("ada")
	f.consume(t, ada, included+1, "a")
	other := limited{payers: l.payers, id: l.organization(f.now.Add(-60*day), "Other", "T2")}
	other.subscribe("", &other.id, "team", "cus_other", f.now.Add(-10*day))
	l.spendLimit(new(int64(100)))
	other.spendLimit(new(int64(100)))
	f.exec(t, "UPDATE organization_records SET counted = FALSE, spend_limit_cents = NULL")
	_, err := l.begin().ExecContext(f.ctx, "SELECT 1 FROM users WHERE email = ? FOR UPDATE", ada)
	l.must(err)
	if err := models.FinishSpendLimits(f.ctx, f.db.WithLockTimeout(50*time.Millisecond), f.catalogue, f.now, nil); !models.IsLockTimeout(err) {
		t.Errorf("a locked person: %v, want a lock timeout", err)
	}
	if r := other.row(); r.SpendLimitCents == nil {
		t.Errorf("the other organization's limit is not in force: %+v", r)
	}
}

// Setting a limit again, which the first call could not finish, finishes it.
func TestSetSameSpendLimitAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada := l.member("ada")
		f.consume(t, ada, included+1, "a")
		l.spendLimit(new(int64(30)))
		f.exec(t, "UPDATE organization_records SET counted = FALSE, spend_limit_cents = NULL, overage_cents = 0")
		f.exec(t, "UPDATE usage_records SET organization_record_id = NULL")
		l.spendLimit(new(int64(30)))
		l.wants(ada, 1, models.OrganizationSpendLimitReached)
		l.spends("set again", 30, 0)
	})
}
