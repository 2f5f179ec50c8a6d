-- The plans whose overage items the subscription has at Stripe, separated by spaces; null until it was read.
ALTER TABLE subscriptions ADD COLUMN IF NOT EXISTS overage_items text;
