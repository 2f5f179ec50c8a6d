package models

import (
	"errors"
	"strconv"
	"strings"
)

// ErrUnits means that a text is not a valid number of units.
var ErrUnits = errors.New("must be a whole number from 0 to 1,000,000,000")

// ParseUnits parses a number of units as people type it: "60", "1,000". It returns ErrUnits.
func ParseUnits(text string) (int64, error) {
	text = strings.TrimSpace(text)
	digits := strings.ReplaceAll(text, ",", "")
	if digits == "" || len(digits) > 10 || strings.Trim(digits, "0123456789") != "" {
		return 0, ErrUnits
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > MaxMemberLimit || digits != text && FormatCount(n) != text {
		return 0, ErrUnits
	}
	return n, nil
}
