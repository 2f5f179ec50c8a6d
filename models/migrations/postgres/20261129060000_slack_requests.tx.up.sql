-- Written so that it can run twice, as the first one.
-- The requests from Slack that were answered. Slack repeats a request that was not answered in time.
CREATE TABLE IF NOT EXISTS slack_requests (
    id text NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX IF NOT EXISTS slack_requests_expires_at ON slack_requests (expires_at);
