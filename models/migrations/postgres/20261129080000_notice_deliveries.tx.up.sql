-- Written so that it can run twice, as the first one.
-- Who gets a notice, and through which channel. No row refers to a person or an organization by a foreign key, because the
-- transactions that decide must not wait for a delivery.
CREATE TABLE IF NOT EXISTS notice_deliveries (
    id uuid NOT NULL PRIMARY KEY,
    notice_id uuid NOT NULL,
    channel text NOT NULL CHECK (channel IN ('slack', 'mail', 'webhook')),
    recipient uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'sending', 'sent', 'failed', 'unknown', 'skipped')),
    attempts bigint NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    lease_token uuid,
    leased_until timestamptz,
    unsubscribe_hash bytea,
    payload text,
    last_error text NOT NULL DEFAULT '',
    sent_at timestamptz,
    created_at timestamptz NOT NULL,
    UNIQUE (notice_id, channel, recipient)
);
CREATE INDEX IF NOT EXISTS notice_deliveries_due ON notice_deliveries (channel, next_attempt_at) WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS notice_deliveries_leased ON notice_deliveries (leased_until) WHERE state = 'sending';
CREATE INDEX IF NOT EXISTS notice_deliveries_problems ON notice_deliveries (created_at) WHERE state IN ('failed', 'unknown');
CREATE UNIQUE INDEX IF NOT EXISTS notice_deliveries_unsubscribe ON notice_deliveries (unsubscribe_hash) WHERE unsubscribe_hash IS NOT NULL;

CREATE TABLE IF NOT EXISTS notice_attempts (
    delivery_id uuid NOT NULL,
    number bigint NOT NULL,
    at timestamptz NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('sending', 'sent', 'not_sent', 'failed', 'unknown')),
    detail text NOT NULL DEFAULT '',
    PRIMARY KEY (delivery_id, number)
);

-- levels is a sum: 1 warning, 2 critical, 4 limit reached, 8 daily summary.
CREATE TABLE IF NOT EXISTS notice_settings (
    user_id uuid NOT NULL PRIMARY KEY,
    slack boolean NOT NULL,
    mail boolean NOT NULL,
    levels bigint NOT NULL
);

CREATE TABLE IF NOT EXISTS webhook_endpoints (
    id uuid NOT NULL PRIMARY KEY,
    url text NOT NULL,
    secret text NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    disabled_at timestamptz,
    reason text NOT NULL DEFAULT ''
);

-- Mail is sent only to an address that the person's sign-in has verified. A new address is not verified yet.
ALTER TABLE users ADD COLUMN IF NOT EXISTS email_verified_at timestamptz;
CREATE OR REPLACE FUNCTION tollgate_email_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.email_verified_at := NULL;
    RETURN NEW;
END
$$;
DROP TRIGGER IF EXISTS users_email_unverified ON users;
CREATE TRIGGER users_email_unverified BEFORE UPDATE OF email ON users FOR EACH ROW WHEN (OLD.email <> NEW.email)
    EXECUTE FUNCTION tollgate_email_changed();
