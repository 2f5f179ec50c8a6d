-- A grant raises one usage record. It ends with the record or earlier.
ALTER TABLE usage_grants ADD COLUMN IF NOT EXISTS record_id bigint NOT NULL DEFAULT 0;
ALTER TABLE usage_grants ADD COLUMN IF NOT EXISTS idempotency_key text COLLATE "C";
ALTER TABLE usage_grants ADD COLUMN IF NOT EXISTS ended_at timestamptz;
ALTER TABLE usage_grants ADD COLUMN IF NOT EXISTS taken_back bigint NOT NULL DEFAULT 0 CHECK (taken_back BETWEEN 0 AND quantity);
CREATE UNIQUE INDEX IF NOT EXISTS usage_grants_key ON usage_grants (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

ALTER TABLE usage_records ADD COLUMN IF NOT EXISTS grants_expire_at timestamptz;
CREATE INDEX IF NOT EXISTS usage_records_grants_expire ON usage_records (grants_expire_at) WHERE grants_expire_at IS NOT NULL;
