-- Mail is sent only to an address that the person's sign-in has verified. A new address is not verified yet.
ALTER TABLE users ADD COLUMN email_verified_at timestamp;
CREATE TRIGGER users_email_unverified AFTER UPDATE OF email ON users
    WHEN OLD.email <> NEW.email AND NEW.email_verified_at IS NOT NULL BEGIN
    UPDATE users SET email_verified_at = NULL WHERE id = NEW.id;
END;

-- Who gets a notice, and through which channel.
CREATE TABLE notice_deliveries (
    id text NOT NULL PRIMARY KEY,
    notice_id text NOT NULL,
    channel text NOT NULL CHECK (channel IN ('slack', 'mail', 'webhook')),
    recipient text NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'sending', 'sent', 'failed', 'unknown', 'skipped')),
    attempts bigint NOT NULL DEFAULT 0,
    next_attempt_at timestamp,
    lease_token text,
    leased_until timestamp,
    unsubscribe_hash blob,
    payload text,
    last_error text NOT NULL DEFAULT '',
    sent_at timestamp,
    created_at timestamp NOT NULL,
    UNIQUE (notice_id, channel, recipient)
);
CREATE INDEX notice_deliveries_due ON notice_deliveries (channel, next_attempt_at) WHERE state = 'pending';
CREATE INDEX notice_deliveries_leased ON notice_deliveries (leased_until) WHERE state = 'sending';
CREATE INDEX notice_deliveries_problems ON notice_deliveries (created_at) WHERE state IN ('failed', 'unknown');
CREATE UNIQUE INDEX notice_deliveries_unsubscribe ON notice_deliveries (unsubscribe_hash) WHERE unsubscribe_hash IS NOT NULL;

CREATE TABLE notice_attempts (
    delivery_id text NOT NULL,
    number bigint NOT NULL,
    at timestamp NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('sending', 'sent', 'not_sent', 'failed', 'unknown')),
    detail text NOT NULL DEFAULT '',
    PRIMARY KEY (delivery_id, number)
);

-- levels is a sum: 1 warning, 2 critical, 4 limit reached, 8 daily summary.
CREATE TABLE notice_settings (
    user_id text NOT NULL PRIMARY KEY,
    slack boolean NOT NULL,
    mail boolean NOT NULL,
    levels bigint NOT NULL
);

CREATE TABLE webhook_endpoints (
    id text NOT NULL PRIMARY KEY,
    url text NOT NULL,
    secret text NOT NULL,
    created_by text NOT NULL,
    created_at timestamp NOT NULL,
    disabled_at timestamp,
    reason text NOT NULL DEFAULT ''
);
