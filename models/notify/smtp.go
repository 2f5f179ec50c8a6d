package notify

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"net/url"
	"strconv"
)

// SMTP is a mail server and the sender of the mail.
type SMTP struct {
	Host string
	Port int
	// Implicit means TLS from the beginning of the connection. Otherwise, STARTTLS is used.
	Implicit bool
	// User and Password are empty for a server without authentication.
	User, Password string
	From           *mail.Address
}

const (
	submissionPort = 587
	implicitPort   = 465
)

// ErrSMTP means that an address is not one of a mail server.
var ErrSMTP = errors.New("must be smtp://USER:PASSWORD@HOST:PORT?from=ADDRESS, or smtps:// for TLS from the start")

// ParseSMTP parses the address of a mail server. Its errors do not contain the password.
func ParseSMTP(address string) (*SMTP, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "smtp" && u.Scheme != "smtps" || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.Fragment != "" {
		return nil, ErrSMTP
	}
	s := &SMTP{Host: u.Hostname(), Port: submissionPort, Implicit: u.Scheme == "smtps"}
	if s.Implicit {
		s.Port = implicitPort
	}
	if port := u.Port(); port != "" {
		if s.Port, err = strconv.Atoi(port); err != nil || s.Port < 1 || s.Port > 65535 {
			return nil, fmt.Errorf("the port must be 1 to 65535, not %q", port)
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, ErrSMTP
	}
	for name := range query {
		if name != "from" {
			return nil, fmt.Errorf(`unknown parameter %q; the only parameter is "from"`, name)
		}
	}
	if len(query["from"]) != 1 {
		return nil, errors.New(`"from" is missing: add ?from=ADDRESS, the sender of the mail`)
	}
	if s.From, err = mail.ParseAddress(query.Get("from")); err != nil {
		return nil, fmt.Errorf(`"from" must be an email address, not %q`, query.Get("from"))
	}
	if u.User != nil {
		var given bool
		s.User = u.User.Username()
		if s.Password, given = u.User.Password(); !given || s.User == "" || s.Password == "" {
			return nil, errors.New("the address has a user name or a password, but not both")
		}
	}
	return s, nil
}

// Secrets returns the password as it is, and as it is sent: alone, or after the user name.
// Source: https://www.rfc-editor.org/rfc/rfc4616
func (s *SMTP) Secrets() []string {
	if s.Password == "" {
		return nil
	}
	encode := base64.StdEncoding.EncodeToString
	return []string{s.Password, encode([]byte(s.Password)), encode([]byte("\x00" + s.User + "\x00" + s.Password))}
}

// local reports whether the server is on this machine, so that a password needs no TLS.
func (s *SMTP) local() bool {
	ip, err := netip.ParseAddr(s.Host)
	return s.Host == "localhost" || err == nil && ip.IsLoopback()
}
