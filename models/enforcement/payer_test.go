package enforcement_test

import (
	"testing"
	"time"

	"tollgate/models"
)

// TestChangeOfPayerShowsImmediately checks that a person who joins or leaves an organization has
// another payer immediately: a check and the history show the record of the next call, and usage at
// the exact time of the change counts in that record.
func TestChangeOfPayerShowsImmediately(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		p := payers{f, t}
		const bob = "bob@example.com"
		acme := p.organization(f.now.Add(-60*day), "Acme", "T9")
		p.subscribe("", &acme, "team", "cus_org", f.now.Add(-10*day))
		show := func(what string, wants ...int64) {
			t.Helper()
			history, err := models.StandingHistory(f.ctx, f.db, f.catalogue, f.now, bob, 9)
			p.must(err)
			checked, err := f.Check(f.ctx, by(bob), 1)
			p.must(err)
			if checked.Standing.Used != wants[0] {
				t.Errorf("%s: a check shows %d units, want %d", what, checked.Standing.Used, wants[0])
			}
			for i, want := range wants[len(wants)-len(history):] { // the current one may be missing
				if history[i].Used != want {
					t.Errorf("%s: the history shows %d units, want %d: %+v", what, history[i].Used, want, history)
				}
			}
			if checked, err = f.Check(f.ctx, by(bob), 1); err != nil || checked.Standing.Used != wants[0] {
				t.Errorf("%s: the next check shows %d units, want %d; %v", what, checked.Standing.Used, wants[0], err)
			}
		}
		f.consume(t, bob, 3, "free")
		f.now = f.now.Add(time.Hour)
		p.move(f.now, bob, acme)
		show("joined", 0, 3)
		f.consume(t, bob, 40, "acme")
		f.now = f.now.Add(time.Hour)
		f.consume(t, bob, 1, "as bob leaves")
		p.leave(f.now, bob)
		show("left", 1, 40, 3)
		f.consume(t, bob, 1, "left")
		show("consumed", 2, 40, 3)
		f.clean(t)
	})
}
