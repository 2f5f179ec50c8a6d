-- SQLite adds a column once and fails the second time, before it changes anything; Migrate takes that for done.
-- When a person came to their organization, and a workspace to its: what was used before is not the organization's to pay, though
-- it be told later. Null where they were there from the first time that they were heard of.
ALTER TABLE users ADD COLUMN joined_at timestamp;
ALTER TABLE workspaces ADD COLUMN joined_at timestamp;
