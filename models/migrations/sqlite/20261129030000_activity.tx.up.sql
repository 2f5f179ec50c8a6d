-- The events of a record by time, for the activity pages. Records of the current periods are written most, so the
-- index grows at few places.
CREATE INDEX usage_events_record ON usage_events (record_id, occurred_at);
