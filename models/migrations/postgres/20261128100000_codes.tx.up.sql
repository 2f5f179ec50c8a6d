-- Written so that it can run twice, as the first one.
-- Codes for what was recognized by its text, which people read and which may be reworded.
ALTER TABLE stripe_streams ADD COLUMN IF NOT EXISTS blocked_kind text;
UPDATE stripe_streams SET blocked_kind = CASE WHEN blocked LIKE 'The meter takes nothing. %' THEN 'meter' ELSE 'customer' END
    WHERE blocked IS NOT NULL AND blocked_kind IS NULL;

ALTER TABLE stripe_state ADD COLUMN IF NOT EXISTS paused_kind text;
UPDATE stripe_state SET paused_kind = CASE WHEN paused LIKE 'the database was restored: %' THEN 'restored' ELSE 'operator' END
    WHERE paused IS NOT NULL AND paused_kind IS NULL;

-- An organization that was made for a Slack team's first call, and not by an operator.
ALTER TABLE organizations ADD COLUMN IF NOT EXISTS automatic boolean NOT NULL DEFAULT false;
UPDATE organizations SET automatic = true WHERE name IN (SELECT 'Slack team ' || w.slack_team_id FROM workspaces w WHERE w.organization_id = organizations.id);

-- A report that was verified by Stripe's total of its hour, after a restore. Stripe has nothing in its minute.
ALTER TABLE stripe_reports ADD COLUMN IF NOT EXISTS verified_by_hour boolean NOT NULL DEFAULT false;
