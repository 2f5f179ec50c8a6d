-- Written so that it can run twice, as the first one.
-- What is told late is paid by who paid when it was done. So it is kept when somebody came to an organization, and when a
-- subscription ceased to give its plan.
ALTER TABLE subscriptions ADD COLUMN IF NOT EXISTS inactive_since timestamptz;

-- A person's organizations, each from since until the next one.
CREATE TABLE IF NOT EXISTS memberships (
    user_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (user_id, since)
);
INSERT INTO memberships (user_id, organization_id, since)
    SELECT u.id, w.organization_id, '1970-01-01Z' FROM users u JOIN workspaces w ON w.id = u.workspace_id ON CONFLICT DO NOTHING;
