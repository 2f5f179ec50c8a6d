package web

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"tollgate/models"
)

// The memory that bodies in flight may take in the whole process, in bytes. Each kind has a share of its own, so that a
// flood of one kind leaves the others alone. The first freeBody bytes of each body come from no share, like the buffers
// of its connection, so a usual call never waits for one.
const (
	freeBody       = 4 << 10
	announcedBody  = 256 << 10 // up to here, a body gets all its memory at once: many that wait to grow would wait for each other
	callBodies     = 8 << 20   // calls with an API key
	batchBodies    = 16 << 20
	strangerBodies = 8 << 20 // webhooks and forms: anyone can send one, and anyone can sign in
	// bodyRetry is what a client is told to wait when a share is used up.
	bodyRetry = time.Second
	// roomPatience is how long a webhook or a form waits for room, such as in a burst of webhooks of Stripe's.
	roomPatience = 4 * time.Second
	// slowBody is how long a webhook or a form may take to arrive before it is ended for another one.
	slowBody = time.Second
)

// bodyBudget is one share. Leases take from it what their buffers really take.
type bodyBudget struct {
	// evicts means that a body that finds the share used up waits for room, and ends the oldest one that is still being read if that
	// is slow. It is for bodies whose senders are unknown: with a few slow ones they could otherwise keep the share for ever.
	evicts bool

	mu      sync.Mutex
	left    int64
	reading []*bodyLease  // oldest first; only if evicts
	freed   chan struct{} // closed at the next release; nil if no lease waits
}

func newBodyBudget(size int64, evicts bool) *bodyBudget {
	return &bodyBudget{left: size, evicts: evicts}
}

// bodyLease is the part of a share that one body has.
type bodyLease struct {
	budget *bodyBudget
	// copies is how often the body is in memory at a time once it is read: raw, and as what was made of it.
	copies int64
	// end makes the connection's reads fail.
	end func()

	held  int64
	begun time.Time // when it took its first memory
	ended bool      // by another body
}

// lease begins one. It must be closed.
func (b *bodyBudget) lease(c echo.Context, copies int64) bodyLease {
	l := bodyLease{budget: b, copies: copies}
	if b.evicts {
		w := c.Response().Writer
		l.end = func() {
			// It fails only if the connection is gone, and its reads fail by themselves.
			_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
		}
	}
	return l
}

// read reads the body of a request whole into buffer, or into a larger one if it does not fit. It returns at most limit+1 bytes: a
// body that has more than limit is too large. The buffer may grow as long as the share lasts; then read returns a Problem.
func (l *bodyLease) read(request *http.Request, buffer []byte, limit int64) ([]byte, error) {
	if request.ContentLength >= 0 {
		limit = min(limit, request.ContentLength)
	}
	buffer = buffer[:0]
	for {
		if len(buffer) == cap(buffer) {
			size := min(max(8*int64(cap(buffer)), freeBody), limit+1)
			if size > freeBody && limit < announcedBody {
				size = limit + 1
			}
			if err := l.take(size); err != nil {
				return buffer, err
			}
			larger := make([]byte, len(buffer), size)
			copy(larger, buffer)
			l.give(int64(cap(buffer)))
			buffer = larger
		}
		n, err := request.Body.Read(buffer[len(buffer):min(int64(cap(buffer)), limit+1)])
		buffer = buffer[:len(buffer)+n]
		switch {
		case err == io.EOF || int64(len(buffer)) > limit:
			l.whole()
			return buffer, nil
		case err != nil && l.wasEnded():
			return buffer, noRoom()
		case err != nil:
			return buffer, err
		}
	}
}

// take takes a buffer of so many bytes from the share.
func (l *bodyLease) take(size int64) error {
	if size <= freeBody {
		return nil
	}
	size *= l.copies
	b := l.budget
	var patience <-chan time.Time
	for {
		b.mu.Lock()
		if !l.ended && b.left >= size {
			b.left -= size
			if b.evicts && l.held == 0 {
				l.begun = time.Now()
				b.reading = append(b.reading, l)
			}
			l.held += size
			b.mu.Unlock()
			return nil
		}
		if l.ended || !b.evicts {
			b.mu.Unlock()
			return noRoom()
		}
		slow := b.evict(l)
		if b.freed == nil {
			b.freed = make(chan struct{})
		}
		freed := b.freed
		b.mu.Unlock()
		if patience == nil {
			patience = time.After(roomPatience)
		}
		select {
		case <-freed:
		case <-slow:
		case <-patience:
			return noRoom()
		}
	}
}

// evict ends the oldest body that is still being read, except l's own, if it is slow. If it is not slow yet, the channel says when it is.
func (b *bodyBudget) evict(l *bodyLease) <-chan time.Time {
	for _, other := range b.reading {
		switch {
		case other == l:
			continue
		case other.ended: // it gives its memory back in a moment
			return nil
		}
		if left := slowBody - time.Since(other.begun); left > 0 {
			return time.After(left)
		}
		other.ended = true
		other.end()
		b.wake() // it may wait itself
		return nil
	}
	return nil
}

// wake lets all that wait for room look again.
func (b *bodyBudget) wake() {
	if b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}

// whole says that the body was read, so that its lease is not ended for another one any more.
func (l *bodyLease) whole() {
	if l.budget.evicts && l.held > 0 {
		l.budget.mu.Lock()
		l.budget.forget(l)
		l.budget.mu.Unlock()
	}
}

func (b *bodyBudget) forget(l *bodyLease) {
	for i, other := range b.reading {
		if other == l {
			b.reading = append(b.reading[:i], b.reading[i+1:]...)
			return
		}
	}
}

func (l *bodyLease) wasEnded() bool {
	l.budget.mu.Lock()
	defer l.budget.mu.Unlock()
	return l.ended
}

// give gives a buffer of so many bytes back.
func (l *bodyLease) give(size int64) {
	if size > freeBody {
		l.release(size * l.copies)
	}
}

// close gives everything back.
func (l *bodyLease) close() {
	if l.held > 0 {
		l.whole()
		l.release(l.held)
	}
}

func (l *bodyLease) release(size int64) {
	b := l.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	l.held -= size
	b.left += size
	b.wake()
}

// formLease begins the lease of a page's form.
func (s *Server) formLease(c echo.Context) bodyLease {
	return s.strangerBodies.lease(c, 4) // the body, the copy that net/http makes in growing steps, and the fields
}

// parseForm reads the form of a request into it.
func (l *bodyLease) parseForm(request *http.Request) error {
	if request.ContentLength > formLimit {
		return newProblem(codePayloadTooLarge, "The form is too large.")
	}
	raw, err := l.read(request, nil, formLimit)
	if isProblem(err) {
		return err
	}
	if len(raw) > formLimit {
		return newProblem(codePayloadTooLarge, "The form is too large.")
	}
	if err == nil {
		request.Body = io.NopCloser(bytes.NewReader(raw))
		err = request.ParseForm()
	}
	if err != nil {
		return newProblem(codeBadForm, "The form could not be read.")
	}
	return nil
}

func isProblem(err error) bool {
	var p *Problem
	return errors.As(err, &p)
}

// noRoom refuses a body for which there is no memory.
func noRoom() error {
	p := newProblem(models.CodeOverloaded, "The server is reading too many large requests at the moment. Nothing was recorded; try again.")
	p.retryAfter = bodyRetry
	return p
}
