package models_test

import (
	"testing"

	"tollgate/models"
)

// A record names the meter of its plan while a Stripe customer pays for it.
func TestARecordNamesItsMeter(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.insert(t, &models.StripeObject{Name: "meter:pro", StripeID: "mtr_pro", UpdatedAt: noon})
		if err := f.catalogue.ReadMeters(f.ctx, f.db); err != nil {
			t.Fatal(err)
		}
		f.subscribe(t, models.Subscriber{Email: "bob@example.com"}, "pro")
		f.bought(t, noon.AddDate(0, 0, -1))
		for email, want := range map[string]string{"ada@example.com": "mtr_pro", "bob@example.com": ""} {
			f.consume(t, email, noon, 1)
			r := f.current(t, email, noon)
			got := ""
			if r.StripeMeterID != nil {
				got = *r.StripeMeterID
			}
			if got != want || (r.StripeCustomerID != nil) != (want != "") {
				t.Errorf("%s has the meter %q and the customer %v, want the meter %q", email, got, r.StripeCustomerID, want)
			}
		}
	})
}
