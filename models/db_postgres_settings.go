package models

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// fixedSettings determine the meaning of a statement and the format of its result. bun writes
// values as literals and reads results as text, so each setting has exactly one correct value,
// whatever ALTER DATABASE, ALTER ROLE or postgresql.conf say.
var fixedSettings = map[string]string{
	"client_encoding":                "UTF8",
	"datestyle":                      "ISO, MDY",
	"timezone":                       "UTC",
	"standard_conforming_strings":    "on", // off, a backslash in a value ends its literal
	"bytea_output":                   "hex",
	"intervalstyle":                  "postgres",
	"extra_float_digits":             "1",
	"array_nulls":                    "on",
	"transform_null_equals":          "off",
	"quote_all_identifiers":          "off", // definitions are compared as text
	"lc_monetary":                    "C",
	"lc_numeric":                     "C",
	"lc_time":                        "C",
	"default_transaction_isolation":  "read committed", // the locks of rows serialize; at a higher level a call fails instead of waiting
	"default_transaction_deferrable": "off",
	"exit_on_error":                  "off", // a key taken meanwhile must not end the connection
}

// defaultSettings apply unless the database address sets another value.
var defaultSettings = map[string]string{
	"search_path":       `"$user", public`,
	"statement_timeout": "0", // the contexts of callers bound statements, and a migration may take long
	// If a process freezes in the middle of a transaction, or its machine disappears, the server
	// ends the transaction after three seconds, so that other processes do not wait longer for its
	// locks.
	"idle_in_transaction_session_timeout": "3000",
	"lock_timeout":                        "4000",
	"application_name":                    "tollgate",
}

// pooledParams are the settings that PgBouncer, with its defaults, accepts in the startup packet
// and restores by itself.
var pooledParams = []string{"client_encoding", "datestyle", "timezone", "standard_conforming_strings", "application_name"}

// postgresServer connects to PostgreSQL with the same settings on every connection.
type postgresServer struct {
	config   *pgx.ConnConfig   // the address, without settings
	named    map[string]string // settings that the address names
	settings map[string]string // settings of every connection
	// pooled means that there is a connection pooler in between. It refuses or ignores settings in
	// the startup packet, so they are set on the new connection instead.
	pooled  bool
	silence silence
}

var (
	errEncoding = errors.New(`create the database with ENCODING 'UTF8' TEMPLATE template0`)
	errShared   = errors.New("the connection pooler shares server connections between transactions; " +
		"set pool_mode = session for this database in PgBouncer, or connect to PostgreSQL directly")
)

// connectPostgres finds out how to connect to the database at an address. It refuses a database
// that Tollgate cannot work with.
func connectPostgres(ctx context.Context, address string) (*postgresServer, error) {
	s, err := readPostgresAddress(address)
	if err != nil {
		return nil, err
	}
	found, err := s.probe(ctx)
	var refused *pgconn.PgError
	if s.pooled = errors.As(err, &refused) && refused.Code == "08P01" || err == nil && found.pooled; s.pooled {
		if found, err = s.probe(ctx); err == nil {
			err = s.refuseSharing(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := found.refuse(s); err != nil {
		return nil, err
	}
	// Timeouts that older servers do not have, with the major version that introduced them.
	// Connections may be idle, and migrations may take long.
	for name, since := range map[string]int{"idle_session_timeout": 14, "transaction_timeout": 17} {
		if _, named := s.named[name]; !named && found.version >= since {
			s.settings[name] = "0"
		}
	}
	// A recorded unit must survive a crash. All values except off guarantee that, and the choice
	// among them is the operator's.
	if _, named := s.named["synchronous_commit"]; !named {
		if found.synchronousCommit == "off" {
			found.synchronousCommit = "on"
		}
		s.settings["synchronous_commit"] = found.synchronousCommit
	}
	return s, nil
}

// readPostgresAddress separates the settings in an address from the rest of it.
func readPostgresAddress(address string) (*postgresServer, error) {
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, err
	}
	// bun writes arguments into the statement, so a cache of prepared statements would only grow.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	s := &postgresServer{config: config, named: map[string]string{}}
	for name, value := range config.RuntimeParams {
		if name != "options" {
			s.named[strings.ToLower(name)] = value
		}
	}
	if err := s.readOptions(config.RuntimeParams["options"]); err != nil {
		return nil, err
	}
	config.RuntimeParams = map[string]string{}
	for name, value := range s.named {
		// Settings from environment variables such as PGTZ are also meant for other programs, so
		// they are not refused.
		inAddress := strings.Contains(strings.ToLower(address), name)
		if fixed, ok := fixedSettings[name]; ok && inAddress && !sameSetting(name, value, fixed) {
			return nil, fmt.Errorf("the database address sets %s to %q, but Tollgate needs %q; remove this setting", name, value, fixed)
		}
	}
	s.settings = maps.Clone(defaultSettings)
	maps.Copy(s.settings, s.named)
	maps.Copy(s.settings, fixedSettings)
	return s, nil
}

// sameSetting reports whether the address sets a setting to the value that it has anyway.
func sameSetting(name, value, fixed string) bool {
	if name == "datestyle" {
		value, _, _ = strings.Cut(value, ",")
		fixed, _, _ = strings.Cut(fixed, ",")
	}
	if name == "client_encoding" {
		value = strings.ReplaceAll(value, "-", "")
	}
	return strings.EqualFold(strings.TrimSpace(value), fixed)
}

// readOptions reads the settings in the parameter options: "-c name=value" or "--name=value",
// separated by spaces. A backslash quotes the character after it.
// Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-OPTIONS
func (s *postgresServer) readOptions(options string) error {
	var words []string
	word, quoted, inside := strings.Builder{}, false, false
	for _, r := range options + " " {
		switch {
		case quoted:
			word.WriteRune(r)
			quoted = false
		case r == '\\':
			quoted, inside = true, true
		case r == ' ' || r == '\t' || r == '\n':
			if inside {
				words = append(words, word.String())
			}
			word.Reset()
			inside = false
		default:
			word.WriteRune(r)
			inside = true
		}
	}
	for i := 0; i < len(words); i++ {
		setting := words[i]
		switch {
		case setting == "-c" && i+1 < len(words):
			i++
			setting = words[i]
		case strings.HasPrefix(setting, "-c"), strings.HasPrefix(setting, "--"):
			setting = setting[2:]
		default:
			return fmt.Errorf(`the options of the database address must be settings such as "-c search_path=tollgate", not %q`, words[i])
		}
		name, value, ok := strings.Cut(setting, "=")
		if !ok {
			return fmt.Errorf(`the options of the database address have no value for %q`, name)
		}
		s.named[strings.ReplaceAll(strings.ToLower(name), "-", "_")] = value
	}
	return nil
}

// configure returns the configuration of a connection for one purpose. The purpose's settings come
// last.
func (s *postgresServer) configure(purpose map[string]string) *pgx.ConnConfig {
	config := s.config.Copy()
	settings := maps.Clone(s.settings)
	maps.Copy(settings, purpose)
	if !s.pooled {
		config.RuntimeParams = settings
		return config
	}
	var names, values []string
	config.RuntimeParams = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if slices.Contains(pooledParams, name) {
			config.RuntimeParams[name] = settings[name]
		}
		names, values = append(names, name), append(values, settings[name])
	}
	config.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		result := conn.ExecParams(ctx, "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS s (name, value)",
			[][]byte{textArray(names), textArray(values)}, nil, nil, nil).Read()
		if result.Err != nil {
			return fmt.Errorf("set the connection's settings: %w", result.Err)
		}
		return nil
	}
	return config
}

// textArray returns PostgreSQL's text form of an array of texts.
func textArray(texts []string) []byte {
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(t) + `"`
	}
	return []byte("{" + strings.Join(quoted, ",") + "}")
}

// PostgresConfig returns the configuration of one more connection to the database, with the
// settings of every connection and those of its purpose.
func (db *DB) PostgresConfig(purpose map[string]string) *pgconn.Config {
	return &db.server.configure(purpose).Config
}

// probed is what the first connection finds out.
type probed struct {
	version                                      int // the major one; 0 is unknown
	encoding, synchronousCommit, replicationRole string
	schema, elsewhere                            string // where tables are made; another schema that has Tollgate's tables
	tables                                       bool   // Tollgate's tables are found
	pooled                                       bool
	wrong                                        []string // settings that did not take effect
}

// probe makes the first connection. That connection cannot turn off idle_session_timeout, which
// older servers do not have. So over a slow link, a server with a short timeout may end it between
// two messages; then probe tries again.
func (s *postgresServer) probe(ctx context.Context) (p probed, err error) {
	const tries = 3
	for try := 1; ; try++ {
		p, err = s.probeOnce(ctx)
		if try == tries || sqlState(err) != "57P05" { // idle_session_timeout
			return p, err
		}
	}
}

func (s *postgresServer) probeOnce(ctx context.Context) (p probed, err error) {
	conn, err := pgx.ConnectConfig(ctx, s.configure(nil))
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	major, _, _ := strings.Cut(conn.PgConn().ParameterStatus("server_version"), ".")
	p.version, _ = strconv.Atoi(major)
	names := slices.Sorted(maps.Keys(fixedSettings))
	var pid uint32
	var values []string
	err = conn.QueryRow(ctx, `SELECT pg_backend_pid(), current_setting('server_encoding'), current_setting('synchronous_commit'),
			current_setting('session_replication_role'), COALESCE(current_schema(), ''), to_regclass('usage_records') IS NOT NULL,
			COALESCE((SELECT MIN(n.nspname::text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
				WHERE c.relname = 'usage_records' AND c.relkind = 'r' AND EXISTS (SELECT 1 FROM pg_class m WHERE m.relnamespace = n.oid
				AND m.relname = 'bun_migrations')), ''),
			ARRAY(SELECT current_setting(n) FROM unnest($1::text[]) WITH ORDINALITY AS k (n, ord) ORDER BY ord)`, names).
		Scan(&pid, &p.encoding, &p.synchronousCommit, &p.replicationRole, &p.schema, &p.tables, &p.elsewhere, &values)
	if err != nil {
		return p, err
	}
	for i, name := range names {
		if values[i] != fixedSettings[name] {
			p.wrong = append(p.wrong, name)
		}
	}
	// A pooler gives its clients other process IDs, because it forwards their cancel requests.
	p.pooled = pid != conn.PgConn().PID() || len(p.wrong) > 0
	return p, nil
}

// refuse returns an error if Tollgate cannot work with the database.
func (p *probed) refuse(s *postgresServer) error {
	path, named := s.named["search_path"]
	switch {
	case p.encoding != "UTF8":
		return fmt.Errorf("the database has the encoding %s, but Tollgate needs UTF8: %w", p.encoding, errEncoding)
	case len(p.wrong) > 0:
		return fmt.Errorf("the server or a connection pooler ignores these connection settings, which Tollgate needs: %s; "+
			"connect to PostgreSQL directly", strings.Join(p.wrong, ", "))
	case p.replicationRole != "origin":
		return fmt.Errorf("session_replication_role is %q, which disables triggers; set it to origin for this role and database",
			p.replicationRole)
	case p.schema == "" && named:
		return fmt.Errorf("no schema of search_path %q exists; create one, or change the database address", path)
	case p.schema == "":
		return errors.New("there is no schema named public or named like the role; name a schema in the database address: " +
			"?search_path=NAME")
	case !named && !p.tables && p.elsewhere != "":
		return fmt.Errorf("the tables are in schema %q, which the database address does not name; "+
			"add search_path=%s to use them, or search_path=%s for new tables", p.elsewhere, p.elsewhere, p.schema)
	}
	return nil
}

// refuseSharing fails if two connections can take turns on one server connection, as with PgBouncer
// in transaction mode. Settings, prepared statements and locks would then belong to other clients.
func (s *postgresServer) refuseSharing(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second,
		errors.New("the connection pooler gave no second connection within 20 seconds; raise default_pool_size in PgBouncer"))
	defer cancel()
	defer func() {
		if cause := context.Cause(ctx); cause != nil && err != nil {
			err = cause
		}
	}()
	var conns [2]*pgconn.PgConn
	var pids [2]string
	begin := func(i int) error {
		results, err := conns[i].Exec(ctx, "BEGIN; SELECT pg_backend_pid()").ReadAll()
		if err != nil {
			return err
		}
		pid := string(results[1].Rows[0][0])
		if pids[i] != "" && pids[i] != pid {
			return errShared
		}
		pids[i] = pid
		return nil
	}
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close(context.WithoutCancel(ctx)) // it only read
			}
		}
	}()
	for i := range conns {
		if conns[i], err = pgconn.ConnectConfig(ctx, &s.configure(nil).Config); err != nil {
			return err
		}
		if err = begin(i); err != nil {
			return err
		}
	}
	// Both return their server connection, and take one again in either order. With a pooler that
	// shares, one of them gets another connection, whether the pooler prefers the one that was idle
	// the longest or the shortest.
	for _, order := range [][2]int{{1, 0}, {0, 1}, {1, 0}, {0, 1}} {
		for i := range conns {
			if _, err = conns[i].Exec(ctx, "COMMIT").ReadAll(); err != nil {
				return err
			}
		}
		for _, i := range order {
			if err = begin(i); err != nil {
				return err
			}
		}
	}
	return nil
}
