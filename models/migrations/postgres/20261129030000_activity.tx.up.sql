-- Written so that it can run twice, as the first one.
-- The events of a record by time, for the activity pages. Records of the current periods are written most, so the
-- index grows at few places.
CREATE INDEX IF NOT EXISTS usage_events_record ON usage_events (record_id, occurred_at);
