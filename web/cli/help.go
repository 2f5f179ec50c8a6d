package cli

import "github.com/alecthomas/kong"

// HelpTexts has the help texts that are too long for a struct tag, and the default of --database. A tag
// names a text as ${help_…}.
var HelpTexts = kong.Vars{
	"database": DefaultDatabase,
	"help_demo": "Serve a demo: made-up people with six months of history and live traffic. The database is " +
		"temporary unless you give --database.",
	"help_migrate": "Update the database's schema. Every other command that opens the database, except backup, " +
		"does this too.",
	"help_void": "Reverse an event (one recorded use of units) so that it no longer counts in its billing period, " +
		"and print the event's ID.",
	"help_subscribe": "Assign a plan by hand, for example to a customer who pays by invoice, and print the " +
		"subscription's ID.",
	"help_subscriber": "The organization that gets the plan. Give --email or --organization, not both.",
	"help_backup": "Write a consistent copy of a SQLite database to a new file, and print the file's name. " +
		"The server may be running.",
	"help_healthcheck": "Exit with 0 if the server at --listen answers, otherwise with 1. Run it on the server's machine " +
		"or in its container.",
	"help_ready":   "Also check that the server can record calls. This check fails if, for example, the database cannot be reached.",
	"help_expires": "The time at which unused units are taken back, such as 2026-11-30T12:00:00Z. Default: the end of the billing period.",
	"help_slack_team": "A Slack team of the organization. You can give this flag several times. A team that belongs to " +
		"another organization moves to this one.",
	"help_stripe_setup": "Set up in Stripe what the plan catalog needs: meters, products, prices, the webhook endpoint " +
		"and the portal. Missing objects are created. Existing ones are not changed, with one exception: if the overage price of an earlier " +
		"release has tiers, a new price is created and takes over its lookup key. Differences are listed. The secret of a new endpoint is " +
		"printed only once.",
	"help_stripe_reconcile": "For each customer and billing period, compare the overage that was decided and sent with " +
		"what Stripe counted and invoiced. Exits with 1 if Stripe's total differs from what was sent, if a report failed or is " +
		"missing from Stripe's total, if overage is unexplained, or if not everything could be read. The table has the current periods and " +
		"those that ended in the last 35 days. SENT is the part of the period's overage that Stripe has accepted, and COUNTED is Stripe's " +
		"total of the period. DIFFERENCE includes units that Stripe accepted in the last hours but has not counted yet. It leaves out " +
		"reports without a response, and units that had to be sent in the next period, so it can differ from COUNTED minus SENT. " +
		"/ops explains the reasons.",
	"help_restored": "Use this after you restore a backup, before you let the server send anything. It pauses sending, and " +
		"marks the reports that Stripe already has, so that they are not sent again. Run it again 25 hours later to resume sending.",
	"help_user_organization": "Put the person in this organization. A person who comes from another one becomes a member, unless you give " +
		"--role, and loses their member limit and their link to Slack.",
	"help_no_organization": "Remove the person from their organization. First remove them from its Slack teams. " +
		"Otherwise, the next API call with their email and their Slack identity adds them again.",

	"help_user_erase": "Remove everything that identifies a person. Their usage figures and events remain, without email " +
		"addresses and idempotency keys. Without --yes, it only prints the person's ID and what would be erased. If the erasure is " +
		"interrupted, run the same command again.",
	"help_user_search": "List only people whose name or email contains this text, or who have this Slack user ID.",
	"help_organization_spend_limit": "The most that all members together may spend on overage (units beyond the included " +
		"ones) in a billing period, such as 50 or 12.50. Use 'none' to remove the limit.",
	"help_organization_member_limit": "The most units that a member may use in a billing period, unless the member has a limit " +
		"of their own. Use 'none' to remove the limit.",

	"help_config": "A YAML file with settings. Each key is the name of a flag below without the leading dashes, such as base-url, or of a " +
		"secret, such as stripe-secret-key. An environment variable overrides the file, and a flag overrides both.",
	"help_database": "The database: sqlite:FILE or postgres://USER@HOST/NAME. To read the address from a file, set " +
		"$DATABASE_URL_FILE to the file's path instead.",
	"help_listen":   "The address that the server listens on. Port 0 selects a free port.",
	"help_base_url": "The URL at which people reach the server, without a path. Default: the address that the server listens on.",
	"help_metrics_listen": "Also serve /metrics, /healthz and /readyz on this address. By default, /metrics is not served. " +
		"To export traces, set $OTEL_EXPORTER_OTLP_ENDPOINT.",
	"help_trusted_proxies": "Networks of proxies whose X-Forwarded-For headers are trusted. Default: none.",
	"help_oidc_issuer": "The OpenID issuer for sign-in: Slack or another one. Set $SLACK_CLIENT_ID and " +
		"$SLACK_CLIENT_SECRET to the client ID and secret that the issuer gave you. To read one from a file, append _FILE " +
		"to the variable's name. Without these variables, people can sign in only with one-time links. " +
		"For the slash command and the App Home in Slack, set $SLACK_SIGNING_SECRET and $SLACK_BOT_TOKEN.",
	"help_stripe_api_base": "For tests: the URL of a stand-in for Stripe on this machine. For Stripe itself, set " +
		"$STRIPE_SECRET_KEY and $STRIPE_WEBHOOK_SECRET. Without them, usage is recorded, and the pages say that " +
		"nothing can be bought.",
	"help_slack_api_base": "For tests: the URL of a stand-in for Slack's API on this machine. It does not apply to sign-in; for that, " +
		"see --oidc-issuer.",
	"help_smtp": "The mail server for notices, such as smtp://USER:PASSWORD@HOST:587?from=tollgate@example.com. smtps:// uses TLS " +
		"from the start. To read the URL from a file, set $TOLLGATE_SMTP_FILE to the file's path instead. Default: no email. " +
		"For notices as direct messages in Slack, set $SLACK_BOT_TOKEN.",
	"help_report_every": "How often Tollgate looks for overage (units beyond the included ones) to report to Stripe. The overage " +
		"of an hour is reported after the hour ends. With 0, this process reports nothing; use this after a restore.",
	"help_keep_events": "How long events (recorded uses of units) and their idempotency keys are stored: a number of days, months " +
		"or years, such as 540d, 18mo or 2y; at least 90d or 3mo; or 'forever'. Sums are stored forever. Events in reports to Stripe " +
		"are stored for at least 500 days. After Tollgate has deleted the events up to a certain time, /v1/events refuses events that " +
		"occurred before that time. It always refuses events that are more than 400 days old.",
	"help_rate_limit": "Calls per second that each API key may make in each process. 0 means no limit. If you give " +
		"this flag to 'apikey create', it sets the new key's own limit, which replaces the server's limit. The variable and the " +
		"configuration file set only the server's limit.",
	"help_log_level": "The lowest level that is logged: debug, info, warn or error.",
	"help_drain": "How long the server keeps answering calls after SIGTERM. During this time, /readyz returns 503, so that " +
		"load balancers stop sending calls. The demo stops immediately unless you set this flag.",
}
