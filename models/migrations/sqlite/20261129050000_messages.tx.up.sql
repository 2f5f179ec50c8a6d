-- The highest warning level whose message an answer gave in a record (0 safe, 1 warning, 2 critical, 3 exceeded), and how
-- often one of the record's limits was raised. Events and holds store whether their answer was the first one at its level,
-- and why one more unit would have been refused ('none' if it would not; '' in earlier releases), so that a retry gets the
-- same message.
ALTER TABLE usage_records ADD COLUMN message_level bigint NOT NULL DEFAULT 0 CHECK (message_level BETWEEN 0 AND 3);
ALTER TABLE usage_records ADD COLUMN limit_raises bigint NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN message boolean NOT NULL DEFAULT false;
ALTER TABLE usage_events ADD COLUMN next_refusal text NOT NULL DEFAULT '';
ALTER TABLE usage_holds ADD COLUMN message boolean NOT NULL DEFAULT false;
ALTER TABLE usage_holds ADD COLUMN next_refusal text NOT NULL DEFAULT '';
ALTER TABLE usage_voids ADD COLUMN next_refusal text NOT NULL DEFAULT '';
