package models

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
)

func (db *DB) openPostgres(ctx context.Context) (err error) {
	if db.server, err = connectPostgres(ctx, db.URL); err != nil {
		return err
	}
	std := stdlib.OpenDB(*db.server.configure(nil))
	std.SetMaxOpenConns(16)
	std.SetMaxIdleConns(16)
	std.SetConnMaxIdleTime(5 * time.Minute)
	db.DB, db.Postgres = bun.NewDB(std, pgdialect.New()), true
	return nil
}
