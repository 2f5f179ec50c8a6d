-- Each plan has a meter and a flat overage price of its own. The overage prices that `tollgate stripe setup` made before have tiers, so
-- none is sold until set-up has run again.
DELETE FROM stripe_objects WHERE name LIKE 'overage:%' AND NOT EXISTS (SELECT 1 FROM stripe_objects m WHERE m.name LIKE 'meter:%');
-- What each subscription costs beyond the included units is read from Stripe soon after the next start.
UPDATE stripe_state SET resynced_at = NULL;
CREATE INDEX IF NOT EXISTS subscriptions_overage_problem ON subscriptions (stripe_customer_id) WHERE overage_problem IS NOT NULL;
