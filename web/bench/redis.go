//go:build linux

package main

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"
)

// redisCounter returns what a user could choose for speed: a counter in Redis for each person and
// month, with the limit and the deduplication in one script, behind Echo, with go-redis and its
// default pool.
func redisCounter(addr string) *echo.Echo {
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	e := echo.New()
	e.POST("/v1/consume", func(c echo.Context) error {
		var in consumeRequest
		if err := c.Bind(&in); err != nil {
			return err
		}
		month := monthOf(time.Now())
		reply, err := countOnce.Run(c.Request().Context(), rdb,
			[]string{"dedup:" + in.IdempotencyKey, "used:" + in.Email + ":" + month.Start.Format("2006-01")},
			in.Quantity, benchIncluded, int64((24 * time.Hour).Seconds())).Int64Slice()
		if err != nil {
			return fmt.Errorf("count script for %s: %w", in.Email, err)
		}
		return c.JSON(http.StatusOK, consumed{
			decision: decide(in.Email, reply[1], reply[0] != refused, month),
			EventID:  in.IdempotencyKey,
			Replayed: reply[0] == replayed,
		})
	})
	return e
}

// The first value that the script returns. The second one is the number of used units.
const (
	refused  = 0 // 1 means recorded
	replayed = 2
)

// countOnce stores the first answer under the idempotency key for as long as a client may retry. A
// call that is neither refused nor repeated costs three commands.
var countOnce = redis.NewScript(`
local used = tonumber(redis.call('GET', KEYS[2]) or '0')
local after = used + tonumber(ARGV[1])
if after <= tonumber(ARGV[2]) and redis.call('SET', KEYS[1], after, 'NX', 'EX', ARGV[3]) then
  redis.call('INCRBY', KEYS[2], ARGV[1])
  return {1, after}
end
local first = redis.call('GET', KEYS[1])
if first then return {2, tonumber(first)} end
return {0, used}
`)

// startRedis starts a redis-server with the defaults of Redis and Debian, except for its directory:
// no append-only file, and a snapshot from time to time. With appendOnly, it also logs each write
// and syncs the log once per second.
func startRedis(ctx context.Context, dir, name string, appendOnly bool) (*process, string, error) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, "", fmt.Errorf("find Redis, which the benchmark needs (apt-get install redis-server): %w", err)
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, "", err
	}
	home := filepath.Join(dir, name)
	args := []string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", home}
	if appendOnly {
		args = append(args, "--appendonly", "yes", "--appendfsync", "everysec")
	} else {
		args = append(args, "--appendonly", "no")
	}
	p, err := start(home, name, exec.Command(binary, args...)) //nolint:gosec,noctx // a fixed program
	if err != nil {
		return nil, "", err
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	defer rdb.Close() //nolint:errcheck // nothing was written
	if err := p.waitUntil(ctx, func(ctx context.Context) error { return rdb.Ping(ctx).Err() }); err != nil {
		return nil, "", err
	}
	return p, addr, nil
}
