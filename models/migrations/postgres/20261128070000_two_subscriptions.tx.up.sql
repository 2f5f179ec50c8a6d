-- Written so that it can run twice, as the first one.
-- The active subscriptions of a customer that all bill our meter. While there are two or more, the customer's reports are held back.
ALTER TABLE stripe_customers ADD COLUMN IF NOT EXISTS held_subscriptions text;
