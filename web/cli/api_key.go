package cli

import (
	"context"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
)

type apiKeyCommands struct {
	Create apiKeyCreate `cmd:"" help:"Create an API key and print it. It is shown only once."`
	List   apiKeyList   `cmd:"" help:"List the API keys."`
	Revoke apiKeyRevoke `cmd:"" help:"Revoke an API key permanently."`
}

type apiKeyCreate struct {
	Name   string `required:"" help:"A name for the key, such as the app that uses it."`
	Scopes string `required:"" placeholder:"SCOPE,..." help:"One or more of check, consume, read and manage, separated by commas."`
}

// Run creates a key. Only --rate-limit on the command line is the key's own limit. The variable is
// the default of all keys.
func (c *apiKeyCreate) Run(ctx context.Context, o *Output, s *Settings, parsed *kong.Context, db *models.DB) error {
	scopes, err := models.ParseScopes(c.Scopes)
	if err != nil {
		return err
	}
	var limit *int64
	if onCommandLine(parsed, "rate-limit") {
		limit = &s.RateLimit
	}
	var key string
	err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) (err error) {
		if key, err = models.CreateLimitedAPIKey(ctx, tx, now(), c.Name, scopes, limit); err != nil {
			return err
		}
		return models.Audit(ctx, tx, now(), models.ActorShell, "apikey.create", c.Name, c.Scopes+models.RateLimitNote(limit))
	})
	if err != nil {
		return err
	}
	o.Note("This key is shown only once. Tollgate stores only its hash.")
	return o.Print(key)
}

type apiKeyList struct{}

// Run lists the keys.
func (apiKeyList) Run(ctx context.Context, o *Output, db *models.DB) error {
	keys, err := models.ListAPIKeys(ctx, db)
	if err != nil {
		return err
	}
	date := func(t *time.Time) string {
		if t == nil {
			return "never"
		}
		return t.UTC().Format(time.RFC3339)
	}
	return o.table("ID\tNAME\tKEY\tSCOPES\tRATE LIMIT\tCREATED\tLAST USED\tREVOKED", len(keys), func(i int) string {
		k := &keys[i]
		return strings.Join([]string{
			k.ID.String(), k.Name, k.Hint + "…", k.Scopes, k.RateLimitText(), date(&k.CreatedAt), date(k.LastUsedAt), date(k.RevokedAt),
		}, "\t")
	})
}

type apiKeyRevoke struct {
	ID uuid.UUID `arg:"" help:"The key's ID, as listed."`
}

// Run revokes a key.
func (c *apiKeyRevoke) Run(ctx context.Context, db *models.DB) error {
	return db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := models.RevokeAPIKey(ctx, tx, now(), c.ID); err != nil {
			return err
		}
		return models.Audit(ctx, tx, now(), models.ActorShell, "apikey.revoke", c.ID.String(), "")
	})
}
