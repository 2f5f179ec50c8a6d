-- Written so that it can run twice, as the first one.
-- Each plan has a meter and a flat overage price of its own. The overage prices that `tollgate stripe setup` made before have tiers, so
-- none is sold until set-up has run again.
DELETE FROM stripe_objects WHERE name LIKE 'overage:%' AND NOT EXISTS (SELECT 1 FROM stripe_objects m WHERE m.name LIKE 'meter:%');
-- Reports that were sealed before have all units of their events, and are still sent to the meter that they were sealed for.
ALTER TABLE stripe_reports ADD COLUMN IF NOT EXISTS overage_only boolean NOT NULL DEFAULT false;
-- What each subscription costs beyond the included units is read from Stripe at the next start.
UPDATE stripe_state SET resynced_at = NULL;
