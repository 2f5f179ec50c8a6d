package models_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"tollgate/models"
	"tollgate/models/modelstest"
)

func TestNewKey(t *testing.T) {
	form := regexp.MustCompile(`^tg_live_[0-9A-Za-z]{36}$`)
	seen, characters := map[string]bool{}, map[rune]int{}
	for range 500 {
		key := models.NewKey()
		if !form.MatchString(key) || !models.IsKey(key) || seen[key] {
			t.Fatalf("%q", key)
		}
		seen[key] = true
		for _, c := range key[len("tg_live_") : len(key)-6] {
			characters[c]++
		}
	}
	// 15,000 characters, each equally likely: 8 of the 62 make 1,935 of them. Fewer than one run in a
	// million differs by more than five standard deviations of 41.
	first := 0
	for _, c := range "01234567" {
		first += characters[c]
	}
	if len(characters) != 62 || first < 1935-5*41 || first > 1935+5*41 {
		t.Errorf("%d different characters; the first eight of the alphabet occur %d times", len(characters), first)
	}
}

// A typo is refused without the database: one different character, two swapped characters, or a
// missing one.
func TestIsKeyRefusesTypos(t *testing.T) {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
	rapid.Check(t, func(t *rapid.T) {
		key := models.NewKey()
		i := rapid.IntRange(0, len(key)-1).Draw(t, "at")
		if c := rapid.SampledFrom([]byte(alphabet)).Draw(t, "character"); c != key[i] {
			if wrong := key[:i] + string(c) + key[i+1:]; models.IsKey(wrong) {
				t.Fatalf("%q passes for %q", wrong, key)
			}
		}
		if i > 0 && key[i] != key[i-1] {
			if wrong := key[:i-1] + key[i:i+1] + key[i-1:i] + key[i+1:]; models.IsKey(wrong) {
				t.Fatalf("%q passes for %q", wrong, key)
			}
		}
		if wrong := key[:i] + key[i+1:]; models.IsKey(wrong) {
			t.Fatalf("%q passes for %q", wrong, key)
		}
	})
	for _, wrong := range []string{"", "tg_live_", models.NewKey() + "0", " " + models.NewKey(), strings.ToUpper(models.NewKey())} {
		if models.IsKey(wrong) {
			t.Errorf("%q passes", wrong)
		}
	}
}

// The checksum is part of each key, so it must not change. This key was made once.
func TestIsKeyStaysTheSame(t *testing.T) {
	if !models.IsKey("tg_live_0000000000000000000000000000003nUU1K") {
		t.Error("an earlier key is refused")
	}
}

func TestParseScopes(t *testing.T) {
	for _, test := range []struct {
		list string
		want []models.Scope
	}{
		{"check", []models.Scope{models.ScopeCheck}},
		{"check,consume,read", []models.Scope{models.ScopeCheck, models.ScopeConsume, models.ScopeRead}},
		{" read , check ,read ", []models.Scope{models.ScopeRead, models.ScopeCheck}},
		{"consume,consume,consume", []models.Scope{models.ScopeConsume}},
		{"read,consume,check,consume", []models.Scope{models.ScopeRead, models.ScopeConsume, models.ScopeCheck}},
	} {
		if got, err := models.ParseScopes(test.list); err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%q: %v, %v; want %v", test.list, got, err, test.want)
		}
	}
	for _, list := range []string{"", "check,", "write", "Check", "check read"} {
		if got, err := models.ParseScopes(list); err == nil {
			t.Errorf("%q: %v, want an error", list, got)
		}
	}
}

func TestAPIKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		key, err := models.CreateAPIKey(f.ctx, f.db, noon, "Slack app", []models.Scope{models.ScopeCheck, models.ScopeConsume})
		if err != nil {
			t.Fatal(err)
		}
		second, err := models.CreateAPIKey(f.ctx, f.db, noon.Add(time.Second), "Dashboard", []models.Scope{models.ScopeRead})
		if err != nil || second == key {
			t.Fatalf("%q, %v", second, err)
		}

		stored, err := models.APIKeyByHash(f.ctx, f.db, models.HashKey(key))
		if err != nil || stored == nil {
			t.Fatalf("%+v, %v", stored, err)
		}
		if stored.Name != "Slack app" || stored.Hint != key[:12] || stored.RevokedAt != nil || stored.LastUsedAt != nil ||
			!stored.CreatedAt.Equal(noon) {
			t.Errorf("stored %+v", stored)
		}
		if !stored.Allows(models.ScopeCheck) || !stored.Allows(models.ScopeConsume) || stored.Allows(models.ScopeRead) || stored.Allows("") {
			t.Errorf("the key allows other scopes than it has: %q", stored.Scopes)
		}
		f.neverStores(t, key)
		if other, err := models.APIKeyByHash(f.ctx, f.db, models.HashKey(models.NewKey())); err != nil || other != nil {
			t.Errorf("an unknown key: %+v, %v", other, err)
		}

		for range 2 {
			if err := models.RevokeAPIKey(f.ctx, f.db, noon.Add(time.Minute), stored.ID); err != nil {
				t.Fatal(err)
			}
			noonLater := noon.Add(time.Hour)
			if err := models.TouchAPIKeys(f.ctx, f.db, map[uuid.UUID]time.Time{stored.ID: noonLater}); err != nil {
				t.Fatal(err)
			}
		}
		wantError(t, models.RevokeAPIKey(f.ctx, f.db, noon, newID()), "there is no API key")
		keys, err := models.ListAPIKeys(f.ctx, f.db)
		if err != nil || len(keys) != 2 {
			t.Fatalf("%+v, %v", keys, err)
		}
		if k := keys[0]; k.ID != stored.ID || k.RevokedAt == nil || !k.RevokedAt.Equal(noon.Add(time.Minute)) ||
			!k.LastUsedAt.Equal(noon.Add(time.Hour)) {
			t.Errorf("the first is %+v", k)
		}
		if k := keys[1]; k.Name != "Dashboard" || k.RevokedAt != nil || k.LastUsedAt != nil {
			t.Errorf("the second is %+v", k)
		}
	})
}

// neverStores checks that no row contains the key's secret part.
func (f *fixture) neverStores(t *testing.T, key string) {
	t.Helper()
	for _, k := range all[models.APIKey](t, f) {
		secret := key[12:]
		if strings.Contains(k.Hint+k.Name+k.Scopes+string(k.Hash), secret) || len(k.Hash) != 32 {
			t.Errorf("the key is in %+v", k)
		}
	}
}

func TestCreateAPIKeyRefuses(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	for _, name := range []string{"", "  ", strings.Repeat("é", 101), "a\nb", "a\x1b[31m", "a\x00", "a\xffb"} {
		if _, err := models.CreateAPIKey(f.ctx, f.db, noon, name, models.Scopes); err == nil {
			t.Errorf("the name %q is accepted", name)
		}
	}
	other := newFixture(t, modelstest.SQLite(t))
	if _, err := models.CreateAPIKey(f.ctx, other.db, noon, strings.Repeat("é", 100), models.Scopes); err != nil {
		t.Errorf("a name of 100 characters: %v", err)
	}
	if _, err := models.CreateAPIKey(f.ctx, f.db, noon, "none", nil); err == nil {
		t.Error("an empty list of scopes is accepted")
	}
	if keys := all[models.APIKey](t, f); len(keys) != 0 {
		t.Errorf("the stored keys are %+v", keys)
	}
}
