package web

import (
	"crypto/sha256"
	"sync"

	"github.com/labstack/echo/v4"

	"tollgate/models"
)

// knownSessions are cookies that recently belonged to a valid session. Requests with one of them
// are not counted, so a flood from an address does not lock out the signed-in people behind it.
// They grant no access.
type knownSessions struct {
	mu                sync.Mutex
	current, previous map[[sha256.Size]byte]struct{}
}

// maxKnownSessions is how many are stored, in each of two generations.
const maxKnownSessions = 4096

func (k *knownSessions) has(token [sha256.Size]byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.current[token]; ok {
		return true
	}
	_, ok := k.previous[token]
	return ok
}

func (k *knownSessions) add(token [sha256.Size]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.current) >= maxKnownSessions || k.current == nil {
		k.previous, k.current = k.current, map[[sha256.Size]byte]struct{}{}
	}
	k.current[token] = struct{}{}
}

func (k *knownSessions) remove(token [sha256.Size]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.current, token)
	delete(k.previous, token)
}

// viewer returns the person who sent a request for a page; nil if they are not signed in. A request
// without a valid session counts against the client's limit. That includes requests with a cookie,
// because only the database can check it.
func (s *Server) viewer(c echo.Context) (*models.Viewer, error) {
	token := s.sessions.token(c)
	if s.sessions.known.has(token) {
		viewer, err := s.sessions.load(c)
		if viewer != nil || err != nil {
			return viewer, err
		}
		s.sessions.known.remove(token)
		return nil, s.strangers.take(c)
	}
	if err := s.strangers.takeLookup(c); err != nil {
		return nil, err
	}
	viewer, err := s.sessions.load(c)
	switch {
	case err != nil && !hasLeft(c): // if the client has left, the lookup was canceled
		s.strangers.noteFailedLookup()
	case viewer != nil:
		s.strangers.giveBack(c)
		s.sessions.known.add(token)
	}
	return viewer, err
}

// token returns the hash of the session cookie.
func (s *sessions) token(c echo.Context) [sha256.Size]byte {
	cookie, err := c.Request().Cookie(cookieName(s.secure, sessionCookie))
	if err != nil {
		return [sha256.Size]byte{} // no text has this hash, so it is never known
	}
	return sha256.Sum256([]byte(cookie.Value))
}
