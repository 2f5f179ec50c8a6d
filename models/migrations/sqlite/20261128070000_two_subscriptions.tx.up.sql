-- SQLite has no ADD COLUMN IF NOT EXISTS; models.Migrate skips this file if its first column exists.
-- The active subscriptions of a customer that all bill our meter. While there are two or more, the customer's reports are held back.
ALTER TABLE stripe_customers ADD COLUMN held_subscriptions text;
