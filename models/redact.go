package models

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// redactedSecret replaces a secret in a text.
	redactedSecret = "[secret]"
	// LongestWord is the length in bytes up to which a text may also be a usual word or a part of one.
	LongestWord = 15
)

// Redactor removes secrets from texts of other servers and libraries, which may repeat what they got. A
// secret that is longer than any usual word is removed wherever it is found. A shorter one is removed
// where it is a word of its own, so that "art" as a password does not damage "start".
type Redactor struct{ secrets []string }

// NewRedactor returns a redactor for the secrets that are not empty.
func NewRedactor(secrets ...string) *Redactor {
	r := &Redactor{}
	for _, s := range secrets {
		if s != "" && !slices.Contains(r.secrets, s) {
			r.secrets = append(r.secrets, s)
		}
	}
	// One secret may contain another one.
	slices.SortFunc(r.secrets, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	return r
}

// Replace returns the text without the secrets.
func (r *Redactor) Replace(text string) string {
	for _, secret := range r.secrets {
		if !strings.Contains(text, secret) {
			continue
		}
		var b strings.Builder
		done := 0
		for from := 0; ; {
			at := strings.Index(text[from:], secret)
			if at < 0 {
				break
			}
			start, end := from+at, from+at+len(secret)
			if len(secret) <= LongestWord && (inWord(text[:start], secret) || inWord(secret, text[end:])) {
				_, size := utf8.DecodeRuneInString(text[start:])
				from = start + size
				continue
			}
			b.WriteString(text[done:start])
			b.WriteString(redactedSecret)
			done, from = end, end
		}
		b.WriteString(text[done:])
		text = b.String()
	}
	return text
}

// escaped matches an escape such as \n or %20 at the end of a text. It ends with a letter or a digit, but
// what follows it is not a part of the same word.
var escaped = regexp.MustCompile(`(\\[a-z]|%[0-9A-Fa-f]{2})$`)

// inWord reports whether two texts that follow each other meet within a word.
func inWord(left, right string) bool {
	last, _ := utf8.DecodeLastRuneInString(left)
	first, _ := utf8.DecodeRuneInString(right)
	return isWordRune(last) && isWordRune(first) && !escaped.MatchString(left)
}

func isWordRune(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}
