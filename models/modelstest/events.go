package modelstest

import (
	"context"
	"database/sql"
	"testing"
	"time"
)

// FillEvents inserts unreported events of Stripe customers in PostgreSQL. Each has one to three
// units. They are spread over the fourth and third hour before now, which must be within the
// billing period. One in overageEvery is overage; the others are included. They belong to no usage
// record.
func FillEvents(t testing.TB, db *sql.DB, events, customers, overageEvery int, now, periodStart, periodEnd time.Time) {
	t.Helper()
	_, err := db.ExecContext(context.Background(),
		`INSERT INTO usage_events (id, user_id, record_id, email, quantity, overage_quantity, idempotency_key, occurred_at, recorded_at, plan_id,
			billing_period_start, billing_period_end, used_after, held_after, included, overage_rate_cents, stripe_customer_id)
		SELECT gen_random_uuid(), md5((n % $1::int)::text)::uuid, 1 + n % $1::int, 'person' || n % $1::int || '@example.com', 1 + n % 3,
			CASE WHEN n / $1::int % $6::int = 0 THEN 1 + n % 3 ELSE 0 END, gen_random_uuid()::text,
			$3::timestamptz - interval '4 hours' + (n % 7200) * interval '1 second', $3::timestamptz, 'pro', $4::timestamptz,
				$5::timestamptz, 1, 0, 75, 30, 'cus_' || n % $1::int
		FROM generate_series(1, $2::int) n`, customers, events, now, periodStart, periodEnd, overageEvery)
	if err == nil {
		_, err = db.ExecContext(context.Background(), "VACUUM ANALYZE usage_events")
	}
	if err != nil {
		t.Fatal(err)
	}
}
