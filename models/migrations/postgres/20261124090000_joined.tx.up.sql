-- Written so that it can run twice, as the first one.
-- When a person came to their organization, and a workspace to its: what was used before is not the organization's to pay, though
-- it be told later. Null where they were there from the first time that they were heard of.
ALTER TABLE users ADD COLUMN IF NOT EXISTS joined_at timestamptz;
ALTER TABLE workspaces ADD COLUMN IF NOT EXISTS joined_at timestamptz;
