package billing

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
	"tollgate/models/modelstest"
)

// All overage of a period is on its invoice, or has exactly one reason why it is not.
func TestOverageIsInvoicedOrHasAReason(t *testing.T) {
	hour := func(o *invoiceFixture) time.Time { return o.period.Start.Add(19*24*time.Hour + 9*time.Hour) } // a past hour
	cases := map[string]struct {
		do   func(o *invoiceFixture)
		want string
	}{
		"invoiced": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $3.60"},
		"waiting for its hour": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.spend(3, o.now)
			o.send()
		}, "Nov 1: decided 15 $4.50, sent 12, counted 12, invoiced 0 $0.00; waiting 15 $4.50"},
		"waiting for the invoice": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.applyEvent("invoice.created", o.renew())
			o.now = o.now.Add(5 * 24 * time.Hour) // the draft is held
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; waiting 12 $3.60"},
		"late, sent after the invoice was final": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.finalize(o.renew())
			o.now = o.now.Add(time.Hour)
			o.spend(3, hour(o))
			o.send()
		}, "Nov 1: decided 15 $4.50, sent 15, counted 15, invoiced 12 $3.60; late 3 $0.90"},
		"late, not sent yet": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.finalize(o.renew())
			o.spend(3, hour(o))
		}, "Nov 1: decided 15 $4.50, sent 12, counted 12, invoiced 12 $3.60; late 3 $0.90"},
		"discarded": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.spend(3, o.now)
			o.now = o.now.Add(time.Hour)
			_, err := o.client.api.Subscriptions.Cancel(o.sub, nil)
			o.must(err)
			o.applyEvent("customer.subscription.deleted", o.sub)
		}, "Nov 1: decided 15 $4.50, sent 12, counted 12, invoiced 0 $0.00; discarded 15 $4.50"},
		"canceled with an invoice": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.now = o.now.Add(time.Hour)
			// No webhook names the invoice: the daily comparison finds it.
			o.must(o.cancelWithInvoice())
			o.applyEvent("customer.subscription.deleted", o.sub)
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $3.60"},
		"two subscriptions": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.applyEvent("customer.subscription.created", o.subscribe(o.base, o.over))
			o.send()
		}, "Nov 1: decided 12 $3.60, sent 0, counted 0, invoiced 0 $0.00; two_subscriptions 12 $3.60"},
		"tiers": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.exec("UPDATE subscriptions SET overage_problem = 'tiered'")
			o.send()
		}, "Nov 1: decided 12 $3.60, sent 0, counted 0, invoiced 0 $0.00; tiered 12 $3.60"},
		"no overage price": {func(o *invoiceFixture) {
			o.stripe.ChangeSubscription(o.sub, func(s *stripetest.Subscription) { s.Items = s.Items[:1] })
			o.applyEvent("customer.subscription.updated", o.sub)
		}, "Nov 1: decided 0 $0.00, sent 0, counted 0, invoiced 0 $0.00; no_overage_price 0 $0.00"},
		"blocked": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.seal()
			o.exec("UPDATE stripe_streams SET blocked = 'No such customer'")
		}, "Nov 1: decided 12 $3.60, sent 0, counted 0, invoiced 0 $0.00; blocked 12 $3.60"},
		"expired": {func(o *invoiceFixture) { o.failed(hour(o), models.ReportExpired) },
			"Nov 1: decided 12 $3.60, sent 0, counted 0, invoiced 0 $0.00; expired 12 $3.60"},
		"dead": {func(o *invoiceFixture) { o.failed(hour(o), models.ReportDead) },
			"Nov 1: decided 12 $3.60, sent 0, counted 0, invoiced 0 $0.00; dead 12 $3.60"},
		"given up": {func(o *invoiceFixture) { o.failed(hour(o), models.ReportGivenUp) },
			"Nov 1: decided 12 $3.60, sent 0, counted 0, invoiced 0 $0.00; given_up 12 $3.60"},
		"rejected": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.stripe.Lose(o.reports()[0].Identifier)
			o.hours(30)
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 0, invoiced 0 $0.00; rejected 12 $3.60"},
		"missing, and sent again": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.seal()
			o.exec("UPDATE stripe_reports SET state = 'unknown', attempts = 1, first_attempt_at = ?, last_attempt_at = ?", o.now, o.now)
			o.now = o.now.Add(24 * time.Hour)
			o.hours(30)
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $3.60"},
		"unknown": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.seal()
			o.exec("UPDATE stripe_reports SET state = 'unknown', attempts = 1, first_attempt_at = ?, last_attempt_at = ?", o.now, o.now)
		}, "Nov 1: decided 12 $3.60, sent 0, counted 0, invoiced 0 $0.00; unknown 12 $3.60"},
		"counted twice": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.stripe.Double(o.reports()[0].Identifier)
			o.hours(3)
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 24, invoiced 24 $7.20; conflict -12 -$3.60"},
		"from another source": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.foreign("cus_1", 7, hour(o))
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 19, invoiced 19 $5.70; other_source -7 -$2.10"},
		"not counted yet": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.stripe.Lose(o.reports()[0].Identifier)
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 0, invoiced 0 $0.00; not_counted 12 $3.60"},
		"in another period": {func(o *invoiceFixture) {
			// Tollgate learns at 12:05 that a period began at 11:30. The report of 11:00 to 12:00
			// has events of both periods.
			at := o.now.Add(-5 * time.Minute).Add(-time.Hour)
			o.spend(5, at.Add(10*time.Minute))
			o.spend(7, at.Add(50*time.Minute))
			o.send()
			o.stripe.ChangeSubscription(o.sub, func(s *stripetest.Subscription) {
				s.PeriodStart, s.PeriodEnd = at.Add(30*time.Minute), at.Add(30*time.Minute).AddDate(0, 1, 0)
			})
			o.applyEvent("customer.subscription.updated", o.sub)
		}, "Nov 1: decided 5 $1.50, sent 5, counted 0, invoiced 0 $0.00; other_period 5 $1.50\n" +
			"Nov 20: decided 7 $2.10, sent 7, counted 12, invoiced 0 $0.00; waiting 12 $3.60; other_period -5 -$1.50"},
		"voided": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			invoice := o.renew()
			o.finalize(invoice)
			o.stripe.CloseInvoice(invoice, "void")
			o.applyEvent("invoice.voided", invoice)
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; voided 12 $3.60"},
		"uncollectible, without a webhook": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			invoice := o.renew()
			o.finalize(invoice)
			o.stripe.CloseInvoice(invoice, "uncollectible")
			o.now = o.now.Add(time.Hour)
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; uncollectible 12 $3.60"},
		"finalized, without a webhook": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.stripe.FinalizeInvoice(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $3.60"},
		"in another currency": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.stripe.AddPrice(stripetest.Price{ID: o.over, LookupKey: lookupOverage + "pro", Currency: "eur", Cents: 30})
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $0.00; other_currency 0 $3.60\n" +
			"Dec 1: decided 0 $0.00, sent 0, counted 0, invoiced 0 $0.00; no_overage_price 0 $0.00"},
		"item exchanged, before the invoice": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.spend(3, o.now) // not sent yet
			o.exchange()
		}, "Nov 1: decided 15 $4.50, sent 12, counted 12, invoiced 0 $0.00; no_item 15 $4.50; no_overage_price 0 $0.00"},
		"item exchanged, sent just before the invoice was final": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.exchange()
			invoice := o.renew()
			o.send()
			o.finalize(invoice)
			o.spend(3, hour(o))
		}, "Nov 1: decided 15 $4.50, sent 12, counted 12, invoiced 0 $0.00; no_item 15 $4.50\n" +
			"Dec 1: decided 0 $0.00, sent 0, counted 0, invoiced 0 $0.00; no_overage_price 0 $0.00"},
		"item exchanged, then canceled": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.exchange()
			o.now = o.now.Add(time.Hour)
			_, err := o.client.api.Subscriptions.Cancel(o.sub, nil)
			o.must(err)
			o.applyEvent("customer.subscription.deleted", o.sub)
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; discarded 12 $3.60"},
		"item exchanged, an earlier subscription had it": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.exchange()
			o.exec(`INSERT INTO subscriptions (id, user_id, organization_id, plan_id, status, stripe_subscription_id, stripe_customer_id,
					inactive_since, overage_items, created_at, updated_at)
				SELECT ?, user_id, organization_id, plan_id, 'canceled', 'sub_earlier', stripe_customer_id, ?, 'pro', ?, updated_at
				FROM subscriptions WHERE stripe_subscription_id = ?`, uuid.New(), o.period.Start.Add(-time.Hour),
				o.period.Start.Add(-2*time.Hour), o.sub)
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; no_item 12 $3.60; no_overage_price 0 $0.00"},
		"item exchanged, items not read": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.exchange()
			o.exec("UPDATE subscriptions SET overage_items = NULL")
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; waiting 12 $3.60; no_overage_price 0 $0.00"},
		"item removed after the invoice was final": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.stripe.ChangeSubscription(o.sub, func(s *stripetest.Subscription) {
				s.Items = append(s.Items, stripetest.Item{Price: o.stripeOverage("starter"), Quantity: 1})
			})
			o.applyEvent("customer.subscription.updated", o.sub)
			o.wantBalances("Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; waiting 12 $3.60")
			o.finalize(o.renew())
			o.stripe.ChangeSubscription(o.sub, func(s *stripetest.Subscription) { s.Items = append(s.Items[:1], s.Items[2]) })
			o.applyEvent("customer.subscription.updated", o.sub)
			o.spend(3, hour(o))
		}, "Nov 1: decided 15 $4.50, sent 12, counted 12, invoiced 12 $3.60; late 3 $0.90\n" +
			"Dec 1: decided 0 $0.00, sent 0, counted 0, invoiced 0 $0.00; no_overage_price 0 $0.00"},
		"unexplained: the item was exchanged and put back": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.exchange()
			o.stripe.ChangeSubscription(o.sub, func(s *stripetest.Subscription) { s.Items[1].Price = o.over })
			o.applyEvent("customer.subscription.updated", o.sub)
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; unexplained 12 $3.60"},
		"unexplained: the price is not the one decided with": {func(o *invoiceFixture) {
			o.spend(12, hour(o))
			o.send()
			o.stripe.AddPrice(stripetest.Price{ID: o.over, LookupKey: lookupOverage + "pro", Cents: 31})
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $3.72; unexplained 0 -$0.12"},
		"a member who joined within the period": {func(o *invoiceFixture) {
			o.spend(5, hour(o))
			o.spendIn(models.Period{Start: hour(o).Add(-time.Hour), End: o.period.End}, "pro", 7, hour(o).Add(time.Minute))
			o.send()
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $3.60"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			onBothInvoices(t, func(_ *testing.T, o *invoiceFixture) {
				c.do(o)
				o.wantBalances(c.want)
				o.wantBalances(c.want) // comparing again changes nothing
			})
		})
	}
}

func (o *invoiceFixture) exec(query string, args ...any) {
	o.t.Helper()
	_, err := o.db.ExecContext(o.ctx, query, args...)
	o.must(err)
}

// failed adds a report in a final state.
func (o *invoiceFixture) failed(at time.Time, state models.ReportState) {
	o.t.Helper()
	o.spend(12, at)
	o.seal()
	o.exec("UPDATE stripe_reports SET state = ?", state)
	o.finalize(o.renew())
}

// exchange replaces the overage item with the one of starter.
func (o *invoiceFixture) exchange() {
	o.t.Helper()
	o.stripe.ChangeSubscription(o.sub, func(s *stripetest.Subscription) { s.Items[1].Price = o.stripeOverage("starter") })
	o.applyEvent("customer.subscription.updated", o.sub)
}

// stripeOverage returns the ID of a plan's overage price.
func (o *invoiceFixture) stripeOverage(plan string) string {
	o.t.Helper()
	objects, err := stripeObjects(o.ctx, o.db)
	o.must(err)
	return objects[objectOverage+plan]
}

// cancelWithInvoice cancels the subscription and bills its usage.
func (o *invoiceFixture) cancelWithInvoice() error {
	_, err := o.client.api.Subscriptions.Cancel(o.sub, &cancelWithInvoice)
	if err != nil {
		return err
	}
	var draft string
	if err := o.client.invoicesOf(o.ctx, "cus_1", func(i *invoice) { draft = i.ID }); err != nil {
		return err
	}
	o.stripe.FinalizeInvoice(draft)
	return nil
}

// A webhook and the daily comparison both store the overage items of a subscription. A change of
// them updates the balances.
func TestOverageItems(t *testing.T) {
	onBothInvoices(t, func(t *testing.T, o *invoiceFixture) {
		o.finalize(o.renew())
		o.period = models.CalendarMonth(o.now)
		o.now = o.now.AddDate(0, 0, 3)
		o.spend(12, o.now.Add(-3*time.Hour))
		o.send()
		o.must(o.balanceInvoiced(o.ctx))
		for _, want := range []string{"pro", "starter"} {
			if want == "starter" {
				o.exchange()
			}
			o.exec("UPDATE subscriptions SET overage_items = NULL")
			if n, err := o.hook.Resync(o.ctx); err != nil || n != 1 {
				t.Errorf("%d customers differ: %v", n, err)
			}
			o.apply()
			var s models.Subscription
			o.must(o.db.NewSelect().Model(&s).Scan(o.ctx))
			if s.OverageItems == nil || *s.OverageItems != want {
				t.Errorf("the overage items are %s, want %s", text(s.OverageItems), want)
			}
			o.now = o.now.AddDate(0, 0, 1)
			if n, err := o.hook.Resync(o.ctx); err != nil || n != 0 && want == "pro" {
				t.Errorf("%d customers differ: %v", n, err)
			}
			o.now = o.now.AddDate(0, 0, 1)
		}
		o.must(o.balanceInvoiced(o.ctx))
		want := "Dec 1: decided 12 $3.60, sent 12, counted 0, invoiced 0 $0.00; no_item 12 $3.60; no_overage_price 0 $0.00"
		if got := o.stored(); got != want {
			t.Errorf("the balances are %s, want %s", got, want)
		}
	})
}

// Stripe bills nothing for a plan that was set by hand. Its overage is shown for the organization
// or the person.
func TestOverageByHand(t *testing.T) {
	onBothInvoices(t, func(_ *testing.T, o *invoiceFixture) {
		org, err := models.CreateOrganization(o.ctx, o.db, o.now, "Quack", nil)
		o.must(err)
		for i, payer := range []string{payerOrganization + org.ID.String(), payerOrganization + org.ID.String(), ""} {
			u, err := models.SetUser(o.ctx, o.db, o.now, string(rune('b'+i))+"@example.com", models.UserChange{})
			o.must(err)
			_, err = o.db.NewInsert().Model(&models.UsageRecord{
				UserID: u.ID, Email: u.Email, BillingPeriodStart: o.period.Start, BillingPeriodEnd: o.period.End, PlanID: "pro",
				SuggestionsIncluded: 75,
				SuggestionsUsed:     80, OverageUsed: 5, OverageCents: 150, Payer: &payer, CreatedAt: o.now,
			}).Exec(o.ctx)
			o.must(err)
		}
		o.wantBalances("Quack Nov 1: decided 10 $3.00, sent 0, counted 0, invoiced 0 $0.00; by_hand 10 $3.00\n" +
			"d@example.com Nov 1: decided 5 $1.50, sent 0, counted 0, invoiced 0 $0.00; by_hand 5 $1.50")
	})
}

// A key that may not read invoices still sends reports and follows plans. The operator and
// `stripe reconcile` both see the problem.
func TestInvoicesThatCannotBeRead(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		var d *reporterFixture
		forbidden := ""
		d = newReporterFixture(t, address, roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if forbidden != "" {
				return refusing(d.stripe.Transport(), forbidden, http.StatusForbidden)(r)
			}
			return d.stripe.Transport().RoundTrip(r)
		}))
		o := newInvoiceFixture(d)
		forbidden = "/v1/invoices"
		o.spend(12, o.now.Add(-3*time.Hour))
		o.send()
		o.finalize(o.renew())
		var problem *string
		o.must(o.db.NewSelect().Model((*models.StripeCustomer)(nil)).Column("fault").Where("id = 'cus_1'").Scan(o.ctx, &problem))
		if problem == nil || o.hook.mustState(o).Stopped != nil {
			t.Errorf("the problem is %s", text(problem))
		}
		if _, err := o.Totals(o.ctx, true); err == nil {
			t.Error("unreadable invoices returned no error")
		}
		forbidden = ""
		o.wantBalances("Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $3.60")
	})
}

func (w *Webhooks) mustState(o *invoiceFixture) models.StripeState {
	s, err := State(o.ctx, w.db)
	o.must(err)
	return s
}

// Two processes that write the same balance wait for each other, so that one whole balance remains.
func TestBalancesAtOnce(t *testing.T) {
	onBothInvoices(t, func(t *testing.T, o *invoiceFixture) {
		o.spend(12, o.now.Add(-3*time.Hour))
		o.send()
		o.finalize(o.renew())
		done := make(chan error, 1)
		// The other process has a period that starts a day later.
		first := models.OverageBalance{Payer: "cus_1", MeterEventName: o.meter(),
			Period: models.Period{Start: o.period.Start.AddDate(0, 0, 1), End: o.period.End}, CheckedAt: o.now}
		first.Decided.Units = 5
		first.Add(models.OverageWaiting, first.Decided)
		o.must(o.writeBalances(o.ctx, nil, func(ctx context.Context, tx bun.Tx) error {
			if err := replaceBalances(ctx, tx, []models.OverageBalance{first}); err != nil || !o.db.Postgres {
				return err // on SQLite, one transaction writes at a time
			}
			go func() { done <- o.balance(o.ctx, stream{"cus_1", o.meter()}) }()
			for waits := false; !waits && len(done) == 0; {
				if err := o.db.NewRaw(`SELECT COUNT(*) > 0 FROM pg_stat_activity WHERE datname = current_database()
					AND wait_event_type = 'Lock'`).Scan(ctx, &waits); err != nil {
					return err
				}
			}
			return nil
		}))
		if !o.db.Postgres {
			done <- o.balance(o.ctx, stream{"cus_1", o.meter()})
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := o.stored(); got != "Nov 1: decided 12 $3.60, sent 12, counted 0, invoiced 12 $3.60" {
			t.Errorf("the balances are %s", got)
		}
	})
}
