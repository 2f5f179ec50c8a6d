package models_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// sessionFixture has the sessions of two people. one is ada's session with the token "one".
type sessionFixture struct {
	*fixture
	ada, eve uuid.UUID
	one      *models.Viewer
}

// sessionsExpired is when the session "two" has expired.
var sessionsExpired = noon.Add(time.Minute + models.SessionIdle)

func tokenHash(token string) []byte { h := models.HashKey(token); return h[:] }

func (f *sessionFixture) begin(t *testing.T, token string, user uuid.UUID, at time.Time) {
	t.Helper()
	if err := models.SaveSession(f.ctx, f.db, at, tokenHash(token), user, "Fox\x00\u202e/1 "+strings.Repeat("é", 300),
		[]byte{0, 1, 0xff}); err != nil {
		t.Fatal(err)
	}
}

func (f *sessionFixture) find(t *testing.T, token string, at time.Time) *models.Viewer {
	t.Helper()
	viewer, data, err := models.FindSession(f.ctx, f.db, at, tokenHash(token))
	if err != nil || viewer != nil && string(data) != "\x00\x01\xff" {
		t.Fatalf("%q, %v", data, err)
	}
	return viewer
}

func TestSessions(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.member(t, "ada@example.com", "T1")
		f.member(t, "eve@example.com", "T1")
		s := &sessionFixture{fixture: f, ada: one[models.User](t, f, "email = ?", "ada@example.com").ID,
			eve: one[models.User](t, f, "email = ?", "eve@example.com").ID}
		s.begin(t, "one", s.ada, noon)
		s.begin(t, "two", s.ada, noon.Add(time.Minute))
		if s.one = s.find(t, "one", noon); s.one == nil {
			t.Fatal("the session is not found")
		}
		// Each step continues with the sessions of the previous one.
		t.Run("find", s.testFind)
		t.Run("use", s.testUse)
		t.Run("list and remove", s.testListAndRemove)
		t.Run("end", s.testEnd)
	})
}

func (f *sessionFixture) testFind(t *testing.T) {
	if err := models.SaveSession(f.ctx, f.db, noon, tokenHash("unknown"), newID(), "", nil); err == nil || f.find(t, "three", noon) != nil {
		t.Errorf("a session without a user: %v", err)
	}
	viewer := f.one
	if viewer.User.Email != "ada@example.com" || viewer.User.Role != models.Member || viewer.User.WorkspaceID == nil ||
		viewer.Organization == nil || viewer.Organization.Name != "Slack team T1" || !viewer.Session.CreatedAt.Equal(noon) ||
		viewer.Session.Data != nil || viewer.IsAdmin() || viewer.IsOperator() {
		t.Fatalf("found %+v", viewer)
	}
	stored := one[models.User](t, f.fixture, "email = ?", "ada@example.com")
	if viewer.User.ID != stored.ID || *viewer.User.SlackUserID != *stored.SlackUserID || *viewer.User.WorkspaceID != *stored.WorkspaceID ||
		!viewer.User.CreatedAt.Equal(stored.CreatedAt) {
		t.Errorf("the user is %+v, stored %+v", viewer.User, stored)
	}
	if agent := viewer.Session.UserAgent; !strings.HasPrefix(agent, "Fox/1 é") || len(agent) > 300 {
		t.Errorf("the user agent is %q", agent)
	}
}

// testUse checks that a session lasts longer when it is used, but never beyond its lifetime.
func (f *sessionFixture) testUse(t *testing.T) {
	for _, step := range []struct{ seen, end time.Duration }{
		// the last step is out of order
		{time.Hour, time.Hour + models.SessionIdle}, {25 * 24 * time.Hour, models.SessionLifetime}, {2 * time.Hour, models.SessionLifetime},
	} {
		if err := models.TouchSession(f.ctx, f.db, &f.one.Session, noon.Add(step.seen)); err != nil {
			t.Fatal(err)
		}
		if f.find(t, "one", noon.Add(step.end-time.Microsecond)) == nil || f.find(t, "one", noon.Add(step.end)) != nil {
			t.Errorf("used after %v, it does not end after %v", step.seen, step.end)
		}
	}
}

func (f *sessionFixture) testListAndRemove(t *testing.T) {
	list := func(at time.Time) (tokens int) {
		t.Helper()
		sessions, err := models.ListSessions(f.ctx, f.db, at, f.ada)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range sessions {
			if s.Data != nil || i > 0 && s.LastSeenAt.After(sessions[i-1].LastSeenAt) {
				t.Errorf("the listed sessions are %+v", sessions)
			}
		}
		return len(sessions)
	}
	if n := list(noon); n != 2 {
		t.Errorf("%d sessions are listed, want 2", n)
	}
	if n := list(sessionsExpired); n != 1 {
		t.Errorf("%d sessions are listed after one has expired, want 1", n)
	}
	if _, err := models.CreateSignInLink(f.ctx, f.db, noon, "ada@example.com"); err != nil {
		t.Fatal(err)
	}
	f.retain(t, sessionsExpired, "forever")
	if sessions, links := all[models.Session](t, f.fixture), all[models.SignInLink](t, f.fixture); len(sessions) != 1 || len(links) != 0 {
		t.Errorf("%d sessions and %d links are left, want 1 and 0", len(sessions), len(links))
	}
}

func (f *sessionFixture) testEnd(t *testing.T) {
	late := sessionsExpired
	f.begin(t, "two", f.ada, late)
	f.begin(t, "three", f.ada, late)
	f.begin(t, "eve's", f.eve, late)
	third := f.find(t, "three", late).Session.ID
	if ended, err := models.EndSession(f.ctx, f.db, f.eve, third); ended || err != nil {
		t.Errorf("eve ended it: %t, %v", ended, err)
	}
	if ended, err := models.EndSession(f.ctx, f.db, f.ada, third); !ended || err != nil || f.find(t, "three", late) != nil {
		t.Errorf("ada ended it: %t, %v", ended, err)
	}
	if n, err := models.EndOtherSessions(f.ctx, f.db, f.ada, f.one.Session.ID); n != 1 || err != nil || f.find(t, "two", late) != nil ||
		f.find(t, "one", late) == nil {
		t.Errorf("%d other sessions ended, %v", n, err)
	}
	for range 2 {
		if err := models.EndSessionByToken(f.ctx, f.db, tokenHash("one")); err != nil || f.find(t, "one", late) != nil {
			t.Errorf("ended by its token: %v", err)
		}
	}
	if n := len(all[models.Session](t, f.fixture)); n != 1 {
		t.Errorf("%d sessions are left, want eve's", n)
	}
}

// Sessions and links of releases that stored an email with them are migrated to users.
func TestSessionsOfEmailsBecomeSessionsOfUsers(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.member(t, "ada@example.com", "T1")
		ada := one[models.User](t, f, "email = ?", "ada@example.com").ID
		initial := func(table, columns string) {
			kind := "blob"
			if f.db.Postgres {
				kind = "bytea"
			}
			f.exec(t, "DROP TABLE "+table)
			f.exec(t, "CREATE TABLE "+table+" (token_hash "+kind+" PRIMARY KEY NOT NULL, email text NOT NULL, created_at timestamp NOT "+
				"NULL, expires_at timestamp NOT NULL"+columns+")")
		}
		data := "data blob NOT NULL"
		id := "id text NOT NULL"
		if f.db.Postgres {
			data, id = "data bytea NOT NULL", "id uuid NOT NULL"
		}
		initial("sessions", ", "+id+", "+data+", user_agent text NOT NULL, last_seen_at timestamp NOT NULL")
		f.exec(t, "CREATE INDEX sessions_email ON sessions (email)")
		initial("sign_in_links", "")
		late := noon.Add(time.Minute)
		for _, email := range []string{"ada@example.com", "unknown@example.com"} {
			f.exec(t, "INSERT INTO sessions (token_hash, id, email, data, user_agent, created_at, last_seen_at, expires_at) VALUES (?, ?, "+
				"?, ?, '', ?, ?, ?)",
				tokenHash(email), newID(), email, []byte("data"), noon, noon, late)
			f.exec(t, "INSERT INTO sign_in_links (token_hash, email, created_at, expires_at) VALUES (?, ?, ?, ?)", tokenHash("link "+email), email,
				noon, late)
		}
		f.forget(t, "20261128081000")
		if _, err := f.db.Migrate(f.ctx); err != nil {
			t.Fatal(err)
		}
		if viewer, data, err := models.FindSession(f.ctx, f.db, noon, tokenHash("ada@example.com")); err != nil || viewer == nil ||
			viewer.User.ID != ada || string(data) != "data" {
			t.Errorf("the session is %+v, %v", viewer, err)
		}
		if p, err := models.UseSignInLink(f.ctx, f.db, noon, "link ada@example.com"); err != nil || p.UserID != ada {
			t.Errorf("the link is %+v, %v", p, err)
		}
		if n, m := len(all[models.Session](t, f)), len(all[models.SignInLink](t, f)); n != 1 || m != 0 {
			t.Errorf("%d sessions and %d links are left, want 1 and 0", n, m)
		}
	})
}
