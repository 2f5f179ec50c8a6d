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
)

// All overage of a period is on its invoice, or has the one reason why it is not.
func TestOverageIsInvoicedOrHasAReason(t *testing.T) {
	hour := func(o *office) time.Time { return o.period.Start.Add(19*24*time.Hour + 9*time.Hour) } // over for a while
	cases := map[string]struct {
		do   func(o *office)
		want string
	}{
		"invoiced": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $3.60"},
		"waiting for its hour": {func(o *office) {
			o.spend(12, hour(o))
			o.spend(3, o.now)
			o.send()
		}, "Nov 1: decided 15 $4.50, sent 12, counted 12, invoiced 0 $0.00; waiting 15 $4.50"},
		"waiting for the invoice": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.hear("invoice.created", o.renew())
			o.now = o.now.Add(5 * 24 * time.Hour) // the draft is held
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; waiting 12 $3.60"},
		"late, sent after the invoice was final": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.finalize(o.renew())
			o.now = o.now.Add(time.Hour)
			o.spend(3, hour(o))
			o.send()
		}, "Nov 1: decided 15 $4.50, sent 15, counted 15, invoiced 12 $3.60; late 3 $0.90"},
		"late, not sent yet": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.finalize(o.renew())
			o.spend(3, hour(o))
		}, "Nov 1: decided 15 $4.50, sent 12, counted 12, invoiced 12 $3.60; late 3 $0.90"},
		"discarded": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.spend(3, o.now)
			o.now = o.now.Add(time.Hour)
			_, err := o.Client.Subscriptions.Cancel(o.sub, nil)
			o.must(err)
			o.hear("customer.subscription.deleted", o.sub)
		}, "Nov 1: decided 15 $4.50, sent 12, counted 12, invoiced 0 $0.00; discarded 15 $4.50"},
		"canceled with an invoice": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.now = o.now.Add(time.Hour)
			// No webhook names the invoice: the comparison finds it.
			o.must(o.cancelWithInvoice())
			o.hear("customer.subscription.deleted", o.sub)
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $3.60"},
		"two subscriptions": {func(o *office) {
			o.spend(12, hour(o))
			o.hear("customer.subscription.created", o.subscribe(o.base, o.over))
			o.send()
		}, "Nov 1: decided 12 $3.60, sent 0, counted 0, invoiced 0 $0.00; two_subscriptions 12 $3.60"},
		"tiers": {func(o *office) {
			o.spend(12, hour(o))
			o.exec("UPDATE subscriptions SET overage_problem = 'tiered'")
			o.send()
		}, "Nov 1: decided 12 $3.60, sent 0, counted 0, invoiced 0 $0.00; tiered 12 $3.60"},
		"no overage price": {func(o *office) {
			o.stripe.ChangeSubscription(o.sub, func(s *stripetest.Subscription) { s.Items = s.Items[:1] })
			o.hear("customer.subscription.updated", o.sub)
		}, "Nov 1: decided 0 $0.00, sent 0, counted 0, invoiced 0 $0.00; no_overage_price 0 $0.00"},
		"blocked": {func(o *office) {
			o.spend(12, hour(o))
			o.seal()
			o.exec("UPDATE stripe_streams SET blocked = 'No such customer'")
		}, "Nov 1: decided 12 $3.60, sent 0, counted 0, invoiced 0 $0.00; blocked 12 $3.60"},
		"expired": {func(o *office) { o.failed(hour(o), models.ReportExpired) },
			"Nov 1: decided 12 $3.60, sent 0, counted 0, invoiced 0 $0.00; expired 12 $3.60"},
		"dead": {func(o *office) { o.failed(hour(o), models.ReportDead) },
			"Nov 1: decided 12 $3.60, sent 0, counted 0, invoiced 0 $0.00; dead 12 $3.60"},
		"given up": {func(o *office) { o.failed(hour(o), models.ReportGivenUp) },
			"Nov 1: decided 12 $3.60, sent 0, counted 0, invoiced 0 $0.00; given_up 12 $3.60"},
		"rejected": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.stripe.Lose(o.reports()[0].Identifier)
			o.hours(30)
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 0, invoiced 0 $0.00; rejected 12 $3.60"},
		"missing, and sent again": {func(o *office) {
			o.spend(12, hour(o))
			o.seal()
			o.exec("UPDATE stripe_reports SET state = 'unknown', attempts = 1, first_attempt_at = ?, last_attempt_at = ?", o.now, o.now)
			o.now = o.now.Add(24 * time.Hour)
			o.hours(30)
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $3.60"},
		"unknown": {func(o *office) {
			o.spend(12, hour(o))
			o.seal()
			o.exec("UPDATE stripe_reports SET state = 'unknown', attempts = 1, first_attempt_at = ?, last_attempt_at = ?", o.now, o.now)
		}, "Nov 1: decided 12 $3.60, sent 0, counted 0, invoiced 0 $0.00; unknown 12 $3.60"},
		"counted twice": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.stripe.Double(o.reports()[0].Identifier)
			o.hours(3)
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 24, invoiced 24 $7.20; conflict -12 -$3.60"},
		"from another source": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.foreign("cus_1", 7, hour(o))
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 19, invoiced 19 $5.70; other_source -7 -$2.10"},
		"not counted yet": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.stripe.Lose(o.reports()[0].Identifier)
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 0, invoiced 0 $0.00; not_counted 12 $3.60"},
		"in another period": {func(o *office) {
			// Tollgate learns at 12:05 that a period began at 11:30. The report of 11:00 to 12:00 has events of both.
			at := o.now.Add(-5 * time.Minute).Add(-time.Hour)
			o.spend(5, at.Add(10*time.Minute))
			o.spend(7, at.Add(50*time.Minute))
			o.send()
			o.stripe.ChangeSubscription(o.sub, func(s *stripetest.Subscription) {
				s.PeriodStart, s.PeriodEnd = at.Add(30*time.Minute), at.Add(30*time.Minute).AddDate(0, 1, 0)
			})
			o.hear("customer.subscription.updated", o.sub)
		}, "Nov 1: decided 5 $1.50, sent 5, counted 0, invoiced 0 $0.00; other_period 5 $1.50\n" +
			"Nov 20: decided 7 $2.10, sent 7, counted 12, invoiced 0 $0.00; waiting 12 $3.60; other_period -5 -$1.50"},
		"voided": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			invoice := o.renew()
			o.finalize(invoice)
			o.stripe.CloseInvoice(invoice, "void")
			o.hear("invoice.voided", invoice)
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; voided 12 $3.60"},
		"uncollectible, without a webhook": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			invoice := o.renew()
			o.finalize(invoice)
			o.stripe.CloseInvoice(invoice, "uncollectible")
			o.now = o.now.Add(time.Hour)
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; uncollectible 12 $3.60"},
		"finalized, without a webhook": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.stripe.FinalizeInvoice(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $3.60"},
		"in another currency": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.stripe.AddPrice(stripetest.Price{ID: o.over, LookupKey: lookupOverage + "pro", Currency: "eur", Cents: 30})
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $0.00; other_currency 0 $3.60\n" +
			"Dec 1: decided 0 $0.00, sent 0, counted 0, invoiced 0 $0.00; no_overage_price 0 $0.00"},
		"item exchanged, before the invoice": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.spend(3, o.now) // not sent yet
			o.exchange()
		}, "Nov 1: decided 15 $4.50, sent 12, counted 12, invoiced 0 $0.00; no_item 15 $4.50; no_overage_price 0 $0.00"},
		"item exchanged, sent just before the invoice was final": {func(o *office) {
			o.spend(12, hour(o))
			o.exchange()
			invoice := o.renew()
			o.send()
			o.finalize(invoice)
			o.spend(3, hour(o))
		}, "Nov 1: decided 15 $4.50, sent 12, counted 12, invoiced 0 $0.00; no_item 15 $4.50\n" +
			"Dec 1: decided 0 $0.00, sent 0, counted 0, invoiced 0 $0.00; no_overage_price 0 $0.00"},
		"item exchanged, then canceled": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.exchange()
			o.now = o.now.Add(time.Hour)
			_, err := o.Client.Subscriptions.Cancel(o.sub, nil)
			o.must(err)
			o.hear("customer.subscription.deleted", o.sub)
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; discarded 12 $3.60"},
		"item exchanged, an earlier subscription had it": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.exchange()
			o.exec(`INSERT INTO subscriptions (id, user_id, organization_id, plan_id, status, stripe_subscription_id, stripe_customer_id,
					inactive_since, overage_items, created_at, updated_at)
				SELECT ?, user_id, organization_id, plan_id, 'canceled', 'sub_earlier', stripe_customer_id, ?, 'pro', ?, updated_at
				FROM subscriptions WHERE stripe_subscription_id = ?`, uuid.New(), o.period.Start.Add(-time.Hour),
				o.period.Start.Add(-2*time.Hour), o.sub)
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; no_item 12 $3.60; no_overage_price 0 $0.00"},
		"item exchanged, items not read": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.exchange()
			o.exec("UPDATE subscriptions SET overage_items = NULL")
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; waiting 12 $3.60; no_overage_price 0 $0.00"},
		"item removed after the invoice was final": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.stripe.ChangeSubscription(o.sub, func(s *stripetest.Subscription) {
				s.Items = append(s.Items, stripetest.Item{Price: o.stripeOverage("starter"), Quantity: 1})
			})
			o.hear("customer.subscription.updated", o.sub)
			o.wantBalances("Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; waiting 12 $3.60")
			o.finalize(o.renew())
			o.stripe.ChangeSubscription(o.sub, func(s *stripetest.Subscription) { s.Items = append(s.Items[:1], s.Items[2]) })
			o.hear("customer.subscription.updated", o.sub)
			o.spend(3, hour(o))
		}, "Nov 1: decided 15 $4.50, sent 12, counted 12, invoiced 12 $3.60; late 3 $0.90\n" +
			"Dec 1: decided 0 $0.00, sent 0, counted 0, invoiced 0 $0.00; no_overage_price 0 $0.00"},
		"unexplained, as the item was exchanged and is back": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.exchange()
			o.stripe.ChangeSubscription(o.sub, func(s *stripetest.Subscription) { s.Items[1].Price = o.over })
			o.hear("customer.subscription.updated", o.sub)
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 0 $0.00; unexplained 12 $3.60"},
		"unexplained, as the price is another one than decided": {func(o *office) {
			o.spend(12, hour(o))
			o.send()
			o.stripe.AddPrice(stripetest.Price{ID: o.over, LookupKey: lookupOverage + "pro", Cents: 31})
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $3.72; unexplained 0 -$0.12"},
		"a member who joined within the period": {func(o *office) {
			o.spend(5, hour(o))
			o.spendIn(models.Period{Start: hour(o).Add(-time.Hour), End: o.period.End}, "pro", 7, hour(o).Add(time.Minute))
			o.send()
			o.finalize(o.renew())
		}, "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $3.60"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			onBothOffices(t, func(_ *testing.T, o *office) {
				c.do(o)
				o.wantBalances(c.want)
				o.wantBalances(c.want) // and it stays that way
			})
		})
	}
}

func (o *office) exec(query string, args ...any) {
	o.t.Helper()
	_, err := o.db.ExecContext(o.ctx, query, args...)
	o.must(err)
}

// failed makes a report that has ended in a state.
func (o *office) failed(at time.Time, state models.ReportState) {
	o.t.Helper()
	o.spend(12, at)
	o.seal()
	o.exec("UPDATE stripe_reports SET state = ?", state)
	o.finalize(o.renew())
}

// exchange exchanges the overage item for starter's.
func (o *office) exchange() {
	o.t.Helper()
	o.stripe.ChangeSubscription(o.sub, func(s *stripetest.Subscription) { s.Items[1].Price = o.stripeOverage("starter") })
	o.hear("customer.subscription.updated", o.sub)
}

// stripeOverage is the overage price of a plan.
func (o *office) stripeOverage(plan string) string {
	o.t.Helper()
	objects, err := stripeObjects(o.ctx, o.db)
	o.must(err)
	return objects[objectOverage+plan]
}

// cancelWithInvoice cancels the subscription and bills its usage.
func (o *office) cancelWithInvoice() error {
	_, err := o.Client.Subscriptions.Cancel(o.sub, &cancelWithInvoice)
	if err != nil {
		return err
	}
	var draft string
	if err := o.Client.invoicesOf(o.ctx, "cus_1", func(i *invoice) { draft = i.ID }); err != nil {
		return err
	}
	o.stripe.FinalizeInvoice(draft)
	return nil
}

// The overage items of a subscription are stored by a webhook and by the daily comparison, and a change of them writes the balances again.
func TestOverageItems(t *testing.T) {
	onBothOffices(t, func(t *testing.T, o *office) {
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
				t.Errorf("the items are of %s, want %s", text(s.OverageItems), want)
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

// A plan by hand bills nothing at Stripe: its overage is shown for the organization or the person.
func TestOverageByHand(t *testing.T) {
	onBothOffices(t, func(_ *testing.T, o *office) {
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

// A key that may not read invoices sends reports and follows plans, and both the operator and `stripe reconcile` learn of it.
func TestInvoicesThatCannotBeRead(t *testing.T) {
	for name, address := range databases {
		t.Run(name, func(t *testing.T) {
			var d *desk
			forbidden := ""
			d = newDesk(t, address(t), carry(func(r *http.Request) (*http.Response, error) {
				if forbidden != "" {
					return refusing(d.stripe.Transport(), forbidden, http.StatusForbidden)(r)
				}
				return d.stripe.Transport().RoundTrip(r)
			}))
			o := newOffice(d)
			forbidden = "/v1/invoices"
			o.spend(12, o.now.Add(-3*time.Hour))
			o.send()
			o.finalize(o.renew())
			var fault *string
			o.must(o.db.NewSelect().Model((*models.StripeCustomer)(nil)).Column("fault").Where("id = 'cus_1'").Scan(o.ctx, &fault))
			if fault == nil || o.hook.mustState(o).Stopped != nil {
				t.Errorf("the fault is %s", text(fault))
			}
			if _, err := o.Totals(o.ctx, true); err == nil {
				t.Error("nothing says that the invoices cannot be read")
			}
			forbidden = ""
			o.wantBalances("Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $3.60")
		})
	}
}

func (w *Webhooks) mustState(o *office) models.StripeState {
	s, err := State(o.ctx, w.DB)
	o.must(err)
	return s
}

// A process that writes a balance waits for another one that writes the same, so that one whole balance is left.
func TestBalancesAtOnce(t *testing.T) {
	onBothOffices(t, func(t *testing.T, o *office) {
		o.spend(12, o.now.Add(-3*time.Hour))
		o.send()
		o.finalize(o.renew())
		done := make(chan error, 1)
		// The other one takes the period to begin a day later.
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
