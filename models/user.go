package models

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// Role is what a user may do in their organization.
type Role string

// The roles of an organization.
const (
	Member Role = "member"
	Admin  Role = "admin"
)

// User is a person. Their email address is stored in normal form.
type User struct {
	bun.BaseModel `bun:"table:users"`

	ID          uuid.UUID `bun:",pk,type:uuid"`
	Email       string
	Name        string
	WorkspaceID *uuid.UUID `bun:",type:uuid"`
	SlackUserID *string
	Role        Role
	// Operator means that the person runs this installation and may open the operator's pages.
	Operator bool
	// SpendLimitCents is the maximum price of the overage in a billing period; nil means no limit.
	SpendLimitCents *int64
	// MemberLimit is the person's own maximum number of units in a billing period, set by an admin
	// of the organization; nil means the organization's default.
	MemberLimit *int64
	CreatedAt   time.Time
	// ErasedAt is when the person was erased; nil otherwise. Nothing in the row identifies them then.
	ErasedAt *time.Time
}

// UserChange is a change of a user by an operator. Nil fields do not change.
type UserChange struct {
	// OrganizationID moves the user to an organization: to its first workspace, unless they are
	// already in one of its workspaces. In another organization, the user becomes a member,
	// whatever their role was.
	OrganizationID *uuid.UUID
	// Leaves removes the user from their organization. They lose its seat, its pages and its plan.
	// Their past usage there is still billed to it.
	Leaves   bool
	Role     *Role
	Operator *bool
	// MemberLimit is the person's own limit; nil as its new value means the organization's default.
	MemberLimit *LimitChange
	// Actor is who changes the user, for the audit log; the shell if empty.
	Actor string
	// Existing means that the user must exist; the error has CodeUnknownUser otherwise. New means that
	// no user may have the email yet.
	Existing, New bool
	// KeepAdmin means that the change must not take the last admin from an organization; the error is
	// ErrLastAdmin otherwise.
	KeepAdmin bool
	// Form, unless it is nil, is the form of an organization's admin or of an operator that makes the
	// change.
	Form *MemberForm
	// UserID, unless it is zero, must be the ID of the user with the email: the address may have
	// moved to another user since the operator saw it.
	UserID uuid.UUID
}

// MemberForm is the form of an admin about a member of their organization, or of an operator.
type MemberForm struct {
	// OrganizationID is the organization that the member must be in; the error has CodeUnknownUser
	// otherwise.
	OrganizationID uuid.UUID
	// Role is the role that the form showed. If it changed since, a change of the role and a removal fail
	// with CodeChangedMeanwhile.
	Role Role
}

// Grants reports whether the change may give the person a role.
func (c *UserChange) Grants() bool {
	return c.Role != nil && *c.Role == Admin || c.Operator != nil && *c.Operator
}

// describe says for the audit log what the change makes of a user.
func (c *UserChange) describe(before, after *User) string {
	var parts []string
	if c.OrganizationID != nil {
		parts = append(parts, "put in the organization "+c.OrganizationID.String())
	}
	if c.Leaves {
		parts = append(parts, "removed from the organization")
	}
	if c.Role != nil {
		parts = append(parts, "role "+fromTo(string(before.Role), string(after.Role)))
	}
	if c.Operator != nil {
		parts = append(parts, fmt.Sprintf("operator %t", after.Operator))
	}
	if c.MemberLimit != nil {
		standard := "the organization's default"
		parts = append(parts, "member limit "+fromTo(unitsText(before.MemberLimit, standard), unitsText(after.MemberLimit, standard)))
	}
	return listOr(parts, "created")
}

func fromTo(before, after string) string {
	if before == after {
		return after
	}
	return "from " + before + " to " + after
}

// The errors of SetUser for people who are not in an organization, or cannot be.
var (
	ErrAdminWithoutOrganization = errors.New("an admin needs an organization; set it with --organization")
	ErrLimitWithoutOrganization = errors.New("a member limit needs an organization")
	ErrNoWorkspace              = errors.New("has no Slack team, so no one can be put in it; create another organization with --slack-team")
)

// ErrLastAdmin means that a change would leave an organization without an admin.
var ErrLastAdmin = errors.New("an organization must keep an admin")

// errSetAgain means that another transaction changed the user between the lookup and the lock.
var errSetAgain = errors.New("the user changed in the meantime")

// SetUser changes a user and returns the result. It creates a user who does not exist. If nothing
// changes, it adds nothing to the audit log. If the email passes to someone else after SetUser looked
// it up, the change applies to the user who had it at that time. It returns ErrEmail for an invalid
// address, an Error with CodeUnknownOrganization, CodeUnknownUser or CodeChangedMeanwhile,
// ErrAdminWithoutOrganization, ErrLimitWithoutOrganization and ErrLastAdmin.
func SetUser(ctx context.Context, db *DB, now time.Time, email string, change UserChange) (User, error) {
	given := email
	email, err := ParseEmail(given)
	if err != nil {
		return User{}, fmt.Errorf("set a user: %q %w", given, err)
	}
	if r := change.Role; r != nil && *r != Member && *r != Admin {
		return User{}, fmt.Errorf("set the user %s: the role is %q, must be %q or %q", email, *r, Member, Admin)
	}
	var user User
	set := func(ctx context.Context, tx bun.Tx) (err error) {
		user, err = change.apply(ctx, db, tx, now, email)
		return err
	}
	err = db.InTx(ctx, set)
	for errors.Is(err, errSetAgain) {
		err = db.InTx(ctx, set)
	}
	if err != nil {
		return User{}, fmt.Errorf("set the user %s: %w", email, err)
	}
	return user, nil
}

// apply makes the change in a transaction and returns the user, who stays locked. It returns
// errSetAgain if another transaction changed the user in the meantime.
func (c *UserChange) apply(ctx context.Context, db *DB, tx bun.Tx, now time.Time, email string) (User, error) {
	id, err := c.find(ctx, tx, email)
	if err != nil {
		return User{}, err
	}
	admins, err := c.lockAdmins(ctx, tx, id)
	if err != nil {
		return User{}, err
	}
	created := id == uuid.Nil
	if created {
		if id, err = createUser(ctx, tx, now, email); err != nil {
			return User{}, err
		}
	}
	var user User
	if err := lockUserByID(ctx, tx, id, &user); err != nil {
		return User{}, err
	}
	if user.ErasedAt != nil {
		return User{}, errSetAgain
	}
	before := user
	home, err := user.organization(ctx, tx)
	if err != nil {
		return User{}, err
	}
	if err := c.checkForm(&user, home); err != nil {
		return User{}, err
	}
	if c.OrganizationID != nil {
		if err := user.moveTo(ctx, tx, *c.OrganizationID); err != nil {
			return User{}, err
		}
	}
	if c.Leaves {
		user.WorkspaceID, user.SlackUserID, user.Role, user.MemberLimit = nil, nil, Member, nil
	}
	if c.Role != nil {
		if user.Role = *c.Role; user.Role == Admin && user.WorkspaceID == nil {
			return User{}, ErrAdminWithoutOrganization
		}
	}
	if l := c.MemberLimit; l != nil && !equal(l.To, user.MemberLimit) {
		if err := l.check(user.MemberLimit); err != nil {
			return User{}, err
		}
		if user.MemberLimit = l.To; l.To != nil && user.WorkspaceID == nil {
			return User{}, ErrLimitWithoutOrganization
		}
	}
	if c.Operator != nil {
		user.Operator = *c.Operator
	}
	if err := admins.check(ctx, tx, &before, &user, home); err != nil {
		return User{}, err
	}
	if !created && user.sameAs(&before) {
		return user, nil
	}
	if _, err := tx.NewUpdate().Model(&user).Column("workspace_id", "slack_user_id", "role", "operator", "member_limit").WherePK().
		Exec(ctx); err != nil {
		return User{}, err
	}
	if err := noteMemberships(ctx, db, tx, now, bun.SafeQuery("u.id = ?", user.ID)); err != nil {
		return User{}, err
	}
	actor := c.Actor
	if actor == "" {
		actor = ActorShell
	}
	return user, c.audit(ctx, tx, now, actor, &before, &user, home)
}

// find returns the ID of the user with the email; the zero ID if the change must create the user.
func (c *UserChange) find(ctx context.Context, tx bun.Tx, email string) (id uuid.UUID, err error) {
	var found []uuid.UUID
	if err := tx.NewSelect().Model((*User)(nil)).Column("id").Where("email = ?", email).Scan(ctx, &found); err != nil {
		return id, err
	}
	if len(found) > 0 {
		id = found[0]
	}
	switch {
	case c.Form != nil && id != c.UserID:
		return id, errNoMember()
	case c.Existing && id == uuid.Nil:
		return id, &Error{Code: CodeUnknownUser, Detail: "No person has this email."}
	case c.UserID != uuid.Nil && id == uuid.Nil:
		return id, errors.New("the email belongs to no user now")
	case (c.New || c.UserID != uuid.Nil) && id != c.UserID:
		return id, fmt.Errorf("the email belongs to another user now: %s", id)
	}
	return id, nil
}

func errNoMember() error {
	return &Error{Code: CodeUnknownUser, Detail: "The organization has no such member."}
}

// lockedAdmins are the admins of an organization, locked until the end of the transaction.
type lockedAdmins struct {
	keep         bool
	organization uuid.UUID // zero: of none
	others       int       // the number of admins besides the user
}

// lockAdmins locks the admins of the user's organization and the user, if the change may remove an
// admin. Two changes that remove each other's admin at once then happen one after the other.
func (c *UserChange) lockAdmins(ctx context.Context, tx bun.Tx, id uuid.UUID) (locked lockedAdmins, err error) {
	if !c.KeepAdmin || !c.Leaves && c.OrganizationID == nil && (c.Role == nil || *c.Role == Admin) {
		return locked, nil
	}
	locked.keep = true
	var home []uuid.UUID
	if err := tx.NewSelect().TableExpr("users AS u").Join("JOIN workspaces AS w ON w.id = u.workspace_id").Column("w.organization_id").
		Where("u.id = ?", id).Scan(ctx, &home); err != nil || len(home) == 0 {
		return locked, err
	}
	locked.organization = home[0]
	var admins []User
	err = ForUpdate(tx.NewSelect().Model(&admins).
		Where("id = ? OR role = ? AND workspace_id IN (SELECT id FROM workspaces WHERE organization_id = ?)", id, Admin, locked.organization).
		Order("email")).Scan(ctx) // as all transactions lock people
	for i := range admins {
		if admins[i].ID != id {
			locked.others++
		}
	}
	return locked, err
}

// check checks that the user's organization before the change keeps an admin.
func (l *lockedAdmins) check(ctx context.Context, tx bun.Tx, before, after *User, home *uuid.UUID) error {
	if !l.keep || before.Role != Admin || home == nil {
		return nil
	}
	moved, err := after.organization(ctx, tx)
	switch {
	case err != nil:
		return err
	case after.Role == Admin && moved != nil && *moved == *home:
		return nil
	case l.organization != *home:
		return errSetAgain
	case l.others == 0:
		return ErrLastAdmin
	}
	return nil
}

// sameAs reports whether two states of a user are equal in all fields that SetUser changes.
func (u *User) sameAs(other *User) bool {
	return equal(u.WorkspaceID, other.WorkspaceID) && equal(u.SlackUserID, other.SlackUserID) && u.Role == other.Role &&
		u.Operator == other.Operator && equal(u.MemberLimit, other.MemberLimit)
}

// checkForm checks that the form is still about the locked user as the admin saw them. home is the
// user's organization.
func (c *UserChange) checkForm(user *User, home *uuid.UUID) error {
	switch f := c.Form; {
	case f == nil:
		return nil
	case home == nil || *home != f.OrganizationID:
		return errNoMember()
	case c.Role != nil && *c.Role == user.Role:
		return nil // as by a double click
	case (c.Role != nil || c.Leaves) && user.Role != f.Role:
		return &Error{Code: CodeChangedMeanwhile, Detail: "Someone else changed this role in the meantime. Check it and try again."}
	}
	return nil
}

// organization returns the ID of the user's organization; nil without one.
func (u *User) organization(ctx context.Context, db bun.IDB) (*uuid.UUID, error) {
	if u.WorkspaceID == nil {
		return nil, nil
	}
	id, err := OrganizationOfWorkspace(ctx, db, *u.WorkspaceID)
	return &id, err
}

// audit adds the change to the audit log. home is the organization before the change. Its admins see
// the entry, and so do those of the organization after it.
func (c *UserChange) audit(ctx context.Context, tx bun.Tx, now time.Time, actor string, before, after *User, home *uuid.UUID) error {
	detail := c.describe(before, after)
	if c.OrganizationID != nil && (home == nil || *home != *c.OrganizationID) {
		if home != nil {
			if err := AuditOrganization(ctx, tx, now, actor, "user.leave", after.Email, "moved to another organization", *home); err != nil {
				return err
			}
		}
		home = c.OrganizationID
	}
	if home != nil && (c.OrganizationID != nil || c.Leaves || c.Role != nil || c.MemberLimit != nil) {
		return AuditOrganization(ctx, tx, now, actor, "user.set", after.Email, detail, *home)
	}
	return Audit(ctx, tx, now, actor, "user.set", after.Email, detail)
}

// lockUser locks and reads a user, creating the user if necessary.
func lockUser(ctx context.Context, tx bun.Tx, now time.Time, email string, user *User) error {
	for {
		if err := ensureUsers(ctx, tx, []string{email}, now); err != nil {
			return err
		}
		*user = User{}
		err := ForUpdate(tx.NewSelect().Model(user).Where("email = ?", email)).Scan(ctx)
		if !errors.Is(err, sql.ErrNoRows) { // the person who had the email gave it up in the meantime
			return err
		}
	}
}

// lockUserByID locks and reads a user. It returns errSetAgain if there is none with the ID.
func lockUserByID(ctx context.Context, tx bun.Tx, id uuid.UUID, user *User) error {
	*user = User{}
	err := ForUpdate(tx.NewSelect().Model(user).Where("id = ?", id)).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return errSetAgain
	}
	return err
}

// createUser creates a user. It returns errSetAgain if another transaction has created one with the
// email.
func createUser(ctx context.Context, tx bun.Tx, now time.Time, email string) (uuid.UUID, error) {
	user := User{ID: uuid.Must(uuid.NewV7()), Email: email, Role: Member, CreatedAt: now}
	made, err := tx.NewInsert().Model(&user).On("CONFLICT (email) DO NOTHING").Exec(ctx)
	if err != nil {
		return uuid.Nil, err
	}
	if n, err := made.RowsAffected(); err != nil || n == 1 {
		return user.ID, err
	}
	return uuid.Nil, errSetAgain
}

// moveTo moves the user to the organization's first workspace.
func (u *User) moveTo(ctx context.Context, tx bun.Tx, id uuid.UUID) error {
	o, err := organizationByID(ctx, tx, id)
	if err != nil {
		return err
	}
	var workspaces []Workspace
	if err := tx.NewSelect().Model(&workspaces).Where("organization_id = ?", id).Order("created_at", "id").Scan(ctx); err != nil {
		return err
	}
	if len(workspaces) == 0 {
		return fmt.Errorf("the organization %q %w", o.Name, ErrNoWorkspace)
	}
	for _, w := range workspaces {
		if u.WorkspaceID != nil && *u.WorkspaceID == w.ID {
			return nil
		}
	}
	// A Slack user ID is valid only in its team, and a role and a limit only in its organization.
	u.WorkspaceID, u.SlackUserID, u.Role, u.MemberLimit = &workspaces[0].ID, nil, Member, nil
	return nil
}

// EnsureUser returns the ID of the person with an email that ParseEmail returned. An unknown person
// is created.
func EnsureUser(ctx context.Context, tx bun.IDB, email string, now time.Time) (id uuid.UUID, err error) {
	if err := ensureUsers(ctx, tx, []string{email}, now); err != nil {
		return id, err
	}
	err = tx.NewSelect().Model((*User)(nil)).Column("id").Where("email = ?", email).Scan(ctx, &id)
	return id, err
}

// ensureUsers creates the users that do not exist, in one statement.
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

// ensureUsers queues the statement that creates the users that do not exist.
func (t *batchTx) ensureUsers(ctx context.Context, emails []string, now time.Time) error {
	if len(emails) == 0 {
		return nil
	}
	users := make([]User, len(emails))
	for i, email := range emails {
		users[i] = User{ID: uuid.Must(uuid.NewV7()), Email: email, Role: Member, CreatedAt: now}
	}
	_, err := t.ExecContext(ctx, t.db.NewInsert().Model(&users).On("CONFLICT (email) DO NOTHING").String())
	return err
}
