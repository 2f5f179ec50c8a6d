-- A void of a reported event is taken back with a negative report of its own.
CREATE TABLE stripe_reports_new (
    id text PRIMARY KEY NOT NULL,
    identifier text NOT NULL UNIQUE,
    stripe_customer_id text NOT NULL,
    meter_event_name text NOT NULL,
    minute timestamp NOT NULL,
    value integer NOT NULL,
    state text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    first_attempt_at timestamp,
    next_attempt_at timestamp,
    accepted_at timestamp,
    verified_at timestamp,
    last_error text,
    created_at timestamp NOT NULL,
    last_attempt_at timestamp,
    zero_since timestamp,
    replaced_by text,
    period_start timestamp,
    period_end timestamp,
    confirmed integer,
    refusals integer NOT NULL DEFAULT 0,
    counts text NOT NULL DEFAULT 'quantity' CHECK (counts IN ('overage', 'quantity', 'void')),
    no_minute boolean NOT NULL DEFAULT false,
    verified_by_hour boolean NOT NULL DEFAULT false,
    CHECK (CASE counts WHEN 'void' THEN value < 0 ELSE value > 0 END),
    UNIQUE (stripe_customer_id, meter_event_name, minute)
);
INSERT INTO stripe_reports_new (
    id, identifier, stripe_customer_id, meter_event_name, minute, value, state, attempts, first_attempt_at,
    next_attempt_at, accepted_at, verified_at, last_error, created_at, last_attempt_at, zero_since,
    replaced_by, period_start, period_end, confirmed, refusals, counts, no_minute, verified_by_hour)
SELECT
    id, identifier, stripe_customer_id, meter_event_name, minute, value, state, attempts, first_attempt_at,
    next_attempt_at, accepted_at, verified_at, last_error, created_at, last_attempt_at, zero_since,
    replaced_by, period_start, period_end, confirmed, refusals, counts, no_minute, verified_by_hour
FROM stripe_reports;
DROP TABLE stripe_reports;
ALTER TABLE stripe_reports_new RENAME TO stripe_reports;
CREATE INDEX stripe_reports_state ON stripe_reports (state, next_attempt_at);
CREATE INDEX stripe_reports_to_read ON stripe_reports (next_attempt_at) WHERE state <> 'sealed' AND next_attempt_at IS NOT NULL;
CREATE INDEX stripe_reports_to_send ON stripe_reports (stripe_customer_id, meter_event_name, next_attempt_at)
    WHERE state IN ('sealed', 'unknown');

CREATE TABLE usage_voids_new (
    user_id text NOT NULL,
    event_id text NOT NULL,
    email text NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    overage_quantity bigint NOT NULL CHECK (overage_quantity BETWEEN 0 AND quantity),
    overage_cents bigint NOT NULL CHECK (overage_cents >= 0),
    reason text NOT NULL,
    voided_by text NOT NULL,
    voided_at timestamp NOT NULL,
    plan_id text NOT NULL,
    billing_period_start timestamp NOT NULL,
    billing_period_end timestamp NOT NULL,
    used_after bigint NOT NULL,
    overage_after bigint NOT NULL,
    overage_cents_after bigint NOT NULL,
    held_after bigint NOT NULL,
    overage_held_after bigint NOT NULL,
    included bigint NOT NULL,
    overage_rate_cents bigint NOT NULL,
    spend_limit_cents bigint,
    member_limit bigint,
    state text NOT NULL DEFAULT 'not_reported' CHECK (state IN ('not_reported', 'waiting', 'reported', 'credited', 'not_billed')),
    next_attempt_at timestamp,
    credit_note_id text,
    last_error text,
    stripe_report_id text,
    occurred_at timestamp,
    PRIMARY KEY (user_id, event_id)
);
INSERT INTO usage_voids_new (
    user_id, event_id, email, quantity, overage_quantity, overage_cents, reason, voided_by, voided_at,
    plan_id, billing_period_start, billing_period_end, used_after, overage_after, overage_cents_after,
    held_after, overage_held_after, included, overage_rate_cents, spend_limit_cents, member_limit, state,
    next_attempt_at, credit_note_id, last_error)
SELECT
    user_id, event_id, email, quantity, overage_quantity, overage_cents, reason, voided_by, voided_at,
    plan_id, billing_period_start, billing_period_end, used_after, overage_after, overage_cents_after,
    held_after, overage_held_after, included, overage_rate_cents, spend_limit_cents, member_limit, state,
    next_attempt_at, credit_note_id, last_error
FROM usage_voids;
DROP TABLE usage_voids;
ALTER TABLE usage_voids_new RENAME TO usage_voids;
CREATE INDEX usage_voids_report ON usage_voids (stripe_report_id) WHERE stripe_report_id IS NOT NULL;
CREATE INDEX usage_voids_due ON usage_voids (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
