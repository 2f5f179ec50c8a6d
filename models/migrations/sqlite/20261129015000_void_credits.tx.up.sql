-- What happens at Stripe after a void. An event that is in a report waits until it is known what its invoice has.
ALTER TABLE usage_voids ADD COLUMN state text NOT NULL DEFAULT 'not_reported'
    CHECK (state IN ('not_reported', 'waiting', 'credited', 'not_billed'));
ALTER TABLE usage_voids ADD COLUMN next_attempt_at timestamp;
ALTER TABLE usage_voids ADD COLUMN credit_note_id text;
ALTER TABLE usage_voids ADD COLUMN last_error text;
CREATE INDEX usage_voids_waiting ON usage_voids (next_attempt_at) WHERE state = 'waiting';
UPDATE usage_voids SET state = 'waiting', next_attempt_at = voided_at WHERE overage_quantity > 0 AND EXISTS (
    SELECT 1 FROM usage_events e WHERE e.user_id = usage_voids.user_id AND e.id = usage_voids.event_id AND e.stripe_report_id IS NOT NULL)
    AND state = 'not_reported';
