package models

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
)

// TestCrossedShortcut compares Crossed, which looks at most decisions only briefly, with the full
// comparison.
func TestCrossedShortcut(t *testing.T) {
	now := time.Date(2026, 11, 5, 0, 0, 0, 0, time.UTC)
	limits := []*int64{nil, new(int64)}
	var standings []Standing
	for _, used := range []int64{0, 1, 4, 5, 6} {
		for _, held := range []int64{0, 1, 4} {
			for _, included := range []int64{0, 5} {
				for _, spend := range limits {
					for _, member := range limits {
						for overage := max(0, used-included); overage <= min(used, 6); overage++ {
							standings = append(standings, Standing{
								Used: used, Overage: overage, Held: held, Included: included, OverageRateCents: 1,
								SpendLimitCents: spend, MemberLimit: member,
							})
						}
					}
				}
			}
		}
	}
	crossings := 0
	for i := range standings {
		for j := range standings {
			before, after := &standings[i], &standings[j]
			got, want := Crossed(before, after, 1, now), crossed(before.WithoutHolds(), after.WithoutHolds(), 1, now)
			for _, all := range [][]DueNotice{got, want} {
				for k := range all {
					all[k].ID = uuid.Nil
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("from %+v to %+v: %d notices, want %d", *before, *after, len(got), len(want))
			}
			crossings += len(want)
		}
	}
	if crossings == 0 {
		t.Fatal("nothing was crossed")
	}
}

// TestCrossedSaysWhyExtraUnitsArePaused uses the last included unit while a payment is past due, or
// while the organization's spend limit is reached. The text of the notice needs the reason.
func TestCrossedSaysWhyExtraUnitsArePaused(t *testing.T) {
	limit := func(cents int64) OrganizationSpend { return OrganizationSpend{Cents: 90, LimitCents: &cents} }
	for _, test := range []struct {
		standing Standing
		want     Reason
	}{
		{Standing{}, ""},
		{Standing{PastDue: true}, PaymentPastDue},
		{Standing{Organization: limit(100)}, OrganizationSpendLimitReached},
		{Standing{Organization: limit(120)}, ""},
		{Standing{MemberLimit: new(int64)}, ""},
	} {
		before := test.standing
		before.Used, before.Included, before.OverageRateCents = 4, 5, 30
		after := before
		after.Used = 5
		notices := Crossed(&before, &after, 1, time.Now())
		if len(notices) == 0 {
			t.Errorf("%+v has no notice", test.standing)
		}
		for _, n := range notices {
			if n.Facts.NextRefusal != test.want {
				t.Errorf("the notice %s of %+v says %q, want %q", n.Kind, test.standing, n.Facts.NextRefusal, test.want)
			}
		}
	}
}
