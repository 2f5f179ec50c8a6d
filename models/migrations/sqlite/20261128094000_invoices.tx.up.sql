-- What Stripe's invoices bill of our meters, and where each unit of overage is on its way from the decision to the invoice.
-- status is Stripe's; balanced is false until stripe_balances was written after the invoice was read.
CREATE TABLE IF NOT EXISTS stripe_invoices (
    id text PRIMARY KEY,
    stripe_customer_id text NOT NULL,
    stripe_subscription_id text,
    status text NOT NULL,
    currency text NOT NULL,
    period_start timestamp,
    period_end timestamp,
    finalized_at timestamp,
    read_at timestamp NOT NULL,
    balanced boolean NOT NULL DEFAULT false
);
CREATE INDEX IF NOT EXISTS stripe_invoices_customer ON stripe_invoices (stripe_customer_id);
CREATE INDEX IF NOT EXISTS stripe_invoices_unbalanced ON stripe_invoices (stripe_customer_id) WHERE NOT balanced;

-- The lines of invoices that bill overage: quantities in units, amounts before tax and discounts.
CREATE TABLE IF NOT EXISTS stripe_invoice_lines (
    stripe_invoice_id text NOT NULL REFERENCES stripe_invoices (id),
    id text NOT NULL,
    stripe_customer_id text NOT NULL,
    stripe_subscription_id text,
    stripe_price_id text NOT NULL,
    meter_event_name text NOT NULL,
    plan_id text NOT NULL,
    quantity integer NOT NULL,
    amount_cents integer NOT NULL,
    currency text NOT NULL,
    period_start timestamp NOT NULL,
    period_end timestamp NOT NULL,
    PRIMARY KEY (stripe_invoice_id, id)
);
CREATE INDEX IF NOT EXISTS stripe_invoice_lines_stream ON stripe_invoice_lines (stripe_customer_id, meter_event_name, period_end);

-- A row for each payer, meter, billing period and part of the overage: decided, sent, counted, invoiced, and each reason why overage is
-- not invoiced. payer is a customer of Stripe's, 'organization:ID' or 'user:ID'.
CREATE TABLE IF NOT EXISTS stripe_balances (
    payer text NOT NULL,
    meter_event_name text NOT NULL,
    period_start timestamp NOT NULL,
    period_end timestamp NOT NULL,
    part text NOT NULL,
    units integer NOT NULL,
    cents integer NOT NULL,
    checked_at timestamp NOT NULL,
    PRIMARY KEY (payer, meter_event_name, period_start, part)
);
CREATE INDEX IF NOT EXISTS stripe_balances_period_end ON stripe_balances (period_end);
