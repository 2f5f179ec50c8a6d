package models

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"
)

// Want names a usage record by somebody's email and an instant of its billing period.
type Want struct {
	Email string
	At    time.Time
}

// PrepareRecords makes sure that each wanted record exists and is fit to be added to: the person is known, a period that
// began has its record, a plan that changed is applied (an upgrade at once; a downgrade never lowers what is included
// before the period ends) and lapsed holds are given back. It is one transaction, and does nothing the second time.
func PrepareRecords(ctx context.Context, db *DB, c *Catalogue, now time.Time, wants []Want) error {
	emails := make([]string, 0, len(wants))
	for _, w := range wants {
		emails = append(emails, w.Email)
	}
	slices.Sort(emails)
	emails = slices.Compact(emails)
	err := db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		people, err := lockPeople(ctx, db, tx, emails, now)
		if err != nil {
			return err
		}
		for _, w := range wants {
			if err := people[w.Email].prepare(ctx, db, tx, c, now, w.At); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("prepare %d records: %w", len(wants), err)
	}
	return nil
}

// person is somebody under the lock of their row in users, which serializes all that makes or changes their periods.
type person struct {
	email       string
	entitlement Entitlement
	// records stand in order of their periods, and never overlap.
	records []*UsageRecord
}

func lockPeople(ctx context.Context, db *DB, tx bun.Tx, emails []string, now time.Time) (map[string]*person, error) {
	if err := ensureUsers(ctx, tx, emails, now); err != nil {
		return nil, err
	}
	if err := db.ForUpdate(tx.NewSelect().Model((*User)(nil)).Column("email").Where("email IN (?)", bun.List(emails)).Order("email")).Scan(ctx, new([]string)); err != nil {
		return nil, err
	}
	var records []*UsageRecord
	if err := db.ForUpdate(tx.NewSelect().Model(&records).Where("email IN (?)", bun.List(emails)).Order("email", "billing_period_start")).Scan(ctx); err != nil {
		return nil, err
	}
	// Only now, under the locks: what changes from here on finds the records as they will be.
	entitlements, err := EntitlementsOf(ctx, tx, now, emails)
	if err != nil {
		return nil, err
	}
	people := make(map[string]*person, len(emails))
	for _, email := range emails {
		people[email] = &person{email: email, entitlement: entitlements[email]}
	}
	for _, r := range records {
		people[r.Email].records = append(people[r.Email].records, r)
	}
	return people, nil
}

// EntitlementsOf reads what the people with these emails may use now. Somebody unknown is missing from the answer.
func EntitlementsOf(ctx context.Context, db bun.IDB, now time.Time, emails []string) (map[string]Entitlement, error) {
	rows, err := db.QueryContext(ctx, `SELECT k.email, `+EntitlementColumns+`,
			(SELECT MAX(r.billing_period_end) FROM usage_records r WHERE r.email = k.email AND r.billing_period_end <= ?),
			(SELECT MIN(r.billing_period_start) FROM usage_records r WHERE r.email = k.email AND r.billing_period_start > ?)
		FROM users k `+EntitlementJoins+` WHERE k.email IN (?)`, now, now, bun.List(emails))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := make(map[string]Entitlement, len(emails))
	for rows.Next() {
		var email string
		var e Entitlement
		var end, start bun.NullTime
		if err := scanEntitlement(rows, &email, &e, &end, &start); err != nil {
			return nil, err
		}
		e.PreviousEnd, e.NextStart = end.Time, start.Time
		found[email] = e
	}
	return found, rows.Err()
}

// entitlementAt reads what somebody might use at an instant; the zero value when they are unknown.
func entitlementAt(ctx context.Context, db *DB, tx bun.IDB, email string, at time.Time) (e Entitlement, err error) {
	k := "(SELECT ? AS email, ? AS at) k "
	if db.Postgres {
		k = "(SELECT CAST(? AS text) AS email, CAST(? AS timestamptz) AS at) k "
	}
	rows, err := tx.QueryContext(ctx, `SELECT k.email, `+EntitlementColumns+` FROM `+k+EntitlementJoinsAt, email, at)
	if err != nil {
		return e, err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scanEntitlement(rows, &email, &e); err != nil {
			return e, err
		}
	}
	return e, rows.Err()
}

// EnsureUser returns the id of the person with an email that ParseEmail gave; somebody unknown is made.
func EnsureUser(ctx context.Context, tx bun.IDB, email string, now time.Time) (id uuid.UUID, err error) {
	if err := ensureUsers(ctx, tx, []string{email}, now); err != nil {
		return id, err
	}
	err = tx.NewSelect().Model((*User)(nil)).Column("id").Where("email = ?", email).Scan(ctx, &id)
	return id, err
}

// ensureUsers makes the users that are missing, all at once.
func ensureUsers(ctx context.Context, tx bun.IDB, emails []string, now time.Time) error {
	var known []string
	if err := tx.NewSelect().Model((*User)(nil)).Column("email").Where("email IN (?)", bun.List(emails)).Scan(ctx, &known); err != nil {
		return err
	}
	slices.Sort(known)
	var missing []User
	for _, email := range emails {
		if _, ok := slices.BinarySearch(known, email); !ok {
			missing = append(missing, User{ID: uuid.Must(uuid.NewV7()), Email: email, Role: Member, CreatedAt: now})
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err := tx.NewInsert().Model(&missing).On("CONFLICT (email) DO NOTHING").Exec(ctx)
	return err
}

func scanEntitlement(rows *sql.Rows, email *string, e *Entitlement, more ...any) error {
	var team, slackUser, plan, customer sql.NullString
	err := rows.Scan(append([]any{email, &e.WorkspaceID, &team, &slackUser, &e.SpendLimitCents, &plan, &customer, &e.Anchor, &e.PeriodStart, &e.PeriodEnd}, more...)...)
	if slackUser.Valid {
		e.Slack = SlackIdentity{TeamID: team.String, UserID: slackUser.String}
	}
	e.PlanID, e.StripeCustomerID = PlanID(plan.String), customer.String
	return err
}

// prepare makes the person's record at an instant fit, as PrepareRecords says.
func (p *person) prepare(ctx context.Context, db *DB, tx bun.Tx, c *Catalogue, now, at time.Time) error {
	if current, _, _ := p.find(now); current != nil {
		if end, cut := p.entitlement.cut(current.Period(), now); cut {
			current.BillingPeriodEnd = end
			if _, err := tx.NewUpdate().Model(current).Column("billing_period_end").WherePK().Exec(ctx); err != nil {
				return err
			}
		}
	}
	record, previousEnd, nextStart := p.find(at)
	if record == nil {
		entitlement := p.entitlement
		if current := entitlement.PeriodAt(now); !current.Contains(at) {
			var err error
			if entitlement, err = entitlementAt(ctx, db, tx, p.email, at); err != nil {
				return err
			}
			if at.Before(current.Start) && (nextStart.IsZero() || current.Start.Before(nextStart)) {
				nextStart = current.Start // where the person's current record begins or will begin
			}
		}
		period := entitlement.PeriodAt(at).clip(previousEnd, nextStart)
		record = &UsageRecord{Email: p.email, BillingPeriodStart: period.Start, BillingPeriodEnd: period.End, CreatedAt: now}
		c.entitle(record, &entitlement)
		record.Entitled = period.Contains(now) // what it repeats may no longer be so; nobody asks of a period that is over
		if _, err := tx.NewInsert().Model(record).Exec(ctx); err != nil {
			return err
		}
		p.records = append(p.records, record)
		slices.SortFunc(p.records, func(a, b *UsageRecord) int { return a.BillingPeriodStart.Compare(b.BillingPeriodStart) })
		return nil
	}
	if record.Period().Contains(now) {
		c.entitle(record, &p.entitlement)
		if _, err := tx.NewUpdate().Model(record).WherePK().
			Column("plan_id", "suggestions_included", "overage_rate_cents", "spend_limit_cents", "workspace_id", "slack_team_id", "slack_user_id", "stripe_customer_id", "entitled").
			Exec(ctx); err != nil {
			return err
		}
	}
	if record.holdsLapsed(now) {
		return giveLapsedBack(ctx, tx, record, now)
	}
	return nil
}

// find returns the record that contains t, or the end of the last one before and the start of the first one after it.
func (p *person) find(t time.Time) (record *UsageRecord, previousEnd, nextStart time.Time) {
	for _, r := range p.records {
		switch period := r.Period(); {
		case period.Contains(t):
			return r, time.Time{}, time.Time{}
		case !period.End.After(t):
			previousEnd = period.End
		case nextStart.IsZero():
			nextStart = period.Start
		}
	}
	return nil, previousEnd, nextStart
}

// giveLapsedBack marks the record's lapsed holds as expired and counts its live ones anew.
func giveLapsedBack(ctx context.Context, tx bun.IDB, record *UsageRecord, now time.Time) error {
	if _, err := tx.NewUpdate().Model((*UsageHold)(nil)).Set("state = ?", HoldExpired).
		Where("record_id = ? AND state = ? AND expires_at <= ?", record.ID, HoldOpen, now).Exec(ctx); err != nil {
		return err
	}
	var live struct {
		Held  int64
		First bun.NullTime
	}
	if err := tx.NewSelect().Model((*UsageHold)(nil)).ColumnExpr("COALESCE(SUM(quantity), 0) AS held, MIN(expires_at) AS first").
		Where("record_id = ? AND state = ?", record.ID, HoldOpen).Scan(ctx, &live); err != nil {
		return err
	}
	record.SuggestionsHeld, record.HoldsExpireAt = live.Held, nil
	if !live.First.IsZero() {
		record.HoldsExpireAt = &live.First.Time
	}
	_, err := tx.NewUpdate().Model(record).Column("suggestions_held", "holds_expire_at").WherePK().Exec(ctx)
	return err
}

// Link says that Slack knows the person with this email by this identity.
type Link struct {
	Email string
	Slack SlackIdentity
	// Gentle takes nothing from anybody: it does nothing when somebody has the identity, or the person another one or a
	// place in another workspace.
	Gentle bool
}

// LinkPeople notes who people are to Slack, all in one transaction and one link after another. What is missing is made: the
// user, the workspace, and for a new workspace an organization of its own. An identity moves when somebody else had it;
// of two links of one person or of one identity the last one stands.
func LinkPeople(ctx context.Context, db *DB, now time.Time, links []Link) error {
	err := db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error { return linkPeople(ctx, db, tx, now, links) })
	if err != nil {
		return fmt.Errorf("link %d people to Slack: %w", len(links), err)
	}
	return nil
}

func linkPeople(ctx context.Context, db *DB, tx bun.Tx, now time.Time, links []Link) error {
	emails, teams := make([]string, len(links)), make([]string, len(links))
	identities := make([]SlackIdentity, len(links))
	for i, l := range links {
		emails[i], teams[i], identities[i] = l.Email, l.Slack.TeamID, l.Slack
	}
	slices.Sort(emails)
	slices.Sort(teams)
	emails, teams = slices.Compact(emails), slices.Compact(teams)
	if err := ensureUsers(ctx, tx, emails, now); err != nil {
		return err
	}
	taken, err := EmailsOf(ctx, tx, identities)
	if err != nil {
		return err
	}
	// Everybody whose row may change: these people, and who has their identities now.
	concerned := slices.Concat(emails, slices.Collect(maps.Values(taken)))
	slices.Sort(concerned)
	var users []User
	if err := db.ForUpdate(tx.NewSelect().Model(&users).Where("email IN (?)", bun.List(slices.Compact(concerned))).Order("email")).Scan(ctx); err != nil {
		return err
	}
	// Only under these locks: whoever links others of a new workspace waits until it is there, and must not wait for these people too.
	workspaces := make(map[string]*Workspace, len(teams))
	for _, team := range teams {
		if workspaces[team], err = ensureWorkspace(ctx, tx, now, team); err != nil {
			return err
		}
	}
	given := give(links, taken, users, workspaces)
	// All are given up first and then given out, as no two people may have the same one at any time.
	for i := range users {
		u := &users[i]
		_, moves := given[u.Email]
		if u.SlackUserID == nil || !moves && !u.loses(taken, workspaces) {
			continue
		}
		if _, err := tx.NewUpdate().Model((*User)(nil)).Set("slack_user_id = NULL").Where("id = ?", u.ID).Exec(ctx); err != nil {
			return err
		}
	}
	for i := range users {
		u := &users[i]
		identity, ok := given[u.Email]
		if !ok {
			continue
		}
		w := workspaces[identity.TeamID]
		// Who lost the identity to a later one of these links is in the workspace all the same.
		var slackUser *string
		if taken[identity] == u.Email {
			slackUser = &identity.UserID
		}
		// An admin of one organization is not one of the next.
		if _, err := tx.NewUpdate().Model((*User)(nil)).Set("workspace_id = ?, slack_user_id = ?", w.ID, slackUser).
			Set("role = CASE WHEN EXISTS (SELECT 1 FROM workspaces w WHERE w.id = workspace_id AND w.organization_id <> ?) THEN ? ELSE role END", w.OrganizationID, Member).
			Where("id = ?", u.ID).Exec(ctx); err != nil {
			return err
		}
	}
	return noteMemberships(ctx, tx, now, bun.SafeQuery("u.email IN (?)", bun.List(emails)))
}

// noteMemberships keeps since when the people whom a condition on users u finds are in their organizations, or, by the id of nothing, in
// none any more. Whoever is new was in theirs always: it is the first that is heard of them.
func noteMemberships(ctx context.Context, tx bun.IDB, now time.Time, who schema.QueryAppender) error {
	for _, which := range []struct {
		condition string
		since     time.Time
	}{{"u.created_at < ?", now}, {"u.created_at >= ?", time.Unix(0, 0).UTC()}} {
		_, err := tx.NewRaw(`INSERT INTO memberships (user_id, organization_id, since)
			SELECT u.id, COALESCE(w.organization_id, ?), ? FROM users u LEFT JOIN workspaces w ON w.id = u.workspace_id WHERE ? AND `+which.condition+`
				AND COALESCE(w.organization_id, ?) <> COALESCE((SELECT m.organization_id FROM memberships m WHERE m.user_id = u.id ORDER BY m.since DESC LIMIT 1), ?)
			ON CONFLICT (user_id, since) DO UPDATE SET organization_id = EXCLUDED.organization_id`, uuid.Nil, which.since, who, now, uuid.Nil, uuid.Nil).Exec(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}

func give(links []Link, taken map[SlackIdentity]string, users []User, workspaces map[string]*Workspace) map[string]SlackIdentity {
	given := make(map[string]SlackIdentity, len(links))
	for _, l := range links {
		if l.Gentle {
			_, others := taken[l.Slack]
			_, again := given[l.Email]
			i, _ := slices.BinarySearchFunc(users, l.Email, func(u User, email string) int { return strings.Compare(u.Email, email) })
			u := &users[i]
			if others || again || u.SlackUserID != nil || u.WorkspaceID != nil && *u.WorkspaceID != workspaces[l.Slack.TeamID].ID {
				continue
			}
		}
		given[l.Email], taken[l.Slack] = l.Slack, l.Email
	}
	return given
}

// loses says that the user's identity is somebody else's now.
func (u *User) loses(taken map[SlackIdentity]string, workspaces map[string]*Workspace) bool {
	for team, w := range workspaces {
		if u.WorkspaceID != nil && *u.WorkspaceID == w.ID {
			email, ok := taken[SlackIdentity{TeamID: team, UserID: *u.SlackUserID}]
			return ok && email != u.Email
		}
	}
	return false
}

func ensureWorkspace(ctx context.Context, tx bun.Tx, now time.Time, team string) (*Workspace, error) {
	w, err := workspaceByTeam(ctx, tx, team)
	if err != nil || w != nil {
		return w, err
	}
	organization := Organization{ID: uuid.Must(uuid.NewV7()), Name: automaticName(team), CreatedAt: now}
	if _, err := tx.NewInsert().Model(&organization).Exec(ctx); err != nil {
		return nil, err
	}
	w = &Workspace{ID: uuid.Must(uuid.NewV7()), OrganizationID: organization.ID, SlackTeamID: team, Name: team, CreatedAt: now}
	made, err := tx.NewInsert().Model(w).On("CONFLICT (slack_team_id) DO NOTHING").Exec(ctx)
	if err != nil {
		return nil, err
	}
	if n, err := made.RowsAffected(); err != nil || n == 1 {
		return w, err
	}
	// Somebody else made the workspace meanwhile; theirs stands.
	if _, err := tx.NewDelete().Model(&organization).WherePK().Exec(ctx); err != nil {
		return nil, err
	}
	return workspaceByTeam(ctx, tx, team)
}

// automaticName is the name of the organization that a new Slack team gets.
func automaticName(team string) string { return "Slack team " + team }

func workspaceByTeam(ctx context.Context, db bun.IDB, team string) (*Workspace, error) {
	var found []Workspace
	if err := db.NewSelect().Model(&found).Where("slack_team_id = ?", team).Scan(ctx); err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

// EmailsOf finds the people whom Slack knows by these identities; those that nobody has are missing from the answer.
func EmailsOf(ctx context.Context, db bun.IDB, identities []SlackIdentity) (map[SlackIdentity]string, error) {
	found := make(map[SlackIdentity]string, len(identities))
	for some := range slices.Chunk(identities, 200) { // SQLite bounds the depth of an expression
		if err := emailsOf(ctx, db, some, found); err != nil {
			return nil, fmt.Errorf("find people by their Slack identity: %w", err)
		}
	}
	return found, nil
}

func emailsOf(ctx context.Context, db bun.IDB, identities []SlackIdentity, found map[SlackIdentity]string) error {
	var where strings.Builder
	args := make([]any, 0, 2*len(identities))
	for i, id := range identities {
		if i > 0 {
			where.WriteString(" OR ")
		}
		where.WriteString("(w.slack_team_id = ? AND u.slack_user_id = ?)")
		args = append(args, id.TeamID, id.UserID)
	}
	var rows []struct{ SlackTeamID, SlackUserID, Email string }
	if err := db.NewSelect().TableExpr("users AS u").Join("JOIN workspaces AS w ON w.id = u.workspace_id").
		Column("w.slack_team_id", "u.slack_user_id", "u.email").Where(where.String(), args...).Scan(ctx, &rows); err != nil {
		return err
	}
	for _, r := range rows {
		found[SlackIdentity{TeamID: r.SlackTeamID, UserID: r.SlackUserID}] = r.Email
	}
	return nil
}

// RecordsOfHolds names the usage record that each hold belongs to; a hold that does not exist is missing from the answer.
func RecordsOfHolds(ctx context.Context, db bun.IDB, ids []uuid.UUID) (map[uuid.UUID]Want, error) {
	var holds []UsageHold
	if err := db.NewSelect().Model(&holds).Column("id", "email", "billing_period_start").Where("id IN (?)", bun.List(ids)).Scan(ctx); err != nil {
		return nil, fmt.Errorf("find the records of %d holds: %w", len(ids), err)
	}
	wants := make(map[uuid.UUID]Want, len(holds))
	for _, h := range holds {
		wants[h.ID] = Want{Email: h.Email, At: h.BillingPeriodStart.UTC()}
	}
	return wants, nil
}
