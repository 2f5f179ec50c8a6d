package views_test

import (
	"strings"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
	"tollgate/views/viewstest"
)

// TestARetryIsOfferedWhereItHelps checks the buttons of a report that is too old: to check Stripe
// again if Stripe may have accepted it, and otherwise only to give it up.
func TestARetryIsOfferedWhereItHelps(t *testing.T) {
	expired := models.StripeReport{
		State: models.ReportExpired, StripeCustomerID: "cus_1", Value: 3, Minute: viewstest.Now.AddDate(0, 0, -36),
	}
	maybe := expired
	maybe.FirstAttemptAt = new(viewstest.Now.Add(-time.Hour))
	for label, r := range map[string]models.StripeReport{"": expired, "Check Stripe again": maybe} {
		const advice = "Expired: if you can check Stripe again, do so first. Otherwise, bill the units by hand"
		page := views.Ops{Frame: ui.Frame{Now: viewstest.Now}, Stripe: views.Loaded(views.OpsStripe{
			Connected: true, Failures: []models.StripeReport{r},
		})}
		said := text(viewstest.Render(t, views.OpsPage(page)))
		if !strings.Contains(said, "Give up…") || !strings.Contains(said, label) || !strings.Contains(said, advice) ||
			strings.Contains(said, "Check Stripe again") != (label != "") || strings.Contains(said, "Send again") {
			t.Errorf("want the button %q and %q:\n%s", label, advice, said)
		}
	}
}

// TestTotalsThatDifferAddUp checks that the difference of a total is Stripe's total minus the sent
// units of the period, even if some were sent in another period.
func TestTotalsThatDifferAddUp(t *testing.T) {
	start := time.Date(2026, 11, 10, 0, 0, 0, 0, time.UTC)
	change := start.AddDate(0, 0, 13)
	page := views.Ops{Frame: ui.Frame{Now: viewstest.Now}, Stripe: views.Loaded(views.OpsStripe{Connected: true, Totals: []models.StripeTotal{
		{
			StripeCustomerID: "cus_1", PeriodStart: start, PeriodEnd: change, Used: 5, Misplaced: -5,
			Reason: models.LearnedLate, Difference: -5,
		},
		{
			StripeCustomerID: "cus_2", PeriodStart: change, PeriodEnd: change.AddDate(0, 1, 0), Used: 7, Sent: 12, Confirmed: 12,
			Misplaced: 5, Reason: models.LearnedLate, Difference: 5,
		},
		{StripeCustomerID: "cus_3", PeriodStart: start, PeriodEnd: change, Used: 9, Sent: 9, Confirmed: 8, Difference: -1},
	}})}
	said := text(viewstest.Render(t, views.OpsPage(page)))
	for _, want := range []string{"had changed. 5 0 -5 cus_2", "had changed. 7 12 +5 cus_3", "(UTC) 9 8 -1"} {
		if !strings.Contains(said, want) {
			t.Errorf("the page does not say %q:\n%s", want, said)
		}
	}
}
