package billing

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
)

// sentAndVoided records 7 units and 5 units that are voided after they were sent, and makes the
// negative report.
func (v *voidFixture) sentAndVoided() *models.StripeReport {
	v.t.Helper()
	v.record(7, "stays", v.now.Add(-3*time.Hour))
	v.record(5, "void", v.now.Add(-3*time.Hour))
	v.send()
	v.void("void")
	v.must(v.resolveVoids(v.ctx))
	return v.negative()
}

// negative returns the only negative report that was not replaced.
func (v *voidFixture) negative() *models.StripeReport {
	v.t.Helper()
	var found models.StripeReport
	v.must(v.db.NewSelect().Model(&found).Where("counts = ? AND state <> ?", models.CountsVoid, models.ReportMissing).Scan(v.ctx))
	return &found
}

// wantVoid compares the state of the only void.
func (v *voidFixture) wantVoid(want models.VoidState) {
	v.t.Helper()
	var got models.VoidState
	v.must(v.db.NewSelect().Model((*models.UsageVoid)(nil)).Column("state").Scan(v.ctx, &got))
	if got != want {
		v.t.Errorf("the void is %s, want %s", got, want)
	}
}

// resolve looks at the void again, as the worker does every ten minutes.
func (v *voidFixture) resolve() {
	v.t.Helper()
	v.now = v.now.Add(creditAgain)
	v.must(v.resolveVoids(v.ctx))
}

// refuseNegative lets the stand-in answer each negative meter event with a failure.
func (v *voidFixture) refuseNegative(with stripetest.Fault) {
	v.stripe.SetFault(func(_ *http.Request, form url.Values) stripetest.Fault {
		if strings.HasPrefix(form.Get("payload[value]"), "-") {
			return with
		}
		return stripetest.None
	})
}

// A void of a sent event is taken back before the invoice: with a report of its own minute, in the
// same billing period, and once.
func TestANegativeReport(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		negative := v.sentAndVoided()
		var of models.StripeReport
		v.must(v.db.NewSelect().Model(&of).Where("counts = ?", models.CountsOverage).Scan(v.ctx))
		if negative.Value != -5 || negative.Minute.Equal(of.Minute) || !negative.Minute.Truncate(time.Hour).Equal(of.Minute.Truncate(time.Hour)) {
			t.Errorf("the negative report is %+v", negative)
		}
		v.wantBalances("Nov 1: decided 7 $2.10, sent 12, counted 12, invoiced 0 $0.00; waiting 7 $2.10")
		for range 3 { // each time the worker looks again
			v.deliver()
			v.resolve()
		}
		v.wantBalances("Nov 1: decided 7 $2.10, sent 7, counted 7, invoiced 0 $0.00; waiting 7 $2.10")
		v.hours(26)
		v.read()
		if got := v.negative(); got.State != models.ReportVerified || *got.Confirmed != -5 {
			t.Errorf("read back, the negative report is %+v", got)
		}
		v.reconcileCleanly(false)
		v.finalize(v.renew())
		v.resolve()
		v.wantVoid(models.VoidReported)
		v.wantCredits("")
		v.wantBalances("Nov 1: decided 7 $2.10, sent 7, counted 7, invoiced 7 $2.10")
		v.wantVerified()
	})
}

// Stripe accepts a report and does not count it. A void of one of its events takes nothing back,
// because that would reduce the bill for the units of other reports.
func TestAVoidOfAReportThatStripeDoesNotCount(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		v.record(7, "stays", v.now.Add(-5*time.Hour))
		v.send()
		v.record(5, "void", v.now.Add(-3*time.Hour))
		v.stripe.SetFault(func(r *http.Request, _ url.Values) stripetest.Fault {
			if r.Method == http.MethodPost {
				return stripetest.Dropped
			}
			return stripetest.None
		})
		v.send()
		v.stripe.SetFault(nil)
		v.void("void")
		v.must(v.resolveVoids(v.ctx))
		v.deliver()
		v.wantVoid(models.VoidWaiting)
		v.hours(26)
		v.read()
		v.resolve()
		v.wantVoid(models.VoidNotBilled)
		if got := v.stripe.Total("cus_1", v.period.Start, v.period.End); got != 7 {
			t.Errorf("Stripe has %d units, want 7", got)
		}
		v.finalize(v.renew())
		v.resolve()
		v.wantBalances("Nov 1: decided 7 $2.10, sent 12, counted 7, invoiced 7 $2.10; rejected 5 $1.50; not_billed -5 -$1.50")
		v.wantCredits("")
		v.wantVerified()
	})
}

// failReadings lets the stand-in refuse each reading of a total.
func (v *voidFixture) failReadings() {
	v.stripe.SetFault(func(r *http.Request, _ url.Values) stripetest.Fault {
		if strings.Contains(r.URL.Path, "event_summaries") {
			return stripetest.Refused
		}
		return stripetest.None
	})
}

// Stripe counts a report after it was rejected. Its void, which had ended, takes its units back.
func TestAVoidOfAReportThatStripeCountsLate(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		v.record(7, "stays", v.now.Add(-3*time.Hour))
		v.record(5, "void", v.now.Add(-3*time.Hour))
		v.send()
		v.exec("UPDATE stripe_reports SET state = 'rejected', next_attempt_at = created_at")
		v.void("void")
		v.must(v.resolveVoids(v.ctx))
		v.wantVoid(models.VoidNotBilled)
		v.read()
		v.wantVoid(models.VoidWaiting)
		v.resolve()
		v.deliver()
		v.wantVoid(models.VoidReported)
		if got := v.stripe.Total("cus_1", v.period.Start, v.period.End); got != 7 {
			t.Errorf("Stripe has %d units, want 7", got)
		}
		v.wantVerified()
	})
}

// A report is read once for all voids of its events, and each void is claimed only while it is
// worked on.
func TestManyVoidsOfOneReport(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		for i := range 5 {
			v.record(1, fmt.Sprint("void", i), v.now.Add(-3*time.Hour))
		}
		v.send()
		for i := range 5 {
			v.void(fmt.Sprint("void", i))
		}
		var readings, due int64
		v.stripe.SetFault(func(r *http.Request, _ url.Values) stripetest.Fault {
			if !strings.Contains(r.URL.Path, "event_summaries") {
				return stripetest.None
			}
			readings++
			n, err := v.db.NewSelect().Model((*models.UsageVoid)(nil)).Where("next_attempt_at <= ?", v.now).Count(v.ctx)
			v.must(err)
			due = n
			return stripetest.Refused
		})
		v.must(v.resolveVoids(v.ctx))
		if readings != 1 || due != 4 {
			t.Errorf("%d readings, and %d voids are not claimed during the first one; want 1 and 4", readings, due)
		}
	})
}

// A restored database has two reports that it has no attempt of. A void of one of them is credited.
func TestAVoidOfARestoredReport(t *testing.T) {
	onBothVoids(t, func(_ *testing.T, v *voidFixture) {
		v.record(7, "stays", v.now.Add(-5*time.Hour))
		v.record(5, "void", v.now.Add(-3*time.Hour))
		v.send()
		v.exec("UPDATE stripe_reports SET state = 'verified', accepted_at = NULL, first_attempt_at = NULL, last_attempt_at = NULL")
		v.finalize(v.renew())
		v.void("void")
		v.must(v.resolveVoids(v.ctx))
		v.wantVoid(models.VoidCredited)
		v.wantCredits("open $1.50")
	})
}

// The invoice becomes final while Stripe's total for a report cannot be read. A credit note waits
// until it can.
func TestACreditNoteWaitsUntilItsReportIsCounted(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		v.record(5, "void", v.now.Add(-3*time.Hour))
		v.failReadings()
		v.send()
		v.void("void")
		v.must(v.resolveVoids(v.ctx))
		v.hours(2)
		v.finalize(v.renew())
		v.resolve()
		v.wantVoid(models.VoidWaiting)
		if notes := v.stripe.CreditNotes(); len(notes) > 0 {
			t.Errorf("credit notes %+v for units that Stripe may not count", notes)
		}
		v.hours(25)
		v.resolve()
		failed, err := models.FailedVoids(v.ctx, v.db, 5)
		v.must(err)
		if len(failed) != 1 || !strings.Contains(*failed[0].LastError, "could not be read") {
			t.Errorf("the operator sees the voids %+v", failed)
		}
		v.stripe.SetFault(nil)
		v.resolve()
		v.wantVoid(models.VoidCredited)
		v.wantCredits("open $1.50")
		v.wantVerified()
	})
}

// Until Stripe's totals contain the negative report, they are no difference.
func TestANegativeReportThatIsNotCountedYet(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		v.sentAndVoided()
		v.refuseNegative(stripetest.Late)
		v.deliver()
		totals, err := v.Totals(v.ctx, false)
		v.must(err)
		if len(totals) != 1 || totals[0].Difference != 0 || totals[0].Sent != 7 {
			t.Errorf("the totals are %+v", totals)
		}
	})
}

// Stripe refuses the negative report, or it arrives after the invoice: a credit note takes back the
// units, once. The report is not sent again.
func TestACreditNoteInsteadOfANegativeReport(t *testing.T) {
	cases := map[string]func(v *voidFixture){
		"Stripe refuses it": func(v *voidFixture) {
			v.refuseNegative(stripetest.Refused)
			for range 4 {
				v.deliver()
				v.hours(1)
			}
			if got := v.negative().State; got != models.ReportDead {
				v.t.Fatalf("the negative report is %s", got)
			}
			v.resolve()
			if err := v.Retry(v.ctx, "op@example.com", v.negative().ID); err == nil {
				v.t.Error("a report was sent again whose units a credit note takes back")
			}
			v.finalize(v.renew())
		},
		"an operator gives it up": func(v *voidFixture) {
			v.refuseNegative(stripetest.Refused)
			for range 4 {
				v.deliver()
				v.hours(1)
			}
			v.must(v.GiveUp(v.ctx, "op@example.com", v.negative().ID, "not needed"))
			v.finalize(v.renew())
		},
		"it arrives just after the invoice is final": func(v *voidFixture) {
			v.finalize(v.renew())
			v.now = v.now.Add(time.Minute)
			v.deliver()
		},
		"it arrives hours after the invoice is final": func(v *voidFixture) {
			v.finalize(v.renew())
			v.now = v.now.Add(3 * time.Hour)
			v.deliver()
		},
	}
	for name, ends := range cases {
		t.Run(name, func(t *testing.T) {
			onBothVoids(t, func(t *testing.T, v *voidFixture) {
				v.sentAndVoided()
				ends(v)
				for range 3 {
					v.resolve()
				}
				v.wantVoid(models.VoidCredited)
				v.wantCredits("open $1.50")
				if text := v.balances(); strings.Contains(text, "unexplained") || !strings.Contains(text, "credited -5 -$1.50") {
					t.Error(text)
				}
				v.wantVerified()
			})
		})
	}
}

// The negative report arrived just before the invoice became final, but the invoice lacks it.
func TestAnInvoiceWithoutTheNegativeReport(t *testing.T) {
	onBothVoids(t, func(_ *testing.T, v *voidFixture) {
		hour := v.now.Add(-3 * time.Hour)
		invoice := v.renew()
		v.record(7, "stays", hour)
		v.record(5, "void", hour)
		v.send()
		v.void("void")
		v.must(v.resolveVoids(v.ctx))
		v.deliver()
		v.now = v.now.Add(time.Minute)
		v.finalize(invoice)
		v.exec("UPDATE stripe_invoice_lines SET quantity = 12, amount_cents = 360 WHERE quantity > 0")
		v.wantBalances("Nov 1: decided 7 $2.10, sent 7, counted 7, invoiced 12 $3.60; to_credit -5 -$1.50")
		v.resolve()
		v.wantVoid(models.VoidCredited)
		v.wantBalances("Nov 1: decided 7 $2.10, sent 12, counted 7, invoiced 12 $3.60; credited -5 -$1.50")
		v.wantVerified()
	})
}

// Stripe accepts the negative report and does not count it, and that is known only after the invoice
// is final: a credit note takes back the units.
func TestANegativeReportThatIsRejectedLater(t *testing.T) {
	onBothVoids(t, func(_ *testing.T, v *voidFixture) {
		v.sentAndVoided()
		v.refuseNegative(stripetest.Dropped)
		v.deliver()
		v.hours(2)
		v.finalize(v.renew())
		v.resolve()
		v.hours(26)
		v.read()
		v.resolve()
		v.resolve()
		v.wantVoid(models.VoidCredited)
		v.wantCredits("open $1.50")
		v.wantVerified()
	})
}

// The answer to the negative report is lost, and Stripe never received it. The reports that replace
// it stand for the same void.
func TestANegativeReportThatNeverArrives(t *testing.T) {
	onBothVoids(t, func(t *testing.T, v *voidFixture) {
		v.sentAndVoided()
		v.refuseNegative(stripetest.LostBefore)
		v.deliver()
		v.hours(24)
		v.stripe.SetFault(nil)
		v.read()
		v.hours(25)
		v.read()
		v.deliver()
		if got := v.negative(); got.State != models.ReportAccepted {
			t.Errorf("the negative report is %+v", got)
		}
		v.finalize(v.renew())
		v.resolve()
		v.wantVoid(models.VoidReported)
		v.wantCredits("")
		v.wantVerified()
	})
}

// The database is restored from a backup that was made after the void, but before its negative
// report was made or sent. Stripe has that report, so it is not sent again.
func TestANegativeReportAndARestoredDatabase(t *testing.T) {
	const unsent = `UPDATE stripe_reports SET state = 'sealed', attempts = 0, first_attempt_at = NULL, last_attempt_at = NULL,
		accepted_at = NULL, verified_at = NULL, confirmed = NULL, next_attempt_at = created_at WHERE counts = `
	notMade := func(v *voidFixture) {
		v.exec("UPDATE usage_voids SET state = 'waiting', stripe_report_id = NULL")
		v.exec("DELETE FROM stripe_reports WHERE counts = 'void'")
	}
	cases := map[string]struct {
		restore func(v *voidFixture)
		stays   int64 // units of another event
		earlier bool  // which is in another report
		final   bool  // the invoice is, before the restore
		unread  bool  // a reading fails in the second run
		lags    bool  // Stripe's totals have nothing yet in the first run
	}{
		"before it was sent": {restore: func(v *voidFixture) { v.exec(unsent + "'void'") }, stays: 7},
		"before it was made": {restore: notMade, stays: 7},
		"before the event's report was counted": {restore: func(v *voidFixture) {
			notMade(v)
			v.exec("UPDATE stripe_reports SET state = 'accepted', verified_at = NULL, confirmed = NULL")
		}, stays: 7, unread: true},
		"before the event's report was sent": {restore: func(v *voidFixture) {
			notMade(v)
			v.exec(unsent + "'overage'")
		}, lags: true},
		"before it was made, and the invoice is final": {restore: notMade, stays: 7, final: true},
		"before the reports were sent, and the invoice is final": {restore: func(v *voidFixture) {
			notMade(v)
			v.exec(unsent + "'overage'")
		}, stays: 7, earlier: true, final: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			onBothVoids(t, func(t *testing.T, v *voidFixture) {
				at := v.now.Add(-3 * time.Hour)
				if c.earlier {
					at = v.now.Add(-5 * time.Hour)
				}
				if c.stays > 0 {
					v.record(c.stays, "stays", at)
				}
				v.record(5, "void", v.now.Add(-3*time.Hour))
				v.send()
				v.void("void")
				v.must(v.resolveVoids(v.ctx))
				v.deliver()
				wantTotal := func(when string) {
					t.Helper()
					if got := v.stripe.Total("cus_1", v.period.Start, v.period.End); got != c.stays {
						t.Errorf("%s, Stripe has %d units, want %d", when, got, c.stays)
					}
				}
				wantTotal("before the restore")
				if c.final {
					v.hours(2)
					v.finalize(v.renew())
				}
				c.restore(v)
				if c.unread || c.lags {
					v.failReadings()
				}
				for run := range 2 {
					_, _, err := v.Restored(v.ctx)
					if c.lags && run == 0 {
						if err == nil {
							t.Error("a run without readings succeeded")
						}
						v.stripe.SetFault(nil)
						err = nil
					}
					if c.unread && run == 1 {
						if err == nil || !strings.Contains(err.Error(), "could not be read") {
							t.Errorf("a run without a reading: %v", err)
						}
						v.stripe.SetFault(nil)
						_, _, err = v.Restored(v.ctx)
					}
					v.must(err)
					v.hours(26)
				}
				v.deliver()
				v.resolve()
				v.deliver()
				wantTotal("after the restore")
				if !c.final {
					v.finalize(v.renew())
				}
				v.resolve()
				v.wantVoid(models.VoidReported)
				v.wantCredits("")
				v.wantVerified()
			})
		})
	}
}
