-- SQLite has no ADD COLUMN IF NOT EXISTS; models.Migrate skips this file if its first column exists.
-- When the subscription's trial ends, from Stripe; null without a trial.
ALTER TABLE subscriptions ADD COLUMN trial_end timestamp;
