package models

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"
)

// Figures of a slow query are read once, and again sooner after an error.
func TestScrape(t *testing.T) {
	reads, fails := 0, true
	s := Scrape[int]{Of: "tests", Log: slog.New(slog.DiscardHandler), Every: time.Hour, Read: func(context.Context) (*int, error) {
		if reads++; fails {
			return nil, errors.New("no connection")
		}
		return &reads, nil
	}}
	if got := s.Figures(); got != nil || time.Until(s.next) > 12*time.Minute {
		t.Errorf("after an error, the figures are %v, and are read again in %s", got, time.Until(s.next))
	}
	fails, s.next = false, time.Time{}
	for range 3 {
		if got := s.Figures(); got == nil || reads != 2 || time.Until(s.next) < 59*time.Minute {
			t.Errorf("the figures are %v after %d reads, and are read again in %s", got, reads, time.Until(s.next))
		}
	}
}
