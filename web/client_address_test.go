package web

import (
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"tollgate/models/modelstest"
)

// TestOnlyATrustedProxyNamesTheClient sends the headers in which a proxy names its client, and
// reads the log.
func TestOnlyATrustedProxyNamesTheClient(t *testing.T) {
	loopback := &net.IPNet{IP: net.IPv4(127, 0, 0, 0), Mask: net.CIDRMask(8, 32)}
	elsewhere := &net.IPNet{IP: net.IPv4(10, 0, 0, 0), Mask: net.CIDRMask(8, 32)}
	for name, test := range map[string]struct {
		proxies   []*net.IPNet
		forwarded string
		client    string
	}{
		"no proxy is trusted":            {nil, "203.0.113.7", "127.0.0.1"},
		"another network is trusted":     {[]*net.IPNet{elsewhere}, "203.0.113.7", "127.0.0.1"},
		"the proxy is trusted":           {[]*net.IPNet{loopback}, "203.0.113.7", "203.0.113.7"},
		"the client's own header is not": {[]*net.IPNet{loopback}, "198.51.100.1, 203.0.113.7", "203.0.113.7"},
	} {
		t.Run(name, func(t *testing.T) {
			var log lines
			f := newFixture(t, modelstest.SQLite(t), func(o *Options) {
				o.TrustedProxies, o.Log = test.proxies, slog.New(slog.NewTextHandler(&log, nil))
			})
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.server.URL+"/v1/usage/ada@example.com", nil)
			must(t, err)
			r.Header.Set("X-Forwarded-For", test.forwarded)
			r.Header.Set("X-Real-IP", "192.0.2.9")
			response, err := http.DefaultClient.Do(r)
			must(t, err)
			must(t, response.Body.Close())
			f.server.Close() // then the line was written
			if text := strings.Join(log.take(), "\n") + "\n"; response.StatusCode != http.StatusUnauthorized ||
				!strings.Contains(text, "client="+test.client+"\n") {
				t.Errorf("status %d, logged %s", response.StatusCode, text)
			}
		})
	}
}

// TestRealIPHeaderIsIgnored shows that the attack of GO-2026-6875 does not work: no code here
// forwards requests, and a forged X-Real-IP header does not set the client address, not even if
// Connection names it.
func TestRealIPHeaderIsIgnored(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{.ImportPath}} {{.Imports}}", "tollgate")
	list.Stderr = os.Stderr
	packages, err := list.Output()
	must(t, err)
	for _, line := range strings.Split(string(packages), "\n") {
		name, imports, _ := strings.Cut(line, " ")
		// Slack's client and gRPC print requests with httputil, for debugging, and have no reverse proxy.
		proxy := strings.Contains(imports, "net/http/httputil") && name != "github.com/slack-go/slack" &&
			name != "google.golang.org/grpc/internal/transport"
		if proxy || name == "github.com/labstack/echo/v4/middleware" {
			t.Errorf("the server links a reverse proxy: %s", line)
		}
	}
	loopback := &net.IPNet{IP: net.IPv4(127, 0, 0, 0), Mask: net.CIDRMask(8, 32)}
	for _, proxies := range [][]*net.IPNet{nil, {loopback}} {
		var log lines
		f := newFixture(t, modelstest.SQLite(t), func(o *Options) {
			o.TrustedProxies, o.Log = proxies, slog.New(slog.NewTextHandler(&log, nil))
		})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.server.URL+"/v1/usage/ada@example.com", nil)
		must(t, err)
		r.Header.Set("X-Real-IP", "192.0.2.9")
		r.Header.Set("Connection", "X-Real-IP, X-Forwarded-For")
		response, err := http.DefaultClient.Do(r)
		must(t, err)
		must(t, response.Body.Close())
		f.server.Close() // then the line was written
		if text := strings.Join(log.take(), "\n") + "\n"; !strings.Contains(text, "client=127.0.0.1\n") {
			t.Errorf("trusting %v, logged %s", proxies, text)
		}
	}
}
