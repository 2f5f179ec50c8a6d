package notify

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// publicDialer connects only to public addresses. It checks the address that is used, after the name
// was resolved, so a name cannot change its address in between.
func publicDialer() *net.Dialer {
	return &net.Dialer{Timeout: callPatience / 2, Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("refused the address %q", address)
		}
		if !isPublic(to.Addr()) {
			return fmt.Errorf("refused %s: not a public address", to.Addr())
		}
		return nil
	}}
}

// Addresses that are not public.
// Sources: https://www.iana.org/assignments/iana-ipv4-special-registry,
// https://www.iana.org/assignments/iana-ipv6-special-registry
var (
	// global6 is the only range of public IPv6 addresses. Outside of it are, among others, mapped IPv4
	// addresses, NAT64, unique local, link-local and multicast addresses.
	global6 = netip.MustParsePrefix("2000::/3")
	special = prefixes(
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		// Protocol assignments (with Teredo), documentation and 6to4, which contains IPv4 addresses.
		"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
	)
)

func prefixes(all ...string) (parsed []netip.Prefix) {
	for _, p := range all {
		parsed = append(parsed, netip.MustParsePrefix(p))
	}
	return parsed
}

// isPublic reports whether an address belongs to the internet.
func isPublic(ip netip.Addr) bool {
	if !ip.IsValid() || ip.Zone() != "" || ip.Is6() && !global6.Contains(ip) {
		return false
	}
	for _, p := range special {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}
