package models_test

import (
	"math"
	"testing"

	"tollgate/models"
)

func TestFormatCount(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 7: "7", 999: "999", 1000: "1,000", 1804: "1,804", 123456: "123,456", 1234567: "1,234,567", -5: "-5", -1000: "-1,000",
		-999: "-999",
	} {
		if got := models.FormatCount(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestFormatMoney(t *testing.T) {
	for _, test := range []struct {
		amount                          int64
		currency, money, price, entered string
	}{
		{0, "usd", "$0.00", "$0", "0.00"},
		{5, "usd", "$0.05", "$0.05", "0.05"},
		{1800, "usd", "$18.00", "$18", "18.00"},
		{750, "usd", "$7.50", "$7.50", "7.50"},
		{-5, "usd", "-$0.05", "-$0.05", "-0.05"},
		{-123456, "usd", "-$1,234.56", "-$1,234.56", "-1234.56"},
		{123456789, "USD", "$1,234,567.89", "$1,234,567.89", "1234567.89"},
		{150, "eur", "1.50 EUR", "1.50 EUR", "1.50"},
		{1800, "eur", "18.00 EUR", "18 EUR", "18.00"},
		{1500, "jpy", "1,500 JPY", "1,500 JPY", "1500"},
		{1500, "JPY", "1,500 JPY", "1,500 JPY", "1500"},
		{0, "krw", "0 KRW", "0 KRW", "0"},
		{-50000, "vnd", "-50,000 VND", "-50,000 VND", "-50000"},
		{1500, "mga", "1,500 MGA", "1,500 MGA", "1500"},
		{1500, "kwd", "1.500 KWD", "1.500 KWD", "1.500"},
		{10, "bhd", "0.010 BHD", "0.010 BHD", "0.010"},
		{-1234000, "tnd", "-1,234.000 TND", "-1,234 TND", "-1234.000"},
		{12345, "clf", "1.2345 CLF", "1.2345 CLF", "1.2345"},
		{500, "isk", "5 ISK", "5 ISK", "5.00"},
		{150000, "ugx", "1,500 UGX", "1,500 UGX", "1500.00"},
		{4010, "isk", "40.10 ISK", "40.10 ISK", "40.10"},
		{150000, "huf", "1,500.00 HUF", "1,500 HUF", "1500.00"},
		{150000, "twd", "1,500.00 TWD", "1,500 TWD", "1500.00"},
		{math.MinInt64, "jpy", "-9,223,372,036,854,775,808 JPY", "-9,223,372,036,854,775,808 JPY", "-9223372036854775808"},
	} {
		got := [3]string{models.FormatMoney(test.amount, test.currency), models.FormatPrice(test.amount, test.currency),
			models.FormatAmount(test.amount, test.currency)}
		if want := [3]string{test.money, test.price, test.entered}; got != want {
			t.Errorf("%d %s: %q, want %q", test.amount, test.currency, got, want)
		}
	}
	if c := embedded(t); c.FormatMoney(150) != "$1.50" || models.CurrencySign(c.Currency) != "$" || models.CurrencySign("eur") != "EUR" {
		t.Errorf("the catalog's currency: %q, %q", c.FormatMoney(150), models.CurrencySign("eur"))
	}
}
