package models

import "strings"

const (
	// redactedSecret replaces a secret in a text.
	redactedSecret = "[secret]"
	// shortestSecret is the length from which a text is replaced, in bytes. Shorter ones would be found in
	// other words.
	shortestSecret = 6
)

// Redactor returns a replacer that removes secrets from texts of other servers and libraries. They may
// repeat what they got.
func Redactor(secrets ...string) *strings.Replacer {
	var pairs []string
	for _, s := range secrets {
		if len(s) >= shortestSecret {
			pairs = append(pairs, s, redactedSecret)
		}
	}
	return strings.NewReplacer(pairs...)
}
