-- What people are to be notified of: one row for each limit and threshold that was reached. raises is how often the limit
-- was raised before, so that a raised limit can be reached again. facts is JSON: the figures of the text.
CREATE TABLE notices (
    id text NOT NULL PRIMARY KEY,
    subject text NOT NULL,
    subject_kind text NOT NULL CHECK (subject_kind IN ('user', 'organization')),
    kind text NOT NULL CHECK (kind IN ('included', 'first_overage', 'spend_limit', 'member_limit', 'organization_spend_limit',
        'trial_ending', 'payment_past_due', 'digest')),
    period_start timestamp NOT NULL,
    threshold bigint NOT NULL,
    raises bigint NOT NULL,
    facts text NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'delivering', 'done', 'superseded', 'skipped')),
    created_at timestamp NOT NULL,
    due_at timestamp NOT NULL,
    expires_at timestamp NOT NULL,
    UNIQUE (subject, kind, period_start, threshold, raises)
);
CREATE INDEX notices_pending ON notices (due_at) WHERE state = 'pending';
