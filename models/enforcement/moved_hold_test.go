package enforcement

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// TestMovedHoldIsIdentifiedAgain moves a hold to another record after its call was identified, as
// happens if Tollgate learns late of a period. The call must not be decided on the old record.
func TestMovedHoldIsIdentifiedAgain(t *testing.T) {
	catalogue, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	user, month := uuid.New(), models.CalendarMonth(now)
	record := models.UsageRecord{
		ID: 7, UserID: user, Email: "ada@example.com", PlanID: models.FreePlan, SuggestionsIncluded: 5, UnitsHeld: 1, Entitled: true,
		BillingPeriodStart: month.Start, BillingPeriodEnd: month.End,
	}
	for _, k := range []kind{settle, release} {
		for _, c := range []struct {
			record int64
			ready  bool
		}{{7, true}, {8, false}} {
			h := &models.UsageHold{
				ID: models.NewHoldID(user), UserID: user, RecordID: c.record, Quantity: 1, State: models.HoldOpen,
				ExpiresAt: now.Add(time.Minute),
			}
			one := &call{ops: []op{{
				request:    request{kind: k, holdID: h.ID, quantity: 1},
				resolution: resolution{held: models.RecordKey{UserID: user, Email: record.Email, At: month.Start}},
			}}}
			look := collectLookups([]*call{one}, now)
			f := newFound(look)
			f.accounts[0], f.holds[h.ID] = &account{record: record}, h
			ready, unready := bindAccounts([]*call{one}, look, f, catalogue, now)
			if len(ready) == 1 != c.ready || len(unready) == 1 == c.ready {
				t.Errorf("a hold of record %d, identified on record 7: %d calls ready, %d not", c.record, len(ready), len(unready))
			}
		}
	}
}
