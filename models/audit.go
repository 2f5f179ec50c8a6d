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
}

// ActorShell is the actor of changes on the command line.
const ActorShell = "shell"

// Audit adds an entry to the audit log. Call it in the transaction of the change.
func Audit(ctx context.Context, db bun.IDB, at time.Time, actor, action, subject, detail string) error {
	entry := AuditEntry{ID: uuid.Must(uuid.NewV7()), At: at, Actor: actor, Action: action, Subject: subject, Detail: detail}
	if _, err := db.NewInsert().Model(&entry).Exec(ctx); err != nil {
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
