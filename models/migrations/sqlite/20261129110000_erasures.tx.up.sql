-- An erased person stays as a row, so that all sums stay. An erasure that was started and has not
-- ended has a row in user_erasures, so that it can be continued.
ALTER TABLE users ADD COLUMN erased_at timestamp;

CREATE TABLE user_erasures (
    user_id text NOT NULL PRIMARY KEY,
    started_at timestamp NOT NULL,
    texts text NOT NULL
);
