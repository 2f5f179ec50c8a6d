package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// AuditEntry is a line of the audit log: who changed what by hand.
type AuditEntry struct {
	bun.BaseModel `bun:"table:audit_log"`

	ID uuid.UUID `bun:",pk,type:uuid"`
	At time.Time
	// Actor is an email, or ActorShell.
	Actor string
	// Action is a verb and its object, such as "apikey.create".
	Action  string
	Subject string
	// Detail is for people to read; it holds no secret.
	Detail string
}

// ActorShell is the actor of what the operator does on the command line.
const ActorShell = "shell"

// Audit adds a line to the audit log. Call it in the transaction of the change that it tells of.
func Audit(ctx context.Context, db bun.IDB, at time.Time, actor, action, subject, detail string) error {
	entry := AuditEntry{ID: uuid.Must(uuid.NewV7()), At: at, Actor: actor, Action: action, Subject: subject, Detail: detail}
	if _, err := db.NewInsert().Model(&entry).Exec(ctx); err != nil {
		return fmt.Errorf("write to the audit log: %w", err)
	}
	return nil
}
