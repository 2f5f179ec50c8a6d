package models_test

import (
	"errors"
	"testing"

	"tollgate/models"
)

func TestParseAmount(t *testing.T) {
	for text, want := range map[string]int64{
		"25": 2500, "12.5": 1250, "12.50": 1250, "12,50": 1250, "12,5": 1250, "0": 0, "0.00": 0, "0.01": 1, "$5": 500,
		"$ 1,000.00": 100_000, " 7 ": 700, "1,000": 100_000, "1,000.5": 100_050,
		"1000000": 100_000_000, "1,000,000": 100_000_000, "1,000,000.00": 100_000_000, "007": 700,
	} {
		if got, err := models.ParseAmount(text); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " ", "$", "$$5", "5$", "-1", "+1", "1e3", "abc", "1a2", "12.", "12,", ".5", ",5", "1.234", "1.000", "12,34,567", "1,00,000",
		",000", "1,,000", "1.5.2", "1 000", "0x10", "٣", "１",
		"1000000.01", "1000001", "99999999999999999999", "1\x00", "NaN", "Inf", "5 EUR",
	} {
		if got, err := models.ParseAmount(text); !errors.Is(err, models.ErrAmount) {
			t.Errorf("%q is parsed as %d, %v", text, got, err)
		}
	}
}
