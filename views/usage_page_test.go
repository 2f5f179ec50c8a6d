package views_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/viewstest"
)

// text returns the page's text without tags and with single spaces.
func text(page string) string {
	var b strings.Builder
	for rest := page; rest != ""; {
		before, after, _ := strings.Cut(rest, "<")
		b.WriteString(before + " ")
		_, rest, _ = strings.Cut(after, ">")
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func TestUsagePageAtLevelBoundaries(t *testing.T) {
	for _, test := range []struct {
		used          int64
		word          string
		percent, left int64
	}{
		{399, "Safe", 79, 101},
		{400, "Warning", 80, 100},
		{474, "Warning", 94, 26},
		{475, "Critical", 95, 25},
		{499, "Critical", 99, 1},
		{500, "Exceeded", 100, 0},
		{501, "Exceeded", 100, 0},
	} {
		t.Run(fmt.Sprint(test.used), func(t *testing.T) {
			page := viewstest.Render(t, views.UsagePage(viewstest.Member(t, "pro", test.used, 500)))
			said := text(page)
			for _, want := range []string{
				fmt.Sprintf("Used %d Included 500 Left %d Percent used %d%%", test.used, test.left, test.percent),
				fmt.Sprintf("%d used of 500 suggestions included: %d%% used, %d left.", test.used, test.percent, test.left),
			} {
				if !strings.Contains(said, want) {
					t.Errorf("the page does not say %q", want)
				}
			}
			_, badge, found := strings.Cut(page, "rounded-full border border-current")
			badge, _, _ = strings.Cut(badge, "</span>")
			color := "text-level-" + strings.ToLower(test.word)
			if !found || !strings.HasSuffix(text("<"+badge), test.word) || !strings.Contains(badge, color) || !strings.Contains(badge, "<svg") {
				t.Errorf("the badge is %q, want the word, icon and color of %s", badge, test.word)
			}
		})
	}
}

func TestUsagePageTexts(t *testing.T) {
	limited := func(used, cents int64) views.Usage {
		d := viewstest.Member(t, "pro", used, 75)
		d.Standing.Value.SpendLimitCents = &cents
		return d
	}
	confirming := limited(96, 900)
	confirming.Limit.Confirm = new(int64(250))
	granted := limited(96, 900)
	granted.Limit.Confirm = new(int64(250))
	granted.Standing.Value.Included += 50 // a grant after the overage
	held := viewstest.Member(t, "free", 3, 5)
	held.Standing.Value.Held = 2
	compare := func(used int64, before *int64) views.Usage {
		d := viewstest.Member(t, "pro", used, 75)
		d.Comparison.Value = models.Comparison{Days: 23, Used: used, Before: before}
		return d
	}
	early := viewstest.Member(t, "pro", 9, 75)
	early.Forecast = nil
	trying := func(canceled bool) views.Usage {
		d := viewstest.Member(t, "pro", 40, 75)
		d.Standing.Value.OverageRateCents = 0
		d.Subscription.Status, d.Subscription.Trial = models.StatusTrialing, true
		d.Subscription.TrialEnd = new(time.Date(2026, 12, 9, 15, 20, 0, 0, time.UTC))
		if canceled {
			d.Subscription.EndsAt = d.Subscription.TrialEnd
		}
		return d
	}
	pastDue := func(used int64) views.Usage {
		d := viewstest.Member(t, "pro", used, 75)
		d.Standing.Value.PastDue, d.Subscription.Status = true, models.StatusPastDue
		return d
	}
	memberLimited := func(used, limit int64) views.Usage {
		d := viewstest.Member(t, "pro", used, 75)
		d.Standing.Value.MemberLimit = &limit
		return d
	}
	spendFirst, pastDueFirst, unbilled := limited(62, 60), pastDue(62), viewstest.Member(t, "free", 8, 5)
	spendFirst.Standing.Value.MemberLimit, pastDueFirst.Standing.Value.MemberLimit = new(int64(80)), new(int64(80))
	byHand := viewstest.Member(t, "pro", 62, 75)
	byHand.StripeConnected, byHand.Subscription.ByHand = false, true
	noStripe := viewstest.Member(t, "free", 5, 5)
	noStripe.StripeConnected = false
	twoRates, noRate := viewstest.Member(t, "pro", 78, 75), viewstest.Member(t, "pro", 78, 75)
	twoRates.Standing.Value.OverageCents, noRate.Standing.Value.OverageRateCents = 95, 0
	for _, test := range []struct {
		name    string
		page    views.Usage
		want    []string
		without []string
	}{
		{
			"the reset has date, hour, time zone and relative time", viewstest.Member(t, "pro", 43, 75),
			[]string{"Dec 1, 2026, 00:00 UTC (in 8 days)"}, []string{"Paused", "beyond the plan"},
		},
		{
			"the free plan shows no money", viewstest.Member(t, "free", 5, 5),
			[]string{"Paused until the reset", "0 suggestions left", "Upgrade"}, []string{"$", "cost", "Spend limit", "invoice"},
		},
		{
			"held units are not used", held, []string{
				"On hold 2", "Paused: all remaining suggestions are on hold", "All remaining suggestions are on hold for work in progress",
			}, []string{"$", "Paused until the reset"},
		},
		{
			"without Stripe, nothing can be bought", noStripe,
			[]string{"Compare plans", "nothing can be bought or billed"}, []string{"Upgrade"},
		},
		{
			"a plan that is billed by hand", byHand,
			[]string{"Plans cannot be bought here.", "billed by hand"}, []string{"nothing can be bought or billed"},
		},
		{
			"overage is separate", viewstest.Member(t, "pro", 96, 75),
			[]string{
				"Overage 21", "Overage: 21 × $0.30 $6.30", "So far in this period $24.30",
				"Estimate, before tax; the invoice is authoritative.",
			}, nil,
		},
		{
			"billed overage continues", viewstest.Member(t, "pro", 96, 75),
			[]string{"Still available. Each extra suggestion is billed.", "No spend limit is set."}, []string{"Paused"},
		},
		{
			"a limit is shown in money and units", limited(43, 600),
			[]string{
				"After 75 included suggestions, each extra one costs $0.30, up to your spend limit of $6.00 (20 suggestions beyond the plan).",
				"When it is reached, suggestions are paused until the reset.",
			}, nil,
		},
		{
			"a plan that includes nothing", viewstest.Member(t, "pro", 3, 0),
			[]string{"Each suggestion costs $0.30. No spend limit is set, so there is no maximum."}, []string{"After 0"},
		},
		{
			"a limit that is reached", limited(85, 300),
			[]string{"Paused: your spend limit is reached", "One more suggestion would exceed your limit of $3.00."}, nil,
		},
		{
			"a limit below the amount spent needs confirmation", confirming,
			[]string{
				"You have already spent $6.30 on overage in this period.",
				"With a limit of $2.50, suggestions stop immediately, until Dec 1, 2026, 00:00 UTC.", "Stop suggestions now",
			}, nil,
		},
		{
			"with included units left, the limit stops only extra ones", granted,
			[]string{
				"a limit of $2.50 stops extra suggestions now", "With a limit of $2.50, extra suggestions stop immediately,",
				"Stop extra suggestions now",
			}, []string{"stops suggestions now"},
		},
		{
			"a member limit below the included units", memberLimited(43, 60), []string{
				"17 suggestions left under the member limit of 60", "Your member limit is reached before any extra suggestions are needed.",
				"Your member limit is 60 suggestions per billing period. When it is reached, " +
					"new ones are paused until the reset.",
			}, []string{"Paused: ", "32 suggestions left", "After 75"},
		},
		{
			"a member limit that is reached", memberLimited(60, 60), []string{
				"0 suggestions left under the member limit of 60", "Included left 15", "15 included left", "Paused: your member limit is reached",
				"suggestions by the reset, more than your member limit of 60.",
			}, []string{"15 suggestions left", "within the plan"},
		},
		{
			"a member limit beyond the included units", memberLimited(43, 90), []string{
				"32 suggestions left",
				"After 75 included suggestions, each extra one costs $0.30. No spend limit is set. Your member limit is 90 suggestions",
				"extra suggestions are billed until your member limit is reached",
			}, []string{"under the member limit"},
		},
		{
			"a forecast names the limit that comes first", spendFirst,
			[]string{"7 beyond the plan. The spend limit of $0.60 is reached before that. estimate"}, []string{"more than your member limit"},
		},
		{
			"a forecast while a payment is past due", pastDueFirst,
			[]string{"by the reset, more than the plan includes."}, []string{"more than your member limit"},
		},
		{
			"units beyond a hard cap", unbilled,
			[]string{"5 included used", "3 beyond the plan, not billed", "Used 8"}, []string{"overage, beyond the plan"},
		},
		{
			"more than in the previous period", compare(62, new(int64(49))),
			[]string{"62 suggestions used in the first 23 days, 26% more than at this point in the previous period (49)."}, nil,
		},
		{
			"fewer than in the previous period", compare(40, new(int64(50))),
			[]string{"20% fewer than at this point in the previous period (50)."}, nil,
		},
		{
			"no division by zero", compare(40, new(int64(0))),
			[]string{"none at this point in the previous period."}, []string{"%!"},
		},
		{
			"no previous period", compare(40, nil),
			[]string{". There is no previous period to compare with."}, nil,
		},
		{
			"a forecast is an estimate", viewstest.Member(t, "pro", 62, 75),
			[]string{"At this pace, about 82 suggestions by the reset, 7 beyond the plan: $2.10 of overage. estimate"}, nil,
		},
		{
			"a forecast within the spend limit", limited(62, 210),
			[]string{"7 beyond the plan: $2.10 of overage. estimate"}, []string{"is reached before that"},
		},
		{
			"a forecast beyond the spend limit", limited(62, 209),
			[]string{"7 beyond the plan. The spend limit of $2.09 is reached before that. estimate"}, []string{"$2.10"},
		},
		{
			"past due, overage is paused", pastDue(78),
			[]string{
				"Paused: the last payment failed", "When all 75 suggestions are used, new ones are paused until the payment succeeds.",
				"Overage: 3 × $0.30 $0.90", "by the reset, more than the plan includes.",
				"No limit is set. Extra suggestions are paused until the payment succeeds; after that, they are billed.",
			},
			[]string{"there is no maximum", "extra suggestions are billed", "of overage"},
		},
		{"overage at two rates", twoRates, []string{"Overage: 3 suggestions $0.95", "So far in this period $18.95"}, []string{"3 × "}},
		{"overage from before the rate was 0", noRate, []string{"Overage: 3 × $0.30 $0.90", "So far in this period $18.90"}, nil},
		{"no forecast early", early, nil, []string{"At this pace"}},
		{"a trial has an end and no base price", trying(false), []string{
			"Trial until Dec 9, 2026 (in 16 days) The base price is $0.00 until Dec 9, 2026, 15:20 UTC. After that, Pro costs $18.00 per month.",
			"Pro, trial until Dec 9, 2026 $0.00", "So far in this period $0.00", "Extra ones are not available during a trial.",
		}, []string{"per month $18.00"}},
		{
			"a canceled trial costs nothing afterwards", trying(true),
			[]string{"The base price is $0.00 until Dec 9, 2026, 15:20 UTC.", "Pro ends soon"}, []string{"$18.00"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			said := text(viewstest.Render(t, views.UsagePage(test.page)))
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
}

func TestMonthsBeforeSignUpAreNotZero(t *testing.T) {
	d := viewstest.Member(t, "pro", 43, 75)
	d.Months.Value = viewstest.Months(75, 43, 3, 0, 0, 0, 0, 10)
	said := text(viewstest.Render(t, views.UsagePage(d)))
	for _, want := range []string{"Jun 2026 — — — —", "Sep 2026 0 75 0 $0.00", "Oct 2026 7 75 0 $0.00", "Nov 2026, so far 43 75 0"} {
		if !strings.Contains(said, want) {
			t.Errorf("the table of months does not say %q:\n%s", want, said)
		}
	}
}

func TestUnitNameComesFromTheCatalog(t *testing.T) {
	d := viewstest.Member(t, "pro", 96, 75)
	c := *viewstest.Catalogue(t)
	c.UnitSingular, c.UnitPlural = "summary", "summaries"
	d.Catalogue = &c
	said := text(viewstest.Render(t, views.UsagePage(d)))
	if !strings.Contains(said, "21 summaries beyond the plan") || strings.Contains(said, "uggestion") {
		t.Errorf("the page has a unit name that is not the catalog's:\n%s", said)
	}
}

func TestFailedWidgetLeavesTheRestOfThePage(t *testing.T) {
	d := viewstest.Member(t, "pro", 43, 75)
	d.Days.Failed = "request-7"
	said := text(viewstest.Render(t, views.UsagePage(d)))
	for _, want := range []string{"send this request ID to your operator: request-7", "32 suggestions left", "Busiest month: "} {
		if !strings.Contains(said, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if n := strings.Count(said, "could not be loaded"); n != 1 {
		t.Errorf("the page shows %d failed parts, want 1", n)
	}
}

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
			"The number of seats comes from the subscription. Estimate, before tax; the invoice is authoritative.",
		}, []string{"No month has overage", "by hand"}},
		{"org-by-hand", []string{
			"Business, 37 seats × $20.00 $740.00", "Each member with usage in this billing period counts as a seat.",
			"This plan has no Stripe subscription: its base price and overage are billed by hand.",
		}, []string{"nothing is billed"}},
		{"org-trial", []string{
			"Trial until Dec 9, 2026 (in 16 days)", "After that, Business costs $20.00 per seat per month.",
			"Business, 42 seats × $0.00 $0.00 So far in this period $0.00 Forecast for the whole period $0.00",
		}, []string{"$840", "× $0.20"}},
		{"org-new", []string{
			"Business, 1 seat × $20.00 $20.00", "No usage in this billing period yet (1 member)", "Nothing used yet", "No overage so far",
		}, nil},
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

func TestNavigationOnlyHasPagesThatOpen(t *testing.T) {
	for _, test := range []struct {
		page string
		want []string
		not  []string
	}{
		{"usage-safe", []string{`href="/usage"`, `action="/sign-out"`}, []string{`href="/org"`, `href="/org/members"`, `href="/ops"`}},
		{"org", []string{`href="/org"`, `href="/org/members"`}, []string{`href="/ops"`}},
		{"ops", []string{`href="/org"`, `href="/ops"`}, nil},
		{"landing", []string{`href="/sign-in"`, `action="/sign-in/slack"`}, []string{`href="/usage"`, `action="/sign-out"`}},
		{"landing-locked", []string{"ask the operator"}, []string{`action="/sign-in/slack"`, "SLACK_"}},
	} {
		page := viewstest.Render(t, viewstest.Pages(t)[test.page])
		for _, want := range test.want {
			if !strings.Contains(page, want) {
				t.Errorf("%s has no %s", test.page, want)
			}
		}
		for _, not := range test.not {
			if strings.Contains(page, not) {
				t.Errorf("%s has %s", test.page, not)
			}
		}
	}
}

func TestPlansOfferOnlyPossiblePurchases(t *testing.T) {
	pages := viewstest.PlanPages(t)
	for name, want := range map[string]int{
		"plans": 2, "plans-paid": 2, "plans-no-stripe": 0, "plans-signed-out": 0, "plans-team": 0,
	} {
		if got := strings.Count(viewstest.Render(t, pages[name]), `action="`+views.PathCheckout+`"`); got != want {
			t.Errorf("%s offers %d purchases, want %d", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"plans-paid": "You already pay for Pro. To switch, cancel it under “Invoices and payment”. " +
			"It stays active until the paid period ends; then you can buy Starter.",
		"plans-ending": "Pro stays active until Dec 1, 2026. You can buy Starter then.",
	} {
		if said := text(viewstest.Render(t, pages[name])); !strings.Contains(said, want) {
			t.Errorf("%s does not say %q:\n%s", name, want, said)
		}
	}
	said := text(viewstest.Render(t, pages["plans-trial"]))
	for _, want := range []string{
		"$18 per month Trial until Dec 9, 2026 (in 16 days): $0 until then.", "You are trying Pro.",
		"stays active until the trial ends; then you can buy Starter.",
	} {
		if strings.Count(said, want) != 1 {
			t.Errorf("the plans page of a person on trial does not say once %q:\n%s", want, said)
		}
	}
	said = text(viewstest.Render(t, pages["plans"]))
	for _, want := range []string{
		"With your usage of the last 6 months, Pro would have cost $114.30.",
		"Free would have cost nothing and would have refused 393 suggestions.", "Free current plan",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the plans page does not say %q", want)
		}
	}
}

func TestInvoicesAreInTheirOwnCurrency(t *testing.T) {
	said := text(viewstest.Render(t, viewstest.PlanPages(t)["plans-paid"]))
	for _, want := range []string{"$21.30", "1,234.56 EUR", "-$5.00", "1,500 JPY"} {
		if !strings.Contains(said, want) {
			t.Errorf("the invoices do not show %q:\n%s", want, said)
		}
	}
	if strings.Contains(said, "15.00 JPY") {
		t.Error("1,500 yen are shown as 15")
	}
}

func TestAKeyIsShownOnce(t *testing.T) {
	pages := viewstest.OtherPages(t)
	const key = "tg_live_made0up0for0this0picture0only00000x7Ab"
	if n := strings.Count(viewstest.Render(t, pages["ops-new-key"]), key); n != 1 {
		t.Errorf("the response shows the key %d times, want once", n)
	}
	if strings.Contains(viewstest.Render(t, pages["ops"]), key) {
		t.Error("the page shows a key that was not just created")
	}
}

func TestErrorPagesNameTheRequest(t *testing.T) {
	pages := viewstest.OtherPages(t)
	for name, want := range map[string]string{
		"error-403": "Alma Teapot, alma.teapot@example.com", "error-404": "Page not found", "error-500": "Something went wrong",
		"error-503": "The database is not responding",
	} {
		said := text(viewstest.Render(t, pages[name]))
		if !strings.Contains(said, want) || !strings.Contains(said, "request ID 9f2c41d07be84a55") {
			t.Errorf("%s does not say %q and the request ID:\n%s", name, want, said)
		}
	}
}

func TestPeriodOfAnAnchoredSubscription(t *testing.T) {
	d := viewstest.Member(t, "pro", 43, 75)
	d.Standing.Value.Period = models.AnchoredMonth(time.Date(2026, 1, 14, 15, 20, 0, 0, time.UTC), viewstest.Now)
	said := text(viewstest.Render(t, views.UsagePage(d)))
	for _, want := range []string{"Dec 14, 2026, 15:20 UTC (in 21 days)", "Nov 14, 2026, 15:20 UTC to Dec 14, 2026, 15:20 UTC"} {
		if !strings.Contains(said, want) {
			t.Errorf("the page does not say %q:\n%s", want, said)
		}
	}
}

// doubled matches a sentence with two ends.
var doubled = regexp.MustCompile(`[.!?…] ?\.( |$)`)

func TestNamesThatEndASentence(t *testing.T) {
	for _, name := range []string{"Example Inc.", "Yahoo!", "Who?"} {
		usage := viewstest.Member(t, "business", 118, 100)
		usage.Subscription.Organization, usage.Subscription.Status = name, models.StatusPastDue
		plans := views.Plans{
			Frame: usage.Frame, Catalogue: usage.Catalogue, StripeConnected: true,
			Current: views.Subscription{Plan: usage.Subscription.Plan, Organization: name},
		}
		for page, said := range map[string]string{
			"usage": text(viewstest.Render(t, views.UsagePage(usage))), "plans": text(viewstest.Render(t, views.PlansPage(plans))),
		} {
			for _, at := range doubled.FindAllStringIndex(said, -1) {
				t.Errorf("%s says %q", page, said[max(0, at[0]-60):at[1]])
			}
			if !strings.Contains(said, name) {
				t.Errorf("%s does not contain the name %s", page, name)
			}
		}
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

func TestEveryTableIsInAScrollRegionWithAHint(t *testing.T) {
	for name, page := range viewstest.Pages(t) {
		drawn := viewstest.Render(t, page)
		tables := strings.Count(drawn, "<table")
		regions := strings.Count(drawn, `<section class="scroll-x" tabindex="0" aria-label=`)
		if hints := strings.Count(drawn, "Scroll sideways for more"); tables != regions || tables != hints {
			t.Errorf("%s has %d tables in %d regions with %d hints", name, tables, regions, hints)
		}
	}
}
