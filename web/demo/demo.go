// Package demo makes up an organization with half a year behind it and the Slack traffic that goes on, so that the
// product can be looked at without any of one's own.
package demo

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"tollgate/models"
	"tollgate/web"
)

// Options are a demo's surroundings.
type Options struct {
	DB        *models.DB
	Catalogue *models.Catalogue
	Now       func() time.Time
	Log       *slog.Logger
	// URL is where the server answers, such as http://127.0.0.1:8080.
	URL string
	// Program is what this one was called as (os.Args[0]).
	Program string
	// Out gets what there is to try.
	Out io.Writer
}

// pace is the mean time between two calls of the made-up traffic.
const pace = 300 * time.Millisecond

// Run says what there is to try in the database that Seed filled, and drives made-up traffic through the server at o.URL
// until ctx ends.
func Run(ctx context.Context, o Options) error {
	err := run(ctx, o)
	if ctx.Err() != nil {
		return nil // stopped in the middle of something
	}
	return err
}

func run(ctx context.Context, o Options) error {
	key, err := models.CreateAPIKey(ctx, o.DB, models.Now(o.Now), "demo", models.Scopes)
	if err != nil {
		return err
	}
	if err := guide(ctx, &o, key); err != nil {
		return err
	}
	traffic := Traffic{URL: o.URL, Key: key, Log: o.Log, Now: o.Now, Pace: pace}
	if traffic.People, err = Regulars(ctx, o.DB); err != nil {
		return err
	}
	if traffic.Usual, traffic.Today, err = UsualDay(ctx, o.DB, o.Now()); err != nil {
		return err
	}
	traffic.Run(ctx)
	return nil
}

// shellWord is a text as one word of a shell's.
func shellWord(s string) string {
	if !strings.ContainsAny(s, " \t\n'\"\\$`*?[]{}()<>|&;#~!") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// guide writes what there is to try.
func guide(ctx context.Context, o *Options, key string) error {
	now := models.Now(o.Now)
	usage, err := models.OrganizationUsage(ctx, o.DB, o.Catalogue, now, mainOrganization)
	if err != nil {
		return err
	}
	plan := o.Catalogue.PlanOf(usage.Plan)
	people := assemble(o.Catalogue).people
	admin, busiest := people[0].email, people[1].email
	// At the very beginning of a month nobody has used anything.
	for _, top := range usage.TopUsers {
		if top.Email != admin {
			busiest = top.Email
			break
		}
	}
	links := make([]string, 2)
	for i, who := range []struct{ email, lands string }{{admin, "?next=/org"}, {busiest, ""}} {
		token, err := models.CreateSignInLink(ctx, o.DB, now, who.email)
		if err != nil {
			return err
		}
		links[i] = o.URL + web.SignInLinkPath + token + who.lands
	}
	program, database := shellWord(o.Program), shellWord(o.DB.URL)
	if strings.Contains(o.Program, "/go-build") {
		program = "go run ."
	}
	if o.DB.Postgres {
		database = "…" // the address may hold a password
	}
	again := program + " sign-in " + admin + " --base-url " + o.URL + " --database " + database
	call := func(path, body string) string {
		curl := "curl -sS -H 'Authorization: Bearer " + key + "' "
		if body != "" {
			curl += "-H 'Content-Type: application/json' -d '" + body + "' "
		}
		return curl + o.URL + path
	}
	_, err = fmt.Fprintf(o.Out, `
Tollgate runs at %[1]s with %[2]d made-up people of %[3]s on the plan %[4]s,
people on every other plan, and half a year behind them. Made-up Slack traffic goes on until Ctrl-C.

The pages, each link for one sign-in within ten minutes:
the admin's, who is the operator too   %[9]s
a member's                             %[10]s
Another link:                          %[11]s

The API and its documents: %[1]s/docs

An API key for all of it, told only now:
%[5]s

May this person have one more, and what are they to be told? Nothing is recorded.
%[6]s

Have one. Run it again: the key makes it the same one, counted once and answered with "replayed": true.
%[7]s

How does the organization stand this month? Run it again in a while: the traffic counts.
%[8]s

`, o.URL, usage.TotalUsers, usage.Name, plan.Name, key,
		call("/v1/check", fmt.Sprintf(`{"email": %q}`, busiest)),
		call("/v1/consume", fmt.Sprintf(`{"email": %q, "idempotency_key": "try-%d"}`, busiest, now.UnixMilli())),
		call("/v1/organizations/"+usage.ID.String()+"/usage", ""), links[0], links[1], again)
	return err
}
