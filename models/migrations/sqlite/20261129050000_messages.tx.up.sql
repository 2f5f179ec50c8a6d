-- The highest warning level whose message an answer gave (0 safe, 1 warning, 2 critical, 3 exceeded), and
-- the included units at that time. The event or hold of that answer says so, too, so that a retry gets the same answer.
ALTER TABLE usage_records ADD COLUMN message_level bigint NOT NULL DEFAULT 0 CHECK (message_level BETWEEN 0 AND 3);
ALTER TABLE usage_records ADD COLUMN message_included bigint NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN message boolean NOT NULL DEFAULT false;
ALTER TABLE usage_holds ADD COLUMN message boolean NOT NULL DEFAULT false;
