package views_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
	"tollgate/views/viewstest"
)

func TestOrganizationPages(t *testing.T) {
	pages := viewstest.OrgPages(t)
	for _, test := range []struct {
		page    string
		want    []string
		without []string
	}{
		{"org", []string{
			"1,804 suggestions used", "Used by 37 of 42 members", "Average per member 42.95",
			"1 Alma Teapot alma.teapot@example.com 118 100 118%", "6.5% Exceeded", "2 months have overage.",
			"Business, 42 seats × $20.00 $840.00 Overage: 36 × $0.20 $7.20 So far in this period $847.20 " +
				"More overage at this pace: about 61 × $0.20 $12.20 Forecast for the whole period $859.40",
			"36 suggestions beyond the plan, by 3 members.",
			"The number of seats comes from the subscription. The base price is", "your subscription may have an older price. " +
				"If people left in this period, the invoice also has their overage up to then, even if they have rejoined. " +
				"Estimate, before tax; the invoice is authoritative.",
		}, []string{"No month has overage", "by hand"}},
		{"org-by-hand", []string{
			"Business, 37 seats × $20.00 $740.00", "Each member with usage in this billing period counts as a seat.",
			"This plan has no Stripe subscription: its base price and overage are billed by hand.",
		}, []string{"nothing is billed"}},
		{"org-trial", []string{
			"Trial until Dec 9, 2026 (in 16 days)", "After that, Business costs $20.00 per seat per month.",
			"Business, 42 seats × $0.00 $0.00 So far in this period $0.00",
		}, []string{"$840", "× $0.20", "Forecast for"}},
		{"org-new", []string{
			"Business, 1 seat × $20.00 $20.00", "No usage in this billing period yet (1 member)", "Nothing used yet", "No overage so far",
		}, nil},
		{"org-limit-confirm", []string{
			"$7.20 of overage was used in this period and is billed in any case. Overage of $0.60 is on hold for work in progress. " +
				"The part that the work uses is billed, even above the new limit. With a limit of $5.00, extra suggestions are paused for " +
				"everyone until Dec 1, 2026, 00:00 UTC.",
		}, []string{"become available again"}},
		{"org-limit-paused", []string{"They are paused until Dec 1, 2026, 00:00 UTC, or until an admin raises the limit."}, nil},
		{"org-limit-past-due", []string{
			"They are paused until the payment succeeds. After that, the limit pauses them until Dec 1, 2026, 00:00 UTC, " +
				"or until an admin raises it.",
		}, []string{"or until an admin raises the limit"}},
		{"members", []string{
			"42 members", "Page 1 of 2",
			"Yara Tambourine yara.tambourine@example.com yara.tambourine@example.com 0 100 0% Safe 0 —",
		}, nil},
		{"members-narrowed", []string{"37 of 42 members", "Page 2 of 2"}, nil},
		{"members-none", []string{"0 of 42 members", "No members match this search."}, []string{"<b>"}},
	} {
		t.Run(test.page, func(t *testing.T) {
			said := text(viewstest.Render(t, pages[test.page]))
			for _, want := range test.want {
				if !strings.Contains(said, want) {
					t.Errorf("the page does not say %q:\n%s", want, said)
				}
			}
			for _, not := range test.without {
				if strings.Contains(said, not) {
					t.Errorf("the page says %q", not)
				}
			}
		})
	}
	narrowed := viewstest.Render(t, pages["members-narrowed"])
	for _, want := range []string{
		`aria-sort="ascending"`, `href="/org/members.csv?level=safe&amp;q=example&amp;sort=name"`,
		`href="/org/members?level=safe&amp;q=example&amp;sort=name"`, `value="safe" selected`, `name="sort" value="name"`,
	} {
		if !strings.Contains(narrowed, want) {
			t.Errorf("the filtered table has no %s", want)
		}
	}
	if n := strings.Count(narrowed, "aria-sort"); n != 1 {
		t.Errorf("%d columns have aria-sort, want 1", n)
	}
}

// Released holds make extra units available again only if one more fits the new limit, and no payment
// is past due.
func TestAnOrganizationsLimitWithHolds(t *testing.T) {
	for _, test := range []struct {
		cents   int64
		pastDue bool
		again   bool
	}{{739, false, false}, {740, false, true}, {740, true, false}} {
		d := views.Org{
			Catalogue: viewstest.Catalogue(t), SpendForm: views.LimitForm{Sent: true, Choice: views.ChoiceLimit, Confirm: &test.cents},
			Summary: views.Loaded(models.OrganizationSummary{
				HasPlan: true, OverageRateCents: 20, OverageCents: 720, PastDue: test.pastDue,
				Spent: &models.OrganizationRecord{OverageCents: 720, OverageCentsHeld: 60, Counted: true},
			}),
		}
		said := text(viewstest.Render(t, views.OrgPage(d)))
		if strings.Contains(said, "Suggestions on hold that the work does not use may become available again.") != test.again {
			t.Errorf("%+v, but the page says\n%s", test, said)
		}
	}
}

// A limit that is too low to end the pause pauses nothing more. The page says which limit would end it.
func TestAnOrganizationsLimitThatIsTooLow(t *testing.T) {
	d := views.Org{
		Catalogue: viewstest.Catalogue(t), SpendForm: views.LimitForm{Sent: true, Choice: views.ChoiceLimit, Confirm: new(int64(750))},
		Summary: views.Loaded(models.OrganizationSummary{
			HasPlan: true, OverageRateCents: 20, OverageCents: 720, SpendLimitCents: new(int64(700)),
			Spent: &models.OrganizationRecord{OverageCents: 720, OverageCentsHeld: 60, Counted: true},
		}),
	}
	said := text(viewstest.Render(t, views.OrgPage(d)))
	for _, want := range []string{
		"Not saved yet. With a limit of $7.50, extra suggestions stay paused for everyone",
		"One more extra suggestion needs a limit of at least $8.00.", "Save limit",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the page does not say %q:\n%s", want, said)
		}
	}
	for _, not := range []string{"immediately", "Pause extra suggestions now"} {
		if strings.Contains(said, not) {
			t.Errorf("the page says %q", not)
		}
	}
}

// A limit below the price of a unit also pauses extra units in the next period.
func TestAnOrganizationsLimitBelowThePrice(t *testing.T) {
	d := views.Org{
		Catalogue: viewstest.Catalogue(t),
		Summary: views.Loaded(models.OrganizationSummary{
			HasPlan: true, OverageRateCents: 20, SpendLimitCents: new(int64(0)), Spent: &models.OrganizationRecord{Counted: true},
		}),
	}
	d.Frame.Viewer = &ui.Viewer{Admin: true}
	said := text(viewstest.Render(t, views.OrgPage(d)))
	if want := "They are paused until an admin raises the limit to at least $0.20."; !strings.Contains(said, want) {
		t.Errorf("the page does not say %q:\n%s", want, said)
	}
	d.Summary.Value.Spent.OverageCents = 1240
	said = text(viewstest.Render(t, views.OrgPage(d)))
	want := "until an admin raises the limit: to at least $12.60 in this billing period, or at least $0.20 from the next one."
	if !strings.Contains(said, want) {
		t.Errorf("the page does not say %q:\n%s", want, said)
	}
	d.SpendForm = views.LimitForm{Sent: true, Choice: views.ChoiceLimit, Confirm: new(int64(10))}
	said = text(viewstest.Render(t, views.OrgPage(d)))
	want = "After the reset, they need a limit of at least $0.20. Before the reset, one more extra suggestion needs a limit of " +
		"at least $12.60."
	if !strings.Contains(said, want) {
		t.Errorf("the confirmation does not say %q:\n%s", want, said)
	}
}

// shareBar matches a bar and the number next to it.
var shareBar = regexp.MustCompile(`class="c-bar" width="([\d.]+)%" height="8" rx="4"></rect></svg></span> ([\d.]+)%`)

func TestShareBarsMatchTheirNumbers(t *testing.T) {
	bars := shareBar.FindAllStringSubmatch(viewstest.Render(t, viewstest.OrgPages(t)["org"]), -1)
	if len(bars) != 10 {
		t.Fatalf("%d bars, want 10", len(bars))
	}
	for _, bar := range bars {
		drawn, _ := strconv.ParseFloat(bar[1], 64)
		said, _ := strconv.ParseFloat(bar[2], 64)
		if drawn < said-0.06 || drawn > said+0.06 {
			t.Errorf("a bar of %s%% is next to the number %s%%", bar[1], bar[2])
		}
	}
}
