package modelstest

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

var plain = flag.Bool("plain", false, "use the server's own defaults for PostgreSQL databases, not hostile ones")

// HostileDefaults are settings of PostgreSQL that change how values are read or written, how long a
// statement may take, or what a commit guarantees. Tollgate must work the same on a database that
// has all of them as its defaults.
//
// Not included are the planner's enable_… settings, which only make statements slow;
// default_transaction_read_only, with which an operator closes a database to writes; and
// session_replication_role, with which Tollgate refuses to start.
var HostileDefaults = map[string]string{
	"DateStyle": "German, DMY", "IntervalStyle": "sql_standard", "TimeZone": "Asia/Kathmandu",
	"standard_conforming_strings": "off", "escape_string_warning": "off", "backslash_quote": "on",
	"bytea_output": "escape", "client_encoding": "LATIN1", "extra_float_digits": "-15",
	"array_nulls": "off", "transform_null_equals": "on", "quote_all_identifiers": "on", "xmloption": "document",
	"lc_monetary": "POSIX", "lc_numeric": "POSIX", "lc_time": "POSIX", "lc_messages": "POSIX",
	"default_transaction_isolation": "serializable", "default_transaction_deferrable": "on",
	"search_path": "nowhere", "row_security": "off", "check_function_bodies": "off", "exit_on_error": "on",
	"statement_timeout": "250ms", "lock_timeout": "1ms", "idle_in_transaction_session_timeout": "250ms",
	"idle_session_timeout": "800ms", // PostgreSQL 14 and newer
	"synchronous_commit":   "off", "plan_cache_mode": "force_custom_plan", "client_min_messages": "error",
}

// makeHostile sets HostileDefaults as the defaults of a database.
func (c *Cluster) makeHostile(ctx context.Context, database string) error {
	var statements strings.Builder
	for _, name := range slices.Sorted(maps.Keys(HostileDefaults)) {
		value := "'" + HostileDefaults[name] + "'"
		if name == "DateStyle" || name == "search_path" {
			value = HostileDefaults[name] // a list, not the name of one schema
		}
		fmt.Fprintf(&statements, "ALTER DATABASE %s SET %s = %s;", pgx.Identifier{database}.Sanitize(), name, value)
	}
	return c.exec(ctx, statements.String())
}
