package models

import (
	"fmt"
	"net"
	"net/url"
	"strings"
)

// CheckStandIn returns an error unless an address is one of this machine, without a path. A stand-in
// is a program that replaces another service in tests, such as Stripe.
func CheckStandIn(address string) error {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("%q is not an address such as http://127.0.0.1:12111", address)
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("%s is not on this machine, but a stand-in must be on this machine", u.Host)
	}
	return nil
}
