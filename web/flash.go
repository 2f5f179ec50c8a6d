package web

import (
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"
)

// flash names a message that the page after a redirect shows once. It is stored in a cookie, so
// reading the page needs no write, and a reload does not show the message again. It names one of
// the messages below and never contains data, especially no API key.
type flash string

const (
	limitSaved       flash = "limit-saved"
	limitRemoved     flash = "limit-removed"
	planBought       flash = "plan-bought"
	keyRevoked       flash = "key-revoked"
	keyRevokedBefore flash = "key-revoked-before"
	sendingPaused    flash = "sending-paused"
	sendingResumed   flash = "sending-resumed"
	sendingUnchanged flash = "sending-unchanged"
	stopEnded        flash = "stop-ended"
	customerRetried  flash = "customer-retried"
	customerFree     flash = "customer-not-blocked"
	reportRetried    flash = "report-retried"
	reportGivenUp    flash = "report-given-up"
	sessionEnded     flash = "session-ended"
	sessionsEnded    flash = "sessions-ended"
	noticesSaved     flash = "notices-saved"
	webhookRemoved   flash = "webhook-removed"
	signedOut        flash = "signed-out"
	formNotSent      flash = "form-not-sent"

	orgLimitSaved      flash = "org-limit-saved"
	orgLimitRemoved    flash = "org-limit-removed"
	memberLimitSaved   flash = "member-limit-saved"
	memberLimitRemoved flash = "member-limit-removed"
	ownLimitSaved      flash = "own-limit-saved"
	ownLimitRemoved    flash = "own-limit-removed"
	roleSaved          flash = "role-saved"
	adminResigned      flash = "admin-resigned"
	memberRemoved      flash = "member-removed"
	memberLeft         flash = "member-left"

	grantAdded        flash = "grant-added"
	grantAddedBefore  flash = "grant-added-before"
	planAssigned      flash = "plan-assigned"
	planEnded         flash = "plan-ended"
	planEndedBefore   flash = "plan-ended-before"
	eventVoided       flash = "event-voided"
	eventVoidedBefore flash = "event-voided-before"
)

const (
	flashCookie = "tollgate-flash"
	// flashSeconds is how long a message waits for its page.
	flashSeconds = 300
)

// done redirects to a page after a form did its work. The page shows the message once.
func (s *Server) done(c echo.Context, path string, message flash) error {
	c.SetCookie(s.sessions.cookie(flashCookie, string(message), flashSeconds))
	return c.Redirect(http.StatusSeeOther, path)
}

// flashed returns the message that waits for this page and removes it. A message for another page
// stays.
func (s *Server) flashed(c echo.Context, own ...flash) flash {
	cookie, err := c.Cookie(cookieName(s.https, flashCookie))
	if err != nil || !slices.Contains(own, flash(cookie.Value)) {
		return ""
	}
	c.SetCookie(s.sessions.cookie(flashCookie, "", -1))
	return flash(cookie.Value)
}
