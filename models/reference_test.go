package models_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// These functions compute the figures of an organization's pages in the simplest way: they read
// each member's record and apply the gate's rules. The database queries are compared with them.

const longestPeriod = 62 * 24 * time.Hour

type referenceMember struct{ models.MemberUsage }

func (f *fixture) referenceMembers(t *testing.T, now time.Time, id uuid.UUID) []referenceMember {
	t.Helper()
	var users []models.User
	if err := f.db.NewSelect().Model(&users).Where("workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id = ?)", id).
		Scan(f.ctx); err != nil {
		t.Fatal(err)
	}
	subscriptions := all[models.Subscription](t, f, "created_at DESC")
	active := func(matches func(*models.Subscription) bool) *models.Subscription {
		for i := range subscriptions {
			if n := &subscriptions[i]; matches(n) && (n.Status == "active" || n.Status == "trialing" || n.Status == "past_due") {
				return n
			}
		}
		return nil
	}
	members := make([]referenceMember, 0, len(users))
	for i := range users {
		u := &users[i]
		n := active(func(n *models.Subscription) bool { return n.OrganizationID != nil && *n.OrganizationID == id })
		if n == nil {
			n = active(func(n *models.Subscription) bool { return n.UserID != nil && *n.UserID == u.ID })
		}
		var records []models.UsageRecord
		if err := f.db.NewSelect().Model(&records).Where("user_id = ?", u.ID).Order("billing_period_start").Scan(f.ctx); err != nil {
			t.Fatal(err)
		}
		var m referenceMember
		m.ID, m.Name, m.Role, m.SignedUp = u.ID, u.Name, u.Role, u.CreatedAt.UTC()
		m.Standing = f.referenceStanding(t, u, n, id, subscriptions, records, now)
		members = append(members, m)
	}
	records := f.recordsOf(t, id)
	for i := range members {
		m := &members[i]
		var before int64
		known := m.SignedUp.Before(m.Standing.Period.Start)
		for _, r := range records {
			if r.Email == m.Standing.Email && r.BillingPeriodEnd.Equal(m.Standing.Period.Start) &&
				r.BillingPeriodStart.After(now.Add(-2*longestPeriod)) && !r.BillingPeriodEnd.After(now) {
				before, known = r.SuggestionsUsed, true
			}
		}
		if known {
			m.LastPeriod = &before
		}
	}
	slices.SortFunc(members, func(a, b referenceMember) int { return strings.Compare(a.Standing.Email, b.Standing.Email) })
	return members
}

// referenceStanding computes a person's standing from the rows, as simply as possible.
func (f *fixture) referenceStanding(
	t *testing.T, u *models.User, n *models.Subscription, organization uuid.UUID, subscriptions []models.Subscription,
	records []models.UsageRecord, now time.Time,
) models.Standing {
	t.Helper()
	plan, _ := f.catalogue.Plan(models.FreePlan)
	s := models.Standing{UserID: u.ID, Email: u.Email, Plan: models.FreePlan, Period: models.CalendarMonth(now),
		SpendLimitCents: u.SpendLimitCents}
	payer, since, atStripe := "", time.Time{}, false
	if n != nil {
		s.Plan, s.PastDue, since = n.PlanID, n.Status == "past_due", n.CreatedAt
		if p, ok := f.catalogue.Plan(n.PlanID); ok { // a plan that the catalog lacks gives what free gives
			plan = p
		}
		s.Plan = f.catalogue.PlanOf(n.PlanID).ID
		s.OverageRateCents = plan.OverageRateCents
		if n.StripeSubscriptionID != nil {
			s.OverageRateCents = 0
			if n.Status != "trialing" && n.OverageRateCents != nil {
				s.OverageRateCents = *n.OverageRateCents
			}
		}
		e := models.Entitlement{Anchor: n.BillingCycleAnchor, PeriodStart: n.CurrentPeriodStart, PeriodEnd: n.CurrentPeriodEnd}
		s.Period, atStripe = e.PeriodAt(now), n.CurrentPeriodStart != nil
		switch {
		case n.StripeCustomerID != nil:
			payer = *n.StripeCustomerID
		case n.OrganizationID != nil:
			payer = "organization:" + n.OrganizationID.String()
		}
	}
	for i := range subscriptions {
		if o := &subscriptions[i]; o.InactiveSince != nil && o.InactiveSince.After(since) &&
			(o.UserID != nil && *o.UserID == u.ID || o.OrganizationID != nil && *o.OrganizationID == organization) {
			since = *o.InactiveSince
		}
	}
	var joined []time.Time
	if err := f.db.NewSelect().TableExpr("memberships").Column("since").Where("user_id = ?", u.ID).Scan(f.ctx, &joined); err != nil {
		t.Fatal(err)
	}
	for _, j := range joined {
		if j.After(since) {
			since = j
		}
	}
	whole := s.Period
	var before int64 // included units that were used in this period of this payer, in ended records
	var given int64
	for i := range records {
		r := &records[i]
		start, end := r.BillingPeriodStart, r.BillingPeriodEnd
		if !start.After(now) && end.After(now) {
			ends := time.Time{}
			switch {
			case r.Payer != nil && *r.Payer != payer && since.After(start) && since.Before(now) && (!atStripe || since.After(whole.Start)):
				ends = since
			case atStripe && whole.Start.After(start):
				ends = whole.Start
			}
			if ends.IsZero() { // this record is current
				if !atStripe {
					s.Period.End = end
				}
				s.Period.Start = start
				if s.Period.End.Sub(start) > 62*24*time.Hour {
					s.Period.End = end
				}
				s.Period = models.Period{Start: s.Period.Start.UTC(), End: s.Period.End.UTC()}
				s.Included = r.Granted + max(r.SuggestionsIncluded, plan.Included-r.IncludedBefore)
				s.Used, s.Overage, s.OverageCents = r.SuggestionsUsed, r.OverageUsed, r.OverageCents
				s.Held, s.OverageHeld, s.OverageCentsHeld = r.UnitsHeld, r.OverageHeld, r.OverageCentsHeld
				return s
			}
		}
		// The pages show a person without a current record in the whole period, and read no later record.
		if !start.After(now) && r.Payer != nil && *r.Payer == payer && !start.Before(whole.Start) {
			before += r.SuggestionsUsed - r.OverageUsed + r.UnitsHeld - r.OverageHeld
			given = max(given, r.SuggestionsIncluded+r.IncludedBefore)
		}
	}
	s.Included = max(0, max(given, plan.Included)-before)
	return s
}

// recordsOf returns the records of the organization's current members.
func (f *fixture) recordsOf(t *testing.T, id uuid.UUID) []models.UsageRecord {
	t.Helper()
	var records []models.UsageRecord
	err := f.db.NewSelect().Model(&records).
		Where("user_id IN (SELECT u.id FROM users u JOIN workspaces w ON w.id = u.workspace_id WHERE w.organization_id = ?)", id).Scan(f.ctx)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func (f *fixture) referenceUsage(t *testing.T, now time.Time, id uuid.UUID) models.OrganizationSummary {
	t.Helper()
	o := one[models.Organization](t, f, "id = ?", id)
	s := models.OrganizationSummary{ID: id, Name: o.Name, Plan: models.FreePlan, Period: models.CalendarMonth(now)}
	var newest []models.Subscription
	if err := f.db.NewSelect().Model(&newest).Where("organization_id = ? AND status IN ('active', 'trialing', 'past_due')", id).
		Order("created_at DESC").Limit(1).Scan(f.ctx); err != nil {
		t.Fatal(err)
	}
	for _, n := range newest {
		e := models.Entitlement{PlanID: n.PlanID, Anchor: n.BillingCycleAnchor, PeriodStart: n.CurrentPeriodStart, PeriodEnd: n.CurrentPeriodEnd}
		s.Plan, s.Period = f.catalogue.PlanOf(n.PlanID).ID, e.PeriodAt(now)
	}
	var forecast models.Overage
	length, elapsed := int64(s.Period.End.Sub(s.Period.Start).Seconds()), max(1, int64(now.Sub(s.Period.Start).Seconds()))
	for _, m := range f.referenceMembers(t, now, id) {
		st := &m.Standing
		// Billed units stay billed. Extrapolated units beyond the included ones are billed up to the
		// spend limit.
		more := max(0, st.Used*length/elapsed-max(st.Used, st.Overage+st.Included))
		if st.OverageRateCents == 0 || st.PastDue {
			more = 0
		}
		for more > 0 && st.SpendLimitCents != nil && st.OverageCents+more*st.OverageRateCents > *st.SpendLimitCents {
			more--
		}
		forecast.Units, forecast.Cents = forecast.Units+st.Overage+more, forecast.Cents+st.OverageCents+more*st.OverageRateCents
		s.TotalUsers++
		s.Included += st.Included
		if st.Overage > 0 {
			s.OveragePeople++
			s.OverageUnits += st.Overage
			s.OverageCents += st.OverageCents
		}
		if st.Used > 0 {
			s.ActiveUsers++
			s.TotalSuggestions += st.Used
			s.TopUsers = append(s.TopUsers, models.RankedUser{
				Email: st.Email, Name: m.Name, Used: st.Used, Overage: st.Overage, Held: st.Held, OverageHeld: st.OverageHeld,
				Included: st.Included, PercentUsed: st.PercentUsed(), WarningLevel: st.Level(),
			})
		}
	}
	if now.Sub(s.Period.Start) >= 5*24*time.Hour && s.TotalSuggestions >= 10 {
		s.Forecast = &forecast
	}
	slices.SortFunc(s.TopUsers, func(a, b models.RankedUser) int {
		return cmp.Or(cmp.Compare(b.Used, a.Used), cmp.Compare(a.Email, b.Email))
	})
	s.TopUsers = s.TopUsers[:min(10, len(s.TopUsers))]
	for i := range s.TopUsers {
		s.TopUsers[i].Rank = i + 1
	}
	if s.TotalUsers > 0 {
		s.AverageHundredths = (s.TotalSuggestions*200 + s.TotalUsers) / (2 * s.TotalUsers)
	}
	return s
}

func (f *fixture) referenceMonths(t *testing.T, s *models.OrganizationSummary, founded time.Time, n int) []models.PastPeriod {
	t.Helper()
	months := models.Months(models.Standing{Period: s.Period, Used: s.TotalSuggestions, Included: s.Included}, nil, founded, n)
	for i := range months[:n-1] {
		months[i].Included = 0
	}
	months[n-1].Overage, months[n-1].OverageCents = s.OverageUnits, s.OverageCents
	for _, r := range f.recordsOf(t, s.ID) {
		for i := range months[:n-1] {
			if m := &months[i]; m.Period.Contains(r.BillingPeriodStart.UTC()) {
				m.Used, m.Included, m.BeforeSignUp = m.Used+r.SuggestionsUsed, m.Included+r.SuggestionsIncluded+r.Granted, false
				m.Overage, m.OverageCents = m.Overage+r.OverageUsed, m.OverageCents+r.OverageCents
			}
		}
	}
	return months
}

func (f *fixture) referenceDays(t *testing.T, period models.Period, id uuid.UUID) []int64 {
	t.Helper()
	midnight := func(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }
	first := midnight(period.Start)
	days := make([]int64, int(midnight(period.End.Add(-time.Microsecond)).Sub(first)/(24*time.Hour))+1)
	for _, r := range f.recordsOf(t, id) {
		if !r.BillingPeriodStart.After(period.Start.Add(-longestPeriod)) || !r.BillingPeriodStart.Before(period.End) {
			continue
		}
		for i, units := range r.Daily.Units() {
			if at := int(midnight(r.BillingPeriodStart).Sub(first)/(24*time.Hour)) + i; at >= 0 && at < len(days) {
				days[at] += units
			}
		}
	}
	return days
}

// Organizations are made up and changed at random. After each change, all figures are compared.
func TestOrganizationPagesEqualTheReference(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for seed := range uint64(3) {
			tables := []string{"usage_records", "subscriptions", "users", "workspaces", "organizations"}
			for _, table := range tables {
				f.exec(t, "DELETE FROM "+table)
			}
			// The last time is in the first minute of a month.
			s := newShop(t, f, seed, []time.Time{noon, noon.Add(11 * time.Hour), november.End.Add(time.Minute)}[seed])
			for step := range 10 {
				for _, id := range s.organizations {
					s.compare(t, id)
					if t.Failed() {
						t.Fatalf("seed %d, step %d, organization %s, at %v", seed, step, id, s.now)
					}
				}
				s.change(t)
			}
		}
	})
}

func (s *shop) compare(t *testing.T, id uuid.UUID) {
	t.Helper()
	want := s.referenceUsage(t, s.now, id)
	got, err := models.OrganizationUsage(s.ctx, s.db, s.catalogue, s.now, id)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.TopUsers, want.TopUsers) {
		t.Errorf("top users\n%+v, want\n%+v", got.TopUsers, want.TopUsers)
	}
	got.TopUsers, want.TopUsers = nil, nil
	if got.ID != want.ID || got.Name != want.Name || got.Plan != want.Plan || got.Period != want.Period ||
		got.TotalUsers != want.TotalUsers || got.ActiveUsers != want.ActiveUsers ||
		got.Included != want.Included || got.TotalSuggestions != want.TotalSuggestions || got.AverageHundredths != want.AverageHundredths ||
		got.OverageUnits != want.OverageUnits || got.OverageCents != want.OverageCents || got.OveragePeople != want.OveragePeople ||
		(got.Forecast == nil) != (want.Forecast == nil) || got.Forecast != nil && *got.Forecast != *want.Forecast {
		t.Errorf("summary\n%+v, forecast %+v, want\n%+v, forecast %+v", got, got.Forecast, want, want.Forecast)
	}
	founded := one[models.Organization](t, s.fixture, "id = ?", id).CreatedAt.UTC()
	months, err := s.ended.OrganizationMonths(s.ctx, s.db, s.now, &want, founded, 6)
	if err != nil {
		t.Fatal(err)
	}
	if reference := s.referenceMonths(t, &want, founded, 6); !slices.Equal(months, reference) {
		t.Errorf("months\n%+v, want\n%+v", months, reference)
	}
	days, before, err := s.ended.OrganizationDays(s.ctx, s.db, s.now, want.Period, id)
	if err != nil {
		t.Fatal(err)
	}
	if reference := s.referenceDays(t, want.Period, id); !slices.Equal(days, reference) {
		t.Errorf("days of %v\n%v, want\n%v", want.Period, days, reference)
	}
	if reference := s.referenceDays(t, want.Period.Previous(), id); !slices.Equal(before, reference) {
		t.Errorf("days before %v\n%v, want\n%v", want.Period, before, reference)
	}
	members := s.referenceMembers(t, s.now, id)
	searches := []string{"", "a", "É", "zoë", "\"X\" 100%_\\", "_", "no such member", "nul \x00", "\xff"}
	for _, sort := range []models.MemberSort{
		models.SortName, models.SortEmail, models.SortUsed, models.SortIncluded, models.SortPercent, models.SortLevel, models.SortOverage,
		models.SortLastPeriod,
	} {
		q := models.MemberQuery{
			Sort: sort, Descending: s.random.IntN(2) == 0, PerPage: []int{0, 4, 7}[s.random.IntN(3)],
			Level: []models.WarningLevel{"", "", "", models.Safe, models.Warning, models.Critical, models.Exceeded}[s.random.IntN(7)],
		}
		if s.random.IntN(2) == 0 {
			q.Search = searches[s.random.IntN(len(searches))]
		}
		s.compareList(t, id, q, members)
	}
}

// compareList compares all pages of a query, and one page beyond the last.
func (s *shop) compareList(t *testing.T, id uuid.UUID, q models.MemberQuery, members []referenceMember) {
	t.Helper()
	search := strings.ToLower(q.Search)
	found := slices.DeleteFunc(slices.Clone(members), func(m referenceMember) bool {
		return q.Level != "" && m.Standing.Level() != q.Level || !strings.Contains(m.Standing.Email, search) &&
			!strings.Contains(strings.ToLower(m.Name), search)
	})
	slices.SortFunc(found, func(a, b referenceMember) int {
		by := compareMembers(q.Sort, &a.MemberUsage, &b.MemberUsage)
		if q.Descending {
			by = -by
		}
		return cmp.Or(by, strings.Compare(a.Standing.Email, b.Standing.Email))
	})
	billed := slices.ContainsFunc(found, func(m referenceMember) bool { return m.Standing.OverageRateCents > 0 })
	perPage := len(found)
	if q.PerPage > 0 {
		perPage = q.PerPage
	}
	for q.Page = 1; ; q.Page++ {
		list, err := models.FindMembers(s.ctx, s.db, s.catalogue, s.now, id, q)
		if err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		last := 1
		if perPage > 0 {
			last = max(1, (len(found)+perPage-1)/perPage)
		}
		page := min(q.Page, last)
		want := found[min(len(found), (page-1)*perPage):min(len(found), page*perPage)]
		if list.Found != int64(len(found)) || list.Total != int64(len(members)) || list.Page != page || list.Billed != billed ||
			len(list.Rows) != len(want) {
			t.Fatalf("%+v: %d of %d on page %d, billed %t, %d rows; want %d of %d on page %d, %t, %d", q, list.Found, list.Total, list.Page,
				list.Billed, len(list.Rows),
				len(found), len(members), page, billed, len(want))
		}
		for i := range want {
			sameMember(t, &list.Rows[i], &want[i].MemberUsage)
		}
		if t.Failed() {
			t.Fatalf("%+v", q)
		}
		if q.Page > last {
			return
		}
	}
}

// compareMembers compares two members by a column.
func compareMembers(by models.MemberSort, a, b *models.MemberUsage) int {
	level := func(m *models.MemberUsage) int {
		return slices.Index([]models.WarningLevel{models.Safe, models.Warning, models.Critical, models.Exceeded}, m.Standing.Level())
	}
	last := func(m *models.MemberUsage) int64 {
		if m.LastPeriod == nil {
			return -1
		}
		return *m.LastPeriod
	}
	switch x, y := a.Standing, b.Standing; by {
	case models.SortName:
		return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
	case models.SortEmail:
		return strings.Compare(x.Email, y.Email)
	case models.SortIncluded:
		return cmp.Compare(x.Included, y.Included)
	case models.SortPercent:
		return cmp.Compare(x.PercentUsed(), y.PercentUsed())
	case models.SortLevel:
		return cmp.Compare(level(a), level(b))
	case models.SortOverage:
		return cmp.Compare(x.OverageCents, y.OverageCents)
	case models.SortLastPeriod:
		return cmp.Compare(last(a), last(b))
	default:
		return cmp.Compare(x.Used, y.Used)
	}
}

func sameMember(t *testing.T, got, want *models.MemberUsage) {
	t.Helper()
	same := func(a, b *int64) bool { return (a == nil) == (b == nil) && (a == nil || *a == *b) }
	g, w := got.Standing, want.Standing
	limits := same(g.SpendLimitCents, w.SpendLimitCents)
	g.SpendLimitCents, w.SpendLimitCents = nil, nil
	if got.ID != want.ID || got.Name != want.Name || got.Role != want.Role || !got.SignedUp.Equal(want.SignedUp) || g != w || !limits ||
		!same(got.LastPeriod, want.LastPeriod) {
		t.Errorf("member\n%+v, want\n%+v", got, want)
	}
}

// Members are sorted by their last period, whether it ended for all at the same time or, for one of
// them, in the middle of the month.
func TestMembersByLastPeriod(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		s := &shop{fixture: f, now: noon}
		o := models.Organization{ID: id(1), Name: "Acme", CreatedAt: noon}
		w := models.Workspace{ID: id(2), OrganizationID: o.ID, SlackTeamID: "T1", CreatedAt: noon}
		f.insert(t, &o)
		f.insert(t, &w)
		f.insert(t, &models.Subscription{ID: id(3), OrganizationID: &o.ID, PlanID: "team", Status: models.StatusActive, CreatedAt: noon,
			UpdatedAt: noon})
		october := november.Previous()
		record := func(email string, p models.Period, used int64) {
			f.insert(t, &models.UsageRecord{
				UserID: f.user(t, email), Email: email, BillingPeriodStart: p.Start, BillingPeriodEnd: p.End, PlanID: "team",
				SuggestionsIncluded: 50, SuggestionsUsed: used, Entitled: true, CreatedAt: p.Start,
			})
		}
		for i, used := range []int64{30, 10, 20, -1, -1} {
			u := models.User{ID: id(10 + i), Email: string(rune('a'+i)) + "@example.com", Role: models.Member, WorkspaceID: &w.ID,
				CreatedAt: october.Start.AddDate(0, i/4*2, 0)}
			f.insert(t, &u)
			if used >= 0 {
				record(u.Email, october, used)
				record(u.Email, november, 1)
			}
		}
		compare := func() {
			for _, descending := range []bool{false, true} {
				s.compareList(t, o.ID, models.MemberQuery{Sort: models.SortLastPeriod, Descending: descending, PerPage: 2},
					s.referenceMembers(t, s.now, o.ID))
			}
		}
		compare()
		cut := november.Start.AddDate(0, 0, 10)
		f.exec(t, "UPDATE usage_records SET billing_period_end = ?, suggestions_used = 99 WHERE email = 'b@example.com' AND "+
			"billing_period_start = ?", cut, november.Start)
		record("b@example.com", models.Period{Start: cut, End: november.End}, 1)
		compare()
	})
}
