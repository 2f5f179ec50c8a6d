-- PostgreSQL alone needs this one: SQLite has one writer at a time, so nobody joins an organization while it is given a plan.
SELECT 1;
