package models

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// WebhookEndpoint is a URL that gets all notices.
type WebhookEndpoint struct {
	bun.BaseModel `bun:"table:webhook_endpoints"`

	ID  uuid.UUID `bun:",pk,type:uuid"`
	URL string
	// Secret signs the requests. It is stored as it is, because each request needs it.
	Secret    string
	CreatedBy string
	CreatedAt time.Time
	// DisabledAt is when the endpoint was disabled; nil while it gets notices. Reason says why.
	DisabledAt *time.Time
	Reason     string
}

const (
	// webhookSecretPrefix begins each secret.
	// Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
	webhookSecretPrefix = "whsec_"
	webhookSecretBytes  = 32
	maxWebhookURL       = 1000
)

// ErrWebhookURL means that a URL cannot be a webhook endpoint.
var ErrWebhookURL = fmt.Errorf("must be an https URL of at most %d characters, without a user name or a fragment", maxWebhookURL)

// ErrEndpointExists means that a form already made the endpoint.
var ErrEndpointExists = errors.New("this webhook endpoint already exists")

// AddWebhookEndpoint adds an endpoint with a new secret. The ID is the form's token, so that a form
// that is sent twice adds one endpoint; the second call returns ErrEndpointExists. It returns
// ErrWebhookURL for an invalid URL.
func AddWebhookEndpoint(ctx context.Context, db *DB, now time.Time, actor string, id uuid.UUID, address string) (*WebhookEndpoint, error) {
	address = strings.TrimSpace(address)
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" || len(address) > maxWebhookURL ||
		strings.ContainsFunc(address, isNotPrint) {
		return nil, ErrWebhookURL
	}
	secret := make([]byte, webhookSecretBytes)
	_, _ = rand.Read(secret) // never fails
	e := &WebhookEndpoint{ID: id, URL: address, Secret: webhookSecretPrefix + base64.StdEncoding.EncodeToString(secret), CreatedBy: actor,
		CreatedAt: now}
	err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		made, err := tx.NewInsert().Model(e).On("CONFLICT (id) DO NOTHING").Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := made.RowsAffected(); err != nil || n == 0 {
			return errors.Join(ErrEndpointExists, err)
		}
		return Audit(ctx, tx, now, actor, "webhook.add", id.String(), u.Scheme+"://"+u.Host)
	})
	if err != nil {
		return nil, fmt.Errorf("add a webhook endpoint: %w", err)
	}
	return e, nil
}

// RemoveWebhookEndpoint removes an endpoint. It reports whether there was one.
func RemoveWebhookEndpoint(ctx context.Context, db *DB, now time.Time, actor string, id uuid.UUID) (removed bool, err error) {
	err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		done, err := tx.NewDelete().Model((*WebhookEndpoint)(nil)).Where("id = ?", id).Exec(ctx)
		if err != nil {
			return err
		}
		n, err := done.RowsAffected()
		if removed = n > 0; err != nil || !removed {
			return err
		}
		return Audit(ctx, tx, now, actor, "webhook.remove", id.String(), "")
	})
	if err != nil {
		return false, fmt.Errorf("remove a webhook endpoint: %w", err)
	}
	return removed, nil
}

// WebhookEndpoints returns all endpoints, oldest first.
func WebhookEndpoints(ctx context.Context, db bun.IDB) ([]WebhookEndpoint, error) {
	var all []WebhookEndpoint
	if err := db.NewSelect().Model(&all).Order("created_at", "id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list the webhook endpoints: %w", err)
	}
	for i := range all {
		all[i].CreatedAt = all[i].CreatedAt.UTC()
	}
	return all, nil
}

// SigningKey returns the bytes of the secret.
func (e *WebhookEndpoint) SigningKey() ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(e.Secret, webhookSecretPrefix))
	if err != nil {
		return nil, fmt.Errorf("the secret of the webhook endpoint %s is invalid", e.ID)
	}
	return key, nil
}
