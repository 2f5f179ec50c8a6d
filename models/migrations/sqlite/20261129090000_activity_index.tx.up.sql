-- Maintaining this index took almost a fifth of the rate of recording. The activity pages find a person's events
-- through the index of idempotency keys instead. PostgreSQL keeps the index, because it costs little there.
DROP INDEX IF EXISTS usage_events_record;
