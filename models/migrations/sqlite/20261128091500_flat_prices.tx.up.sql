-- SQLite has no ADD COLUMN IF NOT EXISTS; models.Migrate skips this file if its first column exists.
-- Reports that were sealed before have all units of their events, and are still sent to the meter that they were sealed for.
ALTER TABLE stripe_reports ADD COLUMN overage_only boolean NOT NULL DEFAULT false;
-- Each plan has a meter and a flat overage price of its own. The overage prices that `tollgate stripe setup` made before have tiers, so
-- none is sold until set-up has run again.
DELETE FROM stripe_objects WHERE name LIKE 'overage:%';
-- What each subscription costs beyond the included units is read from Stripe at the next start.
UPDATE stripe_state SET resynced_at = NULL;
