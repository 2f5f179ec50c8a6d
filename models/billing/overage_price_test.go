package billing

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"

	"tollgate/models"
)

// The rate of a subscription is what its overage price costs. A price that cannot bill what Tollgate reports is a problem, and the rate is 0.
func TestTheOveragePriceOfASubscription(t *testing.T) {
	metered := func(meter string) object { return object{"usage_type": "metered", "meter": meter} }
	price := func(plan, meter string, changes object) object {
		p := overageOf(plan, object{"recurring": metered(meter), "lookup_key": ""})
		for name, v := range changes {
			p[name] = v
		}
		return object{"id": "si_" + plan + meter, "price": p}
	}
	base := object{"id": "si_base", "quantity": 1, "price": object{"id": "price_pro", "currency": "usd", "recurring": object{"usage_type": "licensed"}}}
	tiers := object{"id": "price_tiers", "billing_scheme": "tiered", "unit_amount": nil, "unit_amount_decimal": nil}
	for _, c := range []struct {
		name    string
		plan    models.PlanID
		items   []object
		cents   int64
		problem models.OverageProblem
		fault   string
	}{
		{"its plan's", "pro", []object{base, price("pro", "mtr_pro", nil)}, 30, "", ""},
		{"another amount than the catalog's", "pro", []object{price("pro", "mtr_pro", object{"unit_amount": 12, "unit_amount_decimal": "12"})}, 12, "", ""},
		{"made by hand, of the plan's meter", "pro", []object{price("pro", "mtr_pro", object{"id": "price_by_hand"})}, 30, "", ""},
		{"none", "pro", []object{base}, 0, "missing", `it has no overage price of "pro"; add the price tollgate_overage_pro to it`},
		{"of another plan", "pro", []object{price("team", "mtr_team", nil)}, 0, "missing", "no overage price"},
		{"of another product", "pro", []object{price("pro", "mtr_of_another_product", object{"id": "price_sms"})}, 0, "missing", "no overage price"},
		{"of an archived meter", "pro", []object{price("pro", "mtr_pro_before", nil)}, 0, "missing", "no overage price"},
		{"after an upgrade", "team", []object{price("pro", "mtr_pro", nil), price("team", "mtr_team", nil)}, 25, "", ""},
		{"with tiers", "pro", []object{price("pro", "mtr_old", tiers)}, 0, "tiered", "its overage price price_tiers has tiers; exchange it for the price tollgate_overage_pro when the next period begins"},
		{"with tiers, on the plan's meter", "pro", []object{price("pro", "mtr_pro", tiers)}, 0, "tiered", "has tiers"},
		{"beside the one with tiers", "pro", []object{price("pro", "mtr_old", tiers), price("pro", "mtr_pro", nil)}, 30, "", ""},
		{"tiers of another product", "pro", []object{price("pro", "mtr_of_another_product", tiers)}, 0, "missing", "no overage price"},
		{"in euros", "pro", []object{price("pro", "mtr_pro", object{"currency": "eur"})}, 0, "currency", "its overage price price_over_pro is in eur"},
		{"of 30.5 cents", "pro", []object{price("pro", "mtr_pro", object{"unit_amount": nil, "unit_amount_decimal": "30.5"})}, 0, "amount", "is 30.5 cents, which is not a whole number of cents"},
		{"of ten units", "pro", []object{price("pro", "mtr_pro", object{"transform_quantity": object{"divide_by": 10, "round": "up"}})}, 0, "amount", "is an amount for each 10 units"},
		{"none for a hard cap", "capped", []object{base}, 0, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &planPrices{
				catalogue: &models.Catalogue{Currency: "usd"}, overage: map[string]models.PlanID{"price_over_pro": "pro", "price_over_team": "team"},
				meters: map[string]models.PlanID{"mtr_pro": "pro", "mtr_team": "team"}, meterOf: map[models.PlanID]string{"pro": "mtr_pro", "team": "mtr_team"}, oldMeter: "mtr_old",
			}
			text, err := json.Marshal(object{"id": "sub_1", "items": object{"data": c.items}})
			must(t, err)
			var s stripe.Subscription
			must(t, json.Unmarshal(text, &s))
			plan := models.Plan{ID: c.plan, OverageRateCents: 30}
			if c.plan == "capped" {
				plan.OverageRateCents = 0
			}
			slices.Reverse(s.Items.Data)
			for range 2 { // in any order
				if got := p.overageOf(&s, plan); got.cents != c.cents || got.problem != c.problem || !strings.Contains(got.fault, c.fault) || (got.fault == "") != (c.fault == "") {
					t.Errorf("it is %+v, want %d cents, %q, %q", got, c.cents, c.problem, c.fault)
				}
				slices.Reverse(s.Items.Data)
			}
		})
	}
}

// Before set-up has stored anything, any metered price may be the plan's.
func TestAnOveragePriceBeforeSetUp(t *testing.T) {
	p := &planPrices{catalogue: &models.Catalogue{Currency: "usd"}}
	s := stripe.Subscription{Items: &stripe.SubscriptionItemList{Data: []*stripe.SubscriptionItem{{Price: &stripe.Price{
		ID: "price_1", Currency: "usd", UnitAmount: 30, Recurring: &stripe.PriceRecurring{UsageType: "metered", Meter: "mtr_1"},
	}}}}}
	if got := p.overageOf(&s, models.Plan{ID: "pro", OverageRateCents: 30}); got.cents != 30 || got.problem != "" {
		t.Errorf("it is %+v", got)
	}
	s.Items.Data[0].Price.BillingScheme = stripe.PriceBillingSchemeTiered
	if got := p.overageOf(&s, models.Plan{ID: "pro", OverageRateCents: 30}); got.problem != models.OverageTiered {
		t.Errorf("with tiers it is %+v", got)
	}
}

// What is wrong with the overage price of a subscription is shown to the operator until it is corrected, also without a webhook.
func TestOveragePricesThatNeedAttention(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.must(keepObject(f.Context(), f.db, f.at, objectMeter+"pro", "mtr_pro"))
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at.Add(-time.Hour), 1))
		f.tell("customer.subscription.created", "cus_1")
		f.wantFault("cus_1", "")
		with := func(changes object) object {
			list := items("pro", 1)
			list["data"].([]object)[0]["price"] = overageOf("pro", changes)
			return list
		}
		missing := items("pro", 1)
		missing["data"] = missing["data"].([]object)[1:]
		for _, c := range []struct {
			items object
			fault string
		}{
			{missing, `it has no overage price of "pro"`},
			{with(object{"currency": "eur"}), "is in eur, but the plan catalog and all pages are in usd"},
			{with(object{"unit_amount": nil, "unit_amount_decimal": "30.5"}), "is 30.5 cents"},
			{with(nil), ""},
		} {
			f.stub.set("sub_1", object{"items": c.items})
			f.at = f.at.Add(25 * time.Hour)
			differ, err := f.hook.Resync(f.Context())
			f.must(err)
			f.must(f.hook.applyDue(f.Context()))
			if differ != 1 {
				f.Errorf("%d customers differ, want 1", differ)
			}
			f.wantFault("cus_1", c.fault)
			f.wantPlan("ada@example.com", "pro by cus_1")
		}
		f.stub.set("sub_1", object{"status": "canceled", "items": missing})
		f.tell("customer.subscription.deleted", "cus_1")
		f.wantFault("cus_1", "")
	})
}
