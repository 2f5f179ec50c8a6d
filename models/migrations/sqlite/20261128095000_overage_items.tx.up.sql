-- SQLite has no ADD COLUMN IF NOT EXISTS; models.Migrate skips this file if its first column exists.
-- The plans whose overage items the subscription has at Stripe, separated by spaces; null until it was read.
ALTER TABLE subscriptions ADD COLUMN overage_items text;
