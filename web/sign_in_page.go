package web

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/oauth2"

	"tollgate/models"
	"tollgate/views"
)

const (
	callbackPath = "/auth/callback"
	// homePath is where somebody lands who signed in and wanted nothing else.
	homePath = "/usage"
	// attemptLife is how long somebody may take at the issuer.
	attemptLife = 10 * time.Minute
	// startAgain is all that a person can do about a sign-in that failed; why it did is in the log.
	startAgain = "The sign-in could not be completed. Please start again."
)

// signInPage offers to sign in, or says why that is not possible.
func (s *Server) signInPage(c echo.Context, who *models.Viewer) error {
	next := ownPath(c.QueryParam("next"))
	if who != nil {
		return landed(c, next)
	}
	page := views.SignIn{Frame: s.frame(c), Issuer: s.issuer.name(), Next: next, Unavailable: !s.issuer.Configured()}
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

// landed sends somebody who is signed in on to what they wanted.
func landed(c echo.Context, next string) error {
	if next == "" {
		next = homePath
	}
	return c.Redirect(http.StatusSeeOther, next)
}

// startSignIn sends somebody to the issuer, with what they have to come back with.
func (s *Server) startSignIn(c echo.Context, _ *models.Viewer) error {
	if !s.issuer.Configured() {
		return c.Redirect(http.StatusSeeOther, "/sign-in")
	}
	known, err := s.issuer.discover(c.Request().Context())
	if err != nil {
		return err
	}
	a := &attempt{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Next: ownPath(c.FormValue("next"))}
	if err := s.keepAttempt(c, a); err != nil {
		return err
	}
	return c.Redirect(http.StatusSeeOther, known.address(a))
}

// keepAttempt leaves an attempt with the browser that made it. It needs no signature: who can write the cookie can only
// begin a sign-in of their own in this browser, and the name keeps other sites from that where there is HTTPS.
func (s *Server) keepAttempt(c echo.Context, a *attempt) error {
	text, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("begin a sign-in: %w", err)
	}
	c.SetCookie(s.sessions.cookie(attemptCookie, base64.RawURLEncoding.EncodeToString(text), int(attemptLife.Seconds())))
	return nil
}

// attempt returns the one that the browser made; nil without one.
func (s *Server) attempt(c echo.Context) *attempt {
	cookie, err := c.Cookie(cookieName(s.https, attemptCookie))
	if err != nil {
		return nil
	}
	a := &attempt{}
	if text, err := base64.RawURLEncoding.DecodeString(cookie.Value); err != nil || json.Unmarshal(text, a) != nil {
		return nil
	}
	return a
}

// finishSignIn takes somebody back from the issuer.
func (s *Server) finishSignIn(c echo.Context, _ *models.Viewer) error {
	a := s.attempt(c)
	if a == nil || a.State == "" || subtle.ConstantTimeCompare([]byte(a.State), []byte(c.QueryParam("state"))) != 1 {
		// Not begun in this browser: somebody may want them signed in as somebody else.
		return s.signInFailed(c, errors.New("the state is not that of a sign-in that this browser began"))
	}
	c.SetCookie(s.sessions.cookie(attemptCookie, "", -1)) // it was for this once
	if fault := c.QueryParam("error"); fault != "" {
		return s.signInFailed(c, fmt.Errorf("the issuer said %q", fault))
	}
	known, err := s.issuer.discover(c.Request().Context())
	if err != nil {
		return err
	}
	said, err := s.issuer.redeem(c.Request().Context(), known, a, c.QueryParam("code"))
	if errors.Is(err, errIssuerAway) {
		return s.issuer.unavailable(nil, err)
	} else if err != nil {
		return s.signInFailed(c, err)
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), queryTimeout)
	defer cancel()
	email, err := said.person(ctx, s.db, models.Now(s.now))
	if errors.Is(err, models.ErrEmail) || errors.Is(err, models.ErrSlackIdentity) {
		return s.signInFailed(c, err)
	} else if err != nil {
		return err
	}
	if err := s.sessions.begin(c, email); err != nil {
		return err
	}
	return landed(c, ownPath(a.Next))
}

func (s *Server) signInFailed(c echo.Context, reason error) error {
	s.log.LogAttrs(c.Request().Context(), slog.LevelWarn, "a sign-in failed", slog.String("request_id", requestID(c)), slog.String("reason", reason.Error()))
	return newProblem(codeSignInFailed, startAgain)
}

// signInLinkPage asks whoever opens a one-time link to go on. Chat programs open links too, to show what is behind them,
// so looking at it does not use it.
func (s *Server) signInLinkPage(c echo.Context, who *models.Viewer) error {
	email, err := models.SignInLinkEmail(c.Request().Context(), s.db, models.Now(s.now), c.Param("token"))
	if err != nil {
		return err
	}
	page := views.SignInLink{Frame: s.frame(c), Email: email, Next: ownPath(c.QueryParam("next"))}
	if who != nil && who.User.Email != email {
		page.Instead = who.User.Email
	}
	return show(c, http.StatusOK, views.SignInLinkPage(page))
}

// useSignInLink signs in whom a one-time link is for.
func (s *Server) useSignInLink(c echo.Context, _ *models.Viewer) error {
	email, err := models.UseSignInLink(c.Request().Context(), s.db, models.Now(s.now), c.Param("token"))
	if err != nil {
		return err
	}
	if err := s.sessions.begin(c, email); err != nil {
		return err
	}
	return landed(c, ownPath(c.FormValue("next")))
}

// signOut ends the session that the browser has, if it has one.
func (s *Server) signOut(c echo.Context, _ *models.Viewer) error {
	if err := s.sessions.end(c); err != nil {
		return err
	}
	return c.Redirect(http.StatusSeeOther, "/")
}
