package models

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxEmail is the longest address that SMTP can carry (RFC 5321, 4.5.3.1.3, less the brackets), in bytes.
const maxEmail = 254

// ErrEmail says what an email address must be.
var ErrEmail = errors.New("must be an email address, such as ada@example.com, of at most 254 bytes")

// ParseEmail trims and lower-cases an address, so that one person is one row. It returns ErrEmail for what cannot be
// an address; whether it is somebody's is for the mail server to say.
func ParseEmail(s string) (string, error) {
	if !utf8.ValidString(s) { // asked first, as lower-casing puts a valid character in the place of an invalid one
		return "", ErrEmail
	}
	s = strings.ToLower(strings.TrimSpace(s))
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || len(s) > maxEmail || strings.Contains(domain, "@") ||
		strings.Trim(domain, ".-") != domain || domain == "" || strings.Contains(domain, "..") {
		return "", ErrEmail
	}
	if strings.ContainsAny(domain, "!#$%&'*+/=?^`{|}~") { // which a name before the @ may have
		return "", ErrEmail
	}
	for _, r := range s {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune(`<>()[]\,;:"`, r) {
			return "", ErrEmail
		}
	}
	return s, nil
}
