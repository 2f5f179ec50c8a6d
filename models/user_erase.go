package models

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// Erasure removes everything that identifies a person. The person's row, records and events stay
// under the same ID, so that all sums stay. docs/erasure.md says what happens to each table. Any
// number of processes may serve calls at the same time.
//
// A first transaction cuts the person off: no call, sign-in or notice reaches the row from then on.
// It leaves a mark. Steps of at most 1,000 rows (200 on SQLite) follow, each a short transaction,
// and the last one removes the mark. An erasure that was interrupted continues when Run is called
// again.
type Erasure struct {
	DB *DB
	// Now is the clock.
	Now func() time.Time
	// Rest is called after each step, with the time that it took, so that the database serves its
	// callers most of the time. It may be nil.
	Rest func(ctx context.Context, took time.Duration) error
}

// ErasurePlan is what an erasure would do.
type ErasurePlan struct {
	User UserEntry
	// Records, Events, Holds, Grants and Voids stay without what identifies the person. Sessions and
	// Identities (at Slack and at other issuers) are deleted.
	Records, Events, Holds, Grants, Voids, Sessions, Identities int
	// Customers are the person's Stripe customers, which stay at Stripe.
	Customers []string
	// Started means that an erasure of the person was interrupted.
	Started bool
}

// userErasure is the mark of an erasure that has not ended.
type userErasure struct {
	bun.BaseModel `bun:"table:user_erasures"`

	UserID    uuid.UUID `bun:",pk,type:uuid"`
	StartedAt time.Time
	Texts     identifyingTexts `bun:"type:text"`
}

// identifyingTexts are the texts that identify a person.
type identifyingTexts struct {
	// Emails are the person's addresses. Addresses that belong to another person now are not among
	// them: a row with such an address may be about that person.
	Emails []string `json:"emails"`
	// Others are the person's name and IDs elsewhere. They are only replaced in texts about the
	// person, because other texts may have the same words.
	Others []string `json:"others"`
}

// PlanErasure returns what an erasure of the person with this label would do. It changes nothing. It
// returns an error that says what to do first if the person cannot be erased.
func PlanErasure(ctx context.Context, db *DB, label string) (plan ErasurePlan, err error) {
	if plan.User, err = UserByLabel(ctx, db, label); err != nil {
		return plan, err
	}
	id := plan.User.ID
	if plan.User.ErasedAt == nil {
		err = errors.Join(refuseSubscribed(ctx, db, id), refuseLastAdmin(ctx, db, &plan.User))
		if err != nil {
			return plan, fmt.Errorf("erase the user %s: %w", id, err)
		}
	}
	for _, of := range []struct {
		count *int
		table string
	}{
		{&plan.Records, "usage_records"}, {&plan.Events, "usage_events"}, {&plan.Holds, "usage_holds"}, {&plan.Grants, "usage_grants"},
		{&plan.Voids, "usage_voids"}, {&plan.Sessions, "sessions"}, {&plan.Identities, "issuer_identities"},
	} {
		n, err := db.NewSelect().Table(of.table).Where("user_id = ?", id).Count(ctx)
		if err != nil {
			return plan, fmt.Errorf("count the rows of a person in %s: %w", of.table, err)
		}
		*of.count = int(n)
	}
	if plan.User.SlackUserID != nil {
		plan.Identities++
	}
	mark, err := findErasure(ctx, db, id)
	if err != nil {
		return plan, err
	}
	plan.Started = mark != nil
	plan.Customers, err = CustomersOf(ctx, db, id)
	return plan, err
}

// refuseSubscribed returns an error if the person has a subscription of their own that has not ended.
func refuseSubscribed(ctx context.Context, db bun.IDB, id uuid.UUID) error {
	var running []Subscription
	if err := db.NewSelect().Model(&running).Where("user_id = ? AND status NOT IN (?)", id, bun.List(FinalStatuses)).Order("created_at").
		Limit(1).Scan(ctx); err != nil {
		return err
	}
	if len(running) == 0 {
		return nil
	}
	s := &running[0]
	if s.StripeSubscriptionID != nil {
		return fmt.Errorf("the person has the subscription %s (plan %s), which has not ended: end it in Stripe first",
			*s.StripeSubscriptionID, s.PlanID)
	}
	return fmt.Errorf("the person has a subscription (plan %s), which has not ended: end it first with tollgate subscription end %s",
		s.PlanID, s.ID)
}

// refuseLastAdmin returns an error if the person is the only admin of an organization that has other
// members.
func refuseLastAdmin(ctx context.Context, db bun.IDB, user *UserEntry) error {
	if user.Role != Admin || user.OrganizationID == nil {
		return nil
	}
	var others []User
	if err := db.NewSelect().Model(&others).Column("id", "role").Where("id <> ?", user.ID).
		Where("workspace_id IN (SELECT id FROM workspaces WHERE organization_id = ?)", *user.OrganizationID).
		Order("role").Limit(1).Scan(ctx); err != nil { // admins first
		return err
	}
	if len(others) == 0 || others[0].Role == Admin {
		return nil
	}
	return fmt.Errorf("%w: the person is the only admin of %q (%s), which has other members; make another member an admin first with "+
		"tollgate user set EMAIL --role admin", ErrLastAdmin, user.Organization, *user.OrganizationID)
}

// CustomersOf returns the IDs of a person's Stripe customers.
func CustomersOf(ctx context.Context, db bun.IDB, id uuid.UUID) (customers []string, err error) {
	if err := db.NewSelect().Model((*StripeCustomer)(nil)).Column("id").Where("user_id = ?", id).Order("id").
		Scan(ctx, &customers); err != nil {
		return nil, fmt.Errorf("find the Stripe customers of the user %s: %w", id, err)
	}
	return customers, nil
}

func findErasure(ctx context.Context, db bun.IDB, id uuid.UUID) (*userErasure, error) {
	var marks []userErasure
	if err := db.NewSelect().Model(&marks).Where("user_id = ?", id).Scan(ctx); err != nil {
		return nil, fmt.Errorf("look for an erasure of the user %s: %w", id, err)
	}
	if len(marks) == 0 {
		return nil, nil
	}
	return &marks[0], nil
}

// Run erases the person with this email if they have the given ID, or continues the erasure of that
// person, who has no email anymore. For a person who was erased before, it does nothing. It returns
// the person's new label.
func (e *Erasure) Run(ctx context.Context, email string, id uuid.UUID) (label string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("erase the user %s: %w", id, err)
		}
	}()
	label = erasedLabel(id)
	mark, erased, err := e.progress(ctx, id)
	if err != nil {
		return "", err
	}
	if erased {
		return label, e.refuseOther(ctx, email, id)
	}
	if mark == nil {
		if mark, err = e.cutOff(ctx, email, id); err != nil {
			// Another process may have been faster, and the person has no email anymore.
			refused := err
			if mark, erased, err = e.progress(ctx, id); err != nil || erased {
				return label, err
			}
			if mark == nil {
				return "", refused
			}
		}
	}
	p := erasing{Erasure: e, mark: mark, label: label, stepRows: e.DB.stepRows()}
	for _, do := range []func(context.Context) error{
		func(ctx context.Context) error { return p.notices(ctx, false) }, p.usage, p.webhooks, p.texts, p.auditLog,
		func(ctx context.Context) error { return p.notices(ctx, true) }, p.finish,
	} {
		if err := do(ctx); err != nil {
			return "", err
		}
	}
	return label, nil
}

// progress returns the mark of an erasure that has started; nil without one. erased means that it has
// ended.
func (e *Erasure) progress(ctx context.Context, id uuid.UUID) (mark *userErasure, erased bool, err error) {
	user, err := UserByID(ctx, e.DB, id)
	if err != nil || user.ErasedAt == nil {
		return nil, false, err
	}
	mark, err = findErasure(ctx, e.DB, id)
	return mark, err == nil && mark == nil, err
}

// refuseOther returns an error if the email belongs to another person than the one who was erased, so
// that no one thinks that this other person is.
func (e *Erasure) refuseOther(ctx context.Context, given string, id uuid.UUID) error {
	email, err := ParseEmail(given)
	if err != nil {
		return nil //nolint:nilerr // such as the label
	}
	var others []uuid.UUID
	err = e.DB.NewSelect().Model((*User)(nil)).Column("id").Where("email = ? AND id <> ?", email, id).Scan(ctx, &others)
	if err == nil && len(others) > 0 {
		err = fmt.Errorf("this person was erased before; the email belongs to another user now: %s", others[0])
	}
	return err
}

// cutOff is the first transaction of an erasure.
func (e *Erasure) cutOff(ctx context.Context, given string, id uuid.UUID) (*userErasure, error) {
	email, err := ParseEmail(given)
	if err != nil {
		return nil, fmt.Errorf("%q %w", given, err)
	}
	mark := userErasure{UserID: id}
	// This may read many rows, so it is not done under the locks.
	var ledger identifyingTexts
	if err := ledger.read(ctx, e.DB, id, ledgerTexts); err != nil {
		return nil, err
	}
	cut := func(ctx context.Context, tx bun.Tx) error {
		mark.StartedAt = Now(e.Now)
		entry, err := findUser(ctx, tx, "id = ?", id)
		if err != nil {
			return err
		}
		change := UserChange{Leaves: true, Existing: true, KeepAdmin: true, UserID: id}
		_, err = change.apply(ctx, e.DB, tx, mark.StartedAt, email)
		if errors.Is(err, ErrLastAdmin) { // an admin without other members may leave
			if err := refuseLastAdmin(ctx, tx, &entry); err != nil {
				return err
			}
			change.KeepAdmin = false
			_, err = change.apply(ctx, e.DB, tx, mark.StartedAt, email)
		}
		if err != nil {
			return err
		}
		if err := refuseSubscribed(ctx, tx, id); err != nil {
			return err
		}
		mark.Texts = identifyingTexts{Emails: slices.Clone(ledger.Emails)}
		if entry.SlackUserID != nil { // the person has left
			mark.Texts.Others = append(mark.Texts.Others, *entry.SlackUserID)
		}
		if err := mark.Texts.read(ctx, tx, id, profileTexts); err != nil {
			return err
		}
		if err := mark.Texts.settle(ctx, tx, id); err != nil {
			return err
		}
		if err := deleteAccess(ctx, tx, id); err != nil {
			return err
		}
		for _, q := range []*bun.UpdateQuery{
			tx.NewUpdate().Model((*User)(nil)).
				Set("email = ?, name = '', folded_name = '', operator = ?, spend_limit_cents = NULL, erased_at = ?", erasedLabel(id), false,
					mark.StartedAt).Where("id = ?", id),
			// A trigger has locked the records.
			tx.NewUpdate().Model((*UsageRecord)(nil)).Set("slack_team_id = NULL, slack_user_id = NULL").Where("user_id = ?", id),
		} {
			if _, err := q.Exec(ctx); err != nil {
				return err
			}
		}
		_, err = tx.NewInsert().Model(&mark).Exec(ctx)
		return err
	}
	err = e.DB.InTx(ctx, cut)
	for errors.Is(err, errSetAgain) {
		err = e.DB.InTx(ctx, cut)
	}
	return &mark, err
}

// deleteAccess deletes what signs a person in, and their settings.
func deleteAccess(ctx context.Context, tx bun.Tx, id uuid.UUID) error {
	for _, table := range []string{"sessions", "sign_in_links", "issuer_identities", "notice_settings"} {
		if _, err := tx.NewDelete().Table(table).Where("user_id = ?", id).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

// identifyingColumn is a column of a table whose rows belong to a person.
type identifyingColumn struct {
	table, column, key string
	email              bool
}

// profileTexts are the columns that a few rows of a person have, and ledgerTexts those of many rows.
var (
	profileTexts = []identifyingColumn{
		{"users", "email", "id", true}, {"users", "name", "id", false}, {"users", "slack_user_id", "id", false},
		{"usage_records", "slack_user_id", "user_id", false}, {"issuer_identities", "subject", "user_id", false},
	}
	ledgerTexts = []identifyingColumn{
		{"usage_events", "email", "user_id", true}, {"usage_holds", "email", "user_id", true}, {"usage_voids", "email", "user_id", true},
	}
)

// textsOf returns the texts that identify a person.
func textsOf(ctx context.Context, db bun.IDB, id uuid.UUID) (t identifyingTexts, err error) {
	for _, columns := range [][]identifyingColumn{ledgerTexts, profileTexts} {
		if err := t.read(ctx, db, id, columns); err != nil {
			return t, err
		}
	}
	return t, t.settle(ctx, db, id)
}

// read adds what columns have.
func (t *identifyingTexts) read(ctx context.Context, db bun.IDB, id uuid.UUID, columns []identifyingColumn) error {
	for _, c := range columns {
		var found []string
		if err := db.NewSelect().Table(c.table).Distinct().ColumnExpr("?", bun.Ident(c.column)).Where("? = ?", bun.Ident(c.key), id).
			Where("? <> ''", bun.Ident(c.column)).Scan(ctx, &found); err != nil {
			return fmt.Errorf("read what identifies a person in %s: %w", c.table, err)
		}
		if c.email {
			t.Emails = append(t.Emails, found...)
		} else {
			t.Others = append(t.Others, found...)
		}
	}
	return nil
}

// settle removes addresses that belong to another person now, and sorts the texts for replaceIn.
func (t *identifyingTexts) settle(ctx context.Context, db bun.IDB, id uuid.UUID) error {
	var others []string
	if err := db.NewSelect().Model((*User)(nil)).Column("email").Where("email IN (?) AND id <> ?", bun.List(t.Emails), id).
		Scan(ctx, &others); err != nil {
		return fmt.Errorf("find who has the earlier addresses of a person: %w", err)
	}
	t.Emails = slices.DeleteFunc(t.Emails, func(email string) bool { return slices.Contains(others, email) })
	for _, texts := range []*[]string{&t.Emails, &t.Others} {
		slices.Sort(*texts)
		*texts = slices.Compact(*texts)
		// The longest first, because one may be part of another.
		slices.SortStableFunc(*texts, func(a, b string) int { return len(b) - len(a) })
	}
	return nil
}

// erasing is an erasure after the person was cut off. Each of its methods can be called again.
type erasing struct {
	*Erasure
	mark  *userErasure
	label string
	// stepRows is the maximum number of rows that one transaction changes.
	stepRows int
}

// step runs one transaction, and rests.
func (p *erasing) step(ctx context.Context, do func(ctx context.Context, tx bun.Tx) error) error {
	return p.DB.step(ctx, p.Rest, do)
}

// finish removes the mark. A sign-in or a form that was under way when the person was cut off may
// have stored something since.
func (p *erasing) finish(ctx context.Context) error {
	return p.step(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := deleteAccess(ctx, tx, p.mark.UserID); err != nil {
			return err
		}
		n, err := rowsOf(tx.NewDelete().Model(p.mark).WherePK().Exec(ctx))
		if err != nil || n == 0 { // another process was faster
			return err
		}
		return Audit(ctx, tx, Now(p.Now), ActorShell, "user.erase", p.mark.UserID.String(), "")
	})
}

// replaceIn returns a text with each of the person's addresses replaced, and with all if it is about
// the person also their name and IDs.
func (t *identifyingTexts) replaceIn(text, label string, all bool) string {
	for _, email := range t.Emails {
		text = replaceWord(text, email, label)
	}
	if all {
		for _, other := range t.Others {
			text = replaceWord(text, other, erasedText)
		}
	}
	return text
}
