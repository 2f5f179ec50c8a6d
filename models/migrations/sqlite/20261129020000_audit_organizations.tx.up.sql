-- The organization whose admins see an entry of the audit log.
ALTER TABLE audit_log ADD COLUMN organization_id text;
CREATE INDEX audit_log_organization ON audit_log (organization_id, at) WHERE organization_id IS NOT NULL;
UPDATE audit_log SET organization_id = subject WHERE subject IN (SELECT id FROM organizations);
