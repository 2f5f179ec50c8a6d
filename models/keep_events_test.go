package models_test

import (
	"strings"
	"testing"
	"time"

	"tollgate/models"
)

func TestKeepEvents(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 34, 56, 0, time.UTC)
	for text, want := range map[string]string{
		"18mo": "2025-05-23", "2y": "2024-11-23", "540d": "2025-06-01", "90d": "2026-08-25", "3mo": "2026-08-23", "1y": "2025-11-23",
	} {
		k, err := models.ParseKeepEvents(text)
		if err != nil || k.Forever() || k.String() != text {
			t.Errorf("%s: %v, %v", text, k, err)
		}
		if got := k.Horizon(now); got.Format(time.RFC3339) != want+"T00:00:00Z" {
			t.Errorf("%s before %s is %s, want %s", text, now, got, want)
		}
	}
	if k, err := models.ParseKeepEvents("forever"); err != nil || !k.Forever() || k.String() != "forever" || !k.Forever() {
		t.Errorf("forever: %v, %v", k, err)
	}
	for text, want := range map[string]string{
		"89d": "must be at least 90d or 3mo", "2mo": "must be at least 90d or 3mo", "": "must be", "0": "must be", "0d": "must be",
		"18": "must be", "18m": "must be", "18months": "must be", "-3mo": "must be", "1.5y": "must be", "18MO": "must be", "12h": "must be",
		"99999d": "must be", "\t18mo": "must be", "90d\n": "must be",
	} {
		if k, err := models.ParseKeepEvents(text); err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), `"`) {
			t.Errorf("%q: %v, %v", text, k, err)
		}
	}
}
