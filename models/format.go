package models

import (
	"strconv"
	"strings"
)

// otherExponents are the exponents of the currencies whose amounts are not in hundredths. An
// exponent is the number of decimals
// of an amount: 1500 is 1,500 yen and 1.500 Kuwaiti dinars. Sources: ISO 4217, list one
// (https://www.six-group.com/en/products-services/financial-information/data-standards.html), and where Stripe's API differs from
// it, Stripe (https://docs.stripe.com/currencies#zero-decimal, #special-cases):
//   - MGA has two decimals in ISO and none at Stripe.
//   - ISK and UGX have none in ISO and two at Stripe, which are always 00; see wholeOnly.
//   - HUF and TWD have two in both. Stripe has whole amounts only in payouts, which are not shown here.
//   - Amounts with three decimals are multiples of ten at Stripe, and have three decimals all the same.
var otherExponents = map[string]int{
	"bif": 0, "clp": 0, "djf": 0, "gnf": 0, "jpy": 0, "kmf": 0, "krw": 0, "mga": 0, "pyg": 0, "rwf": 0, "uyi": 0, "vnd": 0, "vuv": 0,
	"xaf": 0, "xof": 0, "xpf": 0,
	"bhd": 3, "iqd": 3, "jod": 3, "kwd": 3, "lyd": 3, "omr": 3, "tnd": 3,
	"clf": 4, "uyw": 4,
}

// wholeOnly are the currencies without decimals whose amounts are in hundredths at Stripe: 500 isk
// is 5 kronur.
var wholeOnly = map[string]bool{"isk": true, "ugx": true}

// exponent returns the number of decimals of amounts in a currency, as Stripe counts them.
func exponent(currency string) int {
	if n, ok := otherExponents[strings.ToLower(currency)]; ok {
		return n
	}
	return 2
}

// FormatMoney formats an amount in the currency's smallest unit: "$1,234.50", "-$5.00", "1.50 EUR",
// "1,500 JPY", "1.500 KWD". The currency is an ISO 4217 code in upper or lower case.
func FormatMoney(amount int64, currency string) string {
	sign, whole, part := splitAmount(amount, currency)
	if wholeOnly[strings.ToLower(currency)] {
		part = strings.TrimRight(part, "0") // not always empty: before 2023, Icelandic invoices had hundredths
		if part != "" {
			part += strings.Repeat("0", 2-len(part))
		}
	}
	return inCurrency(sign, whole, part, currency)
}

// FormatPrice formats a price like FormatMoney, without decimals that are all 0: "$18", "$7.50",
// "18 EUR".
func FormatPrice(amount int64, currency string) string {
	sign, whole, part := splitAmount(amount, currency)
	if strings.Trim(part, "0") == "" {
		part = ""
	}
	return inCurrency(sign, whole, part, currency)
}

// FormatAmount formats an amount for a form: without a currency or thousands separators.
func FormatAmount(amount int64, currency string) string {
	sign, whole, part := splitAmount(amount, currency)
	return sign + strings.ReplaceAll(whole, ",", "") + point(part)
}

// CurrencySign returns the sign next to a form's amount: "$", "EUR".
func CurrencySign(currency string) string {
	if strings.EqualFold(currency, "usd") {
		return "$"
	}
	return strings.ToUpper(currency)
}

// splitAmount returns the sign of an amount, its whole units with thousands separators, and its
// decimals.
func splitAmount(amount int64, currency string) (sign, whole, part string) {
	digits := strconv.FormatInt(amount, 10)
	if amount < 0 {
		sign, digits = "-", digits[1:]
	}
	n := exponent(currency)
	if missing := n + 1 - len(digits); missing > 0 {
		digits = strings.Repeat("0", missing) + digits
	}
	return sign, separateThousands(digits[:len(digits)-n]), digits[len(digits)-n:]
}

func point(part string) string {
	if part == "" {
		return ""
	}
	return "." + part
}

func inCurrency(sign, whole, part, currency string) string {
	if strings.EqualFold(currency, "usd") {
		return sign + "$" + whole + point(part)
	}
	return strings.TrimRight(sign+whole+point(part)+" "+strings.ToUpper(currency), " ")
}

// FormatMoney formats an amount in the catalog's currency.
func (c *Catalogue) FormatMoney(cents int64) string { return FormatMoney(cents, c.Currency) }

// FormatPrice formats a price in the catalog's currency, without decimals that are all 0.
func (c *Catalogue) FormatPrice(cents int64) string { return FormatPrice(cents, c.Currency) }

// FormatCount formats a number with thousands separators: 1,804.
func FormatCount(n int64) string {
	digits := strconv.FormatInt(n, 10)
	if n < 0 {
		return "-" + separateThousands(digits[1:])
	}
	return separateThousands(digits)
}

func separateThousands(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// listOr joins words with commas. It returns none if there are no words.
func listOr(words []string, none string) string {
	if len(words) == 0 {
		return none
	}
	return strings.Join(words, ", ")
}
