//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"

	"tollgate/models/modelstest"
)

// fact is a row of the report about the machine and the software.
type fact struct{ Name, Value string }

// machineFacts describes the machine, including the file system of the databases.
func (b *bench) machineFacts(ctx context.Context) ([]fact, error) {
	machine, err := modelstest.Machine()
	if err != nil {
		return nil, err
	}
	busy, err := modelstest.BusyShare(ctx)
	if err != nil {
		return nil, err
	}
	if busy > 0.1 {
		b.say("warning: other work uses %.0f%% of the cores, so the results are unreliable", busy*100)
	}
	median, p99, err := fsyncLatency(b.dir)
	if err != nil {
		return nil, err
	}
	system, err := fileSystem(b.dir)
	if err != nil {
		return nil, err
	}
	return []fact{
		{"processor", machine.Processor},
		{"cores", machine.Cores + ", shared by client, servers and databases"},
		{"busy with other work", fmt.Sprintf("%.0f%% of the cores in the second before the run", busy*100)},
		{"memory", machine.Memory},
		{"kernel", machine.Kernel},
		{"file system", system},
		{"fsync of 8 KiB", fmt.Sprintf("%s median, %s p99", short(median), short(p99))},
	}, nil
}

// fsyncLatency measures the minimum time of a single commit: a page is written to a growing file,
// and synced.
func fsyncLatency(dir string) (median, p99 time.Duration, err error) {
	file, err := os.CreateTemp(dir, "fsync-")
	if err != nil {
		return 0, 0, fmt.Errorf("measure fsync: %w", err)
	}
	defer os.Remove(file.Name()) //nolint:errcheck // the directory is removed at the end
	defer file.Close()           //nolint:errcheck // only its latency matters
	page, took := make([]byte, 8<<10), make([]time.Duration, 200)
	for i := range took {
		if _, err := file.Write(page); err != nil {
			return 0, 0, fmt.Errorf("measure fsync: %w", err)
		}
		begin := time.Now()
		if err := file.Sync(); err != nil {
			return 0, 0, fmt.Errorf("measure fsync: %w", err)
		}
		took[i] = time.Since(begin)
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100], nil
}

// fileSystem returns the type of the file system. The report says if it is in memory, where fsync
// does nothing.
func fileSystem(dir string) (string, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return "", fmt.Errorf("read the type of the file system: %w", err)
	}
	switch stat.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4", nil
	case unix.XFS_SUPER_MAGIC:
		return "xfs", nil
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs", nil
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay", nil
	case unix.TMPFS_MAGIC:
		return "tmpfs: in memory, nothing is durable (set TMPDIR to a directory on a disk)", nil
	}
	return fmt.Sprintf("type %#x", stat.Type), nil
}

// toolFacts returns the versions of this program's dependencies and of the product's sources.
func toolFacts(ctx context.Context, root string) []fact {
	facts := []fact{{"Tollgate", revision(ctx, root)}, {"Go", strings.TrimPrefix(runtime.Version(), "go")}}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return facts
	}
	for _, module := range info.Deps {
		switch module.Path {
		case "github.com/labstack/echo/v4", "github.com/jackc/pgx/v5", "github.com/redis/go-redis/v9",
			"modernc.org/sqlite", "github.com/uptrace/bun":
			facts = append(facts, fact{module.Path, module.Version})
		}
	}
	return facts
}

// revision returns the measured commit.
func revision(ctx context.Context, root string) string {
	return modelstest.Revision(ctx, root, filepath.ToSlash(defaultOutput))
}

// postgresFact returns the server's version and the settings on which the cost of a commit depends.
func postgresFact(ctx context.Context, url string) (fact, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fact{}, fmt.Errorf("read the version of PostgreSQL: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing was written
	var version string
	var changed []string
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version'), array_agg(name || '=' || current_setting(name) ORDER BY name)
		FROM pg_settings
		WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers', 'max_connections', 'max_wal_size',
			'wal_sync_method')`).Scan(&version, &changed)
	if err != nil {
		return fact{}, fmt.Errorf("read the version of PostgreSQL: %w", err)
	}
	return fact{"PostgreSQL", version + ": " + strings.Join(changed, ", ")}, nil
}

// redisFact returns the server's version.
func redisFact(ctx context.Context, addr string) (fact, error) {
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	defer rdb.Close() //nolint:errcheck // nothing was written
	info, err := rdb.InfoMap(ctx, "server").Result()
	if err != nil {
		return fact{}, fmt.Errorf("read the version of Redis: %w", err)
	}
	return fact{"Redis", info["Server"]["redis_version"]}, nil
}

// short formats a duration with about three digits.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}
