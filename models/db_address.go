package models

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// redact returns a database address without its password, for messages.
func redact(address string) string {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok || strings.HasPrefix(address, "sqlite:") {
		return address
	}
	u, err := url.Parse(address)
	var query url.Values
	if err == nil {
		query, err = url.ParseQuery(u.RawQuery)
	}
	if err != nil || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") {
		// The text before the last @ may be a password with unescaped special characters.
		if at := strings.LastIndex(rest, "@"); at >= 0 {
			rest = "…" + rest[at:]
		}
		rest, _, _ = strings.Cut(rest, "?")
		return scheme + "://" + rest
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	for name := range query {
		if strings.Contains(strings.ToLower(name), "password") {
			query.Del(name)
			u.RawQuery = query.Encode()
		}
	}
	return u.String()
}

// DatabasePasswords returns the password of a database address, from wherever pgx takes it, as it is and
// as it is written in a URL. A password that is also a name in the address is left out: addresses are
// logged, and the gap would show that it is the password.
func DatabasePasswords(address string) []string {
	if strings.HasPrefix(address, "sqlite:") {
		return nil
	}
	c, err := pgconn.ParseConfig(address)
	if err != nil || c.Password == "" || slices.Contains([]string{"postgres", "postgresql", c.User, c.Database, c.Host}, c.Password) {
		return nil
	}
	all := []string{c.Password}
	if written := url.QueryEscape(c.Password); written != c.Password {
		all = append(all, written)
	}
	return all
}

// unescapedHint returns what to add to an error about an address whose user name or password has a
// character that ends it unless it is escaped.
func unescapedHint(address string) string {
	_, rest, _ := strings.Cut(address, "://")
	if before, _, _ := strings.Cut(rest, "?"); strings.Contains(before, "@") {
		rest = before // after it, @ and / are allowed
	}
	if at := strings.LastIndex(rest, "@"); at >= 0 && strings.ContainsAny(rest[:at], "@/") {
		return "; in the user name and password, write @ as %40 and / as %2F"
	}
	return ""
}

// explainPostgres returns the cause of a failed connection to an address. pgx puts it at the end of a
// text that repeats the address for each way of connecting that it tried.
func explainPostgres(address string, err error) error {
	var refused *pgconn.PgError
	var connect *pgconn.ConnectError
	var config *pgconn.ParseConfigError
	var dns *net.DNSError
	var words string
	switch {
	case errors.As(err, &refused):
		words = refused.Message
		switch refused.Code {
		case "3D000":
			words += "; create it or change --database"
		case "28P01":
			words += "; change the user or password in --database"
		case "28000":
			words += "; change the user in --database (default: the user of this process), or pg_hba.conf"
		case "53300":
			words += "; raise max_connections or stop other programs"
		}
		if !errors.As(err, &connect) {
			return err // a statement failed, not the connection: its place in the text matters
		}
	case errors.As(err, &config):
		// The text before it repeats the address.
		_, words, _ = strings.Cut(config.Error(), "`: ")
		words = "invalid address: " + words
		if hint := unescapedHint(address); hint != "" {
			words = "invalid address" + hint // the cause may quote a part of the password
		}
	case errors.As(err, &dns) && dns.IsNotFound:
		words = "no such host; change --database" + unescapedHint(address)
	case errors.Is(err, syscall.ENOENT):
		words = "no such socket; start PostgreSQL or change --database"
	case errors.Is(err, syscall.ECONNREFUSED):
		words = "connection refused; start PostgreSQL or change --database"
	case errors.Is(err, context.DeadlineExceeded):
		words = "the server does not answer; check the network or change --database"
	case errors.As(err, &connect):
		words = lastCause(connect).Error()
		if strings.Contains(words, "TLS") || strings.Contains(words, "tls: ") || strings.Contains(words, "x509: ") {
			words += "; check sslmode and sslrootcert in --database, and the server's TLS settings"
		}
	default:
		return err
	}
	return &explained{words: words, cause: err}
}

// lastCause returns the innermost cause of an error; for joined errors, that of the last one.
func lastCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			if all := joined.Unwrap(); len(all) > 0 {
				next = all[len(all)-1]
			}
		}
		if next == nil {
			return err
		}
		err = next
	}
}
