-- Written so that it can run twice, as the first one is.
-- Sessions get an id that may be shown, as their hash is what a cookie is held against, and the time they were last used.
-- No release has written to the table before this, so it is made anew.

DROP TABLE IF EXISTS sessions;
CREATE TABLE sessions (
    token_hash bytea PRIMARY KEY,
    id uuid NOT NULL UNIQUE,
    email text COLLATE "C" NOT NULL,
    data bytea NOT NULL,
    user_agent text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS sessions_email ON sessions (email);
CREATE INDEX IF NOT EXISTS sessions_expires_at ON sessions (expires_at);

-- A link that signs in once: using it removes it.
CREATE TABLE IF NOT EXISTS sign_in_links (
    token_hash bytea PRIMARY KEY,
    email text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
