-- SQLite has no ADD COLUMN IF NOT EXISTS; models.Migrate skips this file if its first column exists.
-- What is told late is paid by who paid when it was done. So it is kept when somebody came to an organization, and when a
-- subscription ceased to give its plan.
ALTER TABLE subscriptions ADD COLUMN inactive_since timestamp;

-- A person's organizations, each from since until the next one.
CREATE TABLE memberships (
    user_id text NOT NULL,
    organization_id text NOT NULL,
    since timestamp NOT NULL,
    PRIMARY KEY (user_id, since)
) WITHOUT ROWID;
INSERT INTO memberships (user_id, organization_id, since)
    SELECT u.id, w.organization_id, '1970-01-01 00:00:00+00:00' FROM users u JOIN workspaces w ON w.id = u.workspace_id;
