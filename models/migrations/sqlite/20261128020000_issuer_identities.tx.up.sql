-- A person at an OpenID issuer other than Slack. The subject identifies the person, whatever email the issuer gives later.
CREATE TABLE IF NOT EXISTS issuer_identities (
    issuer text NOT NULL,
    subject text NOT NULL,
    user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamp NOT NULL,
    PRIMARY KEY (issuer, subject)
);
