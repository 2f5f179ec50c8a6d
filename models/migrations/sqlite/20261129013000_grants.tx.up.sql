-- A grant raises one usage record. It ends with the record or earlier.
ALTER TABLE usage_grants ADD COLUMN record_id bigint NOT NULL DEFAULT 0;
ALTER TABLE usage_grants ADD COLUMN idempotency_key text;
ALTER TABLE usage_grants ADD COLUMN ended_at timestamp;
ALTER TABLE usage_grants ADD COLUMN taken_back bigint NOT NULL DEFAULT 0 CHECK (taken_back BETWEEN 0 AND quantity);
CREATE UNIQUE INDEX usage_grants_key ON usage_grants (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

ALTER TABLE usage_records ADD COLUMN grants_expire_at timestamp;
CREATE INDEX usage_records_grants_expire ON usage_records (grants_expire_at) WHERE grants_expire_at IS NOT NULL;
