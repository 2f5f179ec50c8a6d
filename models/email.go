package models

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// maxEmail is the longest address that SMTP can carry, in bytes (RFC 5321, 4.5.3.1.3, without the
// brackets).
const maxEmail = 254

// ErrEmail means that a text is not an email address.
var ErrEmail = errors.New("must be an email address, such as ada@example.com, of at most 254 bytes")

// foldsIntoASCII lists the characters outside ASCII that lowercasing or NFC turns into ASCII. They
// could turn one person's address into another person's. Source: UnicodeData.txt and
// SpecialCasing.txt, searched by TestNoOtherCharacterFoldsIntoASCII.
var foldsIntoASCII = map[rune]string{
	'\u0130': "U+0130 (capital I with dot above)",
	'\u037e': "U+037E (Greek question mark)",
	'\u1fef': "U+1FEF (Greek varia)",
	'\u212a': "U+212A (Kelvin sign)",
}

// mailDomains converts domains to their A-labels (RFC 5890). Host names with underscores exist, so
// STD3 rules are off.
var mailDomains = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.StrictDomainName(false))

// ParseEmail returns an address in normal form, so that one person is one row: trimmed, NFC,
// lowercase, NFC again, with the domain as its A-label. It returns ErrEmail if the text is not an
// address, or if it is the label of an erased person: no call, sign-in or webhook means such a
// person. Only the mail server knows whether the address exists.
func ParseEmail(s string) (string, error) {
	if !utf8.ValidString(s) { // lowercasing replaces an invalid character with a valid one
		return "", ErrEmail
	}
	s = strings.TrimSpace(s)
	if len(s) > 2*maxEmail {
		return "", ErrEmail
	}
	if !isASCII(s) {
		for _, r := range s {
			if name, ok := foldsIntoASCII[r]; ok {
				return "", fmt.Errorf("%w: it contains %s", ErrEmail, name)
			}
		}
		s = norm.NFC.String(s)
	}
	s = strings.ToLower(s)
	local, domain, ok := strings.Cut(s, "@")
	if !ok || !validEmail(local, domain) || domain == erasedDomain {
		return "", ErrEmail
	}
	if isASCII(s) && !strings.Contains(domain, "xn--") {
		return s, nil
	}
	domain, err := mailDomains.ToASCII(domain)
	if s = norm.NFC.String(local) + "@" + domain; err != nil || !validEmail(local, domain) || domain == erasedDomain {
		return "", ErrEmail
	}
	return s, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// validEmail reports whether the two parts can be an address.
func validEmail(local, domain string) bool {
	if local == "" || domain == "" || len(local)+len("@")+len(domain) > maxEmail ||
		strings.Trim(domain, ".-") != domain || strings.Contains(domain, "..") ||
		strings.ContainsAny(domain, "@!#$%&'*+/=?^`{|}~") { // most of which the part before the @ may have
		return false
	}
	for _, part := range []string{local, domain} {
		for _, r := range part {
			if unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune(`<>()[]\,;:"`, r) {
				return false
			}
		}
	}
	return true
}
