package models

import "testing"

func TestRedactor(t *testing.T) {
	const long, short = "sk_test_4eC39HqLyjWD", "art"
	r := NewRedactor(short, "", long, "p@ss.", "sk_test_4eC39HqLyjWD+1", short)
	for text, want := range map[string]string{
		"":                                       "",
		"no secret":                              "no secret",
		long:                                     "[secret]",
		"key" + long + "x":                       "key[secret]x",
		long + "+1":                              "[secret]",
		"art":                                    "[secret]",
		"art art,art":                            "[secret] [secret],[secret]",
		"start partly artful éart art2":          "start partly artful éart art2",
		`password "art"`:                         `password "[secret]"`,
		"://ada:art@host":                        "://ada:[secret]@host",
		`line\nart`:                              `line\n[secret]`,
		"a=%20art&b":                             "a=%20[secret]&b",
		"smart art":                              "smart [secret]",
		"xp@ss.y p@ss.":                          "xp@ss.y [secret]",
		"user=ada password=art dbname=start.art": "user=ada password=[secret] dbname=start.[secret]",
	} {
		if got := r.Replace(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestPasswordsOfAnAddress(t *testing.T) {
	t.Setenv("PGPASSFILE", "/dev/null")
	t.Setenv("PGPASSWORD", "")
	for address, want := range map[string]string{
		"sqlite:tollgate.db":                     "",
		"postgres://ada@db.internal/tollgate":    "",
		"postgres://ada:pw@db.internal/tollgate": "pw",
		"postgres://ada:p%40w@db.internal/x":     "p@w p%40w",
		"postgres:///x?password=pw":              "pw",
		"postgres://ada:ada@db.internal/x":       "", // the log shows this name
		"postgres://postgres:postgres@db/x":      "",
		"postgres://ada:tollgate@db/tollgate":    "",
		"postgres://ada:pw@db/x?sslmode=wrong":   "",
	} {
		got := ""
		for i, p := range DatabasePasswords(address) {
			if i > 0 {
				got += " "
			}
			got += p
		}
		if got != want {
			t.Errorf("%s: the passwords are %q, want %q", address, got, want)
		}
	}
}
