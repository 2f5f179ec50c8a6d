-- Written so that it can run twice, as the first one.
-- A void of a reported event is taken back with a negative report of its own.
ALTER TABLE stripe_reports DROP CONSTRAINT IF EXISTS stripe_reports_value_check;
ALTER TABLE stripe_reports DROP CONSTRAINT IF EXISTS stripe_reports_counts_check;
ALTER TABLE stripe_reports ADD CONSTRAINT stripe_reports_counts_check CHECK (counts IN ('overage', 'quantity', 'void'));
ALTER TABLE stripe_reports ADD CONSTRAINT stripe_reports_value_check CHECK (CASE counts WHEN 'void' THEN value < 0 ELSE value > 0 END);
ALTER TABLE usage_voids ADD COLUMN IF NOT EXISTS stripe_report_id uuid;
ALTER TABLE usage_voids ADD COLUMN IF NOT EXISTS occurred_at timestamptz;
ALTER TABLE usage_voids DROP CONSTRAINT IF EXISTS usage_voids_state_check;
ALTER TABLE usage_voids ADD CONSTRAINT usage_voids_state_check
    CHECK (state IN ('not_reported', 'waiting', 'reported', 'credited', 'not_billed'));
CREATE INDEX IF NOT EXISTS usage_voids_report ON usage_voids (stripe_report_id) WHERE stripe_report_id IS NOT NULL;
DROP INDEX IF EXISTS usage_voids_waiting;
CREATE INDEX IF NOT EXISTS usage_voids_due ON usage_voids (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
