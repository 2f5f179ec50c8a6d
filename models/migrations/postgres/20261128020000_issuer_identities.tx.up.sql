-- A person at an OpenID issuer other than Slack. The subject identifies the person, whatever email the issuer gives later.
CREATE TABLE IF NOT EXISTS issuer_identities (
    issuer text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (issuer, subject)
);
