package cli

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/billing"
)

// reconciled returns a comparison in which everything needs attention.
func reconciled() *billing.Reconciliation {
	at := func(day, hour int) time.Time { return time.Date(2026, 11, day, hour, 0, 0, 0, time.UTC) }
	month := models.CalendarMonth(at(1, 0))
	amount := func(units, cents int64) models.OverageSum { return models.OverageSum{Units: units, Cents: cents} }
	pro := models.OverageBalance{
		Payer: "cus_1", MeterEventName: "slack_speak_suggestions_pro", Period: month,
		Decided: amount(15, 450), Sent: amount(15, 450), Counted: amount(10, 0), Invoiced: amount(12, 360),
	}
	pro.Add(models.OverageLate, amount(3, 90))
	free := models.OverageBalance{Payer: "user:1", Name: "ada@example.com", MeterEventName: "slack_speak_suggestions_", Period: month}
	euro := models.OverageBalance{Payer: "cus_2", MeterEventName: "slack_speak_suggestions_pro", Period: month}
	euro.Add(models.OverageUnexplained, amount(-50, 0))
	euro.Flag(models.OverageOtherCurrency)
	refusal, stopped, paused := "No such customer", "Unauthorized: Invalid API Key provided", "by op@example.com"
	return &billing.Reconciliation{
		Restored: &billing.RestoredReports{Resolved: 2, Again: at(21, 13)},
		Periods:  []billing.ReconciledPeriod{{OverageBalance: pro, Difference: -5}, {OverageBalance: euro}, {OverageBalance: free}},
		Totals: []models.StripeTotal{
			{StripeCustomerID: "cus_1", PeriodStart: at(1, 0), Misplaced: -5, Reason: models.LearnedLate},
			{StripeCustomerID: "cus_2", PeriodStart: at(1, 0)},
		},
		Unread: errors.New("some totals could not be read: cus_3"),
		Failed: []models.StripeReport{
			{Identifier: "test:pro:1", StripeCustomerID: "cus_1", Value: 4, Minute: at(20, 9), State: models.ReportDead, LastError: &refusal},
			{Identifier: "test:pro:2", StripeCustomerID: "cus_1", Value: 3, Minute: at(20, 10), State: models.ReportExpired},
		},
		FailedReports: 5,
		Lost:          []models.StripeReport{{Identifier: "test:pro:3", StripeCustomerID: "cus_1", Value: 6, Minute: at(20, 11)}},
		LostReports:   2,
		Status: &billing.Status{
			Counts: []billing.StateCount{
				{State: models.ReportSealed, Units: 1_200}, {State: models.ReportUnknown, Units: 4}, {State: models.ReportVerified, Units: 9},
			},
			Held:          []models.HeldCustomer{{StripeCustomerID: "cus_2", Units: 7, Subscriptions: []string{"sub_1", "sub_2"}}},
			HeldCustomers: 4, UnsealedUnits: 31,
			State: models.StripeState{Stopped: &stopped, Paused: &paused},
		},
	}
}

const reconciledTable = `PAYER                     FROM                  TO                    DECIDED  SENT  COUNTED  DIFFERENCE  ` +
	`INVOICED  METER                        REASONS
cus_1                     2026-11-01T00:00:00Z  2026-12-01T00:00:00Z  15       15    10       -5          12        ` +
	`slack_speak_suggestions_pro  late 3 ($0.90)
cus_2                     2026-11-01T00:00:00Z  2026-12-01T00:00:00Z  0        0     0        +0          0         ` +
	`slack_speak_suggestions_pro  unexplained -50, other_currency
user:1 (ada@example.com)  2026-11-01T00:00:00Z  2026-12-01T00:00:00Z  0        0     0        +0          0         ` +
	`slack_speak_suggestions_     -
`

const restoredNote = "unsent reports that will not be sent, because Stripe has or may have their units: 2; " +
	"resolve those in the state conflict on /ops"

const reconciledNotes = restoredNote + `
sending is paused until you run this command again, at 2026-11-21T13:00:00Z or later: Stripe's totals may not include the latest ` +
	`reports yet
customer cus_1, period from 2026-11-01T00:00:00Z: Tollgate sent 5 units of this period in another one, because it learned ` +
	`only later that the period had changed
report test:pro:1 of customer cus_1, 4 units at 2026-11-20T09:00:00Z, has the state dead: No such customer
report test:pro:2 of customer cus_1, 3 units at 2026-11-20T10:00:00Z, has the state expired: ` + `
further failed reports: 3
open /ops to resolve the failed reports
report test:pro:3 of customer cus_1, 6 units at 2026-11-20T11:00:00Z: Stripe counted this report before, but Stripe's total no longer ` +
	`includes it; if it is still missing after 24 hours of checks, the report becomes rejected, and you can send it again on /ops
further reports that are missing from Stripe's totals now: 1
in reports that Stripe has not accepted yet: 1,204 suggestions
in no report yet: 31 suggestions
the reports of customer cus_2 are held back (7 suggestions): 2 active subscriptions bill the same meter: sub_1, sub_2. ` +
	`End all but one in Stripe; the reports are then sent.
further customers whose reports are held back: 3
all sending is stopped: Unauthorized: Invalid API Key provided
sending is paused: by op@example.com
`

// The table is on stdout, and the notes are on stderr. What was not read is left out.
func TestReconciliationIsPrinted(t *testing.T) {
	catalogue, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	partly, resumed, empty := reconciled(), reconciled(), &billing.Reconciliation{Periods: []billing.ReconciledPeriod{}}
	partly.Periods, partly.Restored.Again = nil, time.Time{} // Stripe failed after the restore
	resumed.Totals, resumed.Failed, resumed.FailedReports, resumed.Lost, resumed.LostReports = nil, nil, 0, nil, 0
	resumed.Restored, resumed.Status = nil, nil // the database failed at the end
	for name, test := range map[string]struct {
		result        *billing.Reconciliation
		stdout, notes string
	}{
		"all": {reconciled(), reconciledTable, reconciledNotes},
		"only restore": {partly, "", restoredNote + "\n" +
			"the pause after the restore has ended; sending continues, unless it is stopped for another reason\n"},
		"only periods": {resumed, reconciledTable, ""},
		"no periods":   {empty, "PAYER  FROM  TO  DECIDED  SENT  COUNTED  DIFFERENCE  INVOICED  METER  REASONS\n", ""},
	} {
		var stdout, stderr bytes.Buffer
		o := &Output{Stdout: &stdout, Stderr: &stderr}
		if err := o.reconciliation(catalogue, test.result); err != nil {
			t.Fatal(err)
		}
		if stdout.String() != test.stdout {
			t.Errorf("%s: stdout is\n%swant\n%s", name, &stdout, test.stdout)
		}
		if stderr.String() != test.notes {
			t.Errorf("%s: stderr is\n%swant\n%s", name, &stderr, test.notes)
		}
	}
}

// Any difference, failed or lost report, unexplained balance or unread total is an error.
func TestReconciliationError(t *testing.T) {
	problems := func(differences, failed, lost, unexplained int) string {
		return fmt.Sprintf("stripe reconcile: differences: %d; failed reports: %d; verified reports that Stripe no longer has: %d; "+
			"billing periods with unexplained overage: %d", differences, failed, lost, unexplained)
	}
	unread := errors.New("some totals could not be read: cus_3")
	var unexplained models.OverageBalance
	unexplained.Add(models.OverageUnexplained, models.OverageSum{Cents: 1})
	for want, c := range map[string]billing.Reconciliation{
		"":                   {Periods: []billing.ReconciledPeriod{{}}},
		problems(1, 0, 0, 0): {Periods: []billing.ReconciledPeriod{{}, {Difference: -1}}},
		problems(0, 5, 0, 0): {FailedReports: 5},
		problems(0, 0, 2, 0): {LostReports: 2},
		problems(0, 0, 0, 1): {Periods: []billing.ReconciledPeriod{{OverageBalance: unexplained}}},
		unread.Error():       {Unread: unread},
		problems(0, 0, 2, 0) + "\n" + unread.Error(): {LostReports: 2, Unread: unread},
	} {
		got := ""
		if err := reconciliationError(&c); err != nil {
			got = err.Error()
		}
		if got != want || c.Clean() != (want == "") {
			t.Errorf("the error is %q, want %q; clean: %t", got, want, c.Clean())
		}
	}
}
