-- SQLite has no ADD COLUMN IF NOT EXISTS; models.Migrate skips this file if its first column exists.
-- How many calls per second a key may make: 0 is any number, null the server's default.
ALTER TABLE api_keys ADD COLUMN rate_limit integer;
