package web

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
)

const (
	// lastSeenEvery is how often the use of one session is written at most, tendEvery how often what was used is.
	lastSeenEvery = 10 * time.Minute
	tendEvery     = time.Minute
)

// What a session keeps, by name. The store copies both into columns.
const (
	sessionUser      = "user_id"
	sessionUserAgent = "user_agent"
)

// sessions are who is signed in. A browser holds a token, the database its hash.
type sessions struct {
	db      *models.DB
	now     func() time.Time
	log     *slog.Logger
	secure  bool
	manager *scs.SessionManager
	known   knownSessions

	mu sync.Mutex
	// seen are the sessions that were used and whose row says otherwise, by their id.
	seen map[string]seenSession
}

type seenSession struct {
	session models.Session
	at      time.Time
}

func newSessions(o *Options, secure bool) *sessions {
	s := &sessions{db: o.DB, now: o.Now, log: o.Log, secure: secure, seen: map[string]seenSession{}}
	// Not by scs.New, which starts a store in memory whose goroutine cannot be stopped without a data race. The manager's own
	// idle timeout writes the session at each request; ours is in models.FindSession and tend.
	s.manager = &scs.SessionManager{Store: sessionStore{s}, Codec: scs.GobCodec{}, HashTokenInStore: true, Lifetime: models.SessionLifetime}
	return s
}

// What our cookies are called.
const (
	sessionCookie = "tollgate"
	attemptCookie = "tollgate-sign-in"
)

// cookieName is a name that the browser lets only us set, and only for us, where it can: under HTTPS.
func cookieName(secure bool, name string) string {
	if secure {
		return "__Host-" + name
	}
	return name
}

// cookie is one of ours; a negative maxAge, in seconds, takes it away.
func (s *sessions) cookie(name, value string, maxAge int) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // secure wherever people reach us by HTTPS
		Name: cookieName(s.secure, name), Value: value, Path: "/", MaxAge: maxAge,
		Secure: s.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

type viewerKey struct{}

// load says who sent the request; nil when nobody is signed in. From here on the request carries its session.
func (s *sessions) load(c echo.Context) (*models.Viewer, error) {
	r := c.Request()
	var token string
	if cookie, err := r.Cookie(cookieName(s.secure, sessionCookie)); err == nil {
		token = cookie.Value
	}
	var viewer *models.Viewer
	ctx, err := s.manager.Load(context.WithValue(r.Context(), viewerKey{}, &viewer), token)
	if err != nil {
		return nil, fmt.Errorf("load a session: %w", err)
	}
	c.SetRequest(r.WithContext(ctx))
	if viewer == nil {
		return nil, nil
	}
	if at := models.Now(s.now); at.Sub(viewer.Session.LastSeenAt) >= lastSeenEvery {
		s.mu.Lock()
		s.seen[viewer.Session.ID.String()] = seenSession{viewer.Session, at}
		s.mu.Unlock()
	}
	return viewer, nil
}

// begin signs a person in. Whatever session the browser came with ends, and its token with it, so that nobody who planted
// one knows the new one.
func (s *sessions) begin(c echo.Context, user uuid.UUID) error {
	ctx := c.Request().Context()
	if err := s.manager.RenewToken(ctx); err != nil {
		return fmt.Errorf("begin a session: %w", err)
	}
	s.manager.Put(ctx, sessionUser, user.String())
	s.manager.Put(ctx, sessionUserAgent, asText(c.Request().UserAgent()))
	token, _, err := s.manager.Commit(ctx)
	if err != nil {
		return fmt.Errorf("begin a session: %w", err)
	}
	c.SetCookie(s.cookie(sessionCookie, token, int(models.SessionLifetime.Seconds())))
	return nil
}

// end signs out.
func (s *sessions) end(c echo.Context) error {
	if err := s.manager.Destroy(c.Request().Context()); err != nil {
		return fmt.Errorf("end a session: %w", err)
	}
	c.SetCookie(s.cookie(sessionCookie, "", -1))
	return nil
}

// run writes down which sessions were used and removes what has expired, until ctx ends.
func (s *sessions) run(ctx context.Context) {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			s.tend(last)
			cancel()
			return
		case <-tick.C:
			s.tend(ctx)
		}
	}
}

func (s *sessions) tend(ctx context.Context) {
	s.mu.Lock()
	seen := s.seen
	s.seen = map[string]seenSession{}
	s.mu.Unlock()
	for _, used := range seen {
		if err := models.TouchSession(ctx, s.db, &used.session, used.at); err != nil {
			s.log.Warn("the use of a session was not noted", "error", err)
		}
	}
	if err := models.RemoveExpired(ctx, s.db, models.Now(s.now)); err != nil {
		s.log.Warn("expired sessions were not removed", "error", err)
	}
}

// sessionStore keeps the manager's sessions in the database. What it is given as a token is the token's hash.
type sessionStore struct{ *sessions }

var _ scs.CtxStore = sessionStore{}

// FindCtx returns a session's data, and leaves whose it is in the context that load made.
func (st sessionStore) FindCtx(ctx context.Context, hashed string) ([]byte, bool, error) {
	hash, err := base64.RawURLEncoding.DecodeString(hashed)
	if err != nil {
		return nil, false, err
	}
	viewer, data, err := models.FindSession(ctx, st.db, models.Now(st.now), hash)
	if err != nil || viewer == nil {
		return nil, false, err
	}
	if asked, ok := ctx.Value(viewerKey{}).(**models.Viewer); ok {
		*asked = viewer
	}
	return data, true, nil
}

// CommitCtx stores a new session. None is written twice, as nothing is put into one after its beginning.
func (st sessionStore) CommitCtx(ctx context.Context, hashed string, data []byte, _ time.Time) error {
	hash, err := base64.RawURLEncoding.DecodeString(hashed)
	if err != nil {
		return err
	}
	_, values, err := st.manager.Codec.Decode(data)
	if err != nil {
		return err
	}
	user, _ := values[sessionUser].(string)
	userAgent, _ := values[sessionUserAgent].(string)
	id, err := uuid.Parse(user)
	if err != nil {
		return fmt.Errorf("a session without a user: %w", err)
	}
	return models.SaveSession(ctx, st.db, models.Now(st.now), hash, id, userAgent, data)
}

// DeleteCtx ends a session.
func (st sessionStore) DeleteCtx(ctx context.Context, hashed string) error {
	hash, err := base64.RawURLEncoding.DecodeString(hashed)
	if err != nil {
		return err
	}
	return models.EndSessionByToken(ctx, st.db, hash)
}

// Find, Commit and Delete are what scs.Store asks for; the manager calls those with a context.
func (st sessionStore) Find(hashed string) ([]byte, bool, error) {
	return st.FindCtx(context.Background(), hashed)
}

// Commit is CommitCtx without a context.
func (st sessionStore) Commit(hashed string, data []byte, expiry time.Time) error {
	return st.CommitCtx(context.Background(), hashed, data, expiry)
}

// Delete is DeleteCtx without a context.
func (st sessionStore) Delete(hashed string) error { return st.DeleteCtx(context.Background(), hashed) }
