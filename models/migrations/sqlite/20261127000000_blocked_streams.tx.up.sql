-- Few streams are blocked, and each claim of a stream and each page of the operator's asks for them.
CREATE INDEX IF NOT EXISTS stripe_streams_blocked ON stripe_streams (stripe_customer_id) WHERE blocked IS NOT NULL;
