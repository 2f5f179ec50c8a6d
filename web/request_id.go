package web

import (
	"math/rand/v2"
	"strconv"
)

// requestIDOf returns the ID that a caller or a proxy gave if it is harmless. Otherwise it creates
// one.
func requestIDOf(given string) string {
	if len(given) > 0 && len(given) <= 64 {
		harmless := true
		for i := range len(given) {
			b := given[i]
			harmless = harmless && (b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' ||
				b == '-' || b == '_' || b == '.')
		}
		if harmless {
			return given
		}
	}
	return strconv.FormatUint(rand.Uint64()|1<<63, 36) //nolint:gosec // it identifies a request and protects nothing
}
