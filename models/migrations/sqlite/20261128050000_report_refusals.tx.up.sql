-- SQLite has no ADD COLUMN IF NOT EXISTS; models.Migrate skips this file if its first column exists.
-- How many attempts Stripe answered with a refusal of this report; earlier releases counted all attempts instead.
ALTER TABLE stripe_reports ADD COLUMN refusals integer NOT NULL DEFAULT 0;
