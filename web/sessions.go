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
	// lastSeenEvery is the minimum time between two updates of one session's last use.
	// maintainEvery is the interval at which these updates are stored.
	lastSeenEvery = 10 * time.Minute
	maintainEvery = time.Minute
)

// The names of the values in a session. The store copies both into columns.
const (
	sessionUser      = "user_id"
	sessionUserAgent = "user_agent"
)

// sessions manages the sessions of signed-in people. A browser has a token; the database has its
// hash.
type sessions struct {
	db      *models.DB
	now     func() time.Time
	log     *slog.Logger
	secure  bool
	manager *scs.SessionManager
	known   knownSessions

	mu sync.Mutex
	// seen are the sessions, by ID, whose last use must be stored.
	seen map[string]seenSession
}

type seenSession struct {
	session models.Session
	at      time.Time
}

func newSessions(o *Options, secure bool) *sessions {
	s := &sessions{db: o.DB, now: o.Now, log: o.Log, secure: secure, seen: map[string]seenSession{}}
	// scs.New is not used, because it starts a store in memory whose goroutine cannot be stopped
	// without a data race. The manager's own idle timeout would write the session at each request;
	// ours is in models.FindSession and maintain.
	s.manager = &scs.SessionManager{Store: sessionStore{s}, Codec: scs.GobCodec{}, HashTokenInStore: true, Lifetime: models.SessionLifetime}
	return s
}

// The names of our cookies.
const (
	sessionCookie = "tollgate"
	attemptCookie = "tollgate-sign-in"
)

// cookieName returns the name of a cookie. Under HTTPS, its prefix lets only this host set the
// cookie.
func cookieName(secure bool, name string) string {
	if secure {
		return "__Host-" + name
	}
	return name
}

// cookie returns one of our cookies. A negative maxAge, in seconds, deletes it.
func (s *sessions) cookie(name, value string, maxAge int) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // secure wherever people reach us by HTTPS
		Name: cookieName(s.secure, name), Value: value, Path: "/", MaxAge: maxAge,
		Secure: s.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

type viewerKey struct{}

// load returns the person who sent the request; nil if they are not signed in. It adds the session
// to the request's context.
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

// begin signs a person in. It ends the browser's previous session and its token, so that a token
// that another person put there is worthless.
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

// end signs a person out.
func (s *sessions) end(c echo.Context) error {
	if err := s.manager.Destroy(c.Request().Context()); err != nil {
		return fmt.Errorf("end a session: %w", err)
	}
	c.SetCookie(s.cookie(sessionCookie, "", -1))
	return nil
}

// run stores which sessions were used, until ctx ends.
func (s *sessions) run(ctx context.Context) {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			s.maintain(last)
			cancel()
			return
		case <-tick.C:
			s.maintain(ctx)
		}
	}
}

func (s *sessions) maintain(ctx context.Context) {
	s.mu.Lock()
	seen := s.seen
	s.seen = map[string]seenSession{}
	s.mu.Unlock()
	for _, used := range seen {
		if err := models.TouchSession(ctx, s.db, &used.session, used.at); err != nil {
			s.log.Warn("the use of a session was not stored", "error", err)
		}
	}
}

// sessionStore stores the manager's sessions in the database. Its tokens are hashes of the real
// tokens.
type sessionStore struct{ *sessions }

var _ scs.CtxStore = sessionStore{}

// FindCtx returns a session's data. It stores the session's person in the context that load
// created.
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

// CommitCtx stores a new session. No session is stored twice, because its data does not change.
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

// Find is FindCtx without a context. scs.Store requires Find, Commit and Delete, but the manager
// calls the methods with a context.
func (st sessionStore) Find(hashed string) ([]byte, bool, error) {
	return st.FindCtx(context.Background(), hashed)
}

// Commit is CommitCtx without a context.
func (st sessionStore) Commit(hashed string, data []byte, expiry time.Time) error {
	return st.CommitCtx(context.Background(), hashed, data, expiry)
}

// Delete is DeleteCtx without a context.
func (st sessionStore) Delete(hashed string) error { return st.DeleteCtx(context.Background(), hashed) }
