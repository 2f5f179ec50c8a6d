-- The requests from Slack that were answered. Slack repeats a request that was not answered in time.
CREATE TABLE slack_requests (
    id text NOT NULL,
    received_at timestamp NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX slack_requests_received_at ON slack_requests (received_at);
