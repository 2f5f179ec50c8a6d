package models

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// Scope is a permission of an API key.
type Scope string

// The scopes of the API.
const (
	ScopeCheck   Scope = "check"
	ScopeConsume Scope = "consume"
	ScopeRead    Scope = "read"
	ScopeManage  Scope = "manage"
)

// Scopes lists all scopes.
var Scopes = []Scope{ScopeCheck, ScopeConsume, ScopeRead, ScopeManage}

// ParseScopes parses a comma-separated list of scopes, and removes duplicates.
func ParseScopes(list string) ([]Scope, error) {
	var scopes []Scope
	for word := range strings.SplitSeq(list, ",") {
		s := Scope(strings.TrimSpace(word))
		if !slices.Contains(Scopes, s) {
			return nil, fmt.Errorf("unknown scope %q: must be one of check, consume, read, manage", s)
		}
		if !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	return scopes, nil
}

// APIKey is a key of the HTTP API as it is stored, without the key itself.
type APIKey struct {
	bun.BaseModel `bun:"table:api_keys"`

	ID   uuid.UUID `bun:",pk,type:uuid"`
	Name string
	// Hint is the beginning of the key, so that its owner recognizes it.
	Hint string
	// Hash is the SHA-256 of the key. A key has 178 random bits, so a plain hash cannot be
	// reversed.
	Hash       []byte
	Scopes     string
	CreatedAt  time.Time
	LastUsedAt *time.Time
	RevokedAt  *time.Time
	// RateLimit is the number of calls per second that the key may make in each process. 0 means no
	// limit; nil means the server's default.
	RateLimit *int64
}

// Allows reports whether the key has the scope.
func (k *APIKey) Allows(s Scope) bool {
	for word := range strings.SplitSeq(k.Scopes, ",") {
		if word == string(s) {
			return true
		}
	}
	return false
}

const (
	keyPrefix   = "tg_live_"
	keyRandom   = 30 // characters of chance
	keyChecksum = 6
	keyHint     = len(keyPrefix) + 4
	base62      = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// NewKey returns a new key: a prefix that secret scanners recognize, 30 random characters, and 6
// characters of checksum.
func NewKey() string {
	var b strings.Builder
	b.WriteString(keyPrefix)
	for b.Len() < len(keyPrefix)+keyRandom {
		var chance [keyRandom]byte
		_, _ = rand.Read(chance[:]) // never fails: it would end the program
		for _, c := range chance {
			// 248 is the largest multiple of 62 in a byte. Larger values would favor some
			// characters.
			if c < 248 && b.Len() < len(keyPrefix)+keyRandom {
				b.WriteByte(base62[c%62])
			}
		}
	}
	return b.String() + checksum(b.String())
}

func checksum(s string) string {
	sum := crc32.ChecksumIEEE([]byte(s))
	var out [keyChecksum]byte
	for i := keyChecksum - 1; i >= 0; i-- {
		out[i] = base62[sum%62]
		sum /= 62
	}
	return string(out[:])
}

// IsKey reports whether s has a key's form and checksum, so that a typo is refused without a query.
func IsKey(s string) bool {
	const n = len(keyPrefix) + keyRandom
	return len(s) == n+keyChecksum && s[:len(keyPrefix)] == keyPrefix && s[n:] == checksum(s[:n])
}

// HashKey returns the stored hash of a key.
func HashKey(key string) [sha256.Size]byte { return sha256.Sum256([]byte(key)) }

// ErrKeyName means that an API key's name is invalid.
var ErrKeyName = errors.New("an API key needs a name of 1 to 100 printable characters")

// ErrNoKey means no API key has this ID.
var ErrNoKey = errors.New("there is no API key")

// ErrKeyExists means that an API key with this ID was created before.
var ErrKeyExists = errors.New("the API key exists already")

// MaxRateLimit is the highest rate limit of a key, in calls per second.
const MaxRateLimit = 1_000_000

// ErrRateLimit means that a rate limit is invalid.
var ErrRateLimit = fmt.Errorf("the rate limit must be a whole number of calls per second from 0 (no limit) to %d", MaxRateLimit)

// CheckRateLimit returns ErrRateLimit if a rate limit is out of range.
func CheckRateLimit(limit int64) error {
	if limit < 0 || limit > MaxRateLimit {
		return fmt.Errorf("%w: %d", ErrRateLimit, limit)
	}
	return nil
}

// ParseRateLimit parses a rate limit from a form; nil if the text is empty. It returns
// ErrRateLimit.
func ParseRateLimit(text string) (*int64, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	limit, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: %q", ErrRateLimit, text)
	}
	return &limit, CheckRateLimit(limit)
}

// RateLimitText returns the rate limit for a list, such as "100/s".
func (k *APIKey) RateLimitText() string {
	switch {
	case k.RateLimit == nil:
		return "default"
	case *k.RateLimit == 0:
		return "none"
	}
	return strconv.FormatInt(*k.RateLimit, 10) + "/s"
}

// RateLimitNote returns the audit log's note about a key's rate limit, which follows the scopes.
func RateLimitNote(limit *int64) string {
	if limit == nil {
		return ""
	}
	return ", rate limit " + (&APIKey{RateLimit: limit}).RateLimitText()
}

// CreateAPIKey creates a key with the server's default rate limit and returns it; only its hash is
// stored.
func CreateAPIKey(ctx context.Context, db bun.IDB, now time.Time, name string, scopes []Scope) (string, error) {
	return CreateLimitedAPIKey(ctx, db, now, name, scopes, nil)
}

// CreateLimitedAPIKey creates a key with its own rate limit; see APIKey.RateLimit.
func CreateLimitedAPIKey(ctx context.Context, db bun.IDB, now time.Time, name string, scopes []Scope, rateLimit *int64) (string, error) {
	return CreateAPIKeyWithID(ctx, db, now, uuid.Must(uuid.NewV7()), name, scopes, rateLimit)
}

// CreateAPIKeyWithID is CreateLimitedAPIKey with a given ID. Only the first call with an ID creates
// a key; later ones return ErrKeyExists.
func CreateAPIKeyWithID(ctx context.Context, db bun.IDB, now time.Time, id uuid.UUID, name string, scopes []Scope,
	rateLimit *int64) (string, error) {
	if strings.TrimSpace(name) == "" || utf8.RuneCountInString(name) > 100 || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, isNotPrint) {
		return "", ErrKeyName
	}
	if len(scopes) == 0 {
		return "", errors.New("an API key needs at least one scope")
	}
	if rateLimit != nil {
		if err := CheckRateLimit(*rateLimit); err != nil {
			return "", err
		}
	}
	words := make([]string, len(scopes))
	for i, s := range scopes {
		words[i] = string(s)
	}
	key := NewKey()
	hash := HashKey(key)
	row := APIKey{ID: id, Name: name, Hint: key[:keyHint], Hash: hash[:], Scopes: strings.Join(words, ","), CreatedAt: now,
		RateLimit: rateLimit}
	done, err := db.NewInsert().Model(&row).On("CONFLICT (id) DO NOTHING").Exec(ctx)
	if err != nil {
		return "", fmt.Errorf("create an API key: %w", err)
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		return "", errors.Join(ErrKeyExists, err)
	}
	return key, nil
}

// OtherActiveKey reports whether another active key has the same name.
func OtherActiveKey(ctx context.Context, db bun.IDB, id uuid.UUID, name string) (bool, error) {
	found, err := db.NewSelect().Model((*APIKey)(nil)).Where("name = ? AND id <> ? AND revoked_at IS NULL", name, id).Exists(ctx)
	if err != nil {
		return false, fmt.Errorf("find an API key by its name: %w", err)
	}
	return found, nil
}

// APIKeyByID returns the key with an ID, or ErrNoKey.
func APIKeyByID(ctx context.Context, db bun.IDB, id uuid.UUID) (*APIKey, error) {
	var keys []APIKey
	if err := db.NewSelect().Model(&keys).Where("id = ?", id).Scan(ctx); err != nil {
		return nil, fmt.Errorf("find the API key %s: %w", id, err)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w %s", ErrNoKey, id)
	}
	return &keys[0], nil
}

// ListAPIKeys returns all keys, including revoked ones, oldest first.
func ListAPIKeys(ctx context.Context, db bun.IDB) ([]APIKey, error) {
	var keys []APIKey
	if err := db.NewSelect().Model(&keys).Order("created_at", "id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list the API keys: %w", err)
	}
	return keys, nil
}

// RevokeAPIKey revokes a key permanently. Revoking it again does nothing. An unknown ID is an
// error.
func RevokeAPIKey(ctx context.Context, db bun.IDB, now time.Time, id uuid.UUID) error {
	_, err := RevokeActiveAPIKey(ctx, db, now, id)
	return err
}

// RevokeActiveAPIKey is RevokeAPIKey. It also reports whether the key was active.
func RevokeActiveAPIKey(ctx context.Context, db bun.IDB, now time.Time, id uuid.UUID) (active bool, err error) {
	done, err := db.NewUpdate().Model((*APIKey)(nil)).Set("revoked_at = ?", now).Where("id = ? AND revoked_at IS NULL", id).Exec(ctx)
	if err != nil {
		return false, fmt.Errorf("revoke the API key %s: %w", id, err)
	}
	n, err := done.RowsAffected()
	if err != nil {
		return false, fmt.Errorf("revoke the API key %s: %w", id, err)
	}
	if n == 0 {
		_, err = APIKeyByID(ctx, db, id)
	}
	return n > 0, err
}

// APIKeyByHash returns the key with a hash; nil if there is none.
func APIKeyByHash(ctx context.Context, db bun.IDB, hash [sha256.Size]byte) (*APIKey, error) {
	var keys []APIKey
	if err := db.NewSelect().Model(&keys).Where("hash = ?", hash[:]).Scan(ctx); err != nil {
		return nil, fmt.Errorf("find an API key: %w", err)
	}
	if len(keys) == 0 {
		return nil, nil
	}
	return &keys[0], nil
}

// APIKeyHashes returns the hashes of the keys that are not revoked.
func APIKeyHashes(ctx context.Context, db bun.IDB) (map[[sha256.Size]byte]bool, error) {
	var keys []APIKey
	if err := db.NewSelect().Model(&keys).Column("hash").Where("revoked_at IS NULL").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list the hashes of the API keys: %w", err)
	}
	hashes := make(map[[sha256.Size]byte]bool, len(keys))
	for i := range keys {
		if len(keys[i].Hash) == sha256.Size {
			hashes[[sha256.Size]byte(keys[i].Hash)] = true
		}
	}
	return hashes, nil
}

// TouchAPIKeys stores when keys were last used.
func TouchAPIKeys(ctx context.Context, db bun.IDB, used map[uuid.UUID]time.Time) error {
	for id, at := range used {
		if _, err := db.NewUpdate().Model((*APIKey)(nil)).Set("last_used_at = ?", at).Where("id = ?", id).Exec(ctx); err != nil {
			return fmt.Errorf("note the last use of the API key %s: %w", id, err)
		}
	}
	return nil
}
