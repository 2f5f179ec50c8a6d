package notify

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"tollgate/models"
)

func TestOnlyPublicAddressesAreCalled(t *testing.T) {
	for address, public := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "100.63.255.255": true, "100.128.0.1": true, "172.32.0.1": true, "2606:4700::1111": true,
		"2001:4860:4860::8888": true,
		"0.0.0.0":              false, "0.1.2.3": false, "10.0.0.1": false, "100.64.0.1": false, "100.127.255.255": false, "127.0.0.1": false,
		"127.255.255.254": false, "169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false, "192.0.0.1": false, "192.0.2.1": false,
		"192.88.99.1": false, "192.168.1.1": false, "198.18.0.1": false, "198.19.255.255": false, "198.51.100.1": false, "203.0.113.1": false,
		"224.0.0.1": false, "239.255.255.255": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::ffff:8.8.8.8": false, "::ffff:127.0.0.1": false, "::127.0.0.1": false, "64:ff9b::7f00:1": false,
		"64:ff9b::808:808": false, "64:ff9b:1::1": false, "100::1": false, "2001::1": false, "2001:db8::1": false, "2002:7f00:1::1": false,
		"3fff::1": false, "fc00::1": false, "fd12:3456::1": false, "fe80::1": false, "fe80::1%eth0": false, "fec0::1": false, "ff02::1": false,
	} {
		if got := isPublic(netip.MustParseAddr(address)); got != public {
			t.Errorf("%s is public: %t, want %t", address, got, public)
		}
		err := publicDialer().Control("tcp", net.JoinHostPort(address, "443"), nil)
		if (err == nil) != public {
			t.Errorf("a connection to %s: %v", address, err)
		}
	}
}

// The address is checked after the name was resolved, and before anything is sent.
func TestAWebhookDoesNotReachThisMachine(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		port := f.webhooks.server.Listener.Addr().(*net.TCPAddr).Port
		for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "127.1"} {
			if _, err := f.db.ExecContext(t.Context(), "DELETE FROM webhook_endpoints"); err != nil {
				t.Fatal(err)
			}
			endpoint := f.endpoint()
			endpoint.URL = fmt.Sprintf("https://%s:%d", host, port)
			if _, err := f.db.NewUpdate().Model(endpoint).Column("url").WherePK().Exec(t.Context()); err != nil {
				t.Fatal(err)
			}
			w := f.worker(func(o *Options) { o.Dial, o.SlackToken, o.SMTP = nil, "", nil })
			notice := f.notice(f.person("ada@example.com", "T1", "U1"), raised(f.clock().Unix()))
			f.drain(w)
			row := f.rows(notice)[0]
			if row.State != models.DeliveryPending || row.LastError == "" {
				t.Errorf("%s: %s, %q", host, row.State, row.LastError)
			}
			f.advance(time.Second)
		}
		want(t, "requests", len(f.webhooks.list()), 0)
	})
}
