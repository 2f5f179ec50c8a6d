package web

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"golang.org/x/sync/singleflight"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// A key is trusted for keyFresh. After that, it is read again in the background while requests
// still use the old answer. After keyStale, a request waits for the database. So a revoked key is
// refused within a second, and a busy server neither queries the database for each request nor
// makes requests wait.
const (
	keyFresh = 300 * time.Millisecond
	keyStale = 800 * time.Millisecond
	// keyUseEvery is the interval at which the last use of keys is stored.
	keyUseEvery = 15 * time.Second
)

// apiKeys finds the API key that a request carries.
type apiKeys struct {
	db    *models.DB
	log   *slog.Logger
	known sync.Map // from a key's text to *knownKey
	ask   singleflight.Group
	// limits are stored by the key's ID, because known is replaced at each query.
	limits keyLimits

	storedMu    sync.Mutex
	stored      map[[sha256.Size]byte]bool
	storedAsked time.Time
}

type knownKey struct {
	models.APIKey
	asked    time.Time // before the query
	lastUsed atomic.Int64
	written  atomic.Int64
	asking   atomic.Bool
	limit    *keyLimit // nil: no limit
}

// find returns the key, or nil if it does not exist or was revoked. A key that is not cached yet
// counts against the client's limit, because anyone can make up keys and each one costs a query. A
// valid key does not count.
func (k *apiKeys) find(c echo.Context, strangers *clientLimit, key string) (*knownKey, error) {
	ctx := c.Request().Context()
	if v, ok := k.known.Load(key); ok {
		known := v.(*knownKey)
		switch age := time.Since(known.asked); {
		case age < keyFresh:
			return known, nil
		case age < keyStale:
			if known.asking.CompareAndSwap(false, true) {
				go func() {
					ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keyStale)
					defer cancel()
					_, _ = k.fetch(ctx, key) // the next request asks again and reports the error
				}()
			}
			return known, nil
		}
		return k.fetch(ctx, key)
	}
	if err := strangers.takeLookup(c); err != nil {
		if !k.isStored(ctx, key) {
			return nil, err
		}
		return k.fetch(ctx, key)
	}
	known, err := k.fetch(ctx, key)
	switch {
	case err != nil:
		strangers.noteFailedLookup()
	case known != nil:
		strangers.giveBack(c)
	}
	return known, err
}

// storedEvery is the interval at which the hashes of all keys are read.
const storedEvery = time.Second

// isStored reports whether a key is in the database, from a list that is at most storedEvery old.
// So a valid key that this process has not cached yet is accepted even if its address is over the
// limit, for one query per second in total.
func (k *apiKeys) isStored(ctx context.Context, key string) bool {
	k.storedMu.Lock()
	stored, asked := k.stored, k.storedAsked
	k.storedMu.Unlock()
	if time.Since(asked) >= storedEvery {
		v, _, _ := k.ask.Do("", func() (any, error) { // no key is empty, so "" is free for this
			asked := time.Now()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storedEvery)
			defer cancel()
			fresh, err := models.APIKeyHashes(ctx, k.db)
			k.storedMu.Lock()
			defer k.storedMu.Unlock()
			k.storedAsked = asked
			if err == nil { // otherwise the previous list stays in use
				k.stored = fresh
			}
			return k.stored, nil
		})
		stored = v.(map[[sha256.Size]byte]bool)
	}
	return stored[models.HashKey(key)]
}

func (k *apiKeys) fetch(ctx context.Context, key string) (*knownKey, error) {
	v, err, _ := k.ask.Do(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		fresh := &knownKey{asked: time.Now()}
		row, err := models.APIKeyByHash(ctx, k.db, models.HashKey(key))
		if err != nil {
			return nil, err
		}
		if row == nil || row.RevokedAt != nil {
			if old, ok := k.known.LoadAndDelete(key); ok {
				k.limits.remove(old.(*knownKey).ID)
			}
			return (*knownKey)(nil), nil
		}
		fresh.APIKey, fresh.limit = *row, k.limits.of(row)
		if old, ok := k.known.Load(key); ok {
			fresh.lastUsed.Store(old.(*knownKey).lastUsed.Load())
			fresh.written.Store(old.(*knownKey).written.Load())
		}
		k.known.Store(key, fresh)
		return fresh, nil
	})
	if err != nil {
		return nil, models.Unavailable(err)
	}
	return v.(*knownKey), nil
}

// run stores when keys were last used, until ctx ends.
func (k *apiKeys) run(ctx context.Context) {
	tick := time.NewTicker(keyUseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			k.writeUse(last)
			cancel()
			return
		case <-tick.C:
			k.writeUse(ctx)
		}
	}
}

func (k *apiKeys) writeUse(ctx context.Context) {
	used := map[uuid.UUID]time.Time{}
	k.known.Range(func(_, v any) bool {
		known := v.(*knownKey)
		if at := known.lastUsed.Load(); at > known.written.Load() {
			known.written.Store(at)
			used[known.ID] = time.Unix(at, 0).UTC()
		}
		return true
	})
	if err := models.TouchAPIKeys(ctx, k.db, used); err != nil {
		k.log.Warn("the last use of API keys was not stored", "error", err)
	}
}

// keyWait is the context key for how long the API key lookup took, if it took longer than keyQuick.
const (
	keyWait  = "key wait"
	keyQuick = 10 * time.Millisecond
)

// deciding returns the context of a call to the gate. It does not use the request's context:
// net/http cancels that when the client closes its side of the connection, even if the client still
// waits for the answer. The time that the API key lookup took counts as part of the call.
func deciding(c echo.Context) (context.Context, context.CancelFunc) {
	ctx := context.WithoutCancel(c.Request().Context())
	if waited, ok := c.Get(keyWait).(time.Duration); ok {
		return context.WithTimeout(ctx, enforcement.AnswerWithin-waited)
	}
	return ctx, func() {}
}

// usedKey is where a request of an audited route has its API key.
const usedKey = "api_key"

// keyOf returns the API key of a request of an audited route.
func keyOf(c echo.Context) *knownKey { return c.Get(usedKey).(*knownKey) }

// actor returns the actor of a request's changes for the audit log: its API key.
func actor(c echo.Context) string { return "API key " + keyOf(c).Name }

// needs accepts only requests whose API key has the scope. Only an audited route stores the key in
// the request, because that takes about 1% of the processor time of a consume.
func (s *Server) needs(scope models.Scope, audited bool, next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		scheme, key, _ := strings.Cut(c.Request().Header.Get(echo.HeaderAuthorization), " ")
		key = strings.TrimLeft(key, " ") // RFC 9110, 11.4: one or more spaces
		if !strings.EqualFold(scheme, "Bearer") || !models.IsKey(key) {
			return newProblem(codeUnauthorized, "Send an API key: Authorization: Bearer tg_live_…")
		}
		asked := time.Now()
		known, err := s.keys.find(c, s.strangers, key)
		if took := time.Since(asked); took > keyQuick {
			c.Set(keyWait, took)
		}
		if err != nil {
			return err
		}
		if known == nil {
			return newProblem(codeUnauthorized, "This API key is unknown or was revoked.")
		}
		if err := known.limit.take(c); err != nil {
			return err
		}
		if !known.Allows(scope) {
			return newProblem(codeInsufficientScope, "This API key lacks the scope "+string(scope)+".")
		}
		if now := time.Now().Unix(); known.lastUsed.Load() != now {
			known.lastUsed.Store(now)
		}
		if audited {
			c.Set(usedKey, known)
		}
		return next(c)
	}
}
