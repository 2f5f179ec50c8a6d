package models_test

import (
	"slices"
	"testing"
	"time"

	"tollgate/models"
)

func day(year int, month time.Month, d int) time.Time {
	return time.Date(year, month, d, 0, 0, 0, 0, time.UTC)
}

func recordOf(start, end time.Time, used, included, rate int64) models.UsageRecord {
	s := billed(models.Standing{Used: used, Included: included, OverageRateCents: rate})
	return models.UsageRecord{
		BillingPeriodStart: start, BillingPeriodEnd: end, SuggestionsUsed: used, SuggestionsIncluded: included,
		OverageUsed: s.Overage, OverageCents: s.OverageCents, OverageRateCents: rate,
	}
}

func TestMonths(t *testing.T) {
	now := billed(models.Standing{Used: 80, Included: 75, OverageRateCents: 30, Period: november})
	records := []models.UsageRecord{
		recordOf(day(2026, 8, 1), day(2026, 9, 1), 5, 5, 0),
		// A subscription that began in the middle of October split the month.
		recordOf(day(2026, 10, 1), day(2026, 10, 20), 3, 5, 0), recordOf(day(2026, 10, 20), day(2026, 11, 1), 30, 25, 35),
		recordOf(november.Start, november.End, 1, 1, 1), // the standing replaces it
	}
	got := models.Months(now, records, time.Date(2026, 8, 15, 9, 0, 0, 0, time.UTC), 6)
	want := []models.PastPeriod{
		{Period: models.Period{Start: day(2026, 6, 1), End: day(2026, 7, 1)}, BeforeSignUp: true, Included: 75},
		{Period: models.Period{Start: day(2026, 7, 1), End: day(2026, 8, 1)}, BeforeSignUp: true, Included: 75},
		{Period: models.Period{Start: day(2026, 8, 1), End: day(2026, 9, 1)}, Used: 5, Included: 5},
		{Period: models.Period{Start: day(2026, 9, 1), End: day(2026, 10, 1)}, Included: 75},
		{Period: models.Period{Start: day(2026, 10, 1), End: day(2026, 11, 1)}, Used: 33, Included: 25, Overage: 5, OverageCents: 175},
		{Period: november, Used: 80, Included: 75, Overage: 5, OverageCents: 150, Current: true},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
	// Usage before sign-up counts: a person may sign up later.
	got = models.Months(now, records[:1], noon, 6)
	if m := got[2]; m.BeforeSignUp || m.Used != 5 || m.Included != 5 || !got[3].BeforeSignUp || got[5].BeforeSignUp {
		t.Errorf("with usage before sign-up: %+v", got)
	}
	if got := models.Months(now, records, noon, 1); len(got) != 1 || got[0] != want[5] {
		t.Errorf("one month: %+v", got)
	}
}

// A past period has a total only if its last payer pays for all of its overage.
func TestPastUsageOfSeveralPayers(t *testing.T) {
	month := models.Period{Start: day(2026, 10, 1), End: day(2026, 11, 1)}
	october := models.PeriodQuery{Start: month.Start, End: month.End, Whole: month}
	record := func(from, to int, used int64, payer string) models.UsageRecord {
		r := recordOf(day(2026, 10, from), day(2026, 10, to), used, 10, 30)
		r.Payer, r.PlanID = &payer, "pro"
		return r
	}
	free := record(20, 32, 5, "")
	free.PlanID = models.FreePlan
	for name, test := range map[string]struct {
		records []models.UsageRecord
		want    bool
	}{
		"one payer":                 {[]models.UsageRecord{record(1, 20, 15, "cus_1"), record(20, 32, 15, "cus_1")}, false},
		"two payers of overage":     {[]models.UsageRecord{record(1, 20, 15, "cus_1"), record(20, 32, 15, "cus_2")}, true},
		"only the first has some":   {[]models.UsageRecord{record(1, 20, 15, "cus_1"), record(20, 32, 5, "cus_2")}, true},
		"only the last one has any": {[]models.UsageRecord{record(1, 20, 5, ""), record(20, 32, 15, "cus_2")}, false},
		"the plan ended":            {[]models.UsageRecord{record(1, 20, 15, "cus_1"), free}, false},
	} {
		if got := models.NewPastUsage(models.Standing{Period: november}, test.records, day(2026, 1, 1), october); got.SeveralPayers != test.want {
			t.Errorf("%s: %v", name, got.SeveralPayers)
		}
	}
}

// Periods that begin on the 31st begin on the last day of a short month. Each record still has its
// own month.
func TestMonthsFromThe31st(t *testing.T) {
	anchor := day(2026, 1, 31)
	for _, now := range []time.Time{day(2026, 7, 31), day(2026, 7, 5), day(2027, 3, 1), day(2028, 3, 30), day(2027, 1, 30)} {
		current := models.AnchoredMonth(anchor, now)
		var records []models.UsageRecord
		p := current
		for i := range 5 {
			p = models.AnchoredMonth(anchor, p.Start.Add(-time.Microsecond))
			records = append(records, recordOf(p.Start, p.End, int64(100+i), 50, 0))
		}
		got := models.Months(models.Standing{Period: current, Used: 7, Included: 50}, records, anchor.AddDate(-1, 0, 0), 6)
		var used []int64
		for i, m := range got {
			used = append(used, m.Used)
			if i > 0 && !m.Period.Start.Equal(got[i-1].Period.End) {
				t.Errorf("at %v there is a gap: %+v", now, got)
			}
		}
		if !slices.Equal(used, []int64{104, 103, 102, 101, 100, 7}) {
			t.Errorf("at %v: %v", now, used)
		}
	}
}

func TestForecast(t *testing.T) {
	at := func(d, hour int) time.Time { return time.Date(2026, 11, d, hour, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		used int64
		now  time.Time
		want int64 // -1 for none
	}{
		{100, at(1, 0), -1}, {100, at(5, 23), -1}, {100, at(6, 0).Add(-time.Nanosecond), -1}, {100, at(6, 0), 600}, {9, at(16, 0), -1},
		{10, at(16, 0), 20}, {0, at(16, 0), -1},
		{11, at(22, 0), 15}, {50, november.End, 50}, {50, november.End.Add(time.Second), -1}, {50, november.Start.Add(-time.Hour), -1},
	} {
		s := models.Standing{Used: c.used, Included: 75, Period: november}
		if got, ok := s.Forecast(c.now); ok != (c.want >= 0) || ok && got != c.want {
			t.Errorf("%d used at %v: %d, %t, want %d", c.used, c.now, got, ok, c.want)
		}
	}
}

func TestCompare(t *testing.T) {
	current := models.Standing{Period: november}
	october := recordOf(day(2026, 10, 1), day(2026, 11, 1), 0, 5, 0)
	october.Daily = "1,2,0,4,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,9"
	this := recordOf(november.Start, november.End, 0, 5, 0)
	this.Daily = "5,0,1"
	uncut := recordOf(day(2026, 10, 1), day(2026, 11, 20), 0, 5, 0)
	uncut.Daily = october.Daily
	long := recordOf(day(2026, 9, 1), day(2026, 10, 1), 0, 5, 0)
	long.Daily = "100"
	for _, c := range []struct {
		name         string
		records      []models.UsageRecord
		signedUp     time.Time
		now          time.Time
		days         int
		used, before int64 // before -1 for none
	}{
		{"the first day", []models.UsageRecord{long, october, this}, day(2026, 1, 1), november.Start, 1, 5, 1},
		{"the fourth day", []models.UsageRecord{long, october, this}, day(2026, 1, 1), day(2026, 11, 4), 4, 6, 7},
		{"the last day of a shorter month", []models.UsageRecord{october, this}, day(2026, 1, 1), november.End.Add(-time.Microsecond), 30, 6, 7},
		{"nothing used before", []models.UsageRecord{this}, day(2026, 1, 1), noon, 23, 6, 0},
		{"signed up in this period", []models.UsageRecord{this}, november.Start, noon, 23, 6, -1},
		{"used before sign-up", []models.UsageRecord{october}, noon, day(2026, 11, 2), 2, 0, 3},
		{"a period that is not shortened yet", []models.UsageRecord{uncut}, day(2026, 1, 1), day(2026, 11, 4), 4, 0, 7},
		{"no records", nil, noon, noon, 23, 0, -1},
	} {
		got := models.DaysOf(current, c.records, c.signedUp).Compare(c.now)
		if got.Days != c.days || got.Whole || got.Used != c.used || (got.Before == nil) != (c.before < 0) ||
			got.Before != nil && *got.Before != c.before {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// TestCompareWithAShorterPeriod: the previous period may have fewer days than have passed in this one.
func TestCompareWithAShorterPeriod(t *testing.T) {
	march := models.Standing{Period: models.Period{Start: day(2026, 3, 1), End: day(2026, 4, 1)}}
	cut := recordOf(day(2026, 2, 20), day(2026, 3, 1), 0, 5, 0)    // 9 days
	moved := recordOf(day(2026, 1, 20), day(2026, 3, 1), 0, 5, 0)  // 40 days
	later := recordOf(day(2026, 1, 10), day(2026, 3, 20), 0, 5, 0) // it is not shortened yet
	for _, c := range []struct {
		name    string
		records []models.UsageRecord
		whole   time.Time // when this period has more days than the previous one; zero for never
	}{
		{"February without a record", nil, day(2026, 3, 29)},
		{"a record that was cut", []models.UsageRecord{cut}, day(2026, 3, 10)},
		{"a record of 40 days", []models.UsageRecord{moved}, time.Time{}},
		{"a record that is yet to be cut", []models.UsageRecord{later}, time.Time{}},
	} {
		days := models.DaysOf(march, c.records, day(2026, 1, 1))
		before := march.Period.End.Add(-time.Microsecond)
		if !c.whole.IsZero() {
			if got := days.Compare(c.whole); !got.Whole {
				t.Errorf("%s, %v: %+v", c.name, c.whole, got)
			}
			before = c.whole.Add(-time.Microsecond)
		}
		if got := days.Compare(before); got.Whole {
			t.Errorf("%s, %v: %+v", c.name, before, got)
		}
	}
}

func TestOrganizationMonthsAndDays(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme := f.organization(t, noon, "Acme", "T1")
		f.subscribe(t, models.Subscriber{OrganizationID: &acme}, "business")
		f.member(t, "ada@example.com", "T1")
		f.member(t, "bob@example.com", "T1")
		f.member(t, "eve@example.com", "T2")
		daily := func(r *models.UsageRecord, d models.Daily) {
			f.exec(t, "UPDATE usage_records SET daily = ? WHERE id = ?", d, r.ID)
		}
		september := day(2026, 9, 15)
		daily(f.use(t, "ada@example.com", noon, "business", 110), "100,0,10")
		daily(f.use(t, "bob@example.com", noon, "business", 3), "0,1,1,0,1")
		f.use(t, "ada@example.com", september, "pro", 85)
		f.use(t, "bob@example.com", september, "free", 4)
		f.use(t, "eve@example.com", september, "pro", 1000)
		daily(f.use(t, "eve@example.com", noon, "pro", 50), "50")
		// bob's own period began in October and reaches two days into November.
		f.insert(t, &models.UsageRecord{
			UserID: f.user(t, "bob@example.com"), Email: "bob@example.com", BillingPeriodStart: day(2026, 10, 30),
			BillingPeriodEnd: november.Start, PlanID: "free", SuggestionsIncluded: 5, SuggestionsUsed: 5, Daily: "2,3", Entitled: true,
			CreatedAt: noon,
		})
		summary, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, noon, acme)
		if err != nil {
			t.Fatal(err)
		}
		period := summary.Period
		var ended models.PastUsageCache
		got, err := ended.OrganizationMonths(f.ctx, f.db, noon, &summary, day(2026, 8, 20), 6)
		if err != nil {
			t.Fatal(err)
		}
		var used, included, cents []int64
		var before []bool
		for _, m := range got {
			used, included, cents, before = append(used, m.Used), append(included, m.Included), append(cents, m.OverageCents),
				append(before, m.BeforeSignUp)
		}
		if !period.Contains(noon) || !slices.Equal(used, []int64{0, 0, 0, 89, 5, 113}) || !slices.Equal(included, []int64{0, 0, 0, 80, 5, 200}) ||
			!slices.Equal(cents, []int64{0, 0, 0, 300, 0, 200}) || !slices.Equal(before, []bool{true, true, false, false, false, false}) {
			t.Errorf("%+v: used %v, included %v, cents %v, before %v", period, used, included, cents, before)
		}
		days, october, err := ended.OrganizationDays(f.ctx, f.db, noon, november, acme)
		if err != nil || len(days) != 30 || !slices.Equal(days[:6], []int64{100, 1, 11, 0, 1, 0}) {
			t.Errorf("November: %v, %v", days, err)
		}
		if len(october) != 31 || !slices.Equal(october[28:], []int64{0, 2, 3}) {
			t.Errorf("October: %v", october)
		}
		// For a period that begins in the middle of a month, the days of earlier records count too.
		days, _, err = ended.OrganizationDays(f.ctx, f.db, noon, models.Period{Start: day(2026, 11, 2), End: day(2026, 12, 2)}, acme)
		if err != nil || len(days) != 30 || !slices.Equal(days[:4], []int64{1, 11, 0, 1}) {
			t.Errorf("from the 2nd: %v, %v", days, err)
		}
	})
}

func TestOrganizationMembers(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme := f.organization(t, noon, "Acme", "T1")
		for _, email := range []string{"ada@example.com", "bob@example.com", "cyd@example.com"} {
			f.member(t, email, "T1")
		}
		f.member(t, "eve@example.com", "T2")
		f.exec(t, "UPDATE users SET created_at = ? WHERE email <> 'cyd@example.com'", day(2026, 1, 1))
		f.use(t, "ada@example.com", noon, "free", 4)
		f.use(t, "ada@example.com", day(2026, 10, 1), "free", 2)
		f.use(t, "ada@example.com", day(2026, 9, 1), "free", 5)
		f.use(t, "eve@example.com", noon, "free", 5)
		list, err := models.FindMembers(f.ctx, f.db, f.catalogue, noon, acme, models.MemberQuery{})
		if err != nil {
			t.Fatal(err)
		}
		all := list.Rows
		last, used := map[string]int64{}, map[string]int64{}
		for _, m := range all {
			last[m.Standing.Email], used[m.Standing.Email] = -1, m.Standing.Used
			if m.LastPeriod != nil {
				last[m.Standing.Email] = *m.LastPeriod
			}
		}
		if len(all) != 3 || used["ada@example.com"] != 4 || used["bob@example.com"] != 0 || last["ada@example.com"] != 2 ||
			last["bob@example.com"] != 0 || last["cyd@example.com"] != -1 {
			t.Errorf("used %v, in the last period %v", used, last)
		}
		eve := one[models.User](t, f, "email = ?", "eve@example.com")
		if u, err := models.MemberOf(f.ctx, f.db, acme, eve.ID); u != nil || err != nil {
			t.Errorf("another organization's member is %+v, %v", u, err)
		}
		if u, err := models.MemberOf(f.ctx, f.db, acme, all[0].ID); err != nil || u == nil || u.Email != all[0].Standing.Email {
			t.Errorf("a member is %+v, %v", u, err)
		}
	})
}
