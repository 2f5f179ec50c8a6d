-- An organization's admins are found without reading all of its members.
CREATE INDEX IF NOT EXISTS users_admins ON users (workspace_id) WHERE role = 'admin';
