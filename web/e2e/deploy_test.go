//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// deployed returns a file of deploy/ with replacements. The file must have each text to replace.
func deployed(t *testing.T, name string, replacements ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replacements); i += 2 {
		if !bytes.Contains(content, []byte(replacements[i])) {
			t.Fatalf("deploy/%s does not have %q", name, replacements[i])
		}
	}
	return strings.NewReplacer(replacements...).Replace(string(content))
}

// behindTLS has the addresses and files that the test of a proxy uses instead of those of deploy/.
type behindTLS struct {
	dir                 string
	plain, secure       string // the addresses on which the proxy listens
	certificate, key    string // files
	plainPort, safePort string
}

// With each proxy of deploy/, a call over TLS is decided, an http:// address leads to https://, and
// the server knows the client's address.
func TestDeployedProxies(t *testing.T) {
	t.Parallel()
	for _, proxy := range []struct {
		name string
		run  func(t *testing.T, b behindTLS, server string) *exec.Cmd
	}{{"nginx", deployedNginx}, {"Caddy", deployedCaddy}} {
		t.Run(proxy.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, sqliteDatabase(t), 0)
			p := newServer(t, "serve", s.database)
			p.args = append(p.args, "--base-url", "https://tollgate.example.com", "--trusted-proxies", "127.0.0.1")
			if err := p.start(t.Context()); err != nil {
				t.Fatal(err)
			}

			certified := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate, which is for *.example.com
			defer certified.Close()
			b := behindTLS{dir: t.TempDir(), plainPort: strconv.Itoa(freePort(t)), safePort: strconv.Itoa(freePort(t))}
			b.plain, b.secure = net.JoinHostPort("127.0.0.1", b.plainPort), net.JoinHostPort("127.0.0.1", b.safePort)
			b.certificate, b.key = writeCertificate(t, b.dir, certified.TLS.Certificates[0])
			startProxy(t, proxy.name, proxy.run(t, b, p.addr), b.secure)

			roots := x509.NewCertPool()
			roots.AddCert(certified.Certificate())
			client := &http.Client{
				Transport: &http.Transport{
					TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
					DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
						to := b.secure
						if strings.HasSuffix(address, ":80") {
							to = b.plain
						}
						return new(net.Dialer).DialContext(ctx, network, to)
					},
				},
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
				Timeout:       hangs,
			}
			defer client.CloseIdleConnections()
			send := func(method, url, content string) (status int, location, text string) {
				t.Helper()
				r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(content))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+s.client.key)
				r.Header.Set("Content-Type", "application/json")
				response, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer response.Body.Close()
				body, err := io.ReadAll(response.Body)
				if err != nil {
					t.Fatal(err)
				}
				return response.StatusCode, response.Header.Get("Location"), string(body)
			}

			status, _, text := send(http.MethodPost, "https://tollgate.example.com/v1/consume",
				`{"email": "ada@example.com", "idempotency_key": "message-1"}`)
			var d decision
			if err := json.Unmarshal([]byte(text), &d); err != nil || status != http.StatusOK || !d.Allowed || d.Used != 1 {
				t.Errorf("a call got %d %s, %v", status, text, err)
			}
			status, to, _ := send(http.MethodGet, "http://tollgate.example.com/plans?a=b", "")
			if status/100 != 3 || to != "https://tollgate.example.com/plans?a=b" {
				t.Errorf("http:// is answered with %d to %q", status, to)
			}
			// The server's limit, not the proxy's.
			status, _, text = send(http.MethodPost, "https://tollgate.example.com/v1/events", strings.Repeat(" ", 1<<20+1))
			if status != http.StatusRequestEntityTooLarge || !strings.Contains(text, `"status":413`) {
				t.Errorf("a large body is answered with %d %s", status, text)
			}
		})
	}
}

// writeCertificate writes a certificate and its key as a proxy reads them.
func writeCertificate(t *testing.T, dir string, c tls.Certificate) (certificate, key string) {
	t.Helper()
	private, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return writeConfig(t, dir, "certificate.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))),
		writeConfig(t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}

// deployedNginx gives nginx the file with other addresses and a certificate.
func deployedNginx(t *testing.T, b behindTLS, server string) *exec.Cmd {
	t.Helper()
	const files = "/etc/letsencrypt/live/tollgate.example.com/"
	site := writeConfig(t, b.dir, "tollgate", deployed(t, "nginx.conf",
		"    listen [::]:80;\n", "", "    listen [::]:443 ssl http2;\n", "",
		"listen 80;", "listen "+b.plain+";", "listen 443 ", "listen "+b.secure+" ",
		files+"fullchain.pem", b.certificate, files+"privkey.pem", b.key, "server 127.0.0.1:8080 ", "server "+server+" "))
	return nginxWith(t, b.dir, site)
}

// deployedCaddy gives Caddy a certificate, so that it does not ask for one.
func deployedCaddy(t *testing.T, b behindTLS, server string) *exec.Cmd {
	t.Helper()
	site := deployed(t, "Caddyfile", "\ntollgate.example.com {\n", "\ntollgate.example.com {\n\ttls "+b.certificate+" "+b.key+"\n",
		"127.0.0.1:8080", server)
	config := writeConfig(t, b.dir, "Caddyfile", "{\n\tadmin off\n\tdefault_bind 127.0.0.1\n\thttp_port "+b.plainPort+
		"\n\thttps_port "+b.safePort+"\n}\n"+site)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), installed(t, "caddy"), "run", "--config", config, "--adapter", "caddyfile")
	cmd.Env = []string{"HOME=" + b.dir}
	return cmd
}

// systemd accepts the unit without a warning, and rates its protection.
func TestDeployedUnit(t *testing.T) {
	unit := writeConfig(t, t.TempDir(), "tollgate.service", deployed(t, "tollgate.service", "/usr/local/bin/tollgate", program(t)))
	analyze := installed(t, "systemd-analyze")
	for _, args := range [][]string{
		{"verify", "--man=no", unit},
		{"security", "--offline=true", "--threshold=15", unit}, // 1.5 of 10, where 10 means unprotected
	} {
		output, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput()
		if err != nil || args[0] == "verify" && len(output) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, output)
		}
	}
}
