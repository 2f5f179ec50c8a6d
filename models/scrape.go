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
)

// Scrape reads figures from the database when metrics are scraped. Scrapes that follow each other
// closely get the same figures.
type Scrape[T any] struct {
	// Of names the figures in the log.
	Of   string
	Read func(ctx context.Context) (*T, error)
	Log  *slog.Logger

	mu   sync.Mutex
	last *T
	read time.Time
}

// Figures returns the current figures; nil if they cannot be read.
func (s *Scrape[T]) Figures() *T {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.read) > scrapeCache {
		ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
		defer cancel()
		figures, err := s.Read(ctx)
		if err != nil {
			s.Log.Error("figures could not be read for metrics", "of", s.Of, "error", err)
		}
		s.last, s.read = figures, now
	}
	return s.last
}
