-- SQLite has no ADD COLUMN IF NOT EXISTS; models.Migrate skips this file if its first column exists.
-- What the reporter and the webhooks keep beside the ledger.

-- A report that never arrived is replaced by a new one: its events move there, and its value stays what was sent.
-- zero_since is when Stripe was first seen to have nothing for its minute; next_attempt_at is when it is next sent or, once
-- sending has ended, next read. period_start and period_end are the billing period of its events.
ALTER TABLE stripe_reports ADD COLUMN last_attempt_at timestamp;
ALTER TABLE stripe_reports ADD COLUMN zero_since timestamp;
ALTER TABLE stripe_reports ADD COLUMN replaced_by text;
ALTER TABLE stripe_reports ADD COLUMN period_start timestamp;
ALTER TABLE stripe_reports ADD COLUMN period_end timestamp;
ALTER TABLE stripe_reports ADD COLUMN confirmed integer;

-- The reports that want something done, by stream and by time; those that are settled are out of them, and are most.
CREATE INDEX IF NOT EXISTS stripe_reports_to_send ON stripe_reports (stripe_customer_id, meter_event_name, next_attempt_at)
    WHERE state IN ('sealed', 'unknown');
CREATE INDEX IF NOT EXISTS stripe_reports_to_read ON stripe_reports (next_attempt_at)
    WHERE state <> 'sealed' AND next_attempt_at IS NOT NULL;

-- All that Stripe takes one after another: the reports of one customer to one meter. Who sends them holds the lease, by its
-- token. next_attempt_at is null while nothing is to be sent.
CREATE TABLE IF NOT EXISTS stripe_streams (
    stripe_customer_id text NOT NULL,
    meter_event_name text NOT NULL,
    next_attempt_at timestamp,
    failures integer NOT NULL DEFAULT 0,
    lease_token text,
    leased_until timestamp,
    blocked text,
    PRIMARY KEY (stripe_customer_id, meter_event_name)
);
CREATE INDEX IF NOT EXISTS stripe_streams_due ON stripe_streams (next_attempt_at) WHERE next_attempt_at IS NOT NULL AND blocked IS NULL;

-- What Stripe had of a customer's billing period when it was last asked, beside what was sent.
CREATE TABLE IF NOT EXISTS stripe_totals (
    stripe_customer_id text NOT NULL,
    meter_event_name text NOT NULL,
    period_start timestamp NOT NULL,
    period_end timestamp NOT NULL,
    used integer NOT NULL,
    waiting integer NOT NULL,
    sent integer NOT NULL,
    confirmed integer NOT NULL,
    difference integer NOT NULL,
    checked_at timestamp NOT NULL,
    PRIMARY KEY (stripe_customer_id, meter_event_name, period_start)
);

-- One row: whose account this is, and whether anything is sent to it.
CREATE TABLE IF NOT EXISTS stripe_state (
    id integer PRIMARY KEY CHECK (id = 1),
    account_id text NOT NULL DEFAULT '',
    livemode boolean,
    stopped text,
    stopped_at timestamp,
    paused text,
    paused_at timestamp,
    totals_at timestamp,
    resynced_at timestamp
);
INSERT INTO stripe_state (id) VALUES (1) ON CONFLICT DO NOTHING;

-- What was set up at Stripe, by a name of ours: 'meter', 'price:pro', 'overage:pro', 'webhook', …
CREATE TABLE IF NOT EXISTS stripe_objects (
    name text PRIMARY KEY,
    stripe_id text NOT NULL,
    updated_at timestamp NOT NULL
);

-- Whose a customer of Stripe's is: a person or an organization, as its metadata or its Checkout says. Who applies what
-- happened to it holds the lease.
CREATE TABLE IF NOT EXISTS stripe_customers (
    id text PRIMARY KEY,
    user_id text REFERENCES users (id),
    organization_id text REFERENCES organizations (id),
    deleted boolean NOT NULL DEFAULT false,
    lease_token text,
    leased_until timestamp,
    next_attempt_at timestamp,
    failures integer NOT NULL DEFAULT 0,
    fault text,
    created_at timestamp NOT NULL
);
CREATE INDEX IF NOT EXISTS stripe_customers_due ON stripe_customers (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS stripe_customers_user_id ON stripe_customers (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS stripe_customers_organization_id ON stripe_customers (organization_id) WHERE organization_id IS NOT NULL;

ALTER TABLE stripe_webhook_events ADD COLUMN stripe_customer_id text;
ALTER TABLE stripe_webhook_events ADD COLUMN occurred_at timestamp;
CREATE INDEX IF NOT EXISTS stripe_webhook_events_waiting ON stripe_webhook_events (stripe_customer_id) WHERE applied_at IS NULL;
CREATE INDEX IF NOT EXISTS stripe_webhook_events_received_at ON stripe_webhook_events (received_at);

-- seats is the quantity of a team plan; cancel_at is when it ends, where that is known. stripe_price_id is the price that it is
-- charged by, whichever plan that is.
ALTER TABLE subscriptions ADD COLUMN seats integer;
ALTER TABLE subscriptions ADD COLUMN cancel_at timestamp;
ALTER TABLE subscriptions ADD COLUMN stripe_price_id text;

-- What is to be reported no longer depends on stripe_reported_at, so that noting it touches no index.
DROP INDEX IF EXISTS usage_events_unreported;
CREATE INDEX IF NOT EXISTS usage_events_unsealed ON usage_events (stripe_customer_id, occurred_at)
    WHERE stripe_report_id IS NULL AND stripe_customer_id IS NOT NULL;
