package billing

import (
	"fmt"
	"testing"
	"time"

	"tollgate/models"
)

// A team that pays for fewer seats than it has members is shown to the operator until that is
// corrected, without a webhook. The overage price is the same for any number of seats.
func TestFewerSeatsThanMembers(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		o, err := models.CreateOrganization(f.Context(), f.db, f.at, "Acme", []string{"T1"})
		f.must(err)
		join := func(people ...int) {
			f.Helper()
			for _, i := range people {
				f.link(models.Link{Email: fmt.Sprintf("u%d@example.com", i), Slack: models.SlackIdentity{TeamID: "T1", UserID: fmt.Sprint("U", i)}})
			}
		}
		resync := func(want int) {
			f.Helper()
			f.at = f.at.Add(25 * time.Hour)
			differ, err := f.hook.Resync(f.Context())
			f.must(err)
			f.must(f.hook.applyDue(f.Context()))
			if differ != want {
				f.Errorf("%d customers differ, want %d", differ, want)
			}
		}
		join(1, 2)
		f.stub.customer("cus_1", object{"tollgate_organization": o.ID.String()})
		f.stub.set("sub_1", subscription("cus_1", "team", "active", f.at.Add(-time.Hour), 2))
		f.sendEvent("customer.subscription.created", "cus_1")
		f.wantProblem("cus_1", "")
		resync(0)
		join(3)
		resync(1)
		f.wantProblem("cus_1", "it pays for 2 seats, but the organization has 3 members; set its quantity to 3")
		f.stub.set("sub_1", object{"items": items("team", 4)})
		resync(1)
		f.wantProblem("cus_1", "") // more seats than members are fine
		resync(0)
	})
}
