package billing

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"tollgate/models"
)

// TestWhatIsNotChargedAsSold: seats that are not the members, an overage price of another number of seats, and usage that no price bills
// are told to the operator, without a webhook of Stripe's, until they are mended.
func TestWhatIsNotChargedAsSold(t *testing.T) {
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
		priced := func(seats int, id, lookupKey string) object {
			list := items("team", seats)
			list["data"].([]object)[0]["price"] = object{"id": id, "lookup_key": lookupKey, "recurring": object{"usage_type": "metered"}}
			return list
		}
		join(1, 2)
		f.must(keepObject(f.Context(), f.db, f.at, objectMeter, "mtr_ours"))
		f.must(keepObject(f.Context(), f.db, f.at, seatsObject("business", 3), "price_business"))
		f.must(keepObject(f.Context(), f.db, f.at, seatsObject("team", 2), "price_two"))
		f.stub.customer("cus_1", object{"tollgate_organization": o.ID.String()})
		f.stub.set("sub_1", subscription("cus_1", "team", "active", f.at.Add(-time.Hour), 2))
		f.stub.set("sub_1", object{"items": priced(2, "price_two", "")})
		f.tell("customer.subscription.created", "cus_1")
		f.wantFault("cus_1", "")
		resync(0)

		join(3)
		resync(1)
		f.wantFault("cus_1", "it pays for 2 seats, and the organization has 3 members; set its quantity to 3")
		f.stub.set("sub_1", object{"items": priced(4, "price_4", "tollgate_overage_team_4")})
		resync(1)
		f.wantFault("cus_1", "") // more may come
		resync(0)
		f.stub.set("sub_1", object{"items": priced(3, "price_two", "")})
		resync(1)
		f.wantFault("cus_1", "it pays for 3 seats, and its overage price is that of 2, which leaves 100 units free and not 150; give it the price tollgate_overage_team_3")
		f.stub.set("sub_1", object{"items": priced(3, "price_3", "tollgate_overage_team_3")})
		resync(1)
		f.wantFault("cus_1", "")
		resync(0)

		f.stub.set("sub_1", object{"items": priced(3, "price_business", "")})
		resync(1)
		f.wantFault("cus_1", `it is of "team" and its overage price is that of "business"; give it the price tollgate_overage_team_3`)
		list := priced(3, "price_sms", "")
		list["data"].([]object)[0]["price"].(object)["recurring"].(object)["meter"] = "mtr_of_another_product"
		f.stub.set("sub_1", object{"items": list})
		resync(1)
		f.wantFault("cus_1", `it has no price by our meter, so what is used of "team" beyond the included units is billed to nobody`)
		f.stub.set("sub_1", object{"items": priced(3, "price_3", "tollgate_overage_team_3")})
		resync(1)
		f.wantFault("cus_1", "")
		list = items("team", 3)
		list["data"] = slices.Delete(list["data"].([]object), 0, 1)
		f.stub.set("sub_1", object{"items": list})
		resync(1)
		f.wantFault("cus_1", "it has no price by our meter")
		f.wantPlan("u3@example.com", "team by cus_1")
		f.stub.set("sub_1", object{"status": "canceled"})
		f.tell("customer.subscription.deleted", "cus_1")
		f.wantFault("cus_1", "")
	})
}

// TestSetupMakesThePricesOfTheTeams: the overage price that a team's members call for is there to be chosen at Stripe.
func TestSetupMakesThePricesOfTheTeams(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		_, client := standIn(f.T, func() time.Time { return f.at })
		o := SetupOptions{DB: f.db, Client: client, Catalogue: f.hook.Catalogue, Now: f.hook.Now, BaseURL: "https://tollgate.example.com"}
		_, err := Setup(f.Context(), o)
		f.must(err)
		acme, err := models.CreateOrganization(f.Context(), f.db, f.at, "Acme", []string{"T1"})
		f.must(err)
		for i := range 3 {
			f.link(models.Link{Email: fmt.Sprintf("u%d@example.com", i), Slack: models.SlackIdentity{TeamID: "T1", UserID: fmt.Sprint("U", i)}})
		}
		f.stub.customer("cus_1", object{"tollgate_organization": acme.ID.String()})
		f.stub.set("sub_1", subscription("cus_1", "team", "active", f.at, 2))
		f.tell("customer.subscription.created", "cus_1")
		report, err := Setup(f.Context(), o)
		f.must(err)
		ids, err := stripeObjects(f.Context(), f.db)
		f.must(err)
		if len(report.Made) != 2 || ids["overage:team:2"] == "" || ids["overage:team:3"] == "" {
			f.Errorf("made %q, keeps %v", report.Made, ids)
		}
		if again, err := Setup(f.Context(), o); err != nil || len(again.Made)+len(again.Drift) != 0 {
			f.Errorf("again: %+v, %v", again, err)
		}
	})
}
