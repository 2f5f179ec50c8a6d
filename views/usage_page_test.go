package views_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
	"tollgate/views/viewstest"
)

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
	pastDue := func(used int64) views.Usage {
		d := viewstest.Member(t, "pro", used, 75)
		d.Standing.Value.PastDue, d.Subscription.Status = true, models.StatusPastDue
		return d
	}
	confirming := limited(96, 900)
	confirming.Limit.Confirm = new(int64(250))
	confirmingHeld := func(cents int64) views.Usage {
		d := limited(96, 900)
		d.Limit.Confirm = &cents
		d.Standing.Value.Held, d.Standing.Value.OverageHeld, d.Standing.Value.OverageCentsHeld = 2, 2, 60
		return d
	}
	confirmingIncluded := limited(73, 900)
	confirmingIncluded.Limit.Confirm = new(int64(10))
	confirmingIncluded.Standing.Value.Held = 2
	stillPaused := limited(85, 300)
	stillPaused.Limit.Confirm = new(int64(310))
	bothPaused, grantedPaused, pastDueBoth := limited(85, 300), limited(85, 300), pastDue(78)
	bothPaused.Limit.Confirm, grantedPaused.Limit.Confirm = new(int64(310)), new(int64(200))
	bothPaused.Standing.Value.Organization = models.OrganizationSpend{LimitCents: new(int64(100)), Cents: 100}
	grantedPaused.Standing.Value.Included += 50 // a grant after the overage
	pastDueBoth.Standing.Value.Organization = models.OrganizationSpend{LimitCents: new(int64(90)), Cents: 90}
	pastDueBoth.Standing.Value.MemberLimit = new(int64(100))
	granted := limited(96, 900)
	granted.Limit.Confirm = new(int64(250))
	granted.Standing.Value.Included += 50 // a grant after the overage
	onHold := func(d views.Usage) views.Usage {
		d.Standing.Value.Held = 2
		return d
	}
	held, heldInVain := onHold(viewstest.Member(t, "free", 3, 5)), onHold(viewstest.Member(t, "free", 5, 5))
	compare := func(used int64, before *int64) views.Usage {
		d := viewstest.Member(t, "pro", used, 75)
		d.Comparison.Value = models.Comparison{Days: 23, Used: used, Before: before}
		return d
	}
	longer := compare(40, new(int64(50)))
	longer.Comparison.Value.Whole = true
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
	flat := viewstest.Member(t, "business", 88, 100)
	flat.Standing.Value.OverageRateCents = 0
	noAdmin, firstAdmin := flat, flat
	noAdmin.Subscription.NoAdmin, firstAdmin.Subscription.NoAdmin, firstAdmin.Subscription.ByHand = true, true, true
	noExtra, noExtraConfirm := limited(43, 0), granted
	noExtraConfirm.Limit.Confirm = new(int64(0))
	nothingIncluded, nothingAllowed := viewstest.Member(t, "pro", 3, 0), viewstest.Member(t, "pro", 0, 0)
	nothingAllowed.Standing.Value.SpendLimitCents = new(int64(10))
	usedBefore := nothingAllowed // the plan's units were used under an earlier payer
	nothingIncluded.Catalogue, nothingAllowed.Catalogue = viewstest.NoneIncluded(t), viewstest.NoneIncluded(t)
	pausedTwice := viewstest.Member(t, "pro", 75, 75)
	pausedTwice.Standing.Value.MemberLimit, pausedTwice.Standing.Value.SpendLimitCents = new(int64(60)), new(int64(0))
	ownLimits, theirLimit := viewstest.Member(t, "business", 60, 100), viewstest.Member(t, "business", 100, 100)
	for _, d := range []*views.Usage{&ownLimits, &theirLimit} {
		d.Frame.Viewer = &ui.Viewer{Email: "hugo.umbrella@example.com", Organization: "Lantern and Kettle", Admin: true}
		d.Standing.Value.UserID = uuid.MustParse("0192aaaa-bbbb-7ccc-8ddd-000000000001")
	}
	ownLimits.Standing.Value.MemberLimit = new(int64(60))
	theirLimit.Standing.Value.Organization = models.OrganizationSpend{LimitCents: new(int64(0))}
	tryingTeam := viewstest.Member(t, "business", 40, 100)
	tryingTeam.Standing.Value.OverageRateCents = 0
	tryingTeam.Subscription.Status, tryingTeam.Subscription.Trial = models.StatusTrialing, true
	tryingTeam.Subscription.TrialEnd = new(time.Date(2026, 12, 9, 15, 20, 0, 0, time.UTC))
	memberLimited := func(used, limit int64) views.Usage {
		d := viewstest.Member(t, "pro", used, 75)
		d.Standing.Value.MemberLimit = &limit
		return d
	}
	bothReached, pastDueLimited := limited(85, 300), pastDue(75)
	bothReached.Standing.Value.Organization = models.OrganizationSpend{LimitCents: new(int64(100)), Cents: 100}
	pastDueLimited.Standing.Value.SpendLimitCents = new(int64(0))
	memberHeld := onHold(memberLimited(43, 45))
	spendFirst, pastDueFirst, unbilled := limited(62, 60), pastDue(62), viewstest.Member(t, "free", 8, 5)
	spendFirst.Standing.Value.MemberLimit, pastDueFirst.Standing.Value.MemberLimit = new(int64(80)), new(int64(80))
	byHand := viewstest.Member(t, "pro", 62, 75)
	byHand.Subscription.StripeConnected, byHand.Subscription.ByHand = false, true
	noStripe := viewstest.Member(t, "free", 5, 5)
	noStripe.Subscription.StripeConnected = false
	twoRates, noRate := viewstest.Member(t, "pro", 78, 75), viewstest.Member(t, "pro", 78, 75)
	twoRates.Standing.Value.OverageCents, noRate.Standing.Value.OverageRateCents = 105, 0 // 2 × $0.30 and 1 × $0.45
	freeAgain := viewstest.Member(t, "free", 8, 5)
	freeAgain.Standing.Value.Overage, freeAgain.Standing.Value.OverageCents = 3, 90
	freeAgain.Months.Value[5].Overage, freeAgain.Months.Value[5].OverageCents = 3, 90
	later := viewstest.Member(t, "pro", 78, 75)
	later.Subscription.StripeConnected = false
	bothLimits := viewstest.Member(t, "free", 5, 5)
	bothLimits.Standing.Value.MemberLimit = new(int64(5))
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
				"Suggestions on hold that the work does not use may become available again.", "0 suggestions left Paused",
			}, []string{"$", "Paused until the reset", "Safe"},
		},
		{
			"a member limit that is reached with units on hold", memberHeld,
			[]string{"as soon as an admin raises the limit. Suggestions on hold that the work does not use may become available again."},
			[]string{"Safe"},
		},
		{
			"a plan without extra units", flat, []string{"For a larger plan, ask an admin of Lantern and Kettle."}, []string{"Upgrade"},
		},
		{
			"a plan without extra units, and no admin", noAdmin,
			[]string{"For a larger plan, ask the operator of this service to make someone an admin."}, []string{"Upgrade"},
		},
		{
			"a plan by hand, and no admin", firstAdmin,
			[]string{"For a larger plan, open the page with the plans.", "Upgrade"},
			nil,
		},
		{
			"a spend limit below the price of a unit", noExtra, []string{
				"When all 75 suggestions are used, new ones are paused until the reset, because your spend limit of $0.00 allows no extra ones.",
				"It allows no extra suggestions, because each one costs $0.30.",
			}, []string{"extra suggestions are paused until the reset"},
		},
		{
			"a confirmation of a spend limit below the price of a unit", noExtraConfirm,
			[]string{"With a limit of $0.00, extra suggestions stop immediately and stay paused, even after the reset on " +
				"Dec 1, 2026, 00:00 UTC. After the reset, they need a limit of at least $0.30."}, nil,
		},
		{
			"a plan without included units", nothingIncluded,
			[]string{"Each suggestion costs $0.30. No spend limit is set", "3 suggestions used. The plan includes none."},
			[]string{"renew each period", "The included suggestions are used"},
		},
		{
			"a plan without included units, and a spend limit below the price of a unit", nothingAllowed, []string{
				"Each suggestion costs $0.30. Suggestions are available as soon as you raise your spend limit.",
				"Your spend limit of $0.10 allows no suggestions, because each one costs $0.30.",
			}, []string{"available on Dec 1"},
		},
		{
			"units of the plan that were used under an earlier payer", usedBefore,
			[]string{"New ones are available on Dec 1, 2026, 00:00 UTC, or as soon as you raise your spend limit.", "renew each period"},
			[]string{"The plan includes none", "allows no suggestions"},
		},
		{
			"a member limit and a spend limit", pausedTwice,
			[]string{"Raising it alone would not help, because your spend limit is reached, too."}, []string{"Change member limit"},
		},
		{
			"an admin whose member limit is reached", ownLimits,
			[]string{"or as soon as you raise the limit.", "Change member limit"}, []string{"an admin"},
		},
		{
			"an admin whose organization's limit is reached", theirLimit,
			[]string{"or as soon as you raise the limit.", "Change organization&#39;s spend limit"}, []string{"an admin"},
		},
		{
			"the trial of an organization", tryingTeam,
			[]string{"Extra suggestions are not available during the trial. The plan comes from Lantern and Kettle."},
			[]string{"Billed to", "billed to"},
		},
		{
			"held units that would not help", heldInVain, []string{"On hold 2", "Paused until the reset"}, []string{"become available again"},
		},
		{
			"without Stripe, nothing can be bought", noStripe,
			[]string{"Compare plans", "nothing can be bought or billed"}, []string{"Upgrade"},
		},
		{
			"a plan that is billed by hand", byHand,
			[]string{"Plans cannot be bought here. To change your plan, ask the operator of this service.", "billed by hand"},
			[]string{"nothing can be bought or billed"},
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
				"When it is reached, extra suggestions are paused until the reset.",
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
			"two spend limits that are reached", bothReached,
			[]string{"or as soon as you raise your spend limit and an admin raises your organization&#39;s spend limit."}, nil,
		},
		{
			"a failed payment and a spend limit", pastDueLimited,
			[]string{"Extra ones are available as soon as the payment succeeds and you raise your spend limit. " +
				"You get new included suggestions on Dec 1, 2026, 00:00 UTC."}, nil,
		},
		{
			"a limit below the amount spent needs confirmation", confirming,
			[]string{
				"$6.30 of overage was used in this period and is billed in any case.",
				"With a limit of $2.50, suggestions stop immediately, until Dec 1, 2026, 00:00 UTC.", "Stop suggestions now",
			}, nil,
		},
		{
			"a limit below what is spent and on hold needs confirmation", confirmingHeld(660),
			[]string{
				"$6.30 of overage was used in this period and is billed in any case. Overage of $0.60 is on hold for work in progress. " +
					"The part that the work uses is billed, even above the new limit. With a limit of $6.60, suggestions stop immediately, " +
					"until Dec 1, 2026, 00:00 UTC. Suggestions on hold that the work does not use may become available again.",
			}, nil,
		},
		{
			"a limit that is reached even if the work uses nothing", confirmingHeld(659),
			[]string{"With a limit of $6.59, suggestions stop immediately, until Dec 1, 2026, 00:00 UTC."},
			[]string{"become available again"},
		},
		{
			"a limit that is too low to end the pause", stillPaused,
			[]string{
				"Not saved yet: with a limit of $3.10, suggestions stay paused", "With a limit of $3.10, suggestions stay paused until " +
					"Dec 1, 2026, 00:00 UTC. One more extra suggestion needs a limit of at least $3.30.", "Save limit",
			}, []string{"immediately", "Stop suggestions now", "become available again"},
		},
		{
			"a limit that is too low, and the organization's limit is reached", bothPaused,
			[]string{
				"One more extra suggestion needs a limit of at least $3.30. Your organization&#39;s spend limit must be raised, too.",
			}, nil,
		},
		{
			"with included units left, extra ones stay paused", grantedPaused,
			[]string{"Not saved yet: with a limit of $2.00, extra suggestions stay paused", "needs a limit of at least $3.30.", "Save limit"},
			[]string{"immediately"},
		},
		{
			"a failed payment, a spend limit of the organization and a member limit", pastDueBoth,
			[]string{
				"You have set no spend limit. Extra suggestions are paused until the payment succeeds and an admin raises your " +
					"organization&#39;s spend limit; after that, they are billed until your organization&#39;s spend limit or your member " +
					"limit is reached.",
			}, nil,
		},
		{
			"included units on hold", confirmingIncluded,
			[]string{
				"With a limit of $0.10, suggestions stop immediately, until Dec 1, 2026, 00:00 UTC. None of your included suggestions are left. " +
					"Suggestions on hold that the work does not use may become available again.",
			}, []string{"of overage was used"},
		},
		{
			"with included units left, the limit stops only extra ones", granted,
			[]string{
				"a limit of $2.50 would stop extra suggestions immediately", "With a limit of $2.50, extra suggestions stop immediately,",
				"Stop extra suggestions now", "Used 96 Included used 75 Included 125 Left 50 Percent used 60%",
				"75 of 125 included suggestions used: 60%, 50 left. 21 beyond the plan.",
			}, []string{"would stop suggestions", "96 used of"},
		},
		{
			"a member limit below the included units", memberLimited(43, 60), []string{
				"17 suggestions left under the member limit of 60", "Your member limit allows no extra suggestions.",
				"Your member limit is 60 suggestions per billing period. When it is reached, " +
					"new ones are paused until the reset.",
			}, []string{"Paused: ", "32 suggestions left", "After 75"},
		},
		{
			"a member limit that is reached", memberLimited(60, 60), []string{
				"0 suggestions left under the member limit of 60", "Included left 15", "15 included left", "Paused: your member limit is reached",
			}, []string{"15 suggestions left", "within the plan", "suggestions by the reset", "run out"},
		},
		{
			"a member limit beyond the included units", memberLimited(43, 90), []string{
				"32 suggestions left",
				"After 75 included suggestions, each extra one costs $0.30. No spend limit is set. Your member limit is 90 suggestions",
				"extra suggestions are billed until you reach your member limit",
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
			[]string{"5 used, included in the plan", "3 beyond the plan, not billed", "Used 8"}, []string{"overage, beyond the plan"},
		},
		{
			"more than in the previous period", compare(62, new(int64(49))),
			[]string{"62 suggestions used so far in the first 23 days, 26% more than in the first 23 days of the previous period (49)."}, nil,
		},
		{
			"fewer than in the previous period", compare(40, new(int64(50))),
			[]string{"20% fewer than in the first 23 days of the previous period (50)."}, nil,
		},
		{
			"a previous period that was shorter", longer, []string{"20% fewer than in the whole previous period (50)."}, []string{"23 days of"},
		},
		{
			"a little more than in the previous period", compare(151, new(int64(150))),
			[]string{"less than 1% more than in the first 23 days of the previous period (150)."}, []string{"0%"},
		},
		{
			"no division by zero", compare(40, new(int64(0))),
			[]string{"none in the first 23 days of the previous period."}, []string{"%!"},
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
				"Paused: the last payment failed", "When all 75 suggestions are used, new ones are paused until the payment succeeds or the " +
					"billing period resets.",
				"Overage: 3 × $0.30 $0.90",
				"You have set no spend limit. Extra suggestions are paused until the payment succeeds; after that, they are billed.",
			},
			[]string{"there is no maximum", "extra suggestions are billed", "of overage", "At this pace"},
		},
		{"overage at two rates", twoRates, []string{"Overage: 3 suggestions $1.05", "So far in this period $19.05"}, []string{"3 × "}},
		{"overage from before the rate was 0", noRate, []string{"Overage: 3 suggestions $0.90", "So far in this period $18.90"}, nil},
		{
			"overage from before the plan ended", freeAgain,
			[]string{
				"What will it cost? Overage: 3 suggestions $0.90 This overage is from before the free plan.",
				"Nov 2026, so far 5 5 3 $0.90",
			}, nil,
		},
		{
			"a subscription while Stripe is not connected", later, []string{"Stripe is not connected here at the moment"},
			[]string{"nothing can be bought"},
		},
		{
			"more than the member limit is used up", bothLimits,
			[]string{"Your member limit is 5 suggestions. Raising it alone would not help, because no included suggestions are available."},
			[]string{"raises the limit"},
		},
		{"no forecast early", early, nil, []string{"At this pace"}},
		{"a trial has an end and no base price", trying(false), []string{
			"Trial until Dec 9, 2026 (in 16 days) The base price is $0.00 until Dec 9, 2026, 15:20 UTC. After that, Pro costs $18.00 per month.",
			"Pro, trial until Dec 9, 2026 $0.00", "So far in this period $0.00", "Extra ones are not available during a trial.",
		}, []string{"per month $18.00"}},
		{
			"a canceled trial costs nothing afterwards", trying(true),
			[]string{"The base price is $0.00 until Dec 9, 2026, 15:20 UTC.", "Pro is canceled"}, []string{"$18.00"},
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

func TestRareStatesOfASubscription(t *testing.T) {
	pages := viewstest.Pages(t)
	for _, test := range []struct {
		page          string
		want, without []string
	}{
		{
			"usage-own-plan", []string{
				"You also have your own subscription to Pro", "It has no effect while your plan comes from Lantern and Kettle.",
				"Cancel Pro in Stripe",
			}, nil,
		},
		{
			"usage-never-paid", []string{"The subscription has not started, so you are on the free plan. Invoices and payment"},
			[]string{"has ended", "Since "},
		},
		{
			"past-several-payers",
			[]string{"Some or all of this overage is billed to an earlier payer.", "Overage: 18 × $0.20 $3.60"},
			[]string{"In this period $", "Billed to the organization"},
		},
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
}

// TestFiguresAfterAGrant: with overage from before a grant, the percentage is that of the included units
// used, so the page shows their number.
func TestFiguresAfterAGrant(t *testing.T) {
	said := text(viewstest.Render(t, viewstest.Pages(t)["past-granted"]))
	for _, want := range []string{
		"Used 96 Included used 75 Included 125 Left 50 Percent used 60% Overage 21",
		"75 of 125 included suggestions used: 60%, 50 left. 21 beyond the plan.",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the page does not say %q:\n%s", want, said)
		}
	}
}

// TestActivityWithoutEvents: only in the current billing period can new events appear.
func TestActivityWithoutEvents(t *testing.T) {
	d := views.Activity{Catalogue: viewstest.Catalogue(t), Page: views.Loaded(models.ActivityPage{})}
	d.Frame.Now = viewstest.Now
	for month, want := range map[time.Month]bool{time.November: true, time.October: false} {
		start := time.Date(2026, month, 1, 0, 0, 0, 0, time.UTC)
		d.Page.Value.Period = models.Period{Start: start, End: start.AddDate(0, 1, 0)}
		said := text(viewstest.Render(t, views.ActivityPage(d)))
		if !strings.Contains(said, "No events in this billing period") || strings.Contains(said, "appears here immediately") != want {
			t.Errorf("%v: %s", month, said)
		}
	}
}
