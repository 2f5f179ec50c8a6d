-- The organization whose admins see an entry of the audit log.
ALTER TABLE audit_log ADD COLUMN IF NOT EXISTS organization_id uuid;
CREATE INDEX IF NOT EXISTS audit_log_organization ON audit_log (organization_id, at) WHERE organization_id IS NOT NULL;
UPDATE audit_log SET organization_id = o.id FROM organizations o
    WHERE audit_log.organization_id IS NULL AND audit_log.subject = CAST(o.id AS text);
