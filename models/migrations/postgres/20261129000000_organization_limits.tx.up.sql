-- Written so that it can run twice, as the first one.
-- Limits that an organization's admins set. A person's own member limit replaces the organization's.
ALTER TABLE organizations ADD COLUMN IF NOT EXISTS spend_limit_cents bigint CHECK (spend_limit_cents >= 0);
ALTER TABLE organizations ADD COLUMN IF NOT EXISTS member_limit bigint CHECK (member_limit >= 0);
ALTER TABLE users ADD COLUMN IF NOT EXISTS member_limit bigint CHECK (member_limit >= 0);

CREATE SEQUENCE IF NOT EXISTS organization_record_ids;
CREATE TABLE IF NOT EXISTS organization_records (
    id bigint PRIMARY KEY DEFAULT nextval('organization_record_ids'),
    organization_id uuid NOT NULL,
    payer text NOT NULL,
    billing_period_start timestamptz NOT NULL,
    billing_period_end timestamptz NOT NULL,
    spend_limit_cents bigint CHECK (spend_limit_cents >= 0),
    counted boolean NOT NULL,
    overage_cents bigint NOT NULL DEFAULT 0 CHECK (overage_cents >= 0),
    overage_cents_held bigint NOT NULL DEFAULT 0 CHECK (overage_cents_held >= 0),
    holds_expire_at timestamptz,
    created_at timestamptz NOT NULL,
    CHECK (billing_period_end > billing_period_start),
    UNIQUE (payer, billing_period_start)
) WITH (fillfactor = 20);
CREATE INDEX IF NOT EXISTS organization_records_organization ON organization_records (organization_id, billing_period_start);
CREATE INDEX IF NOT EXISTS organization_records_unfinished ON organization_records (id) WHERE NOT counted OR spend_limit_cents IS NULL;

ALTER TABLE usage_records ADD COLUMN IF NOT EXISTS organization_record_id bigint;
CREATE INDEX IF NOT EXISTS usage_records_payer ON usage_records (payer, billing_period_start) WHERE payer <> '';

-- A member limit is copied into the current records, which are read again after a change.
DROP TRIGGER IF EXISTS users_entitlement ON users;
CREATE TRIGGER users_entitlement AFTER UPDATE OF workspace_id, slack_user_id, spend_limit_cents, member_limit ON users FOR EACH ROW
    WHEN (OLD.workspace_id IS DISTINCT FROM NEW.workspace_id OR OLD.slack_user_id IS DISTINCT FROM NEW.slack_user_id
        OR OLD.spend_limit_cents IS DISTINCT FROM NEW.spend_limit_cents OR OLD.member_limit IS DISTINCT FROM NEW.member_limit)
    EXECUTE FUNCTION tollgate_user_changed();
CREATE OR REPLACE FUNCTION tollgate_organization_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tollgate_entitlement_changed(ARRAY(
        SELECT u.id FROM users u JOIN workspaces w ON w.id = u.workspace_id WHERE w.organization_id = NEW.id));
    RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS organizations_entitlement ON organizations;
CREATE TRIGGER organizations_entitlement AFTER UPDATE OF member_limit ON organizations FOR EACH ROW
    WHEN (OLD.member_limit IS DISTINCT FROM NEW.member_limit) EXECUTE FUNCTION tollgate_organization_changed();
