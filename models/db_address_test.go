package models

import (
	"strings"
	"testing"
)

// A password is hidden in addresses of any form, also in malformed ones.
func TestRedact(t *testing.T) {
	for _, address := range []string{
		"postgres://u:sEcret@h/db", "postgres://u:sEcret@h:1/db?sslmode=disable", "postgres://u@h/db?password=sEcret",
		"postgres://u@h/db?PASSWORD=sEcret",
		"postgres://u@h/db?password=50%off-sEcret", "postgres://u:12?sEcret@127.0.0.1:1/db", "postgres://u:a/sEcret@h/db",
		"postgres://u:a#sEcret@h/db",
		"postgres://u:sEcret%zz@h/db", "postgres://u@h/db?sslpassword=sEcret&x=%zz", "postgresql://u:sEcret@h1,h2/db",
	} {
		if got := redact(address); strings.Contains(got, "sEcret") || !strings.HasPrefix(got, "postgres") {
			t.Errorf("%s: %s", address, got)
		}
	}
	for _, address := range []string{"sqlite:a@b.db", "postgres://u@h/db", "postgres:///db?host=/run/postgresql"} {
		if got := redact(address); got != address {
			t.Errorf("%s: %s", address, got)
		}
	}
}

// Environment variables of libpq that are meant for other programs are ignored.
func TestEnvironmentIsIgnored(t *testing.T) {
	t.Setenv("PGTZ", "Europe/Berlin")
	t.Setenv("PGOPTIONS", "-c datestyle=german")
	s, err := readPostgresAddress("postgres://u@h/db")
	if err != nil {
		t.Fatal(err)
	}
	if s.settings["timezone"] != "UTC" || s.settings["datestyle"] != "ISO, MDY" {
		t.Errorf("the settings are %v", s.settings)
	}
	if _, err := readPostgresAddress("postgres://u@h/db?timezone=Europe/Berlin"); err == nil {
		t.Error("an address with another time zone is accepted")
	}
}
