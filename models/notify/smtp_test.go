package notify

import (
	"strings"
	"testing"
)

func TestParseSMTP(t *testing.T) {
	for address, wanted := range map[string]string{
		"smtp://mail.example.com?from=tollgate@example.com": "mail.example.com:587 false - - <tollgate@example.com>",
		"smtp://127.0.0.1:2525/?from=tollgate@example.com":  "127.0.0.1:2525 false - - <tollgate@example.com>",
		"smtps://ada:s%40%3Acret@mail.example.com?from=Tollgate%20%3Ct@example.com%3E": "mail.example.com:465 true ada s@:cret " +
			`"Tollgate" <t@example.com>`,
	} {
		s, err := ParseSMTP(address)
		must(t, err)
		or := func(s string) string {
			if s == "" {
				return "-"
			}
			return s
		}
		want(t, address, strings.Join([]string{s.Host + ":" + itoa(s.Port), map[bool]string{true: "true", false: "false"}[s.Implicit], or(s.User),
			or(s.Password), s.From.String()}, " "), wanted)
	}
	for address, part := range map[string]string{
		"": "must be smtp://", "mail.example.com:25": "must be smtp://", "http://mail.example.com?from=a@example.com": "must be smtp://",
		"smtp://?from=a@example.com": "must be smtp://", "smtp://mail.example.com/path?from=a@example.com": "must be smtp://",
		"smtp://mail.example.com":                                   `"from" is missing`,
		"smtp://mail.example.com?from=":                             `"from" must be an email address`,
		"smtp://mail.example.com?from=ada":                          `"from" must be an email address`,
		"smtp://mail.example.com?from=a@example.com&from=b@b.com":   `"from" is missing`,
		"smtp://mail.example.com?from=a@example.com&tls=no":         `unknown parameter "tls"`,
		"smtp://mail.example.com:0?from=a@example.com":              "the port must be",
		"smtp://mail.example.com:70000?from=a@example.com":          "the port must be",
		"smtp://ada@mail.example.com?from=a@example.com":            "not both",
		"smtp://:secret@mail.example.com?from=a@example.com":        "not both",
		"smtp://ada:hunter2%zz@mail.example.com?from=a@example.com": "must be smtp://",
	} {
		_, err := ParseSMTP(address)
		if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, want an error with %q", address, err, part)
		}
	}
}
