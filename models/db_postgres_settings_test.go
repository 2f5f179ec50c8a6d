package models_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// alter runs statements as an administrator does, without Tollgate's settings.
func alter(t *testing.T, address, statements string) {
	t.Helper()
	// The cluster's hostile lock_timeout applies until a connection is open, and other tests create
	// databases at the same time.
	var err error
	for range 5 {
		if err = alterOnce(t.Context(), address, statements); !models.IsLockTimeout(err) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func alterOnce(ctx context.Context, address, statements string) error {
	conn, err := pgx.Connect(ctx, address+"&statement_timeout=0&lock_timeout=0&client_encoding=UTF8&search_path=public")
	if err != nil {
		return err
	}
	defer conn.Close(context.Background()) //nolint:errcheck // everything is committed
	_, err = conn.Exec(ctx, statements)
	return err
}

// databaseOf returns the name of the database at an address.
func databaseOf(t *testing.T, address string) string {
	t.Helper()
	config, err := pgx.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	return config.Database
}

// The tests' databases have hostile defaults: a connection that does not set a setting gets the
// hostile value.
func TestDatabaseHasHostileDefaults(t *testing.T) {
	address := modelstest.Postgres(t)
	for name, want := range modelstest.HostileDefaults {
		var got string
		conn, err := pgx.Connect(t.Context(), address+"&statement_timeout=0")
		if err != nil {
			t.Fatal(err)
		}
		err = conn.QueryRow(t.Context(), "SELECT reset_val FROM pg_settings WHERE name = $1", name).Scan(&got)
		_ = conn.Close(context.Background())
		if name == "statement_timeout" {
			want = "0ms"
		}
		if err != nil || got != strings.TrimSuffix(want, "ms") {
			t.Errorf("%s is %q (%v), want %q", name, got, err, want)
		}
	}
}

func TestDisplayNameDoesNotEndItsLiteral(t *testing.T) {
	for _, defaults := range []string{"standard_conforming_strings = off", "backslash_quote = on", "client_encoding = 'SJIS'",
		"client_encoding = 'LATIN1'"} {
		t.Run(defaults, func(t *testing.T) {
			t.Parallel()
			address := modelstest.Postgres(t)
			alter(t, address, fmt.Sprintf("ALTER DATABASE %s SET %s", databaseOf(t, address), defaults))
			db, err := models.Open(t.Context(), address)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			f := &fixture{db: db, ctx: t.Context()}
			f.insert(t, &models.User{ID: newID(), Email: "other@example.com", Role: models.Member, CreatedAt: noon})
			for i, name := range []string{
				`\' , operator = true --`, `\`, `'; UPDATE users SET operator = true; --`, `\'; UPDATE users SET operator = true; --`,
				`''\'' , operator = true --`,
				"\u8868' , operator = true --", "\xe8' , operator = true --", "\xff\\' , operator = true --", "\u00bf' , operator = true --",
				"Zoë ソ 表", "? ?0 ?x $1 ${x}",
				`\047 , operator = true --`, `\u0027 , operator = true --`, `U&'\0027'`, "$$ , operator = true --",
			} {
				email := fmt.Sprintf("person%d@example.com", i)
				f.insert(t, &models.User{ID: newID(), Email: email, Role: models.Member, CreatedAt: noon})
				if _, err := db.NewUpdate().Model((*models.User)(nil)).Set("name = ?", name).Where("email = ?", email).Exec(f.ctx); err != nil {
					t.Errorf("%q: %v", name, err)
					continue
				}
				if u := one[models.User](t, f, "email = ?", email); u.Name != strings.ToValidUTF8(name, "\ufffd") {
					t.Errorf("%q is stored as %q", name, u.Name)
				}
				// Text that was converted twice reads back correctly, but takes more bytes in the table.
				var bytes int
				if err := db.NewSelect().Model((*models.User)(nil)).ColumnExpr("octet_length(name)").Where("email = ?", email).
					Scan(f.ctx, &bytes); err != nil ||
					bytes != len(strings.ToValidUTF8(name, "\ufffd")) {
					t.Errorf("%q takes %d bytes (%v)", name, bytes, err)
				}
			}
			// PostgreSQL cannot store a NUL. It is an error before anything is sent.
			if _, err := db.NewUpdate().Model((*models.User)(nil)).Set("name = ?", "a\x00', operator = true --").
				Where("email = ?", "other@example.com").Exec(f.ctx); err == nil {
				t.Error("a name with a NUL was stored")
			}
			if n, err := db.NewSelect().Model((*models.User)(nil)).Where("operator").Count(f.ctx); err != nil || n != 0 {
				t.Errorf("%d operators (%v), want none", n, err)
			}
		})
	}
}

// Each connection has the settings of a database without hostile defaults, and ALTER ROLE does not
// change them.
func TestSettingsOfEveryConnection(t *testing.T) {
	address := modelstest.Postgres(t)
	var role strings.Builder
	for name, value := range modelstest.HostileDefaults {
		if name != "DateStyle" {
			value = "'" + value + "'"
		}
		fmt.Fprintf(&role, "ALTER ROLE CURRENT_USER IN DATABASE %s SET %s = %s;", databaseOf(t, address), name, value)
	}
	alter(t, address, role.String())
	db, err := models.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	gate, err := pgconn.ConnectConfig(t.Context(), db.PostgresConfig(nil)) // as the gate connects
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = gate.Close(context.Background()) }()
	for name, want := range map[string]string{
		"DateStyle": "ISO, MDY", "standard_conforming_strings": "on", "bytea_output": "hex", "client_encoding": "UTF8", "TimeZone": "UTC",
		"search_path": `"$user", public`, "default_transaction_isolation": "read committed", "transaction_isolation": "read committed",
		"IntervalStyle":      "postgres",
		"extra_float_digits": "1", "array_nulls": "on", "transform_null_equals": "off", "synchronous_commit": "on", "statement_timeout": "0",
		"lock_timeout": "4s", "idle_in_transaction_session_timeout": "3s", "lc_numeric": "C", "exit_on_error": "off",
		"default_transaction_deferrable": "off",
		"lc_monetary":                    "C", "lc_time": "C", "quote_all_identifiers": "off", "application_name": "tollgate",
	} {
		var got string
		if err := db.NewRaw("SELECT current_setting(?)", name).Scan(t.Context(), &got); err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", name, got, err, want)
		}
		answer := gate.ExecParams(t.Context(), "SELECT current_setting($1)", [][]byte{[]byte(name)}, nil, nil, nil).Read()
		if answer.Err != nil || string(answer.Rows[0][0]) != want {
			t.Errorf("%s of the gate's connection is %q (%v), want %q", name, answer.Rows, answer.Err, want)
		}
	}
}

func TestAddressNamesSettings(t *testing.T) {
	address := modelstest.Postgres(t)
	show := func(more, name string) string {
		t.Helper()
		db, err := models.Open(t.Context(), address+more)
		if err != nil {
			t.Fatalf("%s: %v", more, err)
		}
		defer func() { _ = db.Close() }()
		var value string
		if err := db.NewRaw("SELECT current_setting(?)", name).Scan(t.Context(), &value); err != nil {
			t.Fatal(err)
		}
		return value
	}
	alter(t, address, "CREATE SCHEMA mine")
	for _, row := range [][3]string{
		{"&search_path=mine", "search_path", "mine"},
		{"&options=-c%20search_path%3Dmine", "search_path", "mine"},
		{"&options=-csearch_path%3Dmine%20--lock-timeout%3D77ms", "lock_timeout", "77ms"},
		{"&synchronous_commit=off", "synchronous_commit", "off"},
		{"&datestyle=iso", "DateStyle", "ISO, MDY"},
		{"&client_encoding=utf-8", "client_encoding", "UTF8"},
		{"&default_transaction_read_only=off", "default_transaction_read_only", "off"},
	} {
		if got := show(row[0], row[1]); got != row[2] {
			t.Errorf("with %s, %s is %q, want %q", row[0], row[1], got, row[2])
		}
	}
	for more, want := range map[string]string{
		"&datestyle=German": `the database address sets datestyle to "German", but Tollgate needs "ISO, MDY"; ` +
			`remove this setting`,
		"&options=-c%20TimeZone%3DEurope/Berlin": `the database address sets timezone to "Europe/Berlin"`,
		"&standard_conforming_strings=off":       "standard_conforming_strings",
		"&search_path=missing":                   `no schema of search_path "missing" exists`,
		"&options=-B%205":                        `must be settings such as`,
		"&options=-c%20search_path":              `have no value for "search_path"`,
	} {
		_, err := models.Open(t.Context(), address+more)
		wantError(t, err, want)
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("the error has more than one line: %v", err)
		}
	}
}

// An installation whose schema was set with ALTER ROLE must not start over with new, empty tables.
func TestTablesInAnotherSchema(t *testing.T) {
	address := modelstest.Postgres(t)
	alter(t, address, `ALTER SCHEMA public RENAME TO mine; CREATE SCHEMA public;
		ALTER ROLE CURRENT_USER IN DATABASE `+databaseOf(t, address)+` SET search_path = mine`)
	_, err := models.Open(t.Context(), address)
	wantError(t, err, `the tables are in schema "mine", which the database address does not name; `+
		"add search_path=mine to use them, or search_path=public for new tables")
	for _, schema := range []string{"mine", "public"} {
		db, err := models.Open(t.Context(), address+"&search_path="+schema)
		if err != nil {
			t.Fatal(err)
		}
		if made := len(db.Applied) > 0; made != (schema == "public") {
			t.Errorf("in %s, %d migrations were applied", schema, len(db.Applied))
		}
		_ = db.Close()
	}
}

func TestDatabaseWithAnotherEncodingIsRefused(t *testing.T) {
	address := modelstest.Postgres(t)
	name := "latin1_" + databaseOf(t, address)
	alter(t, address, "CREATE DATABASE "+name+" ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), address+"&statement_timeout=0")
		if err == nil {
			_, err = conn.Exec(context.Background(), "DROP DATABASE "+name)
			_ = conn.Close(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	_, err := models.Open(t.Context(), strings.Replace(address, databaseOf(t, address), name, 1))
	wantError(t, err, "the database has the encoding LATIN1, but Tollgate needs UTF8: "+
		"create the database with ENCODING 'UTF8' TEMPLATE template0")
}

// A role with session_replication_role = replica disables triggers, which update columns that
// decisions read.
func TestDisabledTriggersAreRefused(t *testing.T) {
	address := modelstest.Postgres(t)
	alter(t, address, "ALTER DATABASE "+databaseOf(t, address)+" SET session_replication_role = replica")
	_, err := models.Open(t.Context(), address)
	wantError(t, err, `session_replication_role is "replica"`)
}
