package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// ErrNotEmpty means that the database has data that is not the demo's.
var ErrNotEmpty = errors.New("the database is not empty; demo needs an empty one")

// insertRows is how many rows one statement inserts.
const insertRows = 400

// Seed makes up the people and their history until now, in one transaction. The same time makes the
// same rows. It returns false if the database has them already, and ErrNotEmpty if it has other
// data.
func Seed(ctx context.Context, db *models.DB, c *models.Catalogue, now time.Time) (bool, error) {
	made := false
	err := db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		made = false
		if empty, err := isEmpty(ctx, tx); err != nil || !empty {
			return err
		}
		made = true
		s := seeder{now: now, rng: rand.New(rand.NewPCG(2, 6))} //nolint:gosec // it must be the same each time
		return s.seed(ctx, tx, c)
	})
	if err != nil {
		return false, fmt.Errorf("seed the demo: %w", err)
	}
	return made, nil
}

// isEmpty reports whether the database has no data. It returns false for the demo's own data, and
// ErrNotEmpty for other data.
func isEmpty(ctx context.Context, tx bun.Tx) (bool, error) {
	ours, err := tx.NewSelect().Model((*models.Organization)(nil)).Where("id = ?", mainOrganization).Exists(ctx)
	if err != nil || ours {
		return false, err
	}
	for _, model := range []any{(*models.Organization)(nil), (*models.User)(nil), (*models.UsageRecord)(nil)} {
		if others, err := tx.NewSelect().Model(model).Exists(ctx); err != nil || others {
			return false, errors.Join(err, ErrNotEmpty)
		}
	}
	return true, nil
}

type seeder struct {
	now time.Time
	rng *rand.Rand
}

// id returns a UUID of version 7. Its random part comes from the seed.
func (s *seeder) id(at time.Time) uuid.UUID {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], uint64(at.UnixMilli())<<16|s.rng.Uint64()>>52)
	binary.BigEndian.PutUint64(id[8:], s.rng.Uint64())
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

func (s *seeder) seed(ctx context.Context, tx bun.Tx, c *models.Catalogue) error {
	k := assemble(c)
	start := historyStart(s.now)
	organizations, workspaces, users, subscriptions := s.peopleRows(&k, start)
	if err := insert(ctx, tx, organizations); err != nil {
		return err
	}
	if err := insert(ctx, tx, workspaces); err != nil {
		return err
	}
	if err := insert(ctx, tx, users); err != nil {
		return err
	}
	if err := insert(ctx, tx, subscriptions); err != nil {
		return err
	}
	var records []models.UsageRecord
	var events []models.UsageEvent
	for i := range k.people {
		plan, payer := planOf(c, &k, &k.people[i], organizations)
		grants := k.people[i].uses(s.rng, plan.Included, start, s.now)
		records, events = s.usageRows(records, events, &users[i], k.teams[k.people[i].team].slackID, plan, payer, grants)
	}
	if err := insert(ctx, tx, records); err != nil {
		return err
	}
	if err := number(ctx, tx, records, events); err != nil {
		return err
	}
	slices.SortFunc(events, func(a, b models.UsageEvent) int {
		if c := a.OccurredAt.Compare(b.OccurredAt); c != 0 {
			return c
		}
		return strings.Compare(a.Email, b.Email)
	})
	for i := range events {
		events[i].ID = s.id(events[i].OccurredAt)
		events[i].IdempotencyKey = new(fmt.Sprintf("demo-%06d", i))
	}
	return insert(ctx, tx, events)
}

// peopleRows returns the rows of the cast, in its order, without usage.
func (s *seeder) peopleRows(k *cast, start time.Time) (
	organizations []models.Organization, workspaces []models.Workspace, users []models.User, subscriptions []models.Subscription,
) {
	subscription := func(plan models.PlanID) models.Subscription {
		return models.Subscription{ID: s.id(start), PlanID: plan, Status: models.StatusActive, CreatedAt: start, UpdatedAt: start}
	}
	for _, o := range k.organizations {
		if o.id == uuid.Nil {
			o.id = s.id(start)
		}
		organizations = append(organizations, models.Organization{ID: o.id, Name: o.name, CreatedAt: start})
		if o.plan != "" {
			given := subscription(o.plan)
			given.OrganizationID = &o.id
			subscriptions = append(subscriptions, given)
		}
	}
	for _, t := range k.teams {
		workspaces = append(workspaces, models.Workspace{
			ID: s.id(start), OrganizationID: organizations[t.organization].ID, SlackTeamID: t.slackID, Name: t.name, CreatedAt: start,
		})
	}
	for i, p := range k.people {
		joined := start
		if p.habit == newcomer {
			joined = s.now.Truncate(24*time.Hour).AddDate(0, 0, -21)
		}
		u := models.User{
			ID: s.id(joined), Email: p.email, Name: p.name, WorkspaceID: &workspaces[p.team].ID, SlackUserID: new(slackID(i)),
			Role: p.role, Operator: p.role == models.Admin, SpendLimitCents: p.spendLimitCents, CreatedAt: joined,
		}
		users = append(users, u)
		if p.plan != "" && p.plan != models.FreePlan {
			given := subscription(p.plan)
			given.UserID = &u.ID
			subscriptions = append(subscriptions, given)
		}
	}
	return organizations, workspaces, users, subscriptions
}

// planOf returns the person's plan and payer: the organization's plan, else the person's own, else
// free.
func planOf(c *models.Catalogue, k *cast, p *person, organizations []models.Organization) (plan models.Plan, payer string) {
	i := k.teams[p.team].organization
	if o := k.organizations[i]; o.plan != "" {
		return c.PlanOf(o.plan), models.PayerOf("", &organizations[i].ID)
	}
	return c.PlanOf(p.plan), models.PayerOf("", nil)
}

// usageRows turns what a person requested into records and events, as the gate would have: a record
// for each month, an event for each allowed request, and nothing for a refusal.
func (s *seeder) usageRows(
	records []models.UsageRecord, events []models.UsageEvent, u *models.User, team string, plan models.Plan, payer string, grants []grant,
) ([]models.UsageRecord, []models.UsageEvent) {
	var standing models.Standing
	for _, g := range grants {
		if !standing.Period.Contains(g.at) {
			standing = models.Standing{
				UserID: u.ID, Email: u.Email, Plan: plan.ID, Included: plan.Included, OverageRateCents: plan.OverageRateCents,
				SpendLimitCents: u.SpendLimitCents, Period: models.CalendarMonth(g.at),
			}
			records = append(records, models.UsageRecord{
				UserID: u.ID, Email: u.Email, BillingPeriodStart: standing.Period.Start, BillingPeriodEnd: standing.Period.End, PlanID: plan.ID,
				SuggestionsIncluded: plan.Included, OverageRateCents: plan.OverageRateCents, SpendLimitCents: u.SpendLimitCents,
				WorkspaceID: u.WorkspaceID, SlackTeamID: &team, SlackUserID: u.SlackUserID, Payer: &payer, CreatedAt: g.at,
			})
		}
		verdict := models.Decide(standing, g.quantity)
		if !verdict.Allowed {
			continue
		}
		standing.Add(g.quantity, verdict)
		record := &records[len(records)-1]
		record.SuggestionsUsed, record.OverageUsed, record.OverageCents = standing.Used, standing.Overage, standing.OverageCents
		record.Daily = record.Daily.Add(models.DayOf(standing.Period.Start, g.at), g.quantity)
		events = append(events, models.UsageEvent{
			UserID: u.ID, RecordID: int64(len(records)), // its position, until the record has an ID
			Email: u.Email, WorkspaceID: u.WorkspaceID, Quantity: g.quantity, OverageQuantity: verdict.Overage, OverageCents: verdict.OverageCents,
			OccurredAt: g.at, RecordedAt: g.at, Figures: standing.Figures(),
		})
	}
	return records, events
}

// number sets the events' record IDs to those of the inserted records.
func number(ctx context.Context, tx bun.Tx, records []models.UsageRecord, events []models.UsageEvent) error {
	var stored []models.UsageRecord
	if err := tx.NewSelect().Model(&stored).Column("id", "email", "billing_period_start").Scan(ctx); err != nil {
		return err
	}
	type key struct {
		email string
		start int64
	}
	ids := make(map[key]int64, len(stored))
	for _, r := range stored {
		ids[key{r.Email, r.BillingPeriodStart.Unix()}] = r.ID
	}
	for i := range events {
		r := &records[events[i].RecordID-1]
		events[i].RecordID = ids[key{r.Email, r.BillingPeriodStart.Unix()}]
	}
	return nil
}

// insert stores rows, many in each statement.
func insert[T any](ctx context.Context, tx bun.Tx, rows []T) error {
	for part := range slices.Chunk(rows, insertRows) {
		if _, err := tx.NewInsert().Model(&part).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}
