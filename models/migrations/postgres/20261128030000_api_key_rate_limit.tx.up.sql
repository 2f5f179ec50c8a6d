-- How many calls per second a key may make: 0 is any number, null the server's default.
ALTER TABLE api_keys ADD COLUMN IF NOT EXISTS rate_limit bigint;
