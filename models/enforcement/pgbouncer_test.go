package enforcement_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"tollgate/models"
	"tollgate/models/enforcement"
	"tollgate/models/modelstest"
)

// TestPgBouncerInSessionMode runs two gates through PgBouncer, with its default settings and the
// pool that docs/postgres.md requires, on a database with unfavorable defaults.
func TestPgBouncerInSessionMode(t *testing.T) {
	for name, settings := range map[string]string{
		"default": "",
		// As other programs recommend, so that PgBouncer ignores settings in the startup packet and does
		// not refuse them.
		"ignoring": "ignore_startup_parameters = extra_float_digits, bytea_output, search_path, intervalstyle, array_nulls, " +
			"transform_null_equals, quote_all_identifiers, lc_monetary, lc_numeric, lc_time, default_transaction_isolation, " +
			"default_transaction_deferrable, exit_on_error, statement_timeout, idle_in_transaction_session_timeout, " +
			"lock_timeout, options",
	} {
		t.Run(name, func(t *testing.T) {
			address := modelstest.Postgres(t)
			f := newFixture(t, modelstest.PgBouncer(t, address, "pool_mode = session\ndefault_pool_size = 50\n"+settings))
			gates := []*enforcement.Gate{f.Gate, f.another(t, 4096)}
			var wg sync.WaitGroup
			for i := range 60 {
				wg.Go(func() {
					identity := models.SlackIdentity{TeamID: "T1", UserID: fmt.Sprint("U", i%20)}
					who := enforcement.Person{Email: fmt.Sprintf("p%d@example.com", i%20), Slack: identity}
					if _, err := gates[i%2].Consume(f.ctx, who, 1, fmt.Sprint("k", i)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := f.clean(t); n != 60 {
				t.Errorf("%d events, want 60", n)
			}
			for name, want := range map[string]string{
				"bytea_output": "hex", "search_path": `"$user", public`, "lock_timeout": "4s",
				"transaction_isolation": "read committed",
			} {
				var got string
				if err := f.db.NewRaw("SELECT current_setting(?)", name).Scan(f.ctx, &got); err != nil || got != want {
					t.Errorf("%s is %q (%v), want %q", name, got, err, want)
				}
			}
		})
	}
}

// TestPgBouncerThatSharesConnections checks that Tollgate does not start if PgBouncer shares server
// connections, and that the error is one line that says why.
func TestPgBouncerThatSharesConnections(t *testing.T) {
	for _, settings := range []string{
		"pool_mode = transaction", "pool_mode = transaction\nserver_round_robin = 1", "pool_mode = statement",
		"pool_mode = transaction\nmin_pool_size = 5\nserver_round_robin = 1",
	} {
		t.Run(settings, func(t *testing.T) {
			_, err := models.Open(t.Context(), modelstest.PgBouncer(t, modelstest.Postgres(t), settings))
			const statementMode = "transaction blocks not allowed in statement pooling mode"
			if err == nil || strings.Contains(err.Error(), "\n") ||
				!strings.Contains(err.Error(), "pool_mode = session") && !strings.Contains(err.Error(), statementMode) {
				t.Errorf("models.Open: %v", err)
			}
		})
	}
}
