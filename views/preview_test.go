package views_test

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/a-h/templ"

	"tollgate/models"
	"tollgate/static"
	"tollgate/views"
	"tollgate/views/charts"
	"tollgate/views/ui"
)

// With -out every page is written there in every state, beside the files it links to, to be looked at and measured.
var out = flag.String("out", "", "the folder to write the pages to")

// now is the clock of all made-up figures.
var now = time.Date(2026, 11, 23, 14, 5, 0, 0, time.UTC)

var november = models.CalendarMonth(now)

func catalogue(t testing.TB) *models.Catalogue {
	t.Helper()
	c, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func plan(t testing.TB, id models.PlanID) models.Plan {
	t.Helper()
	p, ok := catalogue(t).Plan(id)
	if !ok {
		t.Fatalf("the catalogue has no plan %q", id)
	}
	return p
}

func frame(v ui.Viewer) ui.Frame {
	v.Email, v.Name = "hugo.umbrella@example.com", "Hugo Umbrella"
	return ui.Frame{Viewer: &v, Now: now}
}

// render draws a page into a string.
func render(t testing.TB, page templ.Component) string {
	t.Helper()
	var b strings.Builder
	if err := page.Render(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// spread divides a sum over days, unevenly and the same each time.
func spread(sum int64, days int) []int64 {
	used := make([]int64, days)
	for i := int64(0); sum > 0; i++ {
		day := (i*i*3 + i*5) % int64(days)
		n := min(sum, max(1, sum/int64(2*days))+i%3)
		used[day] += n
		sum -= n
	}
	return used
}

// months are six, of which the first so many are before sign-up.
func months(included, nowUsed int64, before int, shares ...int64) []charts.Month {
	var list []charts.Month
	for i := range 6 {
		m := charts.Month{Period: models.CalendarMonth(time.Date(2026, time.Month(6+i), 15, 0, 0, 0, 0, time.UTC)), BeforeSignUp: i < before}
		switch {
		case i == 5:
			m.Used, m.Included, m.Current = nowUsed, included, true
		case i >= before:
			m.Used, m.Included = shares[i]*included/100, included
		}
		list = append(list, m)
	}
	return list
}

// member is the usual usage page of somebody who used so much.
func member(t testing.TB, id models.PlanID, used, included int64) views.Usage {
	t.Helper()
	c, p := catalogue(t), plan(t, id)
	d := views.Usage{
		Frame: frame(ui.Viewer{Organization: "Lantern and Kettle"}), Catalogue: c, Subscription: views.Subscription{Plan: p}, SignedUp: now.AddDate(-1, 0, 0), StripeConnected: true,
		Standing: views.Loaded(models.Standing{
			Email: "hugo.umbrella@example.com", Plan: id, Used: used, Included: included, OverageRateCents: p.OverageRateCents, Period: november,
		}),
		Days:       views.Loaded(charts.Daily{Period: november, Now: now, Used: spread(used, 23), Previous: spread(used*9/10, 31), Included: included}),
		Months:     views.Loaded(months(included, used, 0, 64, 90, 0, 124, 71)),
		Comparison: views.Loaded(views.Comparison{Days: 23, Used: used, Before: new(used * 8 / 10)}),
		Forecast:   new(used * 30 / 23),
	}
	if p.Type == models.Team {
		d.Subscription.Organization = "Lantern and Kettle"
	} else if p.BasePriceCents > 0 {
		d.Subscription.Status, d.Subscription.Manageable = models.StatusActive, true
	}
	for i := range d.Months.Value {
		m := &d.Months.Value[i]
		m.OverageCents = max(0, m.Used-m.Included) * p.OverageRateCents
		if p.OverageRateCents == 0 {
			m.Used = min(m.Used, m.Included)
		}
	}
	return d
}

// usagePages are the states of a member's page, by name.
func usagePages(t testing.TB) map[string]templ.Component {
	t.Helper()
	pages := map[string]templ.Component{}
	add := func(name string, d views.Usage) { pages["usage-"+name] = views.UsagePage(d) }

	add("safe", member(t, "pro", 43, 75))
	add("warning", member(t, "pro", 62, 75))
	add("critical", member(t, "pro", 73, 75))

	d := member(t, "pro", 62, 75)
	d.Standing.Value.Held = 3
	add("held", d)

	add("free", member(t, "free", 2, 5))
	add("free-paused", member(t, "free", 5, 5))

	add("billed", member(t, "pro", 96, 75))
	d = member(t, "pro", 84, 75)
	d.Standing.Value.SpendLimitCents, d.Standing.Value.Held = new(int64(600)), 4
	add("billed-with-limit", d)
	d = member(t, "pro", 85, 75)
	d.Standing.Value.SpendLimitCents = new(int64(300))
	add("spend-limit-reached", d)
	d = member(t, "pro", 96, 75)
	d.Limit = views.SpendLimit{Confirm: new(int64(250))}
	add("spend-limit-confirm", d)
	d = member(t, "pro", 43, 75)
	d.Limit = views.SpendLimit{Entered: "three", Fault: "Type an amount such as 5 or 7.50."}
	add("spend-limit-fault", d)

	d = member(t, "free", 0, 5)
	d.Frame.Viewer.Organization = ""
	d.SignedUp, d.Forecast = now, nil
	d.Months = views.Loaded(months(5, 0, 5))
	d.Days.Value.Used, d.Days.Value.Previous = nil, nil
	d.Comparison = views.Loaded(views.Comparison{Days: 1})
	add("new", d)

	d = member(t, "starter", 11, 25)
	d.Months = views.Loaded(months(25, 11, 5))
	d.Days.Value.Previous = nil
	d.Comparison.Value.Before = nil
	add("first-month", d)

	add("team", member(t, "business", 88, 100))

	d = member(t, "pro", 40, 75)
	d.Subscription.Status = models.StatusPastDue
	add("past-due", d)
	d = member(t, "pro", 40, 75)
	d.Subscription.EndsAt = new(november.End)
	add("cancelled-at-end", d)
	d = member(t, "free", 1, 5)
	d.Subscription.Status, d.Subscription.EndsAt = models.StatusCanceled, new(november.Start)
	add("cancelled", d)
	d = member(t, "free", 3, 5)
	d.StripeConnected = false
	add("no-stripe", d)

	d = member(t, "pro", 43, 75)
	d.Standing.Failed, d.Days.Failed, d.Months.Failed, d.Comparison.Failed = "9f2c41d07be84a55", "9f2c41d07be84a55", "9f2c41d07be84a55", "9f2c41d07be84a55"
	add("failed", d)

	d = member(t, "pro", 61, 75)
	d.Standing.Value.Period = models.AnchoredMonth(time.Date(2026, 1, 14, 15, 20, 0, 0, time.UTC), now)
	d.Days.Value.Period = d.Standing.Value.Period
	add("anchored", d)
	return pages
}

// allPages are all pages in all their states.
func allPages(t testing.TB) map[string]templ.Component {
	t.Helper()
	pages := map[string]templ.Component{}
	maps.Copy(pages, usagePages(t))
	return pages
}

func TestEveryPageIsWholeInEveryState(t *testing.T) {
	pages := allPages(t)
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		t.Run(name, func(t *testing.T) {
			page := render(t, pages[name])
			for _, part := range []string{"<main id=\"main\"", static.Address("app.css"), static.Address("favicon.svg"), "lang=\"en\""} {
				if !strings.Contains(page, part) {
					t.Errorf("the page has no %s", part)
				}
			}
			if n := strings.Count(page, "<h1"); n != 1 {
				t.Errorf("the page has %d h1, want 1", n)
			}
			for _, part := range []string{"<script", " style=", " onclick=", "%!"} {
				if strings.Contains(page, part) {
					t.Errorf("the page has %q", part)
				}
			}
			if first := strings.Index(page, "<a "); !strings.HasPrefix(page[first:], `<a href="#main"`) {
				t.Error("the first link is not the one that skips to the content")
			}
			if *out != "" {
				write(t, name+".html", []byte(page))
			}
		})
	}
	if *out != "" {
		for _, name := range []string{"app.css", "favicon.svg"} {
			content, _, _ := static.Open(static.Address(name))
			write(t, static.Address(name), content)
		}
	}
}

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	file := filepath.Join(*out, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
