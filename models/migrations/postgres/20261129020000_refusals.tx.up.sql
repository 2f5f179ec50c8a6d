-- Written so that it can run twice, as the first one.
-- How often people were refused. The gate counts in memory, so a crash loses the last seconds.
CREATE TABLE IF NOT EXISTS usage_refusals (
    user_id uuid NOT NULL,
    billing_period_start timestamptz NOT NULL,
    reason text NOT NULL,
    count bigint NOT NULL CHECK (count > 0),
    last_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, billing_period_start, reason)
);
CREATE INDEX IF NOT EXISTS usage_refusals_last_at ON usage_refusals (last_at);
