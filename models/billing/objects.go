package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// The names of the objects that setup stores in stripe_objects.
const (
	// objectOldMeter is the single meter of earlier releases, which all plans shared. Reports that
	// were sealed for it are still sent to it.
	objectOldMeter = "meter"
	objectMeter    = models.StripeMeterObject
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

// stripeObjects returns the IDs of the objects that were set up, by name.
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

// storeObject stores the ID of an object by its name.
func storeObject(ctx context.Context, db bun.IDB, now time.Time, name, id string) error {
	row := models.StripeObject{Name: name, StripeID: id, UpdatedAt: now}
	_, err := db.NewInsert().Model(&row).On("CONFLICT (name) DO UPDATE").
		Set("stripe_id = EXCLUDED.stripe_id, updated_at = EXCLUDED.updated_at").Exec(ctx)
	return err
}
