package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// healthcheckPatience is how long healthcheck waits for the answer. It is shorter than the time that
// deploy/Containerfile gives to the command.
const healthcheckPatience = 4 * time.Second

type healthcheckCommand struct {
	Ready bool          `help:"${help_ready}"`
	Wait  time.Duration `default:"0s" help:"How long to wait until the server answers."`
}

// Run asks the server at --listen. By default, it does not ask for the database: to restart a server
// does not bring back a database.
func (c healthcheckCommand) Run(ctx context.Context, o *Output, s *Settings) error {
	address, err := net.ResolveTCPAddr("tcp", s.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	if address.Port == 0 {
		return fmt.Errorf("--listen must name the server's port: %q", s.Listen)
	}
	path := "/healthz"
	if c.Ready {
		path = "/readyz"
	}
	end := time.Now().Add(c.Wait)
	for {
		err := ask(ctx, "http://"+address.String()+path)
		if err == nil {
			o.Note("%s answered 200 OK", path)
			return nil
		}
		if !time.Now().Before(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ask requests a page and returns an error unless its status is 200. Without a host or with the
// address 0.0.0.0, Go connects to this machine.
func ask(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, healthcheckPatience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // without the proxy of HTTP_PROXY
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", r.URL.Path, response.Status)
	}
	return nil
}
