package models_test

import (
	"testing"

	"tollgate/models"
)

// verified reports whether a sign-in has verified a person's current email.
func (f *fixture) verified(t *testing.T, email string) bool {
	t.Helper()
	to, err := models.NoticeRecipientByID(f.ctx, f.db, f.user(t, email))
	if err != nil || to == nil || to.Email != email {
		t.Fatalf("%s: %+v, %v", email, to, err)
	}
	return to.EmailVerifiedAt != nil
}

func TestOnlyASignInVerifiesAnEmail(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ada := models.SlackIdentity{TeamID: "T1", UserID: "U1"}
		link := func(email string) {
			t.Helper()
			if _, err := models.LinkPeople(f.ctx, f.db, noon, []models.Link{{Email: email, Slack: ada}}); err != nil {
				t.Fatal(err)
			}
		}
		signIn := func(email string) {
			t.Helper()
			if _, err := models.SignInBySlack(f.ctx, f.db, noon, ada, email, "Ada"); err != nil {
				t.Fatal(err)
			}
		}
		link("ada@example.com")
		if f.verified(t, "ada@example.com") {
			t.Error("an API call verified the email")
		}
		signIn("")
		if f.verified(t, "ada@example.com") {
			t.Error("a sign-in without an email verified it")
		}
		signIn("Ada@example.com")
		if !f.verified(t, "ada@example.com") {
			t.Error("the sign-in did not verify the email")
		}
		link("ada@example.com")
		if !f.verified(t, "ada@example.com") {
			t.Error("an API call with the same email removed the verification")
		}
		link("new@example.com")
		if f.verified(t, "new@example.com") {
			t.Error("the new label counts as verified")
		}
		signIn("newer@example.com")
		if !f.verified(t, "newer@example.com") {
			t.Error("the sign-in did not verify the label that it gave")
		}
		bob := models.IssuerIdentity{Issuer: "https://issuer.example", Subject: "bob"}
		for _, email := range []string{"bob@example.com", "other@example.com"} {
			if _, err := models.SignInByIssuer(f.ctx, f.db, noon, bob, email, "Bob"); err != nil {
				t.Fatal(err)
			}
		}
		if !f.verified(t, "bob@example.com") || f.verified(t, "other@example.com") {
			t.Error("the issuer's email is verified only if it is the person's label")
		}
	})
}
