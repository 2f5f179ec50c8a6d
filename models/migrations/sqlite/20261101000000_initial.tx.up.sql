-- Written so that it can run twice: bun marks it applied after its transaction, and a crash may fall between.
-- Every table of the product. Text that is compared or sorted is: byte order, the same in Go and in both
-- databases, and cheaper in an index. Times are UTC.

CREATE TABLE IF NOT EXISTS organizations (
    id text PRIMARY KEY NOT NULL,
    name text NOT NULL,
    created_at timestamp NOT NULL
);

CREATE TABLE IF NOT EXISTS workspaces (
    id text PRIMARY KEY NOT NULL,
    organization_id text NOT NULL REFERENCES organizations (id),
    slack_team_id text NOT NULL UNIQUE,
    name text NOT NULL,
    created_at timestamp NOT NULL
);
CREATE INDEX IF NOT EXISTS workspaces_organization_id ON workspaces (organization_id);

CREATE TABLE IF NOT EXISTS users (
    id text PRIMARY KEY NOT NULL,
    email text NOT NULL UNIQUE,
    name text NOT NULL DEFAULT '',
    workspace_id text REFERENCES workspaces (id),
    slack_user_id text,
    role text NOT NULL DEFAULT 'member' CHECK (role IN ('member', 'admin')),
    operator boolean NOT NULL DEFAULT false,
    spend_limit_cents integer CHECK (spend_limit_cents >= 0),
    stripe_customer_id text,
    created_at timestamp NOT NULL,
    UNIQUE (workspace_id, slack_user_id)
);

CREATE TABLE IF NOT EXISTS subscriptions (
    id text PRIMARY KEY NOT NULL,
    user_id text REFERENCES users (id),
    organization_id text REFERENCES organizations (id),
    plan_id text NOT NULL,
    status text NOT NULL,
    stripe_subscription_id text UNIQUE,
    stripe_customer_id text,
    billing_cycle_anchor timestamp,
    current_period_start timestamp,
    current_period_end timestamp,
    stripe_event_at timestamp,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL,
    CHECK ((user_id IS NULL) <> (organization_id IS NULL))
);
CREATE INDEX IF NOT EXISTS subscriptions_user_id ON subscriptions (user_id, created_at) WHERE user_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS subscriptions_organization_id ON subscriptions (organization_id, created_at) WHERE organization_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS subscriptions_stripe_customer_id ON subscriptions (stripe_customer_id) WHERE stripe_customer_id IS NOT NULL;

-- One person, one billing period: all that a decision needs, so that it reads one row. What the row repeats of the
-- person, their workspace and their subscription holds while entitled is true; the triggers at the end of this file
-- set it false when any of that changes, and the next decision brings the row up to date first. suggestions_held counts the units of open holds, lapsed ones among them until
-- holds_expire_at, the earliest expiry, has passed; then the live holds are summed.
CREATE TABLE IF NOT EXISTS usage_records (
    id integer PRIMARY KEY AUTOINCREMENT,
    email text NOT NULL,
    billing_period_start timestamp NOT NULL,
    billing_period_end timestamp NOT NULL,
    plan_id text NOT NULL,
    suggestions_included integer NOT NULL CHECK (suggestions_included >= 0),
    suggestions_used integer NOT NULL DEFAULT 0 CHECK (suggestions_used >= 0),
    overage_rate_cents integer NOT NULL CHECK (overage_rate_cents >= 0),
    spend_limit_cents integer,
    workspace_id text,
    slack_team_id text,
    slack_user_id text,
    stripe_customer_id text,
    entitled boolean NOT NULL,
    suggestions_held integer NOT NULL DEFAULT 0 CHECK (suggestions_held >= 0),
    holds_expire_at timestamp,
    stripe_meter_id text,
    created_at timestamp NOT NULL,
    UNIQUE (email, billing_period_start),
    CHECK (billing_period_end > billing_period_start),
    CHECK (julianday(billing_period_end) - julianday(billing_period_start) <= 32)
);

CREATE TABLE IF NOT EXISTS stripe_reports (
    id text PRIMARY KEY NOT NULL,
    identifier text NOT NULL UNIQUE,
    stripe_customer_id text NOT NULL,
    meter_event_name text NOT NULL,
    minute timestamp NOT NULL,
    value integer NOT NULL CHECK (value > 0),
    state text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    first_attempt_at timestamp,
    next_attempt_at timestamp,
    accepted_at timestamp,
    verified_at timestamp,
    last_error text,
    created_at timestamp NOT NULL,
    UNIQUE (stripe_customer_id, meter_event_name, minute)
);
CREATE INDEX IF NOT EXISTS stripe_reports_state ON stripe_reports (state, next_attempt_at);

-- The ledger, append-only. No foreign keys: each would cost a lookup an event, and `tollgate verify` proves more.
-- An event has an idempotency key of the app's, or the hold that it settles.
CREATE TABLE IF NOT EXISTS usage_events (
    id text PRIMARY KEY NOT NULL,
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
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS usage_events_hold_id ON usage_events (hold_id) WHERE hold_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS usage_events_unreported ON usage_events (stripe_customer_id, occurred_at)
    WHERE stripe_report_id IS NULL AND stripe_reported_at IS NULL AND stripe_customer_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS usage_events_stripe_report_id ON usage_events (stripe_report_id) WHERE stripe_report_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS usage_holds (
    id text PRIMARY KEY NOT NULL,
    record_id integer NOT NULL REFERENCES usage_records (id),
    email text NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    idempotency_key text NOT NULL UNIQUE,
    state text NOT NULL CHECK (state IN ('open', 'settled', 'released', 'expired')),
    expires_at timestamp NOT NULL,
    created_at timestamp NOT NULL,
    plan_id text NOT NULL,
    billing_period_start timestamp NOT NULL,
    billing_period_end timestamp NOT NULL,
    used_after integer NOT NULL,
    held_after integer NOT NULL,
    included integer NOT NULL,
    overage_rate_cents integer NOT NULL,
    spend_limit_cents integer
);
CREATE INDEX IF NOT EXISTS usage_holds_open ON usage_holds (record_id, expires_at) WHERE state = 'open';

CREATE TABLE IF NOT EXISTS stripe_webhook_events (
    id text PRIMARY KEY NOT NULL,
    type text NOT NULL,
    payload text NOT NULL,
    received_at timestamp NOT NULL,
    applied_at timestamp,
    last_error text
);

CREATE TABLE IF NOT EXISTS api_keys (
    id text PRIMARY KEY NOT NULL,
    name text NOT NULL,
    hint text NOT NULL,
    hash blob NOT NULL UNIQUE,
    scopes text NOT NULL,
    created_at timestamp NOT NULL,
    last_used_at timestamp,
    revoked_at timestamp
);

CREATE TABLE IF NOT EXISTS sessions (
    token_hash blob PRIMARY KEY NOT NULL,
    email text,
    data blob NOT NULL,
    user_agent text NOT NULL DEFAULT '',
    created_at timestamp NOT NULL,
    expires_at timestamp NOT NULL
);
CREATE INDEX IF NOT EXISTS sessions_email ON sessions (email) WHERE email IS NOT NULL;
CREATE INDEX IF NOT EXISTS sessions_expires_at ON sessions (expires_at);

CREATE TABLE IF NOT EXISTS audit_log (
    id text PRIMARY KEY NOT NULL,
    at timestamp NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    detail text NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS audit_log_at ON audit_log (at);

-- A person's entitlement changed: their newest record is brought up to date before it is used again.
CREATE TRIGGER IF NOT EXISTS users_entitlement AFTER UPDATE OF email, workspace_id, slack_user_id, spend_limit_cents ON users BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND id IN (SELECT r.id FROM users u JOIN usage_records r ON r.email = u.email
            AND r.billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.email = u.email)
            WHERE u.id = NEW.id);
END;
CREATE TRIGGER IF NOT EXISTS workspaces_entitlement AFTER UPDATE OF organization_id, slack_team_id ON workspaces BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND id IN (SELECT r.id FROM users u JOIN usage_records r ON r.email = u.email
            AND r.billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.email = u.email)
            WHERE u.workspace_id = NEW.id);
END;
CREATE TRIGGER IF NOT EXISTS subscriptions_inserted AFTER INSERT ON subscriptions BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND id IN (SELECT r.id FROM users u JOIN usage_records r ON r.email = u.email
            AND r.billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.email = u.email)
            WHERE u.id = NEW.user_id
                OR u.workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id = NEW.organization_id));
END;
CREATE TRIGGER IF NOT EXISTS subscriptions_deleted AFTER DELETE ON subscriptions BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND id IN (SELECT r.id FROM users u JOIN usage_records r ON r.email = u.email
            AND r.billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.email = u.email)
            WHERE u.id = OLD.user_id
                OR u.workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id = OLD.organization_id));
END;
CREATE TRIGGER IF NOT EXISTS subscriptions_updated AFTER UPDATE ON subscriptions BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND id IN (SELECT r.id FROM users u JOIN usage_records r ON r.email = u.email
            AND r.billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.email = u.email)
            WHERE u.id = NEW.user_id
                OR u.workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id = NEW.organization_id));
    UPDATE usage_records SET entitled = false
        WHERE entitled AND id IN (SELECT r.id FROM users u JOIN usage_records r ON r.email = u.email
            AND r.billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.email = u.email)
            WHERE u.id = OLD.user_id
                OR u.workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id = OLD.organization_id));
END;
