package cli

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// The preview names the person and changes nothing. Only their ID erases them, and a second run says
// the same.
func TestUserErase(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		db, err := models.Open(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		catalogue, err := models.LoadCatalogue("")
		if err != nil {
			t.Fatal(err)
		}
		people := map[string]uuid.UUID{}
		for _, email := range []string{"ada@example.com", "bob@example.com"} {
			u, err := models.SetUser(t.Context(), db, now(), email, models.UserChange{})
			if err != nil {
				t.Fatal(err)
			}
			people[email] = u.ID
		}
		ada, bob := people["ada@example.com"], people["bob@example.com"]
		customer := models.StripeCustomer{ID: "cus_1", UserID: &ada, CreatedAt: now()}
		if _, err := db.NewInsert().Model(&customer).Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		run := func(email string, yes *uuid.UUID) (stdout, stderr string, err error) {
			var out, notes bytes.Buffer
			c := userErase{Email: email, Yes: yes}
			err = c.Run(t.Context(), &Output{Stdout: &out, Stderr: &notes}, db)
			return out.String(), notes.String(), err
		}
		label := ada.String() + "@erased.invalid"
		for _, test := range []struct {
			email string
			yes   *uuid.UUID
			want  string
		}{
			{"", nil, `"" must be an email address`},
			{"ada", nil, `"ada" must be an email address`},
			{"cyd@example.com", nil, "There is no user cyd@example.com"},
			{label, nil, "There is no user " + label},
			{"cyd@example.com", &ada, "No person has this email"},
			{"bob@example.com", &ada, "the email belongs to another user now: " + bob.String()},
			{"ada@example.com", new(uuid.New()), "unknown_user"},
			{label, &ada, "must be an email address"},
		} {
			if out, _, err := run(test.email, test.yes); err == nil || !strings.Contains(err.Error(), test.want) || out != "" {
				t.Errorf("%q, %v: printed %q, %v, want %q", test.email, test.yes, out, err, test.want)
			}
		}
		out, notes, err := run("Ada@Example.com", nil)
		if err != nil || !strings.Contains(out, ada.String()) || !strings.Contains(out, "cus_1") ||
			!strings.Contains(notes, "Nothing was changed") ||
			!strings.Contains(notes, fmt.Sprintf("tollgate user erase ada@example.com --yes %s\n", ada)) {
			t.Errorf("the preview is %q and %q, %v", out, notes, err)
		}
		for range 2 {
			out, notes, err = run("ada@example.com", &ada)
			if err != nil || out != label+"\n" || !strings.Contains(notes, "cus_1") || strings.Contains(out+notes, "ada@example.com") {
				t.Errorf("it printed %q and %q, %v", out, notes, err)
			}
		}
		if out, notes, err = run(label, nil); err != nil || out != "" || !strings.Contains(notes, "was erased at ") {
			t.Errorf("the preview of an erased person is %q and %q, %v", out, notes, err)
		}
		// Someone else has the address now.
		if _, err := models.SetUser(t.Context(), db, now(), "ada@example.com", models.UserChange{}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := run("ada@example.com", &ada); err == nil || !strings.Contains(err.Error(), "this person was erased before") {
			t.Errorf("with the address of someone else: %v", err)
		}
		// Only the label of an erased person names an event's person.
		for erased, want := range map[string]string{
			label:                            "No person with this email or Slack identity has an event with this idempotency key.",
			bob.String() + "@erased.invalid": "There is no user " + bob.String(),
		} {
			c := voidCommand{Email: erased, Key: "k", Reason: "r"}
			if err := c.Run(t.Context(), &Output{}, db, catalogue); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("a void for %s: %v, want %q", erased, err, want)
			}
		}
	})
}

// An ID on the command line must be one.
func TestUserEraseNeedsAnID(t *testing.T) {
	for _, id := range []string{"", "7", "ada@example.com"} {
		var c userErase
		parser, err := kong.New(&c, HelpTexts)
		if err != nil {
			t.Fatal(err)
		}
		var wrong *kong.ParseError
		_, err = parser.Parse([]string{"ada@example.com", "--yes=" + id})
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), "--yes") {
			t.Errorf("--yes=%q: %v", id, err)
		}
	}
}
