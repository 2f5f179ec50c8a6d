package charts

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/models"
)

func TestAxisHasRoundTicks(t *testing.T) {
	for _, test := range []struct {
		most, steps int64
		want        []int64
	}{
		{0, 4, []int64{0, 1}},
		{1, 4, []int64{0, 1}},
		{3, 4, []int64{0, 1, 2, 3}},
		{5, 4, []int64{0, 2, 4, 6}},
		{9, 4, []int64{0, 5, 10}},
		{75, 4, []int64{0, 20, 40, 60, 80}},
		{98, 4, []int64{0, 50, 100}},
		{100, 4, []int64{0, 50, 100}},
		{101, 4, []int64{0, 50, 100, 150}},
		{1804, 4, []int64{0, 500, 1000, 1500, 2000}},
		{12_345_678, 4, []int64{0, 5_000_000, 10_000_000, 15_000_000}},
	} {
		if got := NewAxis(test.most, test.steps).Ticks; !slices.Equal(got, test.want) {
			t.Errorf("NewAxis(%d, %d) = %v, want %v", test.most, test.steps, got, test.want)
		}
	}
}

func TestAxisReachesEveryValueInFewSteps(t *testing.T) {
	for most := range int64(3000) {
		a := NewAxis(most, 4)
		if a.Top() < most || len(a.Ticks) > 5 {
			t.Fatalf("NewAxis(%d, 4) = %v, want at most four steps up to the value", most, a.Ticks)
		}
	}
}

func TestHeight(t *testing.T) {
	a := NewAxis(100, 4)
	for v, want := range map[float64]float64{0: 0, 50: 80, 100: 160, 300: 160, -1: 0} {
		if got := a.Height(v, 160); got != want {
			t.Errorf("Height(%v, 160) = %v, want %v", v, got, want)
		}
	}
}

func TestLengths(t *testing.T) {
	for _, test := range []struct {
		part, whole float64
		want        string
	}{{1, 3, "33.33%"}, {1, 2, "50%"}, {100, 100, "100%"}, {0, 5, "0%"}, {3, 0, "0%"}} {
		if got := percent(test.part, test.whole); got != test.want {
			t.Errorf("percent(%v, %v) = %q, want %q", test.part, test.whole, got, test.want)
		}
	}
}

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestDaysOfAPeriod(t *testing.T) {
	for _, test := range []struct {
		name       string
		start, end string
		now        string
		days       int
		today      int
		pace       float64
	}{
		{"a calendar month", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", "2026-11-23T23:59:59Z", 30, 22, 2.5},
		{"at the start of a month", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", "2026-11-01T00:00:00Z", 30, 0, 2.5},
		{"at the end of a month", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", "2026-11-30T23:59:59Z", 30, 29, 2.5},
		{"a period from noon to noon has one more date", "2026-11-14T12:00:00Z", "2026-12-14T12:00:00Z", "2026-12-14T11:00:00Z", 31, 30, 2.5},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := Daily{
				Period: models.Period{Start: at(test.start), End: at(test.end)}, Now: at(test.now),
				Used: []int64{3, 0, 6}, Previous: []int64{1}, Included: 75,
			}
			days := d.days()
			if len(days) != test.days {
				t.Fatalf("%d days, want %d", len(days), test.days)
			}
			for i, one := range days {
				if one.today != (i == test.today) || one.upcoming != (i > test.today) {
					t.Errorf("day %d: today = %t, upcoming = %t, but today is day %d", i, one.today, one.upcoming, test.today)
				}
			}
			if days[0].used != 3 || days[2].used != 6 || days[3].used != 0 || days[0].previous != 1 || days[1].previous != 0 {
				t.Errorf("wrong figures: %+v", days[:4])
			}
			if got := d.pace(); got != test.pace {
				t.Errorf("pace() = %v, want %v", got, test.pace)
			}
		})
	}
}

func TestMonthIsNamedAfterItsMiddle(t *testing.T) {
	for _, test := range []struct{ start, end, want string }{
		{"2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", "Nov 2026"},
		{"2026-11-28T15:00:00Z", "2026-12-28T15:00:00Z", "Dec 2026"},
	} {
		m := models.PastPeriod{Period: models.Period{Start: at(test.start), End: at(test.end)}}
		if got := MonthName(m.Period); got != test.want {
			t.Errorf("name of %s to %s = %q, want %q", test.start, test.end, got, test.want)
		}
	}
}

func TestValuesFitSideBySide(t *testing.T) {
	for _, test := range []struct {
		most     int64
		n, width int
		fit      bool
	}{
		{999, 6, phonePlot, true}, {1000, 6, phonePlot, false}, {999, 31, deskPlot, true}, {1000, 31, deskPlot, false},
		{12345, 6, 500, true},
	} {
		if fit(test.most, test.n, test.width) != test.fit {
			t.Errorf("fit(%d, %d, %d) is not %v", test.most, test.n, test.width, test.fit)
		}
	}
}

// TestValuesThatDoNotFitAreOnlyInTheTable draws charts with values that fit above the bars and
// values that are too wide.
func TestValuesThatDoNotFitAreOnlyInTheTable(t *testing.T) {
	c, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	for used, fits := range map[int64]bool{999: true, 1000: false} {
		months := Monthly{ID: "m", Months: make([]models.PastPeriod, 6)}
		for i := range months.Months {
			months.Months[i].Used = used
		}
		var b strings.Builder
		if err := Months(c, months).Render(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		if onPhone := !strings.Contains(b.String(), "hidden sm:block"); onPhone != fits {
			t.Errorf("months of %d: shown on a phone = %v, want %v", used, onPhone, fits)
		}
		b.Reset()
		start := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
		days := Daily{Period: models.Period{Start: start, End: start.AddDate(0, 1, 0)}, Now: start, Used: []int64{used}}
		if err := Days("d", c, days).Render(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		if printed := strings.Contains(b.String(), `class="strong`); printed != fits {
			t.Errorf("days of %d: printed = %v, want %v", used, printed, fits)
		}
	}
}

func TestOneDecimal(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.04: "under 0.1", 0.05: "0.1", 2.5: "2.5", 12: "12"} {
		if got := oneDecimal(v); got != want {
			t.Errorf("oneDecimal(%v) = %q, want %q", v, got, want)
		}
	}
}

// TestMonthsFinding checks the sentence above the chart of months.
func TestMonthsFinding(t *testing.T) {
	c, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	month := func(n int, used, overage int64) models.PastPeriod {
		start := time.Date(2026, time.Month(n), 1, 0, 0, 0, 0, time.UTC)
		return models.PastPeriod{Period: models.Period{Start: start, End: start.AddDate(0, 1, 0)}, Used: used, Included: 75, Overage: overage}
	}
	const busiest = "Busiest month: Oct 2026, 80 suggestions (75 included). "
	for want, months := range map[string][]models.PastPeriod{
		"Nothing was used in these months.":                    {month(10, 0, 0), month(11, 0, 0)},
		"First month: 80 suggestions used.":                    {month(10, 80, 0)},
		"First month: 80 suggestions used, 5 of them overage.": {month(10, 80, 5)},
		// What was recorded beyond a limit is used, but no overage.
		busiest + "No month has overage.":  {month(10, 80, 0), month(11, 3, 0)},
		busiest + "One month has overage.": {month(10, 80, 5), month(11, 3, 0)},
		busiest + "2 months have overage.": {month(10, 80, 5), month(11, 77, 2)},
	} {
		if got := (&Monthly{Months: months}).finding(c); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
