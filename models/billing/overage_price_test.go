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

// The rate of a subscription is the amount of its overage price. A price that cannot bill what
// Tollgate reports is a problem, and the rate is then 0.
func TestTheOveragePriceOfASubscription(t *testing.T) {
	metered := func(meter string) object { return object{"usage_type": "metered", "meter": meter} }
	price := func(plan, meter string, changes object) object {
		p := overageOf(plan, object{"recurring": metered(meter), "lookup_key": ""})
		for name, v := range changes {
			p[name] = v
		}
		return object{"id": "si_" + plan + meter, "price": p}
	}
	base := object{"id": "si_base", "quantity": 1, "price": object{"id": "price_pro", "currency": "usd",
		"recurring": object{"usage_type": "licensed"}}}
	tiers := object{"id": "price_tiers", "billing_scheme": "tiered", "unit_amount": nil, "unit_amount_decimal": nil}
	for _, c := range []struct {
		name    string
		plan    models.PlanID
		items   []object
		cents   int64
		problem models.OverageProblem
		advice  string
	}{
		{"of its plan", "pro", []object{base, price("pro", "mtr_pro", nil)}, 30, "", ""},
		{"another amount than the catalog's", "pro",
			[]object{price("pro", "mtr_pro", object{"unit_amount": 12, "unit_amount_decimal": "12"})}, 12, "", ""},
		{"made by hand, of the plan's meter", "pro", []object{price("pro", "mtr_pro", object{"id": "price_by_hand"})}, 30, "", ""},
		{"none", "pro", []object{base}, 0, "missing", `it has no overage price of "pro"; add the price tollgate_overage_pro to it`},
		{"of another plan", "pro", []object{price("team", "mtr_team", nil)}, 0, "missing", "no overage price"},
		{"of a meter of another product", "pro", []object{price("pro", "mtr_of_another_product", object{"id": "price_sms"})}, 0, "missing",
			"no overage price"},
		{"of an archived meter", "pro", []object{price("pro", "mtr_pro_before", nil)}, 0, "missing", "no overage price"},
		{"after an upgrade", "team", []object{price("pro", "mtr_pro", nil), price("team", "mtr_team", nil)}, 25, "", ""},
		{"with tiers", "pro", []object{price("pro", "mtr_old", tiers)}, 0, "tiered",
			"its overage price price_tiers has tiers; replace it with the price tollgate_overage_pro when the next period begins"},
		{"with tiers, on the plan's meter", "pro", []object{price("pro", "mtr_pro", tiers)}, 0, "tiered", "has tiers"},
		{"next to the one with tiers", "pro", []object{price("pro", "mtr_old", tiers), price("pro", "mtr_pro", nil)}, 30, "", ""},
		{"tiers of another product", "pro", []object{price("pro", "mtr_of_another_product", tiers)}, 0, "missing", "no overage price"},
		{"in euros", "pro", []object{price("pro", "mtr_pro", object{"currency": "eur"})}, 0, "currency",
			"its overage price price_over_pro is in eur"},
		{"of 30.5 cents", "pro", []object{price("pro", "mtr_pro", object{"unit_amount": nil, "unit_amount_decimal": "30.5"})}, 0, "amount",
			"is 30.5 cents, which is not a whole number of cents"},
		{"of ten units", "pro", []object{price("pro", "mtr_pro", object{"transform_quantity": object{"divide_by": 10, "round": "up"}})}, 0,
			"amount", "is an amount for each 10 units"},
		{"none for a hard cap", "capped", []object{base}, 0, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &planPrices{
				catalogue: &models.Catalogue{Currency: "usd"}, overage: map[string]models.PlanID{"price_over_pro": "pro", "price_over_team": "team"},
				meters: map[string]models.PlanID{"mtr_pro": "pro", "mtr_team": "team"}, meterOf: map[models.PlanID]string{"pro": "mtr_pro",
					"team": "mtr_team"}, oldMeter: "mtr_old",
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
				if got := p.overageOf(&s, plan); got.cents != c.cents || got.problem != c.problem || !strings.Contains(got.advice, c.advice) ||
					(got.advice == "") != (c.advice == "") {
					t.Errorf("the overage price is %+v, want %d cents, %q, %q", got, c.cents, c.problem, c.advice)
				}
				slices.Reverse(s.Items.Data)
			}
		})
	}
}

// Before setup has stored any object, any metered price may be the plan's.
func TestAnOveragePriceBeforeSetUp(t *testing.T) {
	p := &planPrices{catalogue: &models.Catalogue{Currency: "usd"}}
	s := stripe.Subscription{Items: &stripe.SubscriptionItemList{Data: []*stripe.SubscriptionItem{{Price: &stripe.Price{
		ID: "price_1", Currency: "usd", UnitAmount: 30, Recurring: &stripe.PriceRecurring{UsageType: "metered", Meter: "mtr_1"},
	}}}}}
	if got := p.overageOf(&s, models.Plan{ID: "pro", OverageRateCents: 30}); got.cents != 30 || got.problem != "" {
		t.Errorf("the overage price is %+v", got)
	}
	s.Items.Data[0].Price.BillingScheme = stripe.PriceBillingSchemeTiered
	if got := p.overageOf(&s, models.Plan{ID: "pro", OverageRateCents: 30}); got.problem != models.OverageTiered {
		t.Errorf("with tiers, the overage price is %+v", got)
	}
}

// A customer whose subscription still has a price with tiers gets no overage reports until the
// price is replaced. Reports that an earlier release sealed still go to its old meter, with all
// their units, as the tiers expect.
func TestReportsOfASubscriptionWithTiersAreHeldBack(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		old := d.catalogue.MeterEventName
		d.stripe.AddMeter(old)
		month := models.CalendarMonth(d.now)
		d.subscribe("cus_1", month)
		customer := models.StripeCustomer{ID: "cus_1", CreatedAt: d.now}
		_, err := d.db.NewInsert().Model(&customer).Exec(d.ctx)
		d.must(err)
		problem := func(p *string) {
			t.Helper()
			_, err := d.db.NewUpdate().Model((*models.Subscription)(nil)).
				Set("overage_problem = ?, overage_rate_cents = 0, stripe_subscription_id = 'sub_1'", p).
				Where("stripe_customer_id = 'cus_1'").Exec(d.ctx)
			d.must(err)
		}
		problem(new(string(models.OverageTiered)))
		// An earlier release sealed an event of 5 units, of which 3 are overage.
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.seal()
		_, err = d.db.NewUpdate().Model((*models.StripeReport)(nil)).Set("meter_event_name = ?, counts = ?, value = 5", old,
			models.CountsQuantity).Where("TRUE").Exec(d.ctx)
		d.must(err)
		_, err = d.db.NewUpdate().Model((*models.StripeStream)(nil)).Set("meter_event_name = ?", old).Where("TRUE").Exec(d.ctx)
		d.must(err)
		d.use("cus_1", 4, d.now.Add(-2*time.Hour))
		d.seal()
		d.use("cus_1", 1, d.now) // not due yet
		d.deliver()
		if all := d.stripe.Events(); len(all) != 1 || all[0].EventName != old || all[0].Value != 5 {
			t.Errorf("with tiers, Stripe received %+v", all)
		}
		s := d.status()
		if s.HeldCustomers != 1 || len(s.Held) != 1 || s.Held[0].Units != 5 || !strings.Contains(s.Held[0].Reason(),
			"has tiers: Stripe would deduct the free units of the tiers in addition to the plan") {
			t.Errorf("the held customers are %+v", s.Held)
		}
		problem(nil)
		d.deliver()
		if all := d.stripe.Events(); len(all) != 2 || all[1].EventName != d.meter() || all[1].Value != 4 || d.status().HeldCustomers != 0 {
			t.Errorf("after the exchange, Stripe received %+v", all)
		}
		d.must(models.Verify(d.ctx, d.db, func(found models.Difference) {
			if found.Customer != "" {
				t.Errorf("verify: %s", found)
			}
		}))
		totals, err := d.Totals(d.ctx, true)
		d.must(err)
		for _, total := range totals {
			if total.Difference != 0 {
				t.Errorf("the totals are %+v", total)
			}
		}
		if len(totals) != 2 {
			t.Errorf("%d totals, want one of each meter", len(totals))
		}
	})
}

// A subscription's row has the amount of its overage price and the problem with it, if any.
func TestTheOverageRateFollowsStripe(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.must(storeObject(f.Context(), f.db, f.at, objectOldMeter, "mtr_old"))
		f.must(storeObject(f.Context(), f.db, f.at, objectMeter+"pro", "mtr_pro"))
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at.Add(-time.Hour), 1))
		metered := func(meter string) object { return object{"usage_type": "metered", "meter": meter} }
		for _, c := range []struct {
			name    string
			price   object
			cents   int64
			problem string
			held    int64
		}{
			{"flat", object{"recurring": metered("mtr_pro")}, 30, "none", 0},
			{"dearer", object{"recurring": metered("mtr_pro"), "unit_amount": 32, "unit_amount_decimal": "32"}, 32, "none", 0},
			{"tiers", object{"recurring": metered("mtr_old"), "billing_scheme": "tiered", "unit_amount": nil, "unit_amount_decimal": nil}, 0,
				"tiered", 1},
			{"euros", object{"recurring": metered("mtr_pro"), "currency": "eur"}, 0, "currency", 0},
			{"exchanged", object{"recurring": metered("mtr_pro")}, 30, "none", 0},
			{"tiers again", object{"recurring": metered("mtr_old"), "billing_scheme": "tiered", "unit_amount": nil,
				"unit_amount_decimal": nil}, 0, "tiered", 1},
		} {
			list := items("pro", 1)
			list["data"].([]object)[0]["price"] = overageOf("pro", c.price)
			f.stub.set("sub_1", object{"items": list})
			f.sendEvent("customer.subscription.updated", "cus_1")
			row := f.row("sub_1")
			if row == nil || row.OverageRateCents == nil || *row.OverageRateCents != c.cents || text(row.OverageProblem) != c.problem {
				f.Errorf("%s: the row is %+v", c.name, row)
			}
			held, n, err := heldCustomers(f.Context(), f.db)
			f.must(err)
			if n != c.held || len(held) != int(c.held) || n == 1 && !slices.Equal(held[0].Tiered, []string{"sub_1"}) {
				f.Errorf("%s: the held customers are %+v", c.name, held)
			}
		}
		f.stub.set("sub_1", object{"status": "canceled"})
		f.sendEvent("customer.subscription.deleted", "cus_1")
		if row := f.row("sub_1"); row.OverageProblem != nil {
			f.Errorf("after its end, it has the problem %s", *row.OverageProblem)
		}
	})
}

// A row of an earlier release has no rate yet. The daily comparison reads it.
func TestTheOverageRateIsReadAfterAnUpdate(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at.Add(-time.Hour), 1))
		f.sendEvent("customer.subscription.created", "cus_1")
		_, err := f.db.NewUpdate().Model((*models.Subscription)(nil)).Set("overage_rate_cents = NULL").Where("TRUE").Exec(f.Context())
		f.must(err)
		_, err = f.hook.Resync(f.Context())
		f.must(err)
		f.must(f.hook.applyDue(f.Context()))
		if row := f.row("sub_1"); row.OverageRateCents == nil || *row.OverageRateCents != 30 {
			f.Errorf("the row is %+v", row)
		}
	})
}

// A problem with a subscription's overage price is shown to the operator until it is fixed, also
// without a webhook.
func TestOveragePricesThatNeedAttention(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.must(storeObject(f.Context(), f.db, f.at, objectMeter+"pro", "mtr_pro"))
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", f.at.Add(-time.Hour), 1))
		f.sendEvent("customer.subscription.created", "cus_1")
		f.wantProblem("cus_1", "")
		with := func(changes object) object {
			list := items("pro", 1)
			list["data"].([]object)[0]["price"] = overageOf("pro", changes)
			return list
		}
		missing := items("pro", 1)
		missing["data"] = missing["data"].([]object)[1:]
		for _, c := range []struct {
			items  object
			advice string
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
			f.wantProblem("cus_1", c.advice)
			f.wantPlan("ada@example.com", "pro by cus_1")
		}
		f.stub.set("sub_1", object{"status": "canceled", "items": missing})
		f.sendEvent("customer.subscription.deleted", "cus_1")
		f.wantProblem("cus_1", "")
	})
}
