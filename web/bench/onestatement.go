//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"
)

// oneStatement returns what a user could write for PostgreSQL: a pgx pool and one statement per
// call, which is its own transaction. The update locks the row, so the limit also holds for
// concurrent calls. For a repeated call, the unique key undoes the whole statement. pgx prepares
// the statement once per connection.
func oneStatement(ctx context.Context, url string, connections int) (*echo.Echo, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("open the pool for one statement per call: %w", err)
	}
	config.MaxConns = int32(connections) //nolint:gosec // a small number that the benchmark sets
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open the pool for one statement per call: %w", err)
	}
	e := echo.New()
	e.POST("/v1/consume", func(c echo.Context) error {
		var in consumeRequest
		if err := c.Bind(&in); err != nil {
			return err
		}
		answer, err := consumeInOneStatement(c.Request().Context(), pool, in)
		if err != nil {
			return fmt.Errorf("consume for %s: %w", in.Email, err)
		}
		return c.JSON(http.StatusOK, answer)
	})
	return e, nil
}

const oneStatementSQL = `
WITH counted AS (
	UPDATE usage_records SET used = used + $2
	WHERE email = $1 AND period_start = $3 AND used + $2 <= included
	RETURNING used
), event AS (
	INSERT INTO usage_events (idempotency_key, email, quantity, plan, used_after)
	SELECT $4, $1, $2, $5, used FROM counted
	RETURNING id, used_after
)
SELECT id, used_after FROM event`

func consumeInOneStatement(ctx context.Context, pool *pgxpool.Pool, in consumeRequest) (consumed, error) {
	month := monthOf(time.Now())
	var id, used int64
	err := pool.QueryRow(ctx, oneStatementSQL, in.Email, in.Quantity, month.Start, in.IdempotencyKey, benchPlan).
		Scan(&id, &used)
	var conflict *pgconn.PgError
	switch {
	case err == nil:
		return consumed{decision: decide(in.Email, used, true, month), EventID: eventID(id)}, nil
	case errors.As(err, &conflict) && conflict.Code == "23505":
		err = pool.QueryRow(ctx, `SELECT id, used_after FROM usage_events WHERE idempotency_key = $1`,
			in.IdempotencyKey).Scan(&id, &used)
		return consumed{decision: decide(in.Email, used, true, month), EventID: eventID(id), Replayed: true}, err
	case errors.Is(err, pgx.ErrNoRows):
		err = pool.QueryRow(ctx, `SELECT used FROM usage_records WHERE email = $1 AND period_start = $2`,
			in.Email, month.Start).Scan(&used)
		return consumed{decision: decide(in.Email, used, false, month)}, err
	}
	return consumed{}, err
}

// eventID formats an ID with as many characters as the gate's IDs have, so that the answers have
// the same size.
func eventID(id int64) string {
	return "00000000-0000-7000-8000-" + fmt.Sprintf("%012s", strconv.FormatInt(id, 16))
}

// oneStatementTables is the smallest schema that keeps the same promises: every event once, every
// counter exact.
const oneStatementTables = `
CREATE TABLE usage_records (
	email text NOT NULL,
	period_start timestamptz NOT NULL,
	used bigint NOT NULL DEFAULT 0,
	included bigint NOT NULL,
	PRIMARY KEY (email, period_start)
);
CREATE TABLE usage_events (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	idempotency_key text NOT NULL UNIQUE,
	email text NOT NULL,
	quantity bigint NOT NULL,
	plan text NOT NULL,
	used_after bigint NOT NULL,
	occurred_at timestamptz NOT NULL DEFAULT now()
)`

// makeOneStatementTables creates the tables and a record for every person, like those of a service
// that has run for a while.
func makeOneStatementTables(ctx context.Context, url string, people int) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("create the tables for one statement per call: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // everything is committed by then
	if _, err := conn.Exec(ctx, oneStatementTables); err != nil {
		return fmt.Errorf("create the tables for one statement per call: %w", err)
	}
	emails := make([]string, people)
	for i := range emails {
		emails[i] = personEmail(i)
	}
	_, err = conn.Exec(ctx, `INSERT INTO usage_records (email, period_start, included)
		SELECT unnest($1::text[]), $2, $3`, emails, monthOf(time.Now()).Start, benchIncluded)
	if err == nil {
		_, err = conn.Exec(ctx, `VACUUM ANALYZE usage_records`)
	}
	if err != nil {
		return fmt.Errorf("insert the records for one statement per call: %w", err)
	}
	return nil
}
