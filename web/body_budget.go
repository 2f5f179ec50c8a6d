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

// The memory that request bodies may use at a time in the whole process, in bytes. Each kind has
// its own share, so that a flood of one kind does not affect the others. The first freeBody bytes
// of each body come from no share, like the buffers of its connection, so a typical call never
// waits for memory.
const (
	freeBody       = 4 << 10
	announcedBody  = 256 << 10 // up to this size, a body gets its memory at once, so that bodies do not wait for each other to grow
	callBodies     = 8 << 20   // calls with an API key
	batchBodies    = 16 << 20
	strangerBodies = 8 << 20 // webhooks and forms: anyone can send one, and anyone can sign in
	// bodyRetry is the Retry-After of an answer if a share is used up.
	bodyRetry = time.Second
	// roomPatience is how long a webhook or a form waits for memory, for example in a burst of
	// webhooks from Stripe.
	roomPatience = 4 * time.Second
	// slowBody is how long a webhook or a form may take to arrive before another one may end it.
	slowBody = time.Second
)

// bodyBudget is one share. Leases take the real size of their buffers from it.
type bodyBudget struct {
	// evicts means that a body waits for memory if the share is used up, and ends the oldest body that
	// is still being read if that one is slow. It is set for bodies from unknown senders: a few slow
	// senders could otherwise use the share forever.
	evicts bool

	mu      sync.Mutex
	left    int64
	reading []*bodyLease  // oldest first; only if evicts is set
	freed   chan struct{} // closed at the next release; nil if no lease waits
}

func newBodyBudget(size int64, evicts bool) *bodyBudget {
	return &bodyBudget{left: size, evicts: evicts}
}

// bodyLease is the part of a share that one body uses.
type bodyLease struct {
	budget *bodyBudget
	// copies is how often the body is in memory at the same time once it is read: raw, and as the
	// parsed values.
	copies int64
	// end makes reads from the connection fail.
	end func()

	held  int64
	begun time.Time // when it took its first memory
	ended bool      // by another body
}

// lease starts a lease. The caller must close it.
func (b *bodyBudget) lease(c echo.Context, copies int64) bodyLease {
	l := bodyLease{budget: b, copies: copies}
	if b.evicts {
		w := c.Response().Writer
		l.end = func() {
			// This fails only if the connection is closed, and then its reads fail anyway.
			_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
		}
	}
	return l
}

// read reads the whole body of a request into buffer, or into a larger buffer if it does not fit.
// It returns at most limit+1 bytes; a body of more than limit bytes is too large. The buffer may
// grow while the share has memory left; after that, read returns a Problem.
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

// take takes the memory of a buffer from the share.
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

// evict ends the oldest other body that is still being read, if it is slow. If it is not slow yet,
// the channel fires when it becomes slow.
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
		b.wake() // the ended body may itself wait for memory
		return nil
	}
	return nil
}

// wake lets all waiting leases check for memory again.
func (b *bodyBudget) wake() {
	if b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}

// whole marks the body as read, so that no other body can end its lease.
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

// give returns the memory of a buffer to the share.
func (l *bodyLease) give(size int64) {
	if size > freeBody {
		l.release(size * l.copies)
	}
}

// close returns all memory to the share.
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

// formLease starts the lease of a page's form.
func (s *Server) formLease(c echo.Context) bodyLease {
	return s.strangerBodies.lease(c, 4) // the body, the copy that net/http makes in growing steps, and the fields
}

// parseForm parses the form of a request.
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
		return newProblem(codeBadForm, "The form is invalid or incomplete. Go back, reload the page and send the form again.")
	}
	return nil
}

func isProblem(err error) bool {
	var p *Problem
	return errors.As(err, &p)
}

// noRoom refuses a body because there is no memory for it.
func noRoom() error {
	p := newProblem(models.CodeOverloaded, "The server is reading too many large requests. Nothing was recorded; try again.")
	p.retryAfter = bodyRetry
	return p
}
