package models_test

// schemaNote says why a table and each of its indexes, functions and triggers exist.
type schemaNote struct {
	name, note string
	parts      map[string]string
}

// schemaNotes has the tables in the order of models/schema/*.sql.
var schemaNotes = []schemaNote{
	{
		name: "organizations", note: "A company or team. A Slack team that calls first gets one of its own.",
		parts: map[string]string{
			"tollgate_organization_changed": "Runs for organizations_entitlement.",
			"organizations_entitlement":     "The members' records repeat the member limit, so their current records are read again before use.",
		},
	},
	{
		name: "workspaces", note: "A Slack team and the organization it belongs to.",
		parts: map[string]string{
			"workspaces_organization_id": "The workspaces of an organization, for its pages and for its plan.",
			"tollgate_workspace_changed": "Runs for workspaces_entitlement.",
			"workspaces_entitlement":     "Another organization can mean another plan, so the members' current records are read again before use.",
		},
	},
	{
		name: "users", note: "A person. The email is a label that can change; the ID is the key of all usage. " +
			"Only servers of earlier releases read stripe_customer_id.",
		parts: map[string]string{
			"users_workspace_id_email": "The members of a workspace by email, for the organization's pages.",
			"users_admins":             "The admins of a workspace.",
			"users_hold_tail":          "A hold's ID ends with these characters of its user's ID, so a call that gives only a hold finds the user.",
			"tollgate_user_changed":    "Runs for users_entitlement.",
			"users_entitlement": "Another workspace, identity or limit can mean another plan, so the current record is read again " +
				"before use.",
			"tollgate_user_moved": "Runs for users_as_members. It takes its locks in the gate's order.",
			"users_as_members":    "Records repeat the person's email and workspace, and follow them.",
			"users_rename":        "Records repeat the person's current email, and follow it.",
			"users_move":          "Records repeat the person's current workspace, and follow it.",
			"users_go":            "The records of a deleted person belong to no workspace.",

			"tollgate_email_changed": "Runs for users_email_unverified.",
			"users_email_unverified": "A new address is not verified yet, so no mail goes to it.",
		},
	},
	{name: "memberships", note: "When a person came to an organization or left it (an organization_id of zeros). Late events need it."},
	{name: "user_erasures", note: "Erasures that have not ended: what is still to be removed, and from when. The last step deletes the row."},
	{name: "issuer_identities", note: "A person's identity at an OpenID issuer other than Slack."},
	{
		name: "subscriptions", note: "What gives a person or an organization a plan: bought at Stripe, or assigned by hand (no " +
			"stripe_subscription_id).",
		parts: map[string]string{
			"subscriptions_user_id":            "A person's own subscriptions, newest first.",
			"subscriptions_organization_id":    "An organization's subscriptions, newest first.",
			"subscriptions_stripe_customer_id": "The subscriptions of a Stripe customer, for webhooks and balances.",
			"subscriptions_overage_problem":    "Subscriptions whose overage price cannot be used, for /ops.",
			"tollgate_entitlement_changed":     "Marks the current records of people, in the gate's order of locks.",
			"tollgate_subscription_changed":    "Runs for subscriptions_entitlement.",
			"subscriptions_entitlement": "Any change can mean another plan, so the current records of those it pays for are read " +
				"again before use.",
			"subscriptions_inserted": "A new subscription can mean another plan, so the current records are read again before use.",
			"subscriptions_updated": "A change can mean another plan for the payer before it and after it, so their current " +
				"records are read again.",
			"subscriptions_deleted":         "The plan ends, so the current records are read again before use.",
			"tollgate_period_learned":       "Runs for subscriptions_period.",
			"subscriptions_period":          "Each period that Stripe shows is stored, and not only the current one.",
			"subscriptions_period_inserted": "Each period that Stripe shows is stored, and not only the current one.",
			"subscriptions_period_updated":  "Each period that Stripe shows is stored, and not only the current one.",
		},
	},
	{
		name: "subscription_periods", note: "Every billing period of a subscription at Stripe. said_at is when Stripe showed it, " +
			"learned_at when it was stored here.",
		parts: map[string]string{
			"subscription_periods_customer": "The periods of a customer, for sealing and balances.",
		},
	},
	{
		name: "usage_records", note: "One person in one billing period: the counters that the gate decides by, and copies of what it " +
			"needs of the plan and payer.",
		parts: map[string]string{
			"usage_record_ids":            "IDs of records.",
			"usage_records_payer":         "The records of a payer in a stretch of time, for the organization's spend limit.",
			"usage_records_grants_expire": "Records with expired grants, to take their unused units back.",
			"usage_records_present":       "The records of a workspace's people in a stretch of time, for the organization's pages.",
			"tollgate_record_placed":      "Runs for usage_records_placed.",
			"usage_records_placed":        "A new record repeats the person's workspace.",
			"tollgate_records_made":       "Runs for usage_records_made.",
			"usage_records_made":          "A new record repeats the person's workspace; one of a past period raises the workspace's version.",
			"tollgate_record_cut":         "Runs for usage_records_cut.",
			"usage_records_cut":           "A record that ends earlier changes past figures, so it raises the workspace's version.",
			"tollgate_moved":              "Ends a commit of the gate in which another process changed a record since it was read.",
			"tollgate_past_changed":       "Raises the versions of workspaces.",
		},
	},
	{
		name: "organization_records", note: "The overage of an organization in one billing period, as long as it has a spend limit: the sum of " +
			"the usage records that point to it.",
		parts: map[string]string{
			"organization_record_ids":           "IDs of organization records.",
			"organization_records_organization": "An organization's records by period, for its pages and its limit.",
			"organization_records_unfinished":   "Limits that are being set or removed, which any process finishes.",
		},
	},
	{
		name: "usage_events", note: "One decision that was recorded, with its figures. Rows are only added; a report, a void and a " +
			"moved period change a few columns.",
		parts: map[string]string{
			"usage_events_unsealed":         "Overage that is in no report yet, for sealing.",
			"usage_events_stripe_report_id": "The events of a report.",
			"usage_events_record":           "The events of a record by time, for the activity pages.",
			"usage_events_user_id_hold_id":  "A hold is settled at most once.",
		},
	},
	{
		name: "usage_holds", note: "Units set aside until they are settled, released or expired.",
		parts: map[string]string{
			"usage_holds_open":      "The open holds of a record, to sum those that have not expired.",
			"usage_holds_version_7": "Holds whose IDs are from before the user's ID was part of them.",
		},
	},
	{
		name: "usage_grants", note: "Extra included units for a person in one usage record. What is unused when a grant expires is taken back.",
		parts: map[string]string{
			"usage_grants_key": "A retry with the same key grants nothing again.",
		},
	},
	{
		name: "usage_voids", note: "The void of an event, with the figures of its answer. Each event is voided at most once.",
		parts: map[string]string{
			"usage_voids_report": "The voids that a negative report takes back.",
			"usage_voids_due":    "Voids of reported events, until it is known what their final invoice has.",
		},
	},
	{
		name: "usage_refusals", note: "How often a person was refused in a billing period. Counted in memory, so it is approximate.",
		parts: map[string]string{
			"usage_refusals_last_at": "The latest refusals, for the organization's page and for /ops.",
		},
	},
	{
		name: "usage_pruned", note: "The sums of a usage record's events that retention deleted. Units, overage and cents leave out " +
			"voided ones.",
	},
	{
		name: "stripe_reports_pruned", note: "What a report counts of the events and voids that retention deleted, in units.",
	},
	{name: "retention", note: "One row: late events before this time are refused, because events like them may have been deleted."},
	{
		name: "notices", note: "What people are to be notified of: one row for each limit and threshold that was reached.",
		parts: map[string]string{
			"notices_pending": "Those that are not delivered yet, by the time when they are due.",
		},
	},
	{
		name: "notice_deliveries", note: "Who gets a notice, and through which channel. recipient is a person or a webhook endpoint.",
		parts: map[string]string{
			"notice_deliveries_due":         "Those to attempt, by the time when they are due.",
			"notice_deliveries_leased":      "Those being attempted, to find the ones whose process ended.",
			"notice_deliveries_problems":    "Those that failed or are unknown, for /ops.",
			"notice_deliveries_unsubscribe": "The mail of an unsubscribe link. Only the hash of its token is stored.",
		},
	},
	{name: "notice_attempts", note: "Each attempt of a delivery, for /ops."},
	{name: "notice_settings", note: "The channels and levels that a person chose. A person without a row has the default: all of them."},
	{name: "webhook_endpoints", note: "The URLs that get all notices. The secret signs them, so it is stored as it is."},
	{name: "usage_versions", note: "Counts changes of a workspace's past figures, so that pages can keep sums until one changes."},
	{
		name: "records_due", note: "People whose records must be fitted to a period or payer that became known late.",
		parts: map[string]string{
			"records_due_due_at": "Those that are due first.",
		},
	},
	{name: "stripe_state", note: "One row: the Stripe account, and whether sending is stopped or paused."},
	{name: "stripe_objects", note: "The IDs of what `tollgate stripe setup` made: meters, prices and the webhook, by name."},
	{
		name: "stripe_customers", note: "A Stripe customer, whose it is, and when its subscriptions are to be read again.",
		parts: map[string]string{
			"stripe_customers_user_id":         "A person's customers.",
			"stripe_customers_organization_id": "An organization's customers.",
			"stripe_customers_due":             "Customers whose subscriptions are to be read, the longest waiting first.",
		},
	},
	{
		name: "stripe_webhook_events", note: "The inbox of webhooks: each is applied once.",
		parts: map[string]string{
			"stripe_webhook_events_waiting":     "A customer's webhooks that are not applied.",
			"stripe_webhook_events_received_at": "Webhooks by age, for /ops.",
		},
	},
	{
		name: "stripe_streams", note: "A customer and a meter: reports of one stream are sent one after another, by the process that " +
			"holds its lease.",
		parts: map[string]string{
			"stripe_streams_due":     "Streams with something to send, the longest waiting first.",
			"stripe_streams_blocked": "Streams that wait for an operator.",
		},
	},
	{
		name: "stripe_reports", note: "The outbox: one row is one meter event, and never changes its value. Its states are in " +
			"docs/architecture.md.",
		parts: map[string]string{
			"stripe_reports_to_send": "The next report of a stream.",
			"stripe_reports_to_read": "Reports whose minute is to be read back from Stripe.",
			"stripe_reports_state":   "Reports by state, for /ops and metrics.",
		},
	},
	{name: "stripe_totals", note: "The daily comparison with Stripe's total of a customer, meter and period."},
	{
		name: "stripe_invoices", note: "Invoices of subscriptions at Stripe, as they were last read.",
		parts: map[string]string{
			"stripe_invoices_customer":   "The invoices of a customer.",
			"stripe_invoices_unbalanced": "Customers whose balances are to be computed again.",
		},
	},
	{
		name: "stripe_invoice_lines", note: "The metered lines of invoices that are final.",
		parts: map[string]string{
			"stripe_invoice_lines_stream": "The lines of a customer and a meter by period.",
		},
	},
	{
		name: "stripe_balances", note: "Where the overage of a payer, meter and period is: decided, sent, counted, invoiced, and each " +
			"reason why it is not invoiced.",
		parts: map[string]string{
			"stripe_balances_period_end": "Recent periods, for /ops and metrics.",
		},
	},
	{
		name: "slack_requests", note: "The requests from Slack that were answered, for two days, so that a repeated one is not.",
		parts: map[string]string{
			"slack_requests_expires_at": "Expired requests, to delete them.",
		},
	},
	{name: "api_keys", note: "API keys. Only their hashes are stored."},
	{
		name: "sessions", note: "Who is signed in, in which browser. Only the hash of the cookie's token is stored.",
		parts: map[string]string{
			"sessions_user_id":    "A person's sessions, for /settings.",
			"sessions_expires_at": "Expired sessions, to delete them.",
		},
	},
	{name: "sign_in_links", note: "One-time links. Only the hashes of their tokens are stored."},
	{
		name: "audit_log", note: "What people and operators changed.",
		parts: map[string]string{
			"audit_log_at":           "Newest first.",
			"audit_log_organization": "The changes of an organization, newest first, for its admins.",
		},
	},
}
