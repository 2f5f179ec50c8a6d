package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// AuditEntry is an entry of the audit log: a change that a person made.
type AuditEntry struct {
	bun.BaseModel `bun:"table:audit_log"`

	ID uuid.UUID `bun:",pk,type:uuid"`
	At time.Time
	// Actor is an email, or ActorShell.
	Actor string
	// Action is a verb and its object, such as "apikey.create".
	Action  string
	Subject string
	// Detail is text for people. It contains no secret.
	Detail string
	// OrganizationID is the organization whose admins see the entry; nil if none does.
	OrganizationID *uuid.UUID `bun:",type:uuid"`
}

// ActorShell is the actor of changes on the command line.
const ActorShell = "shell"

// The actions whose entries contain a text that someone wrote about a person.
const (
	auditGrant = "grant.create"
	auditVoid  = "event.void"
)

// Audit adds an entry to the audit log. Call it in the transaction of the change.
func Audit(ctx context.Context, db bun.IDB, at time.Time, actor, action, subject, detail string) error {
	return AuditEntry{At: at, Actor: actor, Action: action, Subject: subject, Detail: detail}.add(ctx, db)
}

// AuditOrganization adds an entry that the organization's admins see, too.
func AuditOrganization(ctx context.Context, db bun.IDB, at time.Time, actor, action, subject, detail string, id uuid.UUID) error {
	return AuditEntry{At: at, Actor: actor, Action: action, Subject: subject, Detail: detail, OrganizationID: &id}.add(ctx, db)
}

func (e AuditEntry) add(ctx context.Context, db bun.IDB) error {
	e.ID = uuid.Must(uuid.NewV7())
	if _, err := db.NewInsert().Model(&e).Exec(ctx); err != nil {
		return fmt.Errorf("write to the audit log: %w", err)
	}
	return nil
}

// AuditPage returns a page of the audit log, newest first, and the number of all entries. Pages
// count from 1.
func AuditPage(ctx context.Context, db bun.IDB, page, perPage int) ([]AuditEntry, int, error) {
	var entries []AuditEntry
	total, err := db.NewSelect().Model(&entries).Order("at DESC", "id DESC").Limit(int64(perPage)).Offset(int64((page - 1) * perPage)).
		ScanAndCount(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("read the audit log: %w", err)
	}
	for i := range entries {
		entries[i].At = entries[i].At.UTC()
	}
	return entries, int(total), nil
}

// OrganizationAudit returns the latest entries that an organization's admins see, newest first.
func OrganizationAudit(ctx context.Context, db bun.IDB, id uuid.UUID, limit int) ([]AuditEntry, error) {
	var entries []AuditEntry
	err := db.NewSelect().Model(&entries).Where("organization_id = ?", id).Order("at DESC", "id DESC").Limit(int64(limit)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the audit log of the organization %s: %w", id, err)
	}
	for i := range entries {
		entries[i].At = entries[i].At.UTC()
	}
	return entries, nil
}
