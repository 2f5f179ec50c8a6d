package models_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// shop has made-up organizations and a clock that advances.
type shop struct {
	*fixture
	// ended is the cache of one server. It must follow all changes.
	ended         models.PastUsageCache
	random        *rand.Rand
	now           time.Time
	organizations []uuid.UUID
	workspaces    []models.Workspace
	emails        []string
	plans         []models.PlanID
}

func newShop(t *testing.T, f *fixture, seed uint64, now time.Time) *shop {
	t.Helper()
	s := &shop{fixture: f, random: rand.New(rand.NewPCG(seed, 1)), now: now, plans: []models.PlanID{"free", "starter", "pro", "team",
		"business", "gone"}}
	for i := range 3 {
		o := models.Organization{ID: id(10_000 + i), Name: strings.Repeat("O", i+1), CreatedAt: now.AddDate(0, -s.random.IntN(8), 0)}
		f.insert(t, &o)
		s.organizations = append(s.organizations, o.ID)
		for j := range 1 + i%2 {
			w := models.Workspace{ID: id(20_000 + 10*i + j), OrganizationID: o.ID, SlackTeamID: "T" + strings.Repeat("x", 3*i+j), CreatedAt: now}
			f.insert(t, &w)
			s.workspaces = append(s.workspaces, w)
		}
	}
	names := []string{"", "ada", "Ada", "Éva Ö", "éva ö", "ZOË", "Zoë", "bob", "\"x\" 100%_\\", "Émile", "ÄRGER"}
	for i := range 45 {
		email := strings.ToLower(string(rune('a'+s.random.IntN(26)))) + string(rune('0'+s.random.IntN(10))) + "_" +
			string(rune('a'+i%26)) + string(rune('a'+i/26)) + "@example.com"
		u := models.User{ID: id(30_000 + i), Email: email, Role: models.Member,
			CreatedAt: now.Add(-time.Duration(s.random.IntN(5000)) * time.Hour)}
		if s.random.IntN(12) > 0 {
			u.WorkspaceID = &s.workspaces[s.random.IntN(len(s.workspaces))].ID
		}
		if s.random.IntN(6) == 0 {
			limit := int64(s.random.IntN(2000))
			u.SpendLimitCents = &limit
		}
		s.emails = append(s.emails, email)
		f.insert(t, &u)
		if _, err := models.SignInByIssuer(f.ctx, f.db, now, models.IssuerIdentity{Issuer: "https://id.example.com", Subject: email},
			email, names[s.random.IntN(len(names))]); err != nil {
			t.Fatal(err)
		}
		s.records(t, email)
		if s.random.IntN(3) == 0 {
			s.subscription(t, &models.Subscription{UserID: &u.ID})
		}
	}
	return s
}

// records creates a person's past records. Their periods never overlap: calendar months, months of
// an anchor, or shortened ones.
func (s *shop) records(t *testing.T, email string) {
	t.Helper()
	u := one[models.User](t, s.fixture, "email = ?", email)
	at := s.now.AddDate(0, -9, 0)
	anchor := at.Add(time.Duration(s.random.IntN(60*24)) * time.Hour)
	end := time.Time{}
	for at.Before(s.now.Add(time.Duration(s.random.IntN(60)) * time.Hour)) {
		p := models.CalendarMonth(at)
		if s.random.IntN(3) == 0 {
			p = models.AnchoredMonth(anchor, at)
		}
		if p.Start.Before(end) {
			p.Start = end
		}
		if s.random.IntN(6) == 0 && p.End.Sub(p.Start) > 48*time.Hour {
			p.End = p.Start.Add(time.Duration(24+s.random.IntN(24)) * time.Hour)
		}
		at, end = p.End, p.End
		if s.random.IntN(5) == 0 {
			continue
		}
		r := &models.UsageRecord{
			UserID: u.ID, Email: email, SpendLimitCents: u.SpendLimitCents, BillingPeriodStart: p.Start, BillingPeriodEnd: p.End,
			PlanID:              s.plans[s.random.IntN(len(s.plans))],
			SuggestionsIncluded: []int64{0, 5, 25, 50, 75, 100, 200}[s.random.IntN(7)], OverageRateCents: int64(s.random.IntN(40)),
			Entitled: true, CreatedAt: p.Start,
		}
		for range s.random.IntN(5) {
			units := int64(s.random.IntN(45))
			r.SuggestionsUsed += units
			if s.random.IntN(2) == 0 { // at the rate of that time
				over := int64(s.random.IntN(int(units) + 1))
				r.OverageUsed, r.OverageCents = r.OverageUsed+over, r.OverageCents+over*int64(s.random.IntN(40))
			}
			r.Daily = r.Daily.Add(s.random.IntN(models.DayOf(p.Start, p.End.Add(-time.Microsecond))+1), units)
		}
		if s.random.IntN(4) == 0 {
			r.UnitsHeld = int64(s.random.IntN(20))
			r.OverageHeld = int64(s.random.IntN(int(r.UnitsHeld) + 1))
			r.OverageCentsHeld = 7 * r.OverageHeld
			r.Granted, r.IncludedBefore = int64(s.random.IntN(2)*10), int64(s.random.IntN(2)*5)
		}
		s.insert(t, r)
	}
}

// subscription adds a subscription with Stripe's period or by hand, active or ended.
func (s *shop) subscription(t *testing.T, sub *models.Subscription) {
	t.Helper()
	sub.ID, sub.PlanID, sub.Status = uuid.New(), s.plans[1+s.random.IntN(len(s.plans)-1)], models.StatusActive
	sub.CreatedAt = s.now.Add(-time.Duration(1+s.random.IntN(1e6)) * time.Second)
	sub.UpdatedAt = sub.CreatedAt
	if s.random.IntN(4) == 0 {
		sub.Status = []models.SubscriptionStatus{models.StatusCanceled, models.StatusPastDue, models.StatusTrialing}[s.random.IntN(3)]
	}
	anchor := s.now.Add(-time.Duration(s.random.IntN(70*24)) * time.Hour)
	p := models.AnchoredMonth(anchor, s.now)
	switch s.random.IntN(5) {
	case 0: // by hand
	case 1: // a year
		end := anchor.AddDate(1, 0, 0)
		sub.BillingCycleAnchor, sub.CurrentPeriodStart, sub.CurrentPeriodEnd = &anchor, &anchor, &end
	case 2: // not yet known to be renewed
		end := anchor.Add(20 * time.Hour)
		sub.CurrentPeriodStart, sub.CurrentPeriodEnd = &anchor, &end
	default:
		sub.BillingCycleAnchor, sub.CurrentPeriodStart, sub.CurrentPeriodEnd = &anchor, &p.Start, &p.End
	}
	if sub.CurrentPeriodStart != nil {
		sub.StripeSubscriptionID, sub.StripeCustomerID = ptr("sub_"+sub.ID.String()), ptr("cus_1")
		if s.random.IntN(3) > 0 {
			sub.OverageRateCents = ptr(int64(s.random.IntN(40)))
		}
	}
	s.insert(t, sub)
}

// change makes a random change to who belongs where, what they may use, or which records exist.
func (s *shop) change(t *testing.T) {
	t.Helper()
	email := s.emails[s.random.IntN(len(s.emails))]
	at := s.now
	switch s.random.IntN(8) {
	case 0, 1:
		w := &s.workspaces[s.random.IntN(len(s.workspaces))]
		if _, err := models.LinkPeople(s.ctx, s.db, s.now,
			[]models.Link{{Email: email, Slack: models.SlackIdentity{TeamID: w.SlackTeamID, UserID: uuid.NewString()}}}); err != nil {
			t.Fatal(err)
		}
	case 2:
		s.exec(t, "UPDATE users SET workspace_id = NULL WHERE email = ?", email)
	case 3:
		s.subscription(t, &models.Subscription{OrganizationID: &s.organizations[s.random.IntN(len(s.organizations))]})
	case 4:
		s.exec(t, "UPDATE subscriptions SET status = 'canceled' WHERE organization_id = ?", s.organizations[s.random.IntN(len(s.organizations))])
	case 5: // a late event needs a record of a past period
		at = s.now.AddDate(0, 0, -1-s.random.IntN(200))
		fallthrough
	case 6:
		if err := models.PrepareRecords(s.ctx, s.db, s.catalogue, s.now, []models.RecordKey{{Email: email, At: at}}); err != nil {
			t.Fatal(err)
		}
	case 7:
		w := s.workspaces[s.random.IntN(len(s.workspaces))]
		s.exec(t, "UPDATE workspaces SET organization_id = ? WHERE id = ?", s.organizations[s.random.IntN(len(s.organizations))], w.ID)
	}
	// Most changes follow each other closely; sometimes a month passes.
	s.now = s.now.Add([]time.Duration{0, time.Minute, 3 * time.Hour, 30 * time.Hour,
		24 * 33 * time.Hour}[min(s.random.IntN(20), 4)*s.random.IntN(2)])
}
