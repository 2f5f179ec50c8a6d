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
	// Keys are all there are, revoked ones too; their hashes are not drawn.
	Keys Widget[[]models.APIKey]
	// NewKey is a key that was just made. It is shown on the answer to its making and never again; else empty.
	NewKey string
	// Form is the state of the form that makes a key.
	Form   KeyForm
	Stripe Widget[OpsStripe]
	// Unit names the units that are counted, in the plural.
	Unit  string
	Audit Widget[AuditLog]
	// NoSignIn means that people can sign in only with one-time links.
	NoSignIn bool
}

// KeyForm is the form that makes a key, as it was sent.
type KeyForm struct {
	Name   string
	Scopes []models.Scope
	// RateLimit is empty for the server's default.
	RateLimit string
	// NameFault, ScopesFault and RateLimitFault say what is wrong; else they are empty.
	NameFault, ScopesFault, RateLimitFault string
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

// scopeMeaning says what a scope allows.
func scopeMeaning(s models.Scope) string {
	switch s {
	case models.ScopeCheck:
		return "ask whether a person may have more"
	case models.ScopeConsume:
		return "record usage, hold and settle"
	case models.ScopeRead:
		return "read usage of people and organizations"
	}
	return ""
}

// chosen says which scopes are ticked: those that were sent, at first all that the app needs to decide and record.
func (f *KeyForm) chosen(s models.Scope) bool {
	if f.Name == "" && f.NameFault == "" && f.ScopesFault == "" && f.RateLimitFault == "" {
		return s != models.ScopeRead
	}
	return slices.Contains(f.Scopes, s)
}

func keyScopes(k models.APIKey) string { return strings.ReplaceAll(k.Scopes, ",", ", ") }
