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
	// A domain may be written in any script, and has no other signs (RFC 5890, and the underscore of some hosts).
	if i := strings.IndexFunc(domain, func(r rune) bool {
		return !unicode.In(r, unicode.L, unicode.M, unicode.N) && !strings.ContainsRune(".-_", r)
	}); i >= 0 {
		return "", ErrEmail
	}
	for _, r := range s {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune(`<>()[]\,;:"`, r) {
			return "", ErrEmail
		}
	}
	return s, nil
}
