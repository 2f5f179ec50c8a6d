package views

import (
	"fmt"
	"slices"
	"strings"

	"tollgate/models"
	"tollgate/views/ui"
)

// Ops is the operator's page.
type Ops struct {
	Frame ui.Frame
	// Keys are all keys, including revoked ones. Their hashes are not shown.
	Keys Widget[[]models.APIKey]
	// NewKey is a key that was just created, otherwise empty. Only the response to the form shows it.
	NewKey string
	// Form is the state of the form that creates a key.
	Form   KeyForm
	Stripe Widget[OpsStripe]
	// Catalogue is the plan catalog, and Refusals are those of the last 24 hours.
	Catalogue *models.Catalogue
	Refusals  Widget[[]models.RefusalCount]
	// Unit is the plural name of the counted units.
	Unit  string
	Audit Widget[AuditLog]
	// Notices are the ones that were not delivered, and the webhook endpoints.
	Notices Widget[OpsNotices]
	// WebhookForm is the form that adds an endpoint. NewSecret is the secret of an endpoint that was just
	// added, otherwise empty.
	WebhookForm WebhookForm
	NewSecret   string
	// NoSignIn means that people can sign in only with one-time links.
	NoSignIn bool
}

// KeyForm is the form that creates a key. If it is shown again, it keeps its entries.
type KeyForm struct {
	// Token becomes the ID of the key, so that a form that is sent twice creates one key.
	Token  string
	Name   string
	Scopes []models.Scope
	// RateLimit is empty for the server's default.
	RateLimit string
	// Sent means that the form was sent and is shown again.
	Sent bool
}

// The IDs of fields that can be invalid.
const (
	FieldIDKeyName   = "key-name"
	FieldIDScope     = "key-scope"
	FieldIDRateLimit = "key-rate-limit"
)

// FieldIDReason returns the ID of the field for the reason to give up a report.
func FieldIDReason(report string) string { return fieldIDReason + report }

const fieldIDReason = "reason-"

// KeyRevoke is the page that asks for confirmation before an API key is revoked.
type KeyRevoke struct {
	Frame ui.Frame
	Key   models.APIKey
}

// lastUse says when the key was last used.
func (d *KeyRevoke) lastUse() string {
	if d.Key.LastUsedAt == nil {
		return "never"
	}
	return ui.Relative(*d.Key.LastUsedAt, d.Frame.Now)
}

// AuditLog is a page of the audit log, newest first.
type AuditLog struct {
	Entries []models.AuditEntry
	// Page counts from 1 to Last.
	Page, Last int
}

func auditURL(page int) string {
	if page <= 1 {
		return "/ops#audit"
	}
	return fmt.Sprintf("/ops?page=%d#audit", page)
}

// refusalsCounted says which refusals the card counts.
const refusalsCounted = "For each reason, the people who were refused in the last 24 hours, with all their refusals for it in the same " +
	"billing period. The numbers are approximate."

// scopeMeaning says what a scope allows.
func scopeMeaning(s models.Scope) string {
	switch s {
	case models.ScopeCheck:
		return "check whether a person may use more"
	case models.ScopeConsume:
		return "record and void usage; create, settle and release holds"
	case models.ScopeRead:
		return "read usage of people and organizations"
	case models.ScopeManage:
		return "add grants; change limits, roles, names and memberships; with consume, also void events that are in a report to Stripe"
	}
	return ""
}

// chosen reports whether a scope is selected. Before the form is sent, those are only the scopes
// that the app needs to check and record usage.
func (f *KeyForm) chosen(s models.Scope) bool {
	if !f.Sent {
		return s == models.ScopeCheck || s == models.ScopeConsume
	}
	return slices.Contains(f.Scopes, s)
}

func keyScopes(k models.APIKey) string { return strings.ReplaceAll(k.Scopes, ",", ", ") }
