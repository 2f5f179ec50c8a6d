package models_test

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
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
		{"ÄDA@exämple.com", "äda@xn--exmple-cua.com"},
		{"A\u0308DA@exa\u0308mple.com", "äda@xn--exmple-cua.com"}, // decomposed
		{"äda@XN--EXMPLE-CUA.com", "äda@xn--exmple-cua.com"},
		{"ada@straße.example", "ada@xn--strae-oqa.example"},
		{"ada@例え。テスト", "ada@xn--r8jz45g.xn--zckzah"},
		{"ada@paral·lel.cat", "ada@xn--parallel-koa.cat"},
		{"ΑΔΑΣ@example.com", "αδασ@example.com"},
		{"a/d=a?@my_host.example.com", "a/d=a?@my_host.example.com"},
		{long, long},
	} {
		if got, err := models.ParseEmail(test.given); err != nil || got != test.want {
			t.Errorf("%q: %q, %v; want %q", test.given, got, err, test.want)
		}
	}
	for _, given := range []string{
		"", " ", "ada", "@", "ada@", "@example.com", "ada@example.com@example.com", "ada lovelace@example.com", "ada@exam ple.com",
		"ada@.example.com", "ada@example.com.", "ada@-example.com", "ada@example-", "ada@exa..mple.com", "ada@example.com\x00",
		"a\xffda@example.com",
		"ada\u200b@example.com", "Ada <ada@example.com>", "ada@example.com,bob@example.com", "ada;bob@example.com",
		"ada@example.com/history", "ada@example.com?x", "ada@example.com#x", "ada@example.com%2f", `"ada"@example.com`, "a" + long,
		"quac\u212a@example.com", "m\u0130ke@example.com", "ada@example\u037e.com", "ada\u1fef@example.com", "ada@\u212aelvin.example",
		"ada@xn--a.example", "ada@exa\uff20mple.com", "ada@exa\uff0fmple.com", "ada@example\uff0e.com",
	} {
		if got, err := models.ParseEmail(given); !errors.Is(err, models.ErrEmail) || got != "" {
			t.Errorf("%q: %q, %v; want an error", given, got, err)
		}
	}
}

// One person has one row: however an address is written and however often it is parsed, the result
// is the same.
func TestParseEmailIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		given := rapid.OneOf(rapid.String(), rapid.StringMatching(
			`[a-zA-ZäÄσΣ\x{308}\x{131}\x{17f}]{1,5}@[a-zäÄßσς\x{308}\x{17f}\x{ff0e}\x{3002}]{1,6}\.[a-zé]{1,3}`),
			rapid.StringMatching(`[ \t]?[A-Za-z0-9.+_-]{1,12}@[A-Za-z0-9-]{1,8}(\.[A-Za-z]{1,5}){0,2}[ \n]?`)).Draw(t, "email")
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

// A character outside of ASCII never makes an address equal to one in ASCII.
func TestNoOtherCharacterFoldsIntoASCII(t *testing.T) {
	fold := func(s string) string { return norm.NFC.String(strings.ToLower(norm.NFC.String(s))) }
	refused := 0
	for r := rune(utf8.RuneSelf); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) || strings.IndexFunc(fold(string(r)), func(r rune) bool { return r < utf8.RuneSelf }) < 0 {
			continue
		}
		refused++
		if got, err := models.ParseEmail("a" + string(r) + "@example.com"); err == nil {
			t.Errorf("%U folds into ASCII, and its address is %q", r, got)
		}
	}
	if refused != 4 {
		t.Errorf("%d characters fold into ASCII, want 4", refused)
	}
}
