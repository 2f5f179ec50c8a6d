-- When the subscription's trial ends, from Stripe; null without a trial.
ALTER TABLE subscriptions ADD COLUMN IF NOT EXISTS trial_end timestamptz;
