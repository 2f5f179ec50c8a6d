package viewstest

import (
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
)

// opsStripe returns the state of a Stripe account that has almost everything that was sent.
func opsStripe() views.OpsStripe {
	compared, oldest := Now.Add(-5*time.Hour), Now.Add(-70*time.Minute)
	share := func(part models.OveragePart, units int64) models.OverageShare {
		return models.OverageShare{Part: part, OverageSum: models.OverageSum{Units: units, Cents: 25 * units}}
	}
	return views.OpsStripe{
		Overage: views.OpsOverage{
			Steps: []models.OverageShare{
				share(models.OverageDecided, 11804), share(models.OverageSent, 11762),
				{Part: models.OverageCounted, OverageSum: models.OverageSum{Units: 11762}}, share(models.OverageInvoiced, 9310),
			},
			Reasons:   []models.OverageShare{share(models.OverageWaiting, 2494)},
			CheckedAt: &compared, Currency: "usd",
		},
		Connected: true, Sends: true, Account: "acct_1MadeUp", Waiting: 42, OldestUnsent: &oldest, Compared: 214,
		ComparedAt: &compared,
		Counts: []views.ReportCount{
			{State: models.ReportSealed, Reports: 3, Units: 17}, {State: models.ReportUnknown, Reports: 1, Units: 4},
			{State: models.ReportAccepted, Reports: 96, Units: 812}, {State: models.ReportVerified, Reports: 48210, Units: 391004},
			{State: models.ReportMissing, Reports: 2, Units: 11},
		},
	}
}

// refusedCredit is Stripe's answer to a restricted key.
const refusedCredit = "403 Forbidden: The provided key does not have the permission rak_credit_note_write." //nolint:gosec // not a secret

// opsStopped returns a page on which everything needs attention.
func opsStopped(ops views.Ops) views.Ops {
	text := func(t string) *string { return &t }
	s := opsStripe()
	s.Live, s.Stopped, s.Paused = true, "Unauthorized: Invalid API Key provided.", "paused by alma.teapot@example.com"
	start := time.Date(2026, 11, 7, 9, 30, 0, 0, time.UTC)
	s.Totals = []models.StripeTotal{
		{
			StripeCustomerID: "cus_LanternKettle", PeriodStart: start, PeriodEnd: start.AddDate(0, 1, 0),
			Sent: 1804, Confirmed: 1799, Difference: -5,
		},
		{StripeCustomerID: "cus_Umbrella", PeriodStart: start, PeriodEnd: start.AddDate(0, 1, 0), Sent: 60, Confirmed: 67, Difference: 7},
	}
	confirmed := int64(0)
	s.Failures = []models.StripeReport{
		{
			ID: uuid.MustParse("0199f1d2-0000-7000-8000-000000000011"), StripeCustomerID: "cus_LanternKettle", Minute: start,
			Value: 5, State: models.ReportRejected, FirstAttemptAt: &start, Confirmed: &confirmed,
			LastError: text("Stripe received it, but did not count it"),
		},
		{
			ID: uuid.MustParse("0199f1d2-0000-7000-8000-000000000012"), StripeCustomerID: "cus_Umbrella", Minute: start,
			Value: 4, State: models.ReportConflict, FirstAttemptAt: &start,
			LastError: text("Stripe has 11 units for this minute, but this report has 4"),
		},
	}
	s.Voids = []models.FailedVoid{{
		UsageVoid: models.UsageVoid{OverageCents: 60, LastError: text(refusedCredit)}, CurrentEmail: "alma.teapot@example.com",
	}}
	s.Blocked = []models.StripeStream{{
		StripeCustomerID: "cus_Paperclip", Blocked: text("Bad Request: No such customer: 'cus_Paperclip'"),
	}}
	s.Held = []models.HeldCustomer{{StripeCustomerID: "cus_Twins", Subscriptions: []string{"sub_1First", "sub_1Second"}, Units: 31}}
	s.Problems = []models.StripeCustomer{{
		ID: "cus_Marble", Problem: text("the price price_1Old belongs to no plan; the plan was not changed"),
	}}
	s.MeterErrors = []models.StripeWebhookEvent{{ID: "evt_1", ReceivedAt: Now.Add(-time.Hour), LastError: text("3 events: no such customer")}}
	month := models.Period{Start: start.AddDate(0, -1, 0), End: start}
	s.Overage.Reasons = []models.OverageShare{
		{Part: models.OverageUnexplained, OverageSum: models.OverageSum{Units: 12, Cents: 360}},
		{Part: models.OverageWaiting, OverageSum: models.OverageSum{Units: 2494, Cents: 62350}},
		{Part: models.OverageLate, OverageSum: models.OverageSum{Units: 3, Cents: 90}},
		{Part: models.OverageByHand, OverageSum: models.OverageSum{Units: 40, Cents: 1000}},
		{Part: models.OverageOtherSource, OverageSum: models.OverageSum{Units: -7, Cents: -210}},
		{Part: models.OverageToCredit, OverageSum: models.OverageSum{Units: -2, Cents: -60}},
		{Part: models.OverageCredited, OverageSum: models.OverageSum{Units: -5, Cents: -150}},
	}
	s.Overage.Balances = []models.OverageBalance{
		{
			Payer: "cus_LanternKettle", MeterEventName: "slack_speak_suggestions_pro", Period: month,
			Decided: models.OverageSum{Units: 1804, Cents: 54120}, Sent: models.OverageSum{Units: 1804, Cents: 54120},
			Counted: models.OverageSum{Units: 1804}, Invoiced: models.OverageSum{Units: 1792, Cents: 53760},
			Reasons: s.Overage.Reasons[:1],
		},
		{
			Payer: "organization:0199f1d2-0000-7000-8000-000000000021", Name: "The Department of Extraordinarily Long Names and Umbrellas",
			MeterEventName: "slack_speak_suggestions_business", Period: month,
			Decided: models.OverageSum{Units: 40, Cents: 1000}, Reasons: s.Overage.Reasons[3:4],
		},
	}
	s.GiveUp, s.Reason = s.Failures[1].ID.String(), "   "
	ops.Stripe = views.Loaded(s)
	ops.Frame.Errors = []ui.FormError{{
		Field: views.FieldIDReason(s.GiveUp), Message: "Enter a reason of 1 to 500 characters to give up the report.",
	}}
	return ops
}
