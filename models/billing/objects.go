package billing

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// The names of what is set up, as stripe_objects has them.
const (
	objectMeter    = "meter"
	objectWebhook  = "webhook"
	objectPortal   = "portal"
	objectProduct  = "product:"
	objectPrice    = "price:"
	objectOverage  = "overage:"
	objectCheckout = "checkout:" // and a buyer's reference: their last Checkout, which is not set up
	lookupBase     = "tollgate_base_"
	lookupOverage  = "tollgate_overage_"
	metadataPlan   = "tollgate_plan"
	metadataObject = "tollgate"
)

// seatsObject names a team's overage price of a number of seats other than one, such as "overage:team:7".
func seatsObject(plan models.PlanID, seats int64) string {
	return fmt.Sprintf("%s%s:%d", objectOverage, plan, seats)
}

// seatsOf are the numbers of seats that a team plan has overage prices of beside that of one, in ascending order.
func seatsOf(objects map[string]string, plan models.Plan) (seats []int64) {
	for name := range objects {
		if text, ok := strings.CutPrefix(name, objectOverage+string(plan.ID)+":"); ok && plan.Type == models.Team {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil {
				seats = append(seats, n)
			}
		}
	}
	slices.Sort(seats)
	return seats
}

// stripeObjects are the ids of what was set up, by name.
func stripeObjects(ctx context.Context, db bun.IDB) (map[string]string, error) {
	var rows []models.StripeObject
	if err := db.NewSelect().Model(&rows).Where("name NOT LIKE ?", objectCheckout+"%").Scan(ctx); err != nil {
		return nil, fmt.Errorf("read what was set up at Stripe: %w", err)
	}
	ids := make(map[string]string, len(rows))
	for _, r := range rows {
		ids[r.Name] = r.StripeID
	}
	return ids, nil
}

// keepObject writes the id of something down under its name.
func keepObject(ctx context.Context, db bun.IDB, now time.Time, name, id string) error {
	row := models.StripeObject{Name: name, StripeID: id, UpdatedAt: now}
	_, err := db.NewInsert().Model(&row).On("CONFLICT (name) DO UPDATE").Set("stripe_id = EXCLUDED.stripe_id, updated_at = EXCLUDED.updated_at").Exec(ctx)
	return err
}
