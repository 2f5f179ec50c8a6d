-- Written so that it can run twice, as the one before.

-- A person's entitlement changed: each record of theirs that may still be current is brought up to date before it is used
-- again. An event that lies some minutes ahead makes the next period's record early, so that is not the newest one alone.
-- The hour is for clocks that differ.
DROP TRIGGER IF EXISTS users_entitlement;
CREATE TRIGGER users_entitlement AFTER UPDATE OF email, workspace_id, slack_user_id, spend_limit_cents ON users BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND id IN (SELECT r.id FROM users u JOIN usage_records r ON r.email = u.email
            AND (r.billing_period_end > strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour')
                OR r.billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.email = u.email))
            WHERE u.id = NEW.id);
END;
DROP TRIGGER IF EXISTS workspaces_entitlement;
CREATE TRIGGER workspaces_entitlement AFTER UPDATE OF organization_id, slack_team_id ON workspaces BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND id IN (SELECT r.id FROM users u JOIN usage_records r ON r.email = u.email
            AND (r.billing_period_end > strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour')
                OR r.billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.email = u.email))
            WHERE u.workspace_id = NEW.id);
END;
DROP TRIGGER IF EXISTS subscriptions_inserted;
CREATE TRIGGER subscriptions_inserted AFTER INSERT ON subscriptions BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND id IN (SELECT r.id FROM users u JOIN usage_records r ON r.email = u.email
            AND (r.billing_period_end > strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour')
                OR r.billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.email = u.email))
            WHERE u.id = NEW.user_id
                OR u.workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id = NEW.organization_id));
END;
DROP TRIGGER IF EXISTS subscriptions_deleted;
CREATE TRIGGER subscriptions_deleted AFTER DELETE ON subscriptions BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND id IN (SELECT r.id FROM users u JOIN usage_records r ON r.email = u.email
            AND (r.billing_period_end > strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour')
                OR r.billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.email = u.email))
            WHERE u.id = OLD.user_id
                OR u.workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id = OLD.organization_id));
END;
DROP TRIGGER IF EXISTS subscriptions_updated;
CREATE TRIGGER subscriptions_updated AFTER UPDATE ON subscriptions BEGIN
    UPDATE usage_records SET entitled = false
        WHERE entitled AND id IN (SELECT r.id FROM users u JOIN usage_records r ON r.email = u.email
            AND (r.billing_period_end > strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour')
                OR r.billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.email = u.email))
            WHERE u.id = NEW.user_id
                OR u.workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id = NEW.organization_id));
    UPDATE usage_records SET entitled = false
        WHERE entitled AND id IN (SELECT r.id FROM users u JOIN usage_records r ON r.email = u.email
            AND (r.billing_period_end > strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour')
                OR r.billing_period_start = (SELECT max(m.billing_period_start) FROM usage_records m WHERE m.email = u.email))
            WHERE u.id = OLD.user_id
                OR u.workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id = OLD.organization_id));
END;
