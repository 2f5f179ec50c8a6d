package views_test

import (
	"strings"
	"testing"

	"tollgate/views"
	"tollgate/views/viewstest"
)

func TestPlansOfferOnlyPossiblePurchases(t *testing.T) {
	pages := viewstest.PlanPages(t)
	for name, want := range map[string]int{
		"plans": 2, "plans-paid": 2, "plans-no-stripe": 0, "plans-signed-out": 0, "plans-team": 0, "plans-unpaid-team": 0,
	} {
		if got := strings.Count(viewstest.Render(t, pages[name]), `action="`+views.PathCheckout+`"`); got != want {
			t.Errorf("%s offers %d purchases, want %d", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"plans-paid": "You already pay for Pro. To switch, cancel it under “Invoices and payment”. " +
			"It stays active until the paid period ends; then you can buy Starter.",
		"plans-unpaid-team": "Your organization&#39;s subscription is unpaid. First continue or cancel it with the button below. " +
			"Invoices and payment",
		"plans-ending": "Pro stays active until Dec 1, 2026. You can buy Starter then.",
	} {
		if said := text(viewstest.Render(t, pages[name])); !strings.Contains(said, want) {
			t.Errorf("%s does not say %q:\n%s", name, want, said)
		}
	}
	said := text(viewstest.Render(t, pages["plans-by-hand"]))
	if !strings.Contains(said, "You buy one seat") || strings.Contains(said, "then has no effect") {
		t.Errorf("a person whose own plan has no effect already:\n%s", said)
	}
	said = text(viewstest.Render(t, pages["plans-trial"]))
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
		"With your usage of the last 6 months, including this one so far, Pro would have cost $114.30 in total.",
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
