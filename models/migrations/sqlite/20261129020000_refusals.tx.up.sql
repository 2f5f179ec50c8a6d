-- How often people were refused. The gate counts in memory, so a crash loses the last seconds.
CREATE TABLE usage_refusals (
    user_id text NOT NULL,
    billing_period_start timestamp NOT NULL,
    reason text NOT NULL,
    count bigint NOT NULL CHECK (count > 0),
    last_at timestamp NOT NULL,
    PRIMARY KEY (user_id, billing_period_start, reason)
);
CREATE INDEX usage_refusals_last_at ON usage_refusals (last_at);
