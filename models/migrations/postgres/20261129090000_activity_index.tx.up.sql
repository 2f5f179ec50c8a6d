-- Only SQLite changes: there, usage_events_record is dropped.
SELECT 1;
