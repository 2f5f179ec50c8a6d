-- Written so that it can run twice: bun marks it applied after its transaction, and a crash may fall between.
-- Every table of the product. Text that is compared or sorted is COLLATE "C": byte order, the same in Go and in both
-- databases, and cheaper in an index. Times are UTC.

CREATE TABLE IF NOT EXISTS organizations (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE IF NOT EXISTS workspaces (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations (id),
    slack_team_id text COLLATE "C" NOT NULL UNIQUE,
    name text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS workspaces_organization_id ON workspaces (organization_id);

CREATE TABLE IF NOT EXISTS users (
    id uuid PRIMARY KEY,
    email text COLLATE "C" NOT NULL UNIQUE,
    name text NOT NULL DEFAULT '',
    workspace_id uuid REFERENCES workspaces (id),
    slack_user_id text COLLATE "C",
    role text NOT NULL DEFAULT 'member' CHECK (role IN ('member', 'admin')),
    operator boolean NOT NULL DEFAULT false,
    spend_limit_cents bigint CHECK (spend_limit_cents >= 0),
    stripe_customer_id text COLLATE "C",
    created_at timestamptz NOT NULL,
    UNIQUE (workspace_id, slack_user_id)
);

CREATE TABLE IF NOT EXISTS subscriptions (
    id uuid PRIMARY KEY,
    user_id uuid REFERENCES users (id),
    organization_id uuid REFERENCES organizations (id),
    plan_id text NOT NULL,
    status text NOT NULL,
    stripe_subscription_id text COLLATE "C" UNIQUE,
    stripe_customer_id text COLLATE "C",
    billing_cycle_anchor timestamptz,
    current_period_start timestamptz,
    current_period_end timestamptz,
    stripe_event_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CHECK ((user_id IS NULL) <> (organization_id IS NULL))
);
CREATE INDEX IF NOT EXISTS subscriptions_user_id ON subscriptions (user_id, created_at) WHERE user_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS subscriptions_organization_id ON subscriptions (organization_id, created_at) WHERE organization_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS subscriptions_stripe_customer_id ON subscriptions (stripe_customer_id) WHERE stripe_customer_id IS NOT NULL;

-- One person, one billing period: all that a decision needs, so that it reads one row. What the row repeats of the
-- person, their workspace and their subscription holds while entitled is true; the triggers at the end of this file
-- set it false when any of that changes, and the next decision brings the row up to date first. suggestions_held counts the units of open holds, lapsed ones among them until
-- holds_expire_at, the earliest expiry, has passed; then the live holds are summed.
-- Free room on each page lets the gate's updates stay on it and touch no index.
CREATE TABLE IF NOT EXISTS usage_records (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text COLLATE "C" NOT NULL,
    billing_period_start timestamptz NOT NULL,
    billing_period_end timestamptz NOT NULL,
    plan_id text NOT NULL,
    suggestions_included bigint NOT NULL CHECK (suggestions_included >= 0),
    suggestions_used bigint NOT NULL DEFAULT 0 CHECK (suggestions_used >= 0),
    overage_rate_cents bigint NOT NULL CHECK (overage_rate_cents >= 0),
    spend_limit_cents bigint,
    workspace_id uuid,
    slack_team_id text COLLATE "C",
    slack_user_id text COLLATE "C",
    stripe_customer_id text COLLATE "C",
    entitled boolean NOT NULL,
    suggestions_held bigint NOT NULL DEFAULT 0 CHECK (suggestions_held >= 0),
    holds_expire_at timestamptz,
    stripe_meter_id text,
    created_at timestamptz NOT NULL,
    UNIQUE (email, billing_period_start),
    CHECK (billing_period_end > billing_period_start),
    CHECK (billing_period_end <= billing_period_start + interval '32 days')
) WITH (fillfactor = 50);

CREATE TABLE IF NOT EXISTS stripe_reports (
    id uuid PRIMARY KEY,
    identifier text COLLATE "C" NOT NULL UNIQUE,
    stripe_customer_id text COLLATE "C" NOT NULL,
    meter_event_name text COLLATE "C" NOT NULL,
    minute timestamptz NOT NULL,
    value bigint NOT NULL CHECK (value > 0),
    state text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    first_attempt_at timestamptz,
    next_attempt_at timestamptz,
    accepted_at timestamptz,
    verified_at timestamptz,
    last_error text,
    created_at timestamptz NOT NULL,
    UNIQUE (stripe_customer_id, meter_event_name, minute)
);
CREATE INDEX IF NOT EXISTS stripe_reports_state ON stripe_reports (state, next_attempt_at);

-- The ledger, append-only. No foreign keys: each would cost a lookup an event, and `tollgate verify` proves more.
-- An event has an idempotency key of the app's, or the hold that it settles.
CREATE TABLE IF NOT EXISTS usage_events (
    id uuid PRIMARY KEY,
    record_id bigint NOT NULL,
    email text COLLATE "C" NOT NULL,
    workspace_id uuid,
    quantity bigint NOT NULL CHECK (quantity > 0),
    idempotency_key text COLLATE "C" UNIQUE,
    hold_id uuid,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    plan_id text NOT NULL,
    billing_period_start timestamptz NOT NULL,
    billing_period_end timestamptz NOT NULL,
    used_after bigint NOT NULL,
    held_after bigint NOT NULL,
    included bigint NOT NULL,
    overage_rate_cents bigint NOT NULL,
    spend_limit_cents bigint,
    stripe_customer_id text COLLATE "C",
    stripe_reported_at timestamptz,
    stripe_report_id uuid,
    CHECK ((idempotency_key IS NULL) <> (hold_id IS NULL))
);
CREATE UNIQUE INDEX IF NOT EXISTS usage_events_hold_id ON usage_events (hold_id) WHERE hold_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS usage_events_unreported ON usage_events (stripe_customer_id, occurred_at)
    WHERE stripe_report_id IS NULL AND stripe_reported_at IS NULL AND stripe_customer_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS usage_events_stripe_report_id ON usage_events (stripe_report_id) WHERE stripe_report_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS usage_holds (
    id uuid PRIMARY KEY,
    record_id bigint NOT NULL REFERENCES usage_records (id),
    email text COLLATE "C" NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    idempotency_key text COLLATE "C" NOT NULL UNIQUE,
    state text NOT NULL CHECK (state IN ('open', 'settled', 'released', 'expired')),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    plan_id text NOT NULL,
    billing_period_start timestamptz NOT NULL,
    billing_period_end timestamptz NOT NULL,
    used_after bigint NOT NULL,
    held_after bigint NOT NULL,
    included bigint NOT NULL,
    overage_rate_cents bigint NOT NULL,
    spend_limit_cents bigint
);
CREATE INDEX IF NOT EXISTS usage_holds_open ON usage_holds (record_id, expires_at) WHERE state = 'open';

CREATE TABLE IF NOT EXISTS stripe_webhook_events (
    id text COLLATE "C" PRIMARY KEY,
    type text NOT NULL,
    payload text NOT NULL,
    received_at timestamptz NOT NULL,
    applied_at timestamptz,
    last_error text
);

CREATE TABLE IF NOT EXISTS api_keys (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    hint text NOT NULL,
    hash bytea NOT NULL UNIQUE,
    scopes text NOT NULL,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at timestamptz
);

CREATE TABLE IF NOT EXISTS sessions (
    token_hash bytea PRIMARY KEY,
    email text COLLATE "C",
    data bytea NOT NULL,
    user_agent text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS sessions_email ON sessions (email) WHERE email IS NOT NULL;
CREATE INDEX IF NOT EXISTS sessions_expires_at ON sessions (expires_at);

CREATE TABLE IF NOT EXISTS audit_log (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    detail text NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS audit_log_at ON audit_log (at);

-- A person's entitlement changed: their newest record is brought up to date before it is used again. The lock on users
-- is the one that the making of a record holds, so a record made meanwhile is seen here or sees the change.
CREATE OR REPLACE FUNCTION tollgate_entitlement_changed(people uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM users WHERE id = ANY (people) ORDER BY email FOR UPDATE;
    UPDATE usage_records SET entitled = false WHERE id IN (
        SELECT r.id FROM users u JOIN usage_records r ON r.email = u.email AND r.billing_period_start =
            (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.email = u.email)
        WHERE u.id = ANY (people) AND r.entitled ORDER BY r.email FOR UPDATE OF r);
END $$;

CREATE OR REPLACE FUNCTION tollgate_user_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tollgate_entitlement_changed(ARRAY[NEW.id]);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION tollgate_workspace_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tollgate_entitlement_changed(ARRAY(SELECT id FROM users WHERE workspace_id = NEW.id));
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION tollgate_subscription_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    s subscriptions;
BEGIN
    FOREACH s IN ARRAY ARRAY[OLD, NEW] LOOP
        PERFORM tollgate_entitlement_changed(ARRAY(
            SELECT s.user_id WHERE s.user_id IS NOT NULL UNION ALL
            SELECT u.id FROM users u JOIN workspaces w ON w.id = u.workspace_id WHERE w.organization_id = s.organization_id));
    END LOOP;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER users_entitlement AFTER UPDATE OF email, workspace_id, slack_user_id, spend_limit_cents ON users
    FOR EACH ROW EXECUTE FUNCTION tollgate_user_changed();
CREATE OR REPLACE TRIGGER workspaces_entitlement AFTER UPDATE OF organization_id, slack_team_id ON workspaces
    FOR EACH ROW EXECUTE FUNCTION tollgate_workspace_changed();
CREATE OR REPLACE TRIGGER subscriptions_entitlement AFTER INSERT OR UPDATE OR DELETE ON subscriptions
    FOR EACH ROW EXECUTE FUNCTION tollgate_subscription_changed();
