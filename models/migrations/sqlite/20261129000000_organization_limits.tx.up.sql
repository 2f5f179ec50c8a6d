-- Limits that an organization's admins set. A person's own member limit replaces the organization's.
ALTER TABLE organizations ADD COLUMN spend_limit_cents bigint CHECK (spend_limit_cents >= 0);
ALTER TABLE organizations ADD COLUMN member_limit bigint CHECK (member_limit >= 0);
ALTER TABLE users ADD COLUMN member_limit bigint CHECK (member_limit >= 0);

CREATE TABLE organization_records (
    id integer PRIMARY KEY,
    organization_id text NOT NULL,
    payer text NOT NULL,
    billing_period_start timestamp NOT NULL,
    billing_period_end timestamp NOT NULL,
    spend_limit_cents bigint CHECK (spend_limit_cents >= 0),
    counted boolean NOT NULL,
    overage_cents bigint NOT NULL DEFAULT 0 CHECK (overage_cents >= 0),
    overage_cents_held bigint NOT NULL DEFAULT 0 CHECK (overage_cents_held >= 0),
    holds_expire_at timestamp,
    created_at timestamp NOT NULL,
    CHECK (billing_period_end > billing_period_start),
    UNIQUE (payer, billing_period_start)
);
CREATE INDEX organization_records_organization ON organization_records (organization_id, billing_period_start);
CREATE INDEX organization_records_unfinished ON organization_records (id) WHERE NOT counted OR spend_limit_cents IS NULL;

ALTER TABLE usage_records ADD COLUMN organization_record_id bigint;
CREATE INDEX usage_records_payer ON usage_records (payer, billing_period_start) WHERE payer <> '';

-- A member limit is copied into the current records, which are read again after a change.
DROP TRIGGER users_entitlement;
CREATE TRIGGER users_entitlement AFTER UPDATE OF workspace_id, slack_user_id, spend_limit_cents, member_limit ON users
    WHEN OLD.workspace_id IS NOT NEW.workspace_id OR OLD.slack_user_id IS NOT NEW.slack_user_id
        OR OLD.spend_limit_cents IS NOT NEW.spend_limit_cents OR OLD.member_limit IS NOT NEW.member_limit BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND user_id IN (SELECT u.id FROM users u WHERE u.id = NEW.id)
            AND (billing_period_end > strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour')
                OR billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.user_id = usage_records.user_id));
END;
CREATE TRIGGER organizations_entitlement AFTER UPDATE OF member_limit ON organizations WHEN OLD.member_limit IS NOT NEW.member_limit BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND user_id IN (SELECT u.id FROM users u JOIN workspaces w ON w.id = u.workspace_id WHERE w.organization_id = NEW.id)
            AND (billing_period_end > strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour')
                OR billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.user_id = usage_records.user_id));
END;
