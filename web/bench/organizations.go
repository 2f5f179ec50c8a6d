//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// meteredPlan is a plan without included units, so each unit is overage.
	meteredPlan = "metered"
	// firstLimited is the first person in the organizations with a spend limit. The next b.People
	// people are in one organization, and as many after them in manyOrganizations others.
	firstLimited      = 40_000
	manyOrganizations = 1_000
	// benchSpendLimit is in cents, more than a run can use.
	benchSpendLimit = 100_000_000
)

// organizations measures overage that counts toward spend limits, after the peak of the memory was
// read: its members are further people whom the gate remembers.
func (b *bench) organizations(ctx context.Context) error {
	plan := b.organizationPlan()
	if len(plan) == 0 {
		return nil
	}
	if err := b.fillOrganizations(ctx, plan[0].server); err != nil {
		return err
	}
	return b.measure(ctx, plan)
}

func (b *bench) organizationPlan() []measurement {
	s := b.server(postgresServer)
	if s == nil || !b.wants(oneOrganizationCall) {
		return nil
	}
	return []measurement{{manyOrganizationsCall, s}, {oneOrganizationCall, s}}
}

// fillOrganizations creates the organizations with spend limits and their members, and makes each
// member's first call.
func (b *bench) fillOrganizations(ctx context.Context, s *server) error {
	conn, err := pgx.Connect(ctx, s.database)
	if err != nil {
		return fmt.Errorf("create organizations: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // everything is committed by then
	emails := make([]string, 2*b.People)
	places := make([]int, len(emails))
	for i := range emails {
		emails[i] = personEmail(firstLimited + i)
		if i >= b.People {
			places[i] = 1 + i%manyOrganizations
		}
	}
	for _, statement := range []struct {
		text string
		args []any
	}{
		{`INSERT INTO organizations (id, name, spend_limit_cents, created_at)
			SELECT gen_random_uuid(), 'limited ' || n, $1, now() FROM generate_series(0, $2::integer) n`, []any{benchSpendLimit, manyOrganizations}},
		{`INSERT INTO workspaces (id, organization_id, slack_team_id, name, created_at)
			SELECT gen_random_uuid(), id, replace(name, ' ', '-'), name, now() FROM organizations WHERE name LIKE 'limited %'`, nil},
		{`INSERT INTO subscriptions (id, organization_id, plan_id, status, created_at, updated_at)
			SELECT gen_random_uuid(), id, $1, 'active', now(), now() FROM organizations WHERE name LIKE 'limited %'`, []any{meteredPlan}},
		{`INSERT INTO users (id, email, workspace_id, created_at)
			SELECT gen_random_uuid(), k.email, w.id, now() FROM unnest($1::text[], $2::integer[]) k (email, place)
			JOIN workspaces w ON w.slack_team_id = 'limited-' || k.place`, []any{emails, places}},
	} {
		if _, err := conn.Exec(ctx, statement.text, statement.args...); err != nil {
			return fmt.Errorf("create organizations: %w", err)
		}
	}
	begin := time.Now()
	if _, err := b.load(ctx, s, load{Path: "/v1/consume", Keyed: true, Each: true, FirstPerson: firstLimited,
		People: len(emails)}); err != nil {
		return err
	}
	b.say("%s: the first calls of %d members of %d organizations with spend limits took %s", s.name, len(emails), 1+manyOrganizations,
		short(time.Since(begin)))
	return nil
}
