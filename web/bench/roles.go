//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/labstack/echo/v4"
)

// The roles of this program when it has started itself. The first argument is the role.
const (
	rolePrefix       = "bench-role-"
	roleClient       = rolePrefix + "client"
	roleFloor        = rolePrefix + "floor"
	roleRedis        = rolePrefix + "redis-counter"
	roleOneStatement = rolePrefix + "one-statement"
)

// roleConfig is the configuration of a role. It is JSON on standard input.
type roleConfig struct {
	Redis       string
	PostgresURL string
	Connections int
	Load        load
}

// startSelf starts this program again as one of the servers and returns the server's address.
func startSelf(dir, role, name string, config roleConfig) (*process, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", fmt.Errorf("start %s: %w", name, err)
	}
	cmd := exec.Command(self, role) //nolint:gosec,noctx // this program itself
	text, err := json.Marshal(config)
	if err != nil {
		return nil, "", fmt.Errorf("start %s: %w", name, err)
	}
	cmd.Stdin = strings.NewReader(string(text))
	addressOut, addressIn, err := os.Pipe()
	if err != nil {
		return nil, "", fmt.Errorf("start %s: %w", name, err)
	}
	defer addressOut.Close() //nolint:errcheck // read to its end
	cmd.Stdout = addressIn
	p, err := start(filepath.Join(dir, name), name, cmd)
	if closeErr := addressIn.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, "", err
	}
	addr, err := bufio.NewReader(addressOut).ReadString('\n')
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("start %s: it printed no address: %w", name, err), p.stop())
	}
	return p, strings.TrimSpace(addr), nil
}

// playRole is the main function of a process that startSelf or runLoad started.
func playRole(ctx context.Context, role string, in io.Reader, out io.Writer) error {
	var config roleConfig
	if err := json.NewDecoder(in).Decode(&config); err != nil {
		return fmt.Errorf("%s: read the configuration: %w", role, err)
	}
	switch role {
	case roleClient:
		outcome, err := config.Load.run()
		if err != nil {
			return err
		}
		return json.NewEncoder(out).Encode(outcome)
	case roleFloor:
		return serve(ctx, floor(), out)
	case roleRedis:
		return serve(ctx, redisCounter(config.Redis), out)
	case roleOneStatement:
		e, err := oneStatement(ctx, config.PostgresURL, config.Connections)
		if err != nil {
			return err
		}
		return serve(ctx, e, out)
	}
	return fmt.Errorf("unknown role %q", role)
}

// serve serves on a free port until ctx ends. It prints its address.
func serve(ctx context.Context, e *echo.Echo, out io.Writer) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, l.Addr()); err != nil {
		return err
	}
	server := &http.Server{Handler: e, ReadHeaderTimeout: startPatience}
	stopped := context.AfterFunc(ctx, func() { server.Close() }) //nolint:errcheck // the process ends
	defer stopped()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
