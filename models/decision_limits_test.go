package models_test

import (
	"fmt"
	"testing"

	"tollgate/models"
)

// TestDecideCombinations compares Decide with its rules, written in a second way, for each
// combination of small numbers, so that each limit is reached exactly, missed by one and combined
// with each other limit.
func TestDecideCombinations(t *testing.T) {
	limits := []*int64{nil, ptr(int64(0)), ptr(int64(1)), ptr(int64(2)), ptr(int64(3)), ptr(int64(4))}
	reasons := map[models.Reason]int{}
	for _, units := range []struct{ U, O, H, HO int64 }{{0, 0, 0, 0}, {1, 0, 0, 0}, {2, 0, 1, 0}, {2, 1, 0, 0}, {2, 0, 2, 1}, {3, 1, 1, 1}} {
		for I := range int64(4) {
			for _, R := range []int64{0, 1, 2} {
				for _, S := range limits {
					for _, M := range limits {
						for _, OS := range limits {
							for q := int64(1); q <= 3; q++ {
								for _, due := range []bool{false, true} {
									const others = 1 // cents of the organization's other members
									C, HC := units.O*R, units.HO*R
									OC := C + HC + others
									s := models.Standing{
										Used: units.U, Overage: units.O, OverageCents: C, Held: units.H, OverageHeld: units.HO, OverageCentsHeld: HC,
										Included: I, OverageRateCents: R, PastDue: due, SpendLimitCents: S, MemberLimit: M,
										Organization: models.OrganizationSpend{Cents: OC, LimitCents: OS},
									}
									free := max(0, I-(units.U-units.O)-(units.H-units.HO))
									over := max(0, q-free)
									var want models.Reason
									switch {
									case M != nil && units.U+units.H+q > *M:
										want = models.MemberLimitReached
									case over > 0 && R == 0:
										want = models.IncludedExhausted
									case over > 0 && due:
										want = models.PaymentPastDue
									case over > 0 && S != nil && C+HC+over*R > *S:
										want = models.SpendLimitReached
									case over > 0 && OS != nil && OC+over*R > *OS:
										want = models.OrganizationSpendLimitReached
									}
									verdict := models.Verdict{Allowed: want == "", Reason: want}
									if verdict.Allowed {
										verdict.Overage, verdict.OverageCents = over, over*R
									}
									reasons[want]++
									if got := models.Decide(s, q); got != verdict {
										t.Fatalf("%d units with %s: %+v, want %+v", q, describe(s), got, verdict)
									}
									checkClassify(t, s, q)
								}
							}
						}
					}
				}
			}
		}
	}
	if len(reasons) != 6 {
		t.Errorf("the combinations reach %v, want all reasons", reasons)
	}
}

// checkClassify checks that Classify bills as many units as Decide allows to bill, one after
// another, and no more.
func checkClassify(t *testing.T, s models.Standing, q int64) {
	t.Helper()
	got := models.Classify(s, q)
	one := s
	var most models.Verdict
	for n := int64(1); n <= q; n++ {
		v := models.Decide(one, 1)
		if !v.Allowed {
			break
		}
		one.Add(1, v)
		most.Overage, most.OverageCents = most.Overage+v.Overage, most.OverageCents+v.OverageCents
	}
	if !got.Allowed || got.Reason != "" || got.Overage != most.Overage || got.OverageCents != most.OverageCents {
		t.Fatalf("%d units that were already used, with %s: %+v, want %d of overage", q, describe(s), got, most.Overage)
	}
}

func describe(s models.Standing) string {
	text := func(limit *int64) string {
		if limit == nil {
			return "none"
		}
		return fmt.Sprint(*limit)
	}
	return fmt.Sprintf("U %d, O %d, H %d, HO %d, I %d, R %d, past due %t, S %s, M %s, OC %d, OS %s", s.Used, s.Overage, s.Held, s.OverageHeld,
		s.Included, s.OverageRateCents, s.PastDue, text(s.SpendLimitCents), text(s.MemberLimit), s.Organization.Cents,
		text(s.Organization.LimitCents))
}
