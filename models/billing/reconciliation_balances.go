package billing

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"tollgate/models"
)

// printBalances prints a line for each payer, meter and billing period of the last 35 days. DECIDED
// and SENT count units by the time when they were used. COUNTED is Stripe's total of the period,
// and DIFFERENCE is the difference between the totals. It returns the number of periods with a
// difference, and the number of periods with an unexplained amount.
func (r *Reporter) printBalances(
	ctx context.Context, w io.Writer, totals []models.StripeTotal,
) (differences, unexplained int, err error) {
	balances, err := Balances(ctx, r.DB, r.now().Add(-totalsReach))
	if err != nil {
		return 0, 0, err
	}
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "PAYER\tFROM\tTO\tDECIDED\tSENT\tCOUNTED\tDIFFERENCE\tINVOICED\tMETER\tREASONS")
	for _, b := range balances {
		difference := int64(0)
		for _, t := range totals {
			if t.StripeCustomerID == b.Payer && t.MeterEventName == b.MeterEventName && b.Period.Contains(t.PeriodStart.UTC()) {
				difference += t.Difference
			}
		}
		if difference != 0 {
			differences++
		}
		if b.NotInvoiced(models.OverageUnexplained) != (models.OverageSum{}) {
			unexplained++
		}
		payer := b.Payer
		if b.Name != "" {
			payer += " (" + b.Name + ")"
		}
		_, _ = fmt.Fprintf(out, "%s\t%s\t%s\t%d\t%d\t%d\t%+d\t%d\t%s\t%s\n", payer, b.Period.Start.Format(time.RFC3339),
			b.Period.End.Format(time.RFC3339),
			b.Decided.Units, b.Sent.Units, b.Counted.Units, difference, b.Invoiced.Units, b.MeterEventName, r.reasonsText(b))
	}
	return differences, unexplained, out.Flush()
}

// reasonsText returns a period's reasons with their amounts, such as "late 3 ($0.90), waiting 5
// ($1.50)"; "-" without any.
func (r *Reporter) reasonsText(b models.OverageBalance) string {
	texts := make([]string, len(b.Reasons))
	for i, reason := range b.Reasons {
		texts[i] = string(reason.Part)
		if reason.OverageSum == (models.OverageSum{}) {
			continue
		}
		texts[i] += fmt.Sprintf(" %d", reason.Units)
		if b.HasAmount(reason) {
			texts[i] += fmt.Sprintf(" (%s)", r.Catalogue.FormatMoney(reason.Cents))
		}
	}
	if len(texts) == 0 {
		return "-"
	}
	return strings.Join(texts, ", ")
}
