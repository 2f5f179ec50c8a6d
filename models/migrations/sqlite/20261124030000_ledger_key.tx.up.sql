-- Each event is written into every index of its table, in the transaction that somebody waits for. Its key is what makes it
-- one of a kind; nothing looks an event up by its id, which is a UUID and needs no index to be unique.
DROP TABLE IF EXISTS usage_events_new;
CREATE TABLE usage_events_new (
    id text NOT NULL,
    record_id integer NOT NULL,
    email text NOT NULL,
    workspace_id text,
    quantity integer NOT NULL CHECK (quantity > 0),
    idempotency_key text UNIQUE,
    hold_id text,
    occurred_at timestamp NOT NULL,
    recorded_at timestamp NOT NULL,
    plan_id text NOT NULL,
    billing_period_start timestamp NOT NULL,
    billing_period_end timestamp NOT NULL,
    used_after integer NOT NULL,
    held_after integer NOT NULL,
    included integer NOT NULL,
    overage_rate_cents integer NOT NULL,
    spend_limit_cents integer,
    stripe_customer_id text,
    stripe_reported_at timestamp,
    stripe_report_id text,
    CHECK ((idempotency_key IS NULL) <> (hold_id IS NULL))
);
INSERT INTO usage_events_new SELECT id, record_id, email, workspace_id, quantity, idempotency_key, hold_id, occurred_at, recorded_at, plan_id,
    billing_period_start, billing_period_end, used_after, held_after, included, overage_rate_cents, spend_limit_cents, stripe_customer_id,
    stripe_reported_at, stripe_report_id FROM usage_events ORDER BY id;
DROP TABLE usage_events;
ALTER TABLE usage_events_new RENAME TO usage_events;
CREATE UNIQUE INDEX usage_events_hold_id ON usage_events (hold_id) WHERE hold_id IS NOT NULL;
CREATE INDEX usage_events_unreported ON usage_events (stripe_customer_id, occurred_at)
    WHERE stripe_report_id IS NULL AND stripe_reported_at IS NULL AND stripe_customer_id IS NOT NULL;
CREATE INDEX usage_events_stripe_report_id ON usage_events (stripe_report_id) WHERE stripe_report_id IS NOT NULL;
