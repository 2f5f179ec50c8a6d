package models

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// How long a scrape may take to read figures, and how old cached figures may be.
const (
	scrapeTimeout = 5 * time.Second
	scrapeCache   = 2 * time.Second
	// ScrapeSlowly is for figures whose query reads many rows.
	ScrapeSlowly = 5 * time.Minute
)

// Scrape reads figures from the database when metrics are scraped. Scrapes that follow each other
// closely get the same figures.
type Scrape[T any] struct {
	// Of names the figures in the log.
	Of   string
	Read func(ctx context.Context) (*T, error)
	Log  *slog.Logger
	// Every is how old the figures may be; two seconds if it is zero. After an error, they are read
	// again after a fifth of it, because a query that reads too many rows would fail at each scrape.
	Every time.Duration

	mu   sync.Mutex
	last *T
	next time.Time // when to read again
}

// Figures returns the current figures; nil if they cannot be read.
func (s *Scrape[T]) Figures() *T {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); !now.Before(s.next) {
		ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
		defer cancel()
		figures, err := s.Read(ctx)
		s.last, s.next = figures, now.Add(max(s.Every, scrapeCache))
		if err != nil {
			s.Log.Error("figures could not be read for metrics", "of", s.Of, "error", err)
			s.next = now.Add(max(s.Every/5, scrapeCache))
		}
	}
	return s.last
}
