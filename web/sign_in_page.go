package web

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/oauth2"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
)

const (
	callbackPath = "/auth/callback"
	// homePath is the page after a sign-in without another destination.
	homePath = "/usage"
	// attemptLife is how long a person may take at the issuer.
	attemptLife = 10 * time.Minute
	// startAgain is shown when a sign-in failed. The log has the reason, which does not help the
	// person.
	startAgain = "The sign-in could not be completed. Please start again."
)

// signInPage offers to sign in, or says why that is not possible.
func (s *Server) signInPage(c echo.Context, viewer *models.Viewer) error {
	next := ownPath(c.QueryParam("next"))
	if viewer != nil {
		return redirectSignedIn(c, next)
	}
	page := views.SignIn{Frame: s.frame(c), Issuer: s.issuer.name(), Next: next, Unavailable: !s.issuer.Configured()}
	if s.flashed(c, formNotSent) == formNotSent {
		page.Frame.Notices = []ui.Notice{{
			Kind: ui.Caution, Title: "You are signed out", Text: "Nothing was changed. Sign in, then send the form again.",
		}}
	}
	status := http.StatusOK
	if !page.Unavailable {
		if _, err := s.issuer.discover(c.Request().Context()); err != nil {
			s.log.Warn("the issuer cannot be reached", "request_id", requestID(c), "error", err)
			page.Away, status = true, http.StatusServiceUnavailable
			c.Response().Header().Set("Retry-After", seconds(issuerRetry))
		}
	}
	return show(c, status, views.SignInPage(page))
}

// redirectSignedIn redirects a signed-in person to their destination.
func redirectSignedIn(c echo.Context, next string) error {
	if next == "" {
		next = homePath
	}
	return c.Redirect(http.StatusSeeOther, next)
}

// startSignIn redirects a person to the issuer, and stores the attempt in their browser.
func (s *Server) startSignIn(c echo.Context, _ *models.Viewer) error {
	if !s.issuer.Configured() {
		return c.Redirect(http.StatusSeeOther, "/sign-in")
	}
	known, err := s.issuer.discover(c.Request().Context())
	if err != nil {
		return err
	}
	s.dropAttempts(c)
	a := &attempt{
		State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Next: ownPath(c.FormValue("next")),
	}
	if err := s.storeAttempt(c, a); err != nil {
		return err
	}
	return c.Redirect(http.StatusSeeOther, known.address(a))
}

// storeAttempt stores an attempt in a cookie. The cookie needs no signature: a person who can write
// it can only start their own sign-in in this browser. Under HTTPS, the cookie's name prevents
// other sites from writing it.
func (s *Server) storeAttempt(c echo.Context, a *attempt) error {
	text, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("begin a sign-in: %w", err)
	}
	value := base64.RawURLEncoding.EncodeToString(text)
	c.SetCookie(s.sessions.cookie(attemptName(a.State), value, int(attemptLife.Seconds())))
	return nil
}

// attemptName returns the name of an attempt's cookie. Each attempt has its own, so that sign-ins
// in two tabs can end in either order.
func attemptName(state string) string { return attemptCookie + "-" + state[:min(len(state), 16)] }

// dropAttempts deletes the cookies of unfinished attempts if there are many, because servers refuse
// long headers.
func (s *Server) dropAttempts(c echo.Context) {
	const most = 8
	prefix, n := cookieName(s.https, attemptCookie+"-"), 0
	for _, cookie := range c.Cookies() {
		if strings.HasPrefix(cookie.Name, prefix) {
			if n++; n >= most {
				c.SetCookie(s.sessions.cookie(attemptCookie+"-"+strings.TrimPrefix(cookie.Name, prefix), "", -1))
			}
		}
	}
}

// attempt returns the attempt that this browser began with the state; nil if there is none.
func (s *Server) attempt(c echo.Context, state string) *attempt {
	cookie, err := c.Cookie(cookieName(s.https, attemptName(state)))
	if err != nil {
		return nil
	}
	a := &attempt{}
	if text, err := base64.RawURLEncoding.DecodeString(cookie.Value); err != nil || json.Unmarshal(text, a) != nil {
		return nil
	}
	if a.State == "" || subtle.ConstantTimeCompare([]byte(a.State), []byte(state)) != 1 {
		return nil
	}
	return a
}

// finishSignIn signs in a person who comes back from the issuer. If a signed-in person opens a
// callback again, it redirects to the same destination as the first time.
func (s *Server) finishSignIn(c echo.Context, viewer *models.Viewer) error {
	a := s.attempt(c, c.QueryParam("state"))
	switch {
	case viewer != nil && a == nil:
		return redirectSignedIn(c, "")
	case viewer != nil && a.Nonce == "": // the attempt is finished
		return redirectSignedIn(c, ownPath(a.Next))
	case a == nil:
		// This browser did not begin the sign-in. It may be an attack that signs a person in to another
		// account.
		return s.signInFailed(c, errors.New("this browser has not begun a sign-in with this state"))
	}
	// The attempt is used up. Only its destination remains, in case the callback is opened again.
	if err := s.storeAttempt(c, &attempt{State: a.State, Next: a.Next}); err != nil {
		return err
	}
	if refused := c.QueryParam("error"); refused != "" {
		if viewer != nil {
			return redirectSignedIn(c, ownPath(a.Next))
		}
		return s.signInFailed(c, fmt.Errorf("the issuer sent the error %s", errorCode(refused)))
	}
	known, err := s.issuer.discover(c.Request().Context())
	if err != nil {
		return err
	}
	said, err := s.issuer.redeem(c.Request().Context(), known, a, c.QueryParam("code"))
	switch {
	case errors.Is(err, errIssuerAway):
		return s.issuer.unavailable(nil, err)
	case errors.Is(err, errCodeRefused) && viewer != nil:
		return redirectSignedIn(c, ownPath(a.Next))
	case err != nil:
		return s.signInFailed(c, err)
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), queryTimeout)
	defer cancel()
	person, err := s.issuer.person(ctx, s.db, models.Now(s.now), said)
	if errors.Is(err, models.ErrUnverifiedEmail) && said.noUserInfo != nil {
		return s.issuer.unavailable(nil, said.noUserInfo)
	}
	if errors.Is(err, models.ErrUnverifiedEmail) {
		s.log.Warn("a sign-in failed", "request_id", requestID(c), "reason", err.Error())
		return newProblem(codeSignInFailed, s.issuer.name()+" has not verified your email address. Verify it there, then sign in again.")
	}
	if errors.Is(err, models.ErrEmail) || errors.Is(err, models.ErrSlackIdentity) || errors.Is(err, models.ErrSubject) {
		return s.signInFailed(c, err)
	} else if err != nil {
		return err
	}
	identity := models.SlackIdentity{TeamID: said.SlackTeam, UserID: said.SlackUser}
	if err := s.appointWorkspaceAdmin(ctx, person, identity); err != nil {
		s.log.Warn("a person's role in Slack could not be read", "request_id", requestID(c), "error", err)
	}
	if err := s.sessions.begin(c, person.UserID); err != nil {
		return err
	}
	return redirectSignedIn(c, ownPath(a.Next))
}

func (s *Server) signInFailed(c echo.Context, reason error) error {
	s.log.WarnContext(c.Request().Context(), "a sign-in failed",
		"request_id", requestID(c), "reason", reason.Error())
	return newProblem(codeSignInFailed, startAgain)
}

// signInLinkPage shows a button that uses the one-time link. Opening the page does not use the
// link, because chat programs open links to show a preview.
func (s *Server) signInLinkPage(c echo.Context, viewer *models.Viewer) error {
	email, err := models.SignInLinkEmail(c.Request().Context(), s.db, models.Now(s.now), c.Param("token"))
	if err != nil {
		return err
	}
	page := views.SignInLink{Frame: s.frame(c), Email: email, Next: ownPath(c.QueryParam("next"))}
	if viewer != nil && viewer.User.Email != email {
		page.Instead = viewer.User.Email
	}
	return show(c, http.StatusOK, views.SignInLinkPage(page))
}

// useSignInLink signs in the person whom a one-time link is for. If the form is sent again, the
// signed-in person is only redirected.
func (s *Server) useSignInLink(c echo.Context, viewer *models.Viewer) error {
	person, err := models.UseSignInLink(c.Request().Context(), s.db, models.Now(s.now), c.Param("token"))
	if unknown := (*models.Error)(nil); viewer != nil && errors.As(err, &unknown) && unknown.Code == models.CodeUnknownLink {
		return redirectSignedIn(c, ownPath(c.FormValue("next")))
	}
	if err != nil {
		return err
	}
	if err := s.sessions.begin(c, person.UserID); err != nil {
		return err
	}
	return redirectSignedIn(c, ownPath(c.FormValue("next")))
}

// signOut ends the browser's session, if it has one.
func (s *Server) signOut(c echo.Context, _ *models.Viewer) error {
	if err := s.sessions.end(c); err != nil {
		return err
	}
	return s.done(c, "/", signedOut)
}
