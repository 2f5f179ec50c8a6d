-- An erased person stays as a row, so that all sums stay. An erasure that was started and has not
-- ended has a row in user_erasures, so that it can be continued.
ALTER TABLE users ADD COLUMN IF NOT EXISTS erased_at timestamptz;

CREATE TABLE IF NOT EXISTS user_erasures (
    user_id uuid NOT NULL PRIMARY KEY,
    started_at timestamptz NOT NULL,
    texts text NOT NULL
);
