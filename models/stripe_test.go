package models_test

import (
	"testing"
	"time"

	"tollgate/models"
)

// The units of a report that Stripe may have accepted are sent again only when that is ruled out.
func TestReadFirst(t *testing.T) {
	ago := func(hours float64) *time.Time { return ptr(noon.Add(-time.Duration(hours * float64(time.Hour)))) }
	for name, c := range map[string]struct {
		report models.StripeReport
		want   bool
	}{
		"refused immediately": {models.StripeReport{State: models.ReportDead, LastAttemptAt: ago(1)}, false},
		"never read":          {models.StripeReport{State: models.ReportDead, FirstAttemptAt: ago(60), LastAttemptAt: ago(59)}, true},
		"absent for a day and two": {models.StripeReport{State: models.ReportDead, FirstAttemptAt: ago(60), LastAttemptAt: ago(59),
			ZeroSince: ago(48)}, false},
		"absent for less than a day": {models.StripeReport{State: models.ReportDead, FirstAttemptAt: ago(60), LastAttemptAt: ago(59),
			ZeroSince: ago(23.9)}, true},
		"maybe processed an hour late": {models.StripeReport{State: models.ReportExpired, FirstAttemptAt: ago(60),
			LastAttemptAt: ago(24.9), ZeroSince: ago(24.8)}, true},
		"a reading is due": {models.StripeReport{State: models.ReportExpired, FirstAttemptAt: ago(60), LastAttemptAt: ago(59),
			ZeroSince: ago(48), NextAttemptAt: ago(0)}, true},
		"a reading is to come": {models.StripeReport{State: models.ReportExpired, FirstAttemptAt: ago(60), LastAttemptAt: ago(59),
			ZeroSince: ago(48), NextAttemptAt: ago(-1)}, false},
		"another total": {models.StripeReport{State: models.ReportConflict, FirstAttemptAt: ago(60),
			LastAttemptAt: ago(59), ZeroSince: ago(48)}, true},
		"accepted, and absent a day later": {models.StripeReport{State: models.ReportRejected, FirstAttemptAt: ago(30),
			LastAttemptAt: ago(30), ZeroSince: ago(0)}, false},
	} {
		if got := c.report.ReadFirst(noon); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// A report that is too old can only be given up, unless Stripe may have it, or it is not too old after
// all: the clock may have been wrong when it expired.
func TestMayRetry(t *testing.T) {
	old, young := noon.Add(-35*24*time.Hour), noon.Add(-33*24*time.Hour)
	attempted := ptr(noon.Add(-time.Hour))
	for name, c := range map[string]struct {
		report models.StripeReport
		want   bool
	}{
		"too old":                     {models.StripeReport{State: models.ReportExpired, Minute: old}, false},
		"too old, maybe accepted":     {models.StripeReport{State: models.ReportExpired, Minute: old, FirstAttemptAt: attempted}, true},
		"expired by a wrong clock":    {models.StripeReport{State: models.ReportExpired, Minute: young}, true},
		"refused, and too old by now": {models.StripeReport{State: models.ReportDead, Minute: old}, true},
		"a conflict, and old":         {models.StripeReport{State: models.ReportConflict, Minute: old}, true},
	} {
		if got := c.report.MayRetry(noon); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// The catalog's plans get the meters that setup stored. Other objects and the meter of earlier
// releases are ignored.
func TestReadMeters(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for name, id := range map[string]string{"meter:pro": "mtr_pro", "meter:gone": "mtr_gone", "meter": "mtr_old",
			"price:team": "price_team"} {
			f.insert(t, &models.StripeObject{Name: name, StripeID: id, UpdatedAt: noon})
		}
		if err := f.catalogue.ReadMeters(f.ctx, f.db); err != nil {
			t.Fatal(err)
		}
		for _, p := range f.catalogue.Plans {
			found, _ := f.catalogue.Plan(p.ID)
			if want := map[models.PlanID]string{"pro": "mtr_pro"}[p.ID]; p.StripeMeterID != want || found.StripeMeterID != want {
				t.Errorf("%s has the meter %q, want %q", p.ID, p.StripeMeterID, want)
			}
		}
		if name := f.catalogue.MeterOf("pro"); name != "slack_speak_suggestions_pro" {
			t.Errorf("the meter of pro is %s", name)
		}
	})
}

// The reason says why reports are held back and what the operator can do.
func TestReasonsToHoldBack(t *testing.T) {
	h := models.HeldCustomer{Subscriptions: []string{"sub_1", "sub_2"}, Tiered: []string{"sub_2"}}
	want := "2 active subscriptions bill the same meter: sub_1, sub_2. End all but one in Stripe; the reports are then sent. " +
		"The overage price of sub_2 has tiers: Stripe would deduct the free units of the tiers in addition to the plan's included units. " +
		"Replace the item with the plan's flat price in Stripe " +
		"when the next period begins. Until then, units beyond the included ones are refused."
	if got := h.Reason(); got != want {
		t.Errorf("the reason is %s", got)
	}
}
