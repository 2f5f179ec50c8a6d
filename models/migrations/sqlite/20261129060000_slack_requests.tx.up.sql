-- The requests from Slack that were answered. Slack repeats a request that was not answered in time.
CREATE TABLE slack_requests (
    id text NOT NULL,
    expires_at timestamp NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX slack_requests_expires_at ON slack_requests (expires_at);
