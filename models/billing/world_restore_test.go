package billing

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// backup is a copy of the database.
type backup struct {
	address string
	at      time.Time
}

// copyDatabase makes a backup: on SQLite with `tollgate backup` while the processes run, on
// PostgreSQL with a copy for which they are closed.
func (w *world) copyDatabase() {
	w.backup = &backup{at: w.now}
	if !w.db.Postgres {
		file := filepath.Join(modelstest.Dir(w.t), "backup.db")
		w.backup.address = "sqlite:" + file
		_, err := models.Backup(w.ctx, w.db.URL, file)
		w.must(err)
		return
	}
	address := w.db.URL
	w.close()
	w.backup.address = w.copyPostgres(address)
	w.reopen(address)
}

// copyPostgres copies a database without connections, and returns the copy's address.
func (w *world) copyPostgres(address string) string {
	config, err := pgx.ParseConfig(address)
	w.must(err)
	name := config.Database
	config.Database = "postgres"
	do := func(statement string) {
		ctx := context.Background() // the test's context has ended when the copy is dropped
		conn, err := pgx.ConnectConfig(ctx, config)
		w.must(err)
		_, err = conn.Exec(ctx, statement)
		w.must(err)
		w.must(conn.Close(ctx))
	}
	saved := pgx.Identifier{name + "_backup"}.Sanitize()
	do("CREATE DATABASE " + saved + " TEMPLATE " + pgx.Identifier{name}.Sanitize())
	w.t.Cleanup(func() { do("DROP DATABASE " + saved + " WITH (FORCE)") })
	return strings.Replace(address, "/"+name, "/"+name+"_backup", 1)
}

// reopen opens a database after close, and starts the processes.
func (w *world) reopen(address string) {
	w.open(address)
	for i := range w.processes {
		w.start(i)
	}
}

// restore replaces the database with the backup, and does what the documentation asks the operator
// to do.
func (w *world) restore() {
	w.close()
	w.reopen(w.backup.address)
	w.counts["restores"]++
	w.forget()
	w.mute = true // as with serve --report-every 0
	w.later(w.upTo(20*time.Minute), w.reconcileRestored)
}

// forget removes the usage that was lost with the database. Stripe sends the webhooks since the
// backup again, at the operator's request.
func (w *world) forget() {
	for _, p := range w.payers {
		for _, person := range p.people {
			person.holds = nil
			var stored []*use
			for _, u := range person.uses {
				found, err := w.db.NewSelect().Model((*models.UsageEvent)(nil)).Where("id = ?", u.id).Exists(w.ctx)
				w.must(err)
				switch {
				case found:
					stored = append(stored, u)
				case u.recorded.Before(w.backup.at.Add(-time.Minute)):
					w.t.Errorf("%s: the backup lacks an event that was recorded before it, at %s", w.name(), u.recorded)
				default:
					w.counts["units lost"] += int(u.overage)
					person.lost = append(person.lost, u)
				}
			}
			person.uses = stored
		}
	}
	for _, k := range w.sent {
		if k.at.After(w.backup.at) {
			body := k.body
			w.later(time.Minute+w.upTo(6*time.Hour), func() { w.deliver(body) })
		}
	}
}

// reconcileRestored runs `tollgate stripe reconcile --restored` until sending resumes.
func (w *world) reconcileRestored() {
	again := 5 * time.Minute // unless Stripe answers
	w.perform(w.processes[0], 0.2, func() {
		r := w.processes[0].reporter
		if r.account.check(w.ctx) != nil {
			return
		}
		_, next, err := r.Restored(w.ctx)
		if err != nil {
			return
		}
		w.mute = false
		if again = 0; !next.IsZero() {
			again = next.Sub(w.now) + w.upTo(time.Hour)
		}
	})
	if again > 0 {
		w.later(max(again, time.Minute), w.reconcileRestored)
	}
}
