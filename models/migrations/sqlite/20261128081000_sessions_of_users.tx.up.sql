-- Sessions and sign-in links belong to the user: an address can change hands, and they must not go with it.
CREATE TABLE sessions_new (
    token_hash blob PRIMARY KEY NOT NULL,
    id text NOT NULL UNIQUE,
    user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    data blob NOT NULL,
    user_agent text NOT NULL DEFAULT '',
    created_at timestamp NOT NULL,
    last_seen_at timestamp NOT NULL,
    expires_at timestamp NOT NULL
);
INSERT INTO sessions_new (token_hash, id, user_id, data, user_agent, created_at, last_seen_at, expires_at)
    SELECT s.token_hash, s.id, u.id, s.data, s.user_agent, s.created_at, s.last_seen_at, s.expires_at FROM sessions s JOIN users u ON u.email = s.email;
DROP TABLE sessions;
ALTER TABLE sessions_new RENAME TO sessions;
CREATE INDEX sessions_user_id ON sessions (user_id);
CREATE INDEX sessions_expires_at ON sessions (expires_at);

CREATE TABLE sign_in_links_new (
    token_hash blob PRIMARY KEY NOT NULL,
    user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamp NOT NULL,
    expires_at timestamp NOT NULL
);
INSERT INTO sign_in_links_new (token_hash, user_id, created_at, expires_at)
    SELECT l.token_hash, u.id, l.created_at, l.expires_at FROM sign_in_links l JOIN users u ON u.email = l.email;
DROP TABLE sign_in_links;
ALTER TABLE sign_in_links_new RENAME TO sign_in_links;
