package models_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

func TestSessions(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.member(t, "ada@example.com", "T1")
		hash := func(token string) []byte { h := models.HashKey(token); return h[:] }
		f.member(t, "eve@example.com", "T1")
		ada, eve := one[models.User](t, f, "email = ?", "ada@example.com").ID, one[models.User](t, f, "email = ?", "eve@example.com").ID
		begin := func(token string, user uuid.UUID, at time.Time) {
			t.Helper()
			if err := models.SaveSession(f.ctx, f.db, at, hash(token), user, "Fox\x00\u202e/1 "+strings.Repeat("é", 300),
				[]byte{0, 1, 0xff}); err != nil {
				t.Fatal(err)
			}
		}
		find := func(token string, at time.Time) *models.Viewer {
			t.Helper()
			who, data, err := models.FindSession(f.ctx, f.db, at, hash(token))
			if err != nil || who != nil && string(data) != "\x00\x01\xff" {
				t.Fatalf("%q, %v", data, err)
			}
			return who
		}
		begin("one", ada, noon)
		begin("two", ada, noon.Add(time.Minute))
		if err := models.SaveSession(f.ctx, f.db, noon, hash("nobody's"), newID(), "", nil); err == nil || find("three", noon) != nil {
			t.Errorf("a session without a user: %v", err)
		}
		who := find("one", noon)
		if who == nil || who.User.Email != "ada@example.com" || who.User.Role != models.Member || who.User.WorkspaceID == nil ||
			who.Organization == nil ||
			who.Organization.Name != "Slack team T1" || !who.Session.CreatedAt.Equal(noon) || who.Session.Data != nil || who.IsAdmin() ||
			who.IsOperator() {
			t.Fatalf("found %+v", who)
		}
		stored := one[models.User](t, f, "email = ?", "ada@example.com")
		if who.User.ID != stored.ID || *who.User.SlackUserID != *stored.SlackUserID || *who.User.WorkspaceID != *stored.WorkspaceID ||
			!who.User.CreatedAt.Equal(stored.CreatedAt) {
			t.Errorf("the user is %+v, stored %+v", who.User, stored)
		}
		if agent := who.Session.UserAgent; !strings.HasPrefix(agent, "Fox/1 é") || len(agent) > 300 {
			t.Errorf("the user agent is %q", agent)
		}

		// Used, it lasts for longer, but never beyond its lifetime.
		for _, step := range []struct{ seen, end time.Duration }{
			// the last one came late
			{time.Hour, time.Hour + models.SessionIdle}, {25 * 24 * time.Hour, models.SessionLifetime}, {2 * time.Hour, models.SessionLifetime},
		} {
			if err := models.TouchSession(f.ctx, f.db, &who.Session, noon.Add(step.seen)); err != nil {
				t.Fatal(err)
			}
			if find("one", noon.Add(step.end-time.Microsecond)) == nil || find("one", noon.Add(step.end)) != nil {
				t.Errorf("seen after %v, it does not end after %v", step.seen, step.end)
			}
		}

		list := func(at time.Time) (tokens int) {
			t.Helper()
			sessions, err := models.ListSessions(f.ctx, f.db, at, ada)
			if err != nil {
				t.Fatal(err)
			}
			for i, s := range sessions {
				if s.Data != nil || i > 0 && s.LastSeenAt.After(sessions[i-1].LastSeenAt) {
					t.Errorf("listed %+v", sessions)
				}
			}
			return len(sessions)
		}
		if n := list(noon); n != 2 {
			t.Errorf("%d are listed", n)
		}
		late := noon.Add(time.Minute + models.SessionIdle)
		if n := list(late); n != 1 {
			t.Errorf("%d are listed when one has expired", n)
		}
		if _, err := models.CreateSignInLink(f.ctx, f.db, noon, "ada@example.com"); err != nil {
			t.Fatal(err)
		}
		if err := models.RemoveExpired(f.ctx, f.db, late); err != nil {
			t.Fatal(err)
		}
		if sessions, links := all[models.Session](t, f), all[models.SignInLink](t, f); len(sessions) != 1 || len(links) != 0 {
			t.Errorf("%d sessions and %d links are left", len(sessions), len(links))
		}

		begin("two", ada, late)
		begin("three", ada, late)
		begin("eve's", eve, late)
		third := find("three", late).Session.ID
		if ended, err := models.EndSession(f.ctx, f.db, eve, third); ended || err != nil {
			t.Errorf("eve ends it: %t, %v", ended, err)
		}
		if ended, err := models.EndSession(f.ctx, f.db, ada, third); !ended || err != nil || find("three", late) != nil {
			t.Errorf("ended: %t, %v", ended, err)
		}
		if n, err := models.EndOtherSessions(f.ctx, f.db, ada, who.Session.ID); n != 1 || err != nil || find("two", late) != nil ||
			find("one", late) == nil {
			t.Errorf("%d others ended, %v", n, err)
		}
		for range 2 {
			if err := models.EndSessionByToken(f.ctx, f.db, hash("one")); err != nil || find("one", late) != nil {
				t.Errorf("ended by its token: %v", err)
			}
		}
		if n := len(all[models.Session](t, f)); n != 1 {
			t.Errorf("%d sessions are left, want eve's", n)
		}
	})
}

// TestSessionsOfEmailsBecomeSessionsOfUsers migrates the sessions and links of the releases that stored an email with them.
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
		hash := func(token string) []byte { h := models.HashKey(token); return h[:] }
		late := noon.Add(time.Minute)
		for _, email := range []string{"ada@example.com", "nobody@example.com"} {
			f.exec(t, "INSERT INTO sessions (token_hash, id, email, data, user_agent, created_at, last_seen_at, expires_at) VALUES (?, ?, "+
				"?, ?, '', ?, ?, ?)",
				hash(email), newID(), email, []byte("data"), noon, noon, late)
			f.exec(t, "INSERT INTO sign_in_links (token_hash, email, created_at, expires_at) VALUES (?, ?, ?, ?)", hash("link "+email), email,
				noon, late)
		}
		f.forget(t, "20261128081000")
		if _, err := f.db.Migrate(f.ctx); err != nil {
			t.Fatal(err)
		}
		if who, data, err := models.FindSession(f.ctx, f.db, noon, hash("ada@example.com")); err != nil || who == nil ||
			who.User.ID != ada || string(data) != "data" {
			t.Errorf("the session is %+v, %v", who, err)
		}
		if p, err := models.UseSignInLink(f.ctx, f.db, noon, "link ada@example.com"); err != nil || p.UserID != ada {
			t.Errorf("the link is %+v, %v", p, err)
		}
		if n, m := len(all[models.Session](t, f)), len(all[models.SignInLink](t, f)); n != 1 || m != 0 {
			t.Errorf("%d sessions and %d links are left, want 1 and 0", n, m)
		}
	})
}
