package models_test

import (
	"testing"
	"time"

	"tollgate/models"
)

// The units of a report that Stripe may have taken are sent anew only once nothing can come of it any more.
func TestReadFirst(t *testing.T) {
	ago := func(hours float64) *time.Time { return ptr(noon.Add(-time.Duration(hours * float64(time.Hour)))) }
	for name, c := range map[string]struct {
		report models.StripeReport
		want   bool
	}{
		"refused at once":               {models.StripeReport{State: models.ReportDead, LastAttemptAt: ago(1)}, false},
		"never read":                    {models.StripeReport{State: models.ReportDead, FirstAttemptAt: ago(60), LastAttemptAt: ago(59)}, true},
		"absent for a day and two":      {models.StripeReport{State: models.ReportDead, FirstAttemptAt: ago(60), LastAttemptAt: ago(59), ZeroSince: ago(48)}, false},
		"absent for less than a day":    {models.StripeReport{State: models.ReportDead, FirstAttemptAt: ago(60), LastAttemptAt: ago(59), ZeroSince: ago(23.9)}, true},
		"maybe processed an hour late":  {models.StripeReport{State: models.ReportExpired, FirstAttemptAt: ago(60), LastAttemptAt: ago(24.9), ZeroSince: ago(24.8)}, true},
		"a reading is due":              {models.StripeReport{State: models.ReportExpired, FirstAttemptAt: ago(60), LastAttemptAt: ago(59), ZeroSince: ago(48), NextAttemptAt: ago(0)}, true},
		"a reading is to come":          {models.StripeReport{State: models.ReportExpired, FirstAttemptAt: ago(60), LastAttemptAt: ago(59), ZeroSince: ago(48), NextAttemptAt: ago(-1)}, false},
		"another total":                 {models.StripeReport{State: models.ReportConflict, FirstAttemptAt: ago(60), LastAttemptAt: ago(59), ZeroSince: ago(48)}, true},
		"taken, and absent a day later": {models.StripeReport{State: models.ReportRejected, FirstAttemptAt: ago(30), LastAttemptAt: ago(30), ZeroSince: ago(0)}, false},
	} {
		if got := c.report.ReadFirst(noon); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
