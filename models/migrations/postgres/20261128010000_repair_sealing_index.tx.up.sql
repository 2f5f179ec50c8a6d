-- Earlier releases could run a migration again after a later one, when several processes started at once on a new SQLite file.
-- The first migration then brought the old index back, and the one of the ledger's key dropped the new one as well. All other
-- migrations leave the same schema when they run again.
DROP INDEX IF EXISTS usage_events_unreported;
CREATE INDEX IF NOT EXISTS usage_events_unsealed ON usage_events (stripe_customer_id, occurred_at)
    WHERE stripe_report_id IS NULL AND stripe_customer_id IS NOT NULL;
