// Package demo makes up an organization with six months of history, and Slack traffic, so that
// people can try the product without their own data.
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

// Options are what a demo needs.
type Options struct {
	DB        *models.DB
	Catalogue *models.Catalogue
	Now       func() time.Time
	Log       *slog.Logger
	// URL is where the server answers, such as http://127.0.0.1:8080.
	URL string
	// Program is the name that this program was called by (os.Args[0]).
	Program string
	// Out is where the links and commands to try are printed.
	Out io.Writer
}

// pace is the mean time between two calls of the made-up traffic.
const pace = 300 * time.Millisecond

// Run prints what to try in the database that Seed filled, and sends made-up traffic to the server
// at o.URL until ctx ends.
func Run(ctx context.Context, o Options) error {
	err := run(ctx, o)
	if ctx.Err() != nil {
		return nil // stopped during a call
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

// shellWord quotes a text as one word for a shell.
func shellWord(s string) string {
	if !strings.ContainsAny(s, " \t\n'\"\\$`*?[]{}()<>|&;#~!") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// guide prints what to try.
func guide(ctx context.Context, o *Options, key string) error {
	now := models.Now(o.Now)
	usage, err := models.OrganizationUsage(ctx, o.DB, o.Catalogue, now, mainOrganization)
	if err != nil {
		return err
	}
	plan := o.Catalogue.PlanOf(usage.Plan)
	people := assemble(o.Catalogue).people
	admin, busiest := people[0].email, people[1].email
	// At the very beginning of a month, there are no top users.
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
		database = "ADDRESS_OF_THE_DATABASE" // the address may contain a password
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
Tollgate runs at %[1]s with made-up data:
- %[2]d members of %[3]s, on the plan %[4]s
- people on every other plan
- six months of history
Made-up Slack traffic continues until you press Ctrl-C.

Open the pages. Each link signs in once, within ten minutes:
as the admin, who is also the operator   %[9]s
as a member                              %[10]s
To get another link, run                 %[11]s

Read the API documentation: %[1]s/docs

Use this API key for all calls. It is shown only now:
%[5]s

Check whether a member may have one more unit, and what the app should say. Nothing is recorded:
%[6]s

Consume one unit. If you run this again, the idempotency key is the same, so it counts once and the
response has "replayed": true:
%[7]s

Read the organization's usage this month. Run this again later to see how the traffic adds to it:
%[8]s

`, o.URL, usage.TotalUsers, usage.Name, plan.Name, key,
		call("/v1/check", fmt.Sprintf(`{"email": %q}`, busiest)),
		call("/v1/consume", fmt.Sprintf(`{"email": %q, "idempotency_key": "try-%d"}`, busiest, now.UnixMilli())),
		call("/v1/organizations/"+usage.ID.String()+"/usage", ""), links[0], links[1], again)
	return err
}
