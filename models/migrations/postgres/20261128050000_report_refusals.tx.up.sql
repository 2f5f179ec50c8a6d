-- Written so that it can run twice, as the first one.
-- How many attempts Stripe answered with a refusal of this report; earlier releases counted all attempts instead.
ALTER TABLE stripe_reports ADD COLUMN IF NOT EXISTS refusals integer NOT NULL DEFAULT 0;
