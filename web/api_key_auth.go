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

// A key is believed for keyFresh; from then on the database is asked again in the background while the old answer
// serves, and from keyStale on before any answer is given. So a revoked key is refused within a second, and a busy
// server neither asks for each request nor makes one of them wait.
const (
	keyFresh = 300 * time.Millisecond
	keyStale = 800 * time.Millisecond
	// keyUseEvery is how often the last use of keys is written.
	keyUseEvery = 15 * time.Second
)

// apiKeys answers whose key it is that a request carries.
type apiKeys struct {
	db    *models.DB
	log   *slog.Logger
	known sync.Map // of a key's text to *knownKey
	ask   singleflight.Group
	// limits are by the key's id: known is replaced each time the database is asked.
	limits keyLimits

	storedMu    sync.Mutex
	stored      map[[sha256.Size]byte]bool
	storedAsked time.Time
}

type knownKey struct {
	models.APIKey
	asked    time.Time // before the database was
	lastUsed atomic.Int64
	written  atomic.Int64
	asking   atomic.Bool
	limit    *keyLimit // nil: no limit
}

// find returns the key, or nil when there is no such key or it was revoked. A key that is not known yet counts against the limit of
// the client, as anyone can make one up for which the database is asked; a valid one does not.
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
					_, _ = k.fetch(ctx, key) // the next request asks again, and tells
				}()
			}
			return known, nil
		}
		return k.fetch(ctx, key)
	}
	if err := strangers.take(c); err != nil {
		if !k.isStored(ctx, key) {
			return nil, err
		}
		return k.fetch(ctx, key)
	}
	known, err := k.fetch(ctx, key)
	if known != nil {
		strangers.giveBack(c)
	}
	return known, err
}

// storedEvery is how often the database is asked for the hashes of all keys.
const storedEvery = time.Second

// isStored reports whether a key is one of those in the database, by a list that is at most storedEvery old. It lets a valid key in that
// this process does not know yet, whatever comes from the same address, for one query per second in all.
func (k *apiKeys) isStored(ctx context.Context, key string) bool {
	k.storedMu.Lock()
	stored, asked := k.stored, k.storedAsked
	k.storedMu.Unlock()
	if time.Since(asked) >= storedEvery {
		v, _, _ := k.ask.Do("", func() (any, error) { // no key is empty
			asked := time.Now()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storedEvery)
			defer cancel()
			fresh, err := models.APIKeyHashes(ctx, k.db)
			k.storedMu.Lock()
			defer k.storedMu.Unlock()
			k.storedAsked = asked
			if err == nil { // else the last list has to do
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

// run writes down when keys were last used, until ctx ends.
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
		k.log.Warn("the last use of API keys was not noted", "error", err)
	}
}

// keyWait is where a request says how long its API key was looked up, if that took longer than keyQuick.
const (
	keyWait  = "key wait"
	keyQuick = 10 * time.Millisecond
)

// deciding returns the context of a call to the gate. net/http cancels a request's own when the client closes its side, also
// if it still waits for the answer, so that one is not used. The time that the API key took counts as part of the call's.
func deciding(c echo.Context) (context.Context, context.CancelFunc) {
	ctx := context.WithoutCancel(c.Request().Context())
	if waited, ok := c.Get(keyWait).(time.Duration); ok {
		return context.WithTimeout(ctx, enforcement.AnswerWithin-waited)
	}
	return ctx, func() {}
}

// needs lets a request pass whose API key has the scope.
func (s *Server) needs(scope models.Scope, next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		scheme, key, _ := strings.Cut(c.Request().Header.Get(echo.HeaderAuthorization), " ")
		key = strings.TrimLeft(key, " ") // RFC 9110, 11.4: one space or more
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
		return next(c)
	}
}
