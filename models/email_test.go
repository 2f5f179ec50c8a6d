package models_test

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tollgate/models"
)

func TestParseEmail(t *testing.T) {
	long := strings.Repeat("a", 254-len("@example.com")) + "@example.com"
	for _, test := range []struct{ given, want string }{
		{"ada@example.com", "ada@example.com"},
		{" \tAda@Example.COM\n", "ada@example.com"},
		{"ada+slack@example.com", "ada+slack@example.com"},
		{"o'neill@sub.example.co.uk", "o'neill@sub.example.co.uk"},
		{"ADA@localhost", "ada@localhost"},
		{"ÄDA@exämple.com", "äda@exämple.com"},
		{"ada@paral·lel.cat", "ada@paral·lel.cat"},
		{"a/d=a?@my_host.example.com", "a/d=a?@my_host.example.com"},
		{long, long},
	} {
		if got, err := models.ParseEmail(test.given); err != nil || got != test.want {
			t.Errorf("%q: %q, %v; want %q", test.given, got, err, test.want)
		}
	}
	for _, given := range []string{
		"", " ", "ada", "@", "ada@", "@example.com", "ada@example.com@example.com", "ada lovelace@example.com", "ada@exam ple.com",
		"ada@.example.com", "ada@example.com.", "ada@-example.com", "ada@example-", "ada@exa..mple.com", "ada@example.com\x00", "a\xffda@example.com",
		"ada\u200b@example.com", "Ada <ada@example.com>", "ada@example.com,bob@example.com", "ada;bob@example.com", "ada@example.com/history", "ada@example.com?x", "ada@example.com#x", "ada@example.com%2f", `"ada"@example.com`, "a" + long,
	} {
		if got, err := models.ParseEmail(given); !errors.Is(err, models.ErrEmail) || got != "" {
			t.Errorf("%q: %q, %v; want an error", given, got, err)
		}
	}
}

// One person is one row: however an address is written, and however often it is parsed, it comes out the same.
func TestParseEmailIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		given := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ \t]?[A-Za-z0-9.+_-]{1,12}@[A-Za-z0-9-]{1,8}(\.[A-Za-z]{1,5}){0,2}[ \n]?`)).Draw(t, "email")
		once, err := models.ParseEmail(given)
		if err != nil {
			return
		}
		if again, err := models.ParseEmail(once); err != nil || again != once {
			t.Fatalf("%q is %q, which is %q, %v", given, once, again, err)
		}
		if once != strings.TrimSpace(once) || once != strings.ToLower(once) || len(once) > 254 {
			t.Fatalf("%q is %q", given, once)
		}
	})
}
