package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"syscall"
)

// BaseURL is a scheme and a host, such as https://tollgate.example.com. It has no path: every page
// is at the root of its host.
type BaseURL string

// UnmarshalText parses a base URL from a flag.
func (b *BaseURL) UnmarshalText(text []byte) error {
	if strings.Contains(string(text), "@") {
		return errors.New("must not contain a user or password; use an address such as https://tollgate.example.com")
	}
	u, err := url.Parse(string(text))
	// RawQuery and Fragment do not show a "?" or "#" with nothing after it.
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" ||
		strings.ContainsAny(string(text), "?#") ||
		strings.HasSuffix(u.Host, ":") || u.Port() != "" && !isPort(u.Port()) {
		return fmt.Errorf("%q is not an address such as https://tollgate.example.com", text)
	}
	if u.Path != "" && u.Path != "/" {
		return fmt.Errorf("%q has a path, %q; Tollgate needs its own host, such as https://tollgate.example.com", text, u.Path)
	}
	*b = BaseURL(u.Scheme + "://" + u.Host)
	return nil
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// Network is an IP network, or a single address.
type Network net.IPNet

// UnmarshalText parses a network from a flag.
func (n *Network) UnmarshalText(text []byte) error {
	_, parsed, err := net.ParseCIDR(string(text))
	if err != nil {
		ip := net.ParseIP(string(text))
		if ip == nil {
			return fmt.Errorf("%q is neither a network such as 10.0.0.0/8 nor an IP address", text)
		}
		if short := ip.To4(); short != nil {
			ip = short
		}
		parsed = &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))}
	}
	*n = Network(*parsed)
	return nil
}

// Listen opens a TCP listener on an address. The flag's name is for error messages.
func Listen(ctx context.Context, flag, address string) (net.Listener, error) {
	if address == "" { // this would be every address of this machine, and any port
		return nil, fmt.Errorf("%s is empty; set an address such as 127.0.0.1:8080", flag)
	}
	// Go listens for Multipath TCP by default. Such a listener accepts no socket filter, and stopping
	// needs one (stop_linux.go).
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is in use by another program; choose another address with %s: %w", address, flag, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return l, nil
}

// URLOf returns the URL at which a client on this machine reaches a server that listens at a.
func URLOf(a net.Addr) string {
	address, ok := a.(*net.TCPAddr)
	if !ok {
		return "http://" + a.String()
	}
	host := address.IP.String()
	if len(address.IP) == 0 || address.IP.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, fmt.Sprint(address.Port))
}
