package models

import (
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
)

// PostgresPatience are settings of every connection to PostgreSQL. A process that freezes in the middle of a transaction,
// or whose machine went away, loses the transaction after three seconds, so that nobody waits for its locks for longer.
var PostgresPatience = map[string]string{"idle_in_transaction_session_timeout": "3000", "lock_timeout": "4000"}

func (db *DB) openPostgres() error {
	cfg, err := pgx.ParseConfig(db.URL)
	if err != nil {
		return explainPostgres(err)
	}
	// bun writes its arguments into the statement, so a cache of prepared statements would only grow.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.RuntimeParams["timezone"] = "UTC"
	cfg.RuntimeParams["application_name"] = "tollgate"
	maps.Copy(cfg.RuntimeParams, PostgresPatience)
	std := stdlib.OpenDB(*cfg)
	std.SetMaxOpenConns(16)
	std.SetMaxIdleConns(16)
	std.SetConnMaxIdleTime(5 * time.Minute)
	db.DB, db.Postgres = bun.NewDB(std, pgdialect.New()), true
	return nil
}
