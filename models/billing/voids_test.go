package billing

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
	"tollgate/models/enforcement"
)

// voidFixture is an invoiceFixture whose usage the gate decides. Pro includes 75 units.
type voidFixture struct {
	*invoiceFixture
	gate *enforcement.Gate
}

func onBothVoids(t *testing.T, test func(t *testing.T, v *voidFixture)) {
	t.Helper()
	onBothInvoices(t, func(t *testing.T, o *invoiceFixture) {
		gate, err := enforcement.Open(o.ctx, o.db, enforcement.Options{
			Catalogue: o.catalogue, Now: o.clock, Log: slog.New(slog.DiscardHandler), QueueLimit: 64,
		})
		o.must(err)
		t.Cleanup(gate.Close)
		v := &voidFixture{o, gate}
		v.record(75, "included", o.now.Add(-4*time.Hour))
		test(t, v)
	})
}

// record records units that were used at a time.
func (v *voidFixture) record(units int64, key string, at time.Time) {
	v.t.Helper()
	outcomes, err := v.gate.Record(v.ctx, []enforcement.PastEvent{{
		Person: enforcement.Person{Email: "ada@example.com"}, Quantity: units, IdempotencyKey: key, OccurredAt: at,
	}})
	v.must(err)
	v.must(outcomes[0].Err)
}

func (v *voidFixture) try(key string, reported bool) (models.Voided, error) {
	return models.Void(v.ctx, v.db, v.catalogue, models.Now(v.clock), models.NewVoid{
		Actor: models.ActorShell, Email: "ada@example.com", IdempotencyKey: key, Reason: "by mistake", Reported: reported,
	})
}

// void voids an event, which may be in a report.
func (v *voidFixture) void(key string) {
	v.t.Helper()
	_, err := v.try(key, true)
	v.must(err)
}

func (v *voidFixture) wantVerified() {
	v.t.Helper()
	v.must(models.Verify(v.ctx, v.db, func(d models.Difference) { v.t.Error(d) }))
}

// A void before sealing keeps the event out of each report. After sealing, it needs permission, and
// the balance shows what Stripe bills too much.
func TestVoidsAndTheirBalances(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		hour := v.now.Add(-3 * time.Hour)
		for i := range 4 {
			v.record(int64(i+1), fmt.Sprint("k", i), hour)
		}
		v.void("k0")
		v.wantBalances("Nov 1: decided 9 $2.70, sent 0, counted 0, invoiced 0 $0.00; waiting 9 $2.70")
		v.seal()
		if r := v.reports(); len(r) != 1 || r[0].Value != 9 {
			t.Fatalf("the reports are %+v", r)
		}
		if _, err := v.try("k1", false); !errors.Is(err, models.ErrEventReported) {
			t.Errorf("a void without permission: %v", err)
		}
		v.void("k1")
		v.wantBalances("Nov 1: decided 7 $2.10, sent 0, counted 0, invoiced 0 $0.00; waiting 9 $2.70; to_credit -2 -$0.60")
		v.deliver()
		v.void("k2")
		if _, err := v.try("k2", false); err != nil {
			t.Errorf("a retry without permission: %v", err)
		}
		v.finalize(v.renew())
		v.wantBalances("Nov 1: decided 4 $1.20, sent 9, counted 9, invoiced 9 $2.70; to_credit -5 -$1.50")
		v.void("k3")
		v.void("included")
		v.wantBalances("Nov 1: decided 0 $0.00, sent 9, counted 9, invoiced 9 $2.70; to_credit -9 -$2.70")
		v.wantVerified()

		// Once the invoice is final, credit notes take back what it has too much, each once.
		for range 2 {
			v.must(v.resolveVoids(v.ctx))
			v.wantBalances("Nov 1: decided 0 $0.00, sent 9, counted 9, invoiced 9 $2.70; credited -9 -$2.70")
			v.now = v.now.Add(creditAgain)
		}
		v.wantCredits("open $0.60, open $0.90, open $1.20")
		v.wantVerified()
	})
}

// wantCredits compares the credit notes: "open" ones reduce an open invoice, "balance" ones went to
// the customer's balance. Their sum must be what the invoices have more than the page shows.
func (v *voidFixture) wantCredits(want string) {
	v.t.Helper()
	var texts []string
	var sum, invoiced int64
	for _, note := range v.stripe.CreditNotes() {
		kind := "open"
		if note.ToBalance == note.Cents {
			kind = "balance"
		}
		texts = append(texts, kind+" "+v.catalogue.FormatMoney(note.Cents))
		sum += note.Cents
	}
	if got := strings.Join(texts, ", "); got != want {
		v.t.Errorf("the credit notes are %q, want %q", got, want)
	}
	var lines []models.StripeInvoiceLine
	v.must(v.db.NewSelect().Model(&lines).Scan(v.ctx))
	for _, line := range lines {
		invoiced += line.AmountCents
	}
	if shown := v.shown(); invoiced-sum != shown {
		v.t.Errorf("the invoice has %d cents and credits of %d, but the page shows %d", invoiced, sum, shown)
	}
}

// shown returns the cents of overage that pages show.
func (v *voidFixture) shown() int64 {
	v.t.Helper()
	records, err := models.UsageHistory(v.ctx, v.db, models.Now(v.clock), "ada@example.com", 6)
	v.must(err)
	var cents int64
	for _, r := range records {
		cents += r.OverageCents
	}
	return cents
}

// Whenever an event is voided, the invoice minus its credit notes is what the page shows.
func TestTheInvoiceMinusCreditsIsThePage(t *testing.T) {
	cases := map[string]struct {
		before func(v *voidFixture) // the void
		want   string
	}{
		"before sealing": {func(*voidFixture) {}, ""},
		"after sealing":  {func(v *voidFixture) { v.seal() }, ""},
		"after delivery": {func(v *voidFixture) { v.send() }, ""},
		"after 25 hours": {func(v *voidFixture) {
			v.send()
			v.hours(25)
		}, ""},
		"with a draft": {func(v *voidFixture) {
			v.send()
			v.applyEvent("invoice.created", v.renew())
		}, ""},
		"after the invoice is final": {func(v *voidFixture) {
			v.send()
			v.finalize(v.renew())
		}, "open $1.50"},
		"after the invoice is paid": {func(v *voidFixture) {
			v.send()
			invoice := v.renew()
			v.finalize(invoice)
			v.stripe.CloseInvoice(invoice, "paid")
			v.applyEvent("invoice.paid", invoice)
		}, "balance $1.50"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			onBothVoids(t, func(t *testing.T, v *voidFixture) {
				v.record(7, "stays", v.now.Add(-3*time.Hour))
				v.record(5, "void", v.now.Add(-3*time.Hour))
				c.before(v)
				v.void("void")
				for range 2 { // the report, and then a negative one
					v.must(v.resolveVoids(v.ctx))
					v.send()
					v.now = v.now.Add(creditAgain)
				}
				var final []models.StripeInvoice
				v.must(v.db.NewSelect().Model(&final).Where("finalized_at IS NOT NULL").Scan(v.ctx))
				if len(final) == 0 {
					v.finalize(v.invoice())
				}
				v.now = v.now.Add(creditAgain)
				v.must(v.resolveVoids(v.ctx))
				v.wantCredits(c.want)
				if text := v.balances(); strings.Contains(text, "unexplained") || strings.Contains(text, "to_credit") {
					t.Error(text)
				}
				v.wantVerified()
				waiting, err := v.db.NewSelect().Model((*models.UsageVoid)(nil)).Where("next_attempt_at IS NOT NULL").Count(v.ctx)
				v.must(err)
				if waiting > 0 {
					t.Error("the void is still waiting")
				}
			})
		})
	}
}

// Stripe bills usage only from the time when the price was added. A void of earlier usage must not be
// credited, because the invoice does not have it.
func TestUsageBeforeAPriceWasAddedIsNotCredited(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		v.record(2, "early", v.now.Add(-3*time.Hour))
		v.stripe.ChangeSubscription(v.sub, func(s *stripetest.Subscription) {
			s.Items[1] = stripetest.Item{Price: s.Items[1].Price} // removed, and added again
		})
		v.now = v.now.Add(4 * time.Hour)
		v.record(7, "stays", v.now.Add(-3*time.Hour))
		v.record(5, "void", v.now.Add(-2*time.Hour))
		v.send()
		v.hours(25)
		v.finalize(v.renew())
		v.void("early")
		v.void("void")
		for range 2 {
			v.must(v.resolveVoids(v.ctx))
			v.now = v.now.Add(creditAgain)
		}
		v.wantCredits("open $1.50")
		v.wantVerified()
		var voids []models.UsageVoid
		v.must(v.db.NewSelect().Model(&voids).Order("overage_quantity").Scan(v.ctx))
		if len(voids) != 2 || voids[0].State != models.VoidNotBilled || voids[1].State != models.VoidCredited {
			t.Errorf("the voids are %+v", voids)
		}
	})
}

// TestWhichReportsAnInvoiceHas: an invoice that became final at 1:00 has the reports that Stripe counted
// before. Of those that were sent near that time, its quantity shows which ones it has.
func TestWhichReportsAnInvoiceHas(t *testing.T) {
	final := time.Date(2026, 12, 1, 1, 0, 0, 0, time.UTC)
	type sent struct {
		value           int64
		first, accepted time.Duration // after the invoice became final
	}
	const hour = time.Hour
	for name, c := range map[string]struct {
		reports         []sent
		quantity        int64
		since           int // the number of reports before the price was added
		having, lacking []bool
	}{
		"sent long before": {
			[]sent{{2, -5 * hour, -5 * hour}, {3, -4 * hour, -4 * hour}}, 5, 0, []bool{true, true}, []bool{false, false},
		},
		"sent long after": {
			[]sent{{2, -5 * hour, -5 * hour}, {3, 4 * hour, 4 * hour}}, 2, 0, []bool{true, false}, []bool{false, true},
		},
		"one of two near ones": {
			[]sent{{2, -time.Minute, -time.Minute}, {3, time.Minute, time.Minute}}, 2, 0, []bool{true, false}, []bool{false, true},
		},
		"a lost answer": {
			[]sent{{2, -5 * hour, -5 * hour}, {3, -hour / 2, 3 * hour}}, 5, 0, []bool{true, true}, []bool{false, false},
		},
		"counted at a retry": {
			[]sent{{2, -5 * hour, -5 * hour}, {3, -hour / 2, 3 * hour}}, 2, 0, []bool{true, false}, []bool{false, true},
		},
		"a lost answer, and a later report": {
			[]sent{{2, -hour / 2, 3 * hour}, {3, hour / 4, hour / 4}}, 2, 0, []bool{true, false}, []bool{false, true},
		},
		"a lost answer, and an equal report": {
			[]sent{{5, -hour / 2, -time.Minute}, {5, -hour / 4, -hour / 4}}, 5, 0, []bool{false, true}, []bool{true, false},
		},
		"dropped by Stripe": {
			[]sent{{1, -5 * hour, -5 * hour}, {2, -time.Minute, -time.Minute}}, 5, 0, []bool{false, false}, []bool{false, false},
		},
		"before the price": {
			[]sent{{2, -5 * hour, -5 * hour}, {3, -4 * hour, -4 * hour}}, 3, 1, []bool{false, true}, []bool{true, false},
		},
		"a negative total": {
			[]sent{{2, -5 * hour, -5 * hour}, {-3, -4 * hour, -4 * hour}}, 0, 0, []bool{true, true}, []bool{false, false},
		},
		"taken back near the end": {
			[]sent{{2, -5 * hour, -5 * hour}, {2, -2, -2}, {-2, -1, -1}}, 2, 0, []bool{true, true, true}, []bool{false, true, true},
		},
	} {
		b := &bill{StripeInvoice: models.StripeInvoice{FinalizedAt: &final}, line: models.StripeInvoiceLine{Quantity: c.quantity}}
		all := make([]models.StripeReport, len(c.reports))
		for i, r := range c.reports {
			first, accepted := final.Add(r.first), final.Add(r.accepted)
			all[i] = models.StripeReport{
				ID: uuid.New(), Identifier: fmt.Sprint(i), Value: r.value, Minute: final.Add(time.Duration(i-600) * time.Minute),
				FirstAttemptAt: &first, AcceptedAt: &accepted,
			}
		}
		since := time.Time{}
		if c.since > 0 {
			since = all[c.since].Minute
		}
		for i := range all {
			if having, lacking := fits(all, &all[i], b, since); having != c.having[i] || lacking != c.lacking[i] {
				t.Errorf("%s, report %d: with it %t, without it %t, want %t and %t", name, i, having, lacking, c.having[i], c.lacking[i])
			}
		}
	}
}

// invoice returns the draft of the period, which it makes if there is none.
func (v *voidFixture) invoice() string {
	v.t.Helper()
	var drafts []string
	v.must(v.db.NewSelect().Model((*models.StripeInvoice)(nil)).Column("id").Where("finalized_at IS NULL").Scan(v.ctx, &drafts))
	if len(drafts) > 0 {
		return drafts[0]
	}
	return v.renew()
}

// Requests for credit notes match Stripe's specification.
func TestCreditNotesAsStripeSpecifies(t *testing.T) {
	client, asked := mockClient(t)
	for status, want := range map[models.InvoiceStatus]string{
		models.InvoiceOpen: "GET /v1/credit_notes, POST /v1/credit_notes",
		models.InvoicePaid: "GET /v1/credit_notes, GET /v1/credit_notes/preview, POST /v1/credit_notes",
	} {
		*asked = nil
		b := &bill{StripeInvoice: models.StripeInvoice{ID: "in_1", Status: status}, line: models.StripeInvoiceLine{ID: "il_1"}}
		id, err := client.creditNote(t.Context(), b, &models.UsageVoid{EventID: uuid.New(), OverageCents: 150})
		if got := strings.Join(*asked, ", "); err != nil || id == "" || got != want {
			t.Errorf("%s: %q, %v, after %s", status, id, err, got)
		}
	}
}

// A request for a credit note may fail or lose its answer. Two processes may look at the same void.
func TestACreditNoteIsMadeOnce(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		v.record(5, "void", v.now.Add(-3*time.Hour))
		v.send()
		v.finalize(v.renew())
		v.void("void")
		for _, failure := range []stripetest.Fault{stripetest.Refused, stripetest.Conflict, stripetest.Late, stripetest.LostAfter} {
			v.stripe.SetFault(func(r *http.Request, _ url.Values) stripetest.Fault {
				if r.Method == http.MethodPost {
					return failure
				}
				return stripetest.None
			})
			if err := v.resolveVoids(v.ctx); err == nil {
				t.Errorf("%v: no error", failure)
			}
			var failed models.UsageVoid
			v.must(v.db.NewSelect().Model(&failed).Scan(v.ctx))
			if failed.State != models.VoidWaiting || failed.LastError == nil {
				t.Errorf("%v: the void is %+v", failure, failed)
			}
			v.now = v.now.Add(creditAgain)
		}
		v.now = v.now.Add(25 * time.Hour) // Stripe no longer has the idempotency key
		v.stripe.SetFault(nil)
		other := NewReporter(v.options)
		var wg sync.WaitGroup
		for _, r := range []*Reporter{v.Reporter, other, v.Reporter, other} {
			wg.Go(func() { v.must(r.resolveVoids(v.ctx)) })
		}
		wg.Wait()
		v.wantCredits("open $1.50")
	})
}

// Units of a report that failed are on no invoice, so there is nothing to credit.
func TestNothingToCredit(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		v.record(5, "void", v.now.Add(-3*time.Hour))
		v.seal()
		v.void("void")
		state := func(want models.VoidState) {
			t.Helper()
			v.now = v.now.Add(creditAgain)
			v.must(v.resolveVoids(v.ctx))
			var got models.VoidState
			v.must(v.db.NewSelect().Model((*models.UsageVoid)(nil)).Column("state").Scan(v.ctx, &got))
			if got != want {
				t.Errorf("the void is %s, want %s", got, want)
			}
		}
		state(models.VoidWaiting)
		_, err := v.db.ExecContext(v.ctx, "UPDATE stripe_reports SET state = 'dead', next_attempt_at = NULL")
		v.must(err)
		state(models.VoidNotBilled)
		v.wantBalances("Nov 1: decided 0 $0.00, sent 0, counted 0, invoiced 0 $0.00; dead 5 $1.50; not_billed -5 -$1.50")
		// An operator sends the report again, so Stripe bills its units.
		v.must(v.Retry(v.ctx, "op@example.com", v.reports()[0].ID))
		state(models.VoidWaiting)
		v.deliver()
		v.finalize(v.renew())
		state(models.VoidCredited)
		v.wantCredits("open $1.50")
		v.wantVerified()
	})
}

// A report that was sent within an hour of the time when the invoice became final may be on it. The
// quantity says so, or the void waits.
func TestVoidsNearTheInvoice(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		hour := v.now.Add(-3 * time.Hour)
		v.record(7, "before", hour)
		v.send()
		invoice := v.renew()
		v.record(5, "just before", hour)
		v.send()
		v.now = v.now.Add(time.Minute)
		v.finalize(invoice)
		v.void("just before")
		quantity := func(units int64, currency string, state models.VoidState, reason string) {
			t.Helper()
			_, err := v.db.NewUpdate().Model((*models.StripeInvoiceLine)(nil)).Set("quantity = ?, currency = ?", units, currency).
				Where("quantity > 0").Exec(v.ctx)
			v.must(err)
			_, err = v.db.NewUpdate().Model((*models.UsageVoid)(nil)).Set("state = ?, next_attempt_at = ?", models.VoidWaiting, v.now).
				Where("1 = 1").Exec(v.ctx)
			v.must(err)
			v.must(v.resolveVoids(v.ctx))
			var got models.UsageVoid
			v.must(v.db.NewSelect().Model(&got).Scan(v.ctx))
			if why := text(got.LastError); got.State != state || why != reason {
				t.Errorf("with %d units in %s on the invoice, the void is %s (%s), want %s (%s)", units, currency, got.State, why, state, reason)
			}
		}
		quantity(9, "usd", models.VoidWaiting, byHand(errUnclear, &bill{StripeInvoice: models.StripeInvoice{ID: invoice}}).Error())
		quantity(12, "eur", models.VoidWaiting, byHand(errOtherCurrency, &bill{StripeInvoice: models.StripeInvoice{ID: invoice}}).Error())
		quantity(7, "usd", models.VoidNotBilled, "none")
		if notes := v.stripe.CreditNotes(); len(notes) > 0 {
			t.Errorf("credit notes %+v for units that are on no invoice", notes)
		}
		quantity(12, "usd", models.VoidCredited, "none")
		v.wantCredits("open $1.50")

		// Two hours later, the invoice certainly lacks the units.
		v.now = v.now.Add(2 * time.Hour)
		v.record(4, "late", hour)
		v.send()
		v.void("late")
		v.must(v.resolveVoids(v.ctx))
		v.wantCredits("open $1.50")
		v.wantBalances("Nov 1: decided 7 $2.10, sent 16, counted 16, invoiced 12 $3.60; late 4 $1.20; credited -5 -$1.50; not_billed -4 -$1.20")
		v.wantVerified()
	})
}

// An event is voided and sealed at the same time: either it is in no report, or the void says that
// it is in one.
func TestVoidsAndSealingAtOnce(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		const rounds, events = 6, 8
		for round := range rounds {
			at := v.now.Add(-3 * time.Hour)
			var sum int64
			for i := range events {
				v.record(1, fmt.Sprint(round, "-", i), at)
			}
			before := len(v.reports())
			var wg sync.WaitGroup
			var mu sync.Mutex
			var voided int64
			wg.Go(func() { v.seal() })
			for i := range events {
				wg.Go(func() {
					switch _, err := v.try(fmt.Sprint(round, "-", i), false); {
					case err == nil:
						mu.Lock()
						voided++
						mu.Unlock()
					case !errors.Is(err, models.ErrEventReported):
						t.Error(err)
					}
				})
			}
			wg.Wait()
			v.seal()
			for _, r := range v.reports()[before:] {
				sum += r.Value
			}
			if sum+voided != events {
				t.Errorf("round %d: %d of %d units are in reports, and %d were voided before", round, sum, events, voided)
			}
			v.wantVerified()
			v.now = v.now.Add(time.Hour)
		}
	})
}
