package web

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/a-h/templ"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/enforcement"
	"tollgate/views"
	"tollgate/views/ui"
)

// rule says who may open a page. The zero value is invalid: a page without a rule is not
// registered.
type rule string

const (
	// anyone: the session is not read, so the page works without the database. viewer is nil.
	anyone rule = "anyone"
	// public: viewer is nil for people who are not signed in.
	public rule = "public"
	// member: people who are signed in.
	member rule = "member"
	// admin: admins of an organization, which is viewer.Organization. A member gets 403 and the
	// admins' names.
	admin rule = "admin"
	// operator: for other people the page does not exist (404). No one they could ask can let them in,
	// so they need not know about it.
	operator rule = "operator"
)

// pageRoute is a page, or the target of a page's form. A handler that gets an ID must look for it
// among the viewer's own objects: an object of another person is a 404.
type pageRoute struct {
	method, path string
	rule         rule
	handle       pageHandler
	// within is the timeout; zero means queryTimeout.
	within time.Duration
	// anySite means that forms on other sites may send to it.
	anySite bool
	// leads means that a form of the page may redirect to another site: Stripe or the issuer.
	leads bool
}

// pageHandler answers a request for a page.
type pageHandler func(c echo.Context, viewer *models.Viewer) error

// pages returns all pages.
func (s *Server) pages() []pageRoute {
	get, post := http.MethodGet, http.MethodPost
	return []pageRoute{
		{method: get, path: "/", rule: public, handle: s.landingPage, leads: true},
		{method: get, path: "/plans", rule: public, handle: s.plansPage, leads: true},
		{method: post, path: views.PathCheckout, rule: member, handle: s.checkout, within: shopPatience, leads: true},
		{method: post, path: views.PathPortal, rule: member, handle: s.portal, within: shopPatience, leads: true},
		{method: get, path: views.PathReturn, rule: member, handle: s.plansReturn},
		{method: get, path: "/docs", rule: anyone, handle: s.docs},
		{method: get, path: "/sign-in", rule: public, handle: s.signInPage, within: issuerPatience + queryTimeout, leads: true},
		{method: post, path: "/sign-in/slack", rule: public, handle: s.startSignIn, within: issuerPatience + queryTimeout},
		{method: get, path: callbackPath, rule: public, handle: s.countSignIn(byIssuer, s.finishSignIn), within: 3*issuerPatience + queryTimeout},
		{method: get, path: SignInLinkPath + ":token", rule: public, handle: s.signInLinkPage},
		{method: post, path: SignInLinkPath + ":token", rule: public, handle: s.countSignIn(byLink, s.useSignInLink)},
		{method: post, path: "/sign-out", rule: public, handle: s.signOut},
		{method: get, path: homePath, rule: member, handle: s.usagePage, leads: true},
		{method: get, path: "/usage.csv", rule: member, handle: s.usageCSV},
		{method: get, path: "/usage/activity", rule: member, handle: s.activityPage},
		{method: get, path: "/usage/activity.csv", rule: member, handle: s.activityCSV, within: activityCSVPatience},
		{method: post, path: views.PathSpendLimit, rule: member, handle: s.setSpendLimit, leads: true},
		{method: post, path: views.PathSpendLimitRemove, rule: member, handle: s.removeSpendLimit},
		{method: get, path: "/org", rule: admin, handle: s.orgPage, leads: true},
		{method: post, path: views.PathOrgSpendLimit, rule: admin, handle: s.setOrgSpendLimit, within: limitPatience, leads: true},
		{method: post, path: views.PathOrgMemberLimit, rule: admin, handle: s.setOrgMemberLimit, leads: true},
		{method: get, path: "/org/members", rule: admin, handle: s.orgMembersPage},
		{method: get, path: "/org/members.csv", rule: admin, handle: s.orgMembersCSV},
		{method: get, path: "/org/members/:id", rule: admin, handle: s.orgMemberPage},
		{method: get, path: "/org/members/:id/activity", rule: admin, handle: s.orgActivityPage},
		{method: get, path: "/org/members/:id/activity.csv", rule: admin, handle: s.orgActivityCSV, within: activityCSVPatience},
		{method: post, path: "/org/members/:id/limit", rule: admin, handle: s.setMemberLimit},
		{method: post, path: "/org/members/:id/role", rule: admin, handle: s.setRole},
		{method: get, path: "/org/members/:id/remove", rule: admin, handle: s.removeMemberPage},
		{method: post, path: "/org/members/:id/remove", rule: admin, handle: s.removeMember},
		{method: get, path: "/ops", rule: operator, handle: s.opsPage},
		{method: get, path: "/ops/people", rule: operator, handle: s.opsPeoplePage},
		{method: get, path: "/ops/people/:id", rule: operator, handle: s.opsPersonPage},
		{method: post, path: "/ops/people/:id/grants", rule: operator, handle: s.opsGrant},
		{method: get, path: "/ops/people/:id/activity", rule: operator, handle: s.opsActivityPage},
		{method: get, path: "/ops/people/:id/activity.csv", rule: operator, handle: s.opsActivityCSV, within: activityCSVPatience},
		{method: get, path: "/ops/people/:id/void", rule: operator, handle: s.opsVoidPage},
		{method: post, path: "/ops/people/:id/void", rule: operator, handle: s.opsVoid},
		{method: post, path: "/ops/people/:id/plan", rule: operator, handle: s.opsPlan, within: planPatience},
		{method: get, path: "/ops/people/:id/plan/end", rule: operator, handle: s.opsPlanEndPage},
		{method: post, path: "/ops/people/:id/plan/end", rule: operator, handle: s.opsPlanEnd, within: planPatience},
		{method: post, path: "/ops/people/:id/role", rule: operator, handle: s.opsRole},
		{method: post, path: views.PathKeys, rule: operator, handle: s.makeKey},
		{method: get, path: views.PathKeyRevoke, rule: operator, handle: s.revokeKeyPage},
		{method: post, path: views.PathKeyRevoke, rule: operator, handle: s.revokeKey},
		{method: post, path: views.PathWebhooks, rule: operator, handle: s.addWebhook},
		{method: get, path: views.PathWebhookRemove, rule: operator, handle: s.removeWebhookPage},
		{method: post, path: views.PathWebhookRemove, rule: operator, handle: s.removeWebhook},
		{method: post, path: views.PathStripePause, rule: operator, handle: s.pauseStripe},
		{method: post, path: views.PathStripeResume, rule: operator, handle: s.resumeStripe},
		{method: post, path: views.PathStripeUnblock, rule: operator, handle: s.unblockStripe},
		{method: post, path: views.PathReportRetry, rule: operator, handle: s.retryReport},
		{method: post, path: views.PathReportGiveUp, rule: operator, handle: s.giveUpReport},
		{method: get, path: "/settings", rule: member, handle: s.settingsPage},
		{method: post, path: views.PathNotices, rule: member, handle: s.saveNotices},
		// RFC 8058: a mail program sends the form, without a session and from its own site.
		{method: get, path: views.PathUnsubscribe, rule: anyone, handle: s.unsubscribePage},
		{method: post, path: views.PathUnsubscribe, rule: anyone, handle: s.unsubscribe, anySite: true},
		{method: post, path: "/settings/sessions/:id/end", rule: member, handle: s.endSession},
		{method: post, path: "/settings/sessions/end-others", rule: member, handle: s.endOtherSessions},
	}
}

// addPages registers pages.
func (s *Server) addPages(pages []pageRoute) error {
	for _, r := range pages {
		switch r.rule {
		case anyone, public, member, admin, operator:
			s.echo.Add(r.method, r.path, s.page(&r))
		default:
			return fmt.Errorf("the page %s %s has the rule %q", r.method, r.path, r.rule)
		}
	}
	return nil
}

// formLimit is the maximum size of a page's form, in bytes.
const formLimit = 64 << 10

// page returns a handler that does everything that comes before a page's own handler.
func (s *Server) page(r *pageRoute) echo.HandlerFunc {
	within := r.within
	if within == 0 {
		within = queryTimeout
	}
	return limited(within, func(c echo.Context) error {
		request := c.Request()
		c.Set(policyName, s.policy(r))
		if err := s.crossSite.Check(request); err != nil && !r.anySite {
			return newProblem(codeCrossSite, "The form was sent from another site, so nothing was changed. "+
				"Open the page here and send the form again.")
		}
		if !isText(request.URL.Path) {
			return echo.ErrNotFound
		}
		if r.rule == anyone {
			return r.handle(c, nil)
		}
		viewer, err := s.viewer(c)
		if err != nil {
			return err
		}
		c.Set(viewerName, viewer)
		post := request.Method != http.MethodGet
		switch {
		case viewer != nil || r.rule == public:
		case post:
			leaveBody(c)
			return s.done(c, "/sign-in", formNotSent) // the form's action is not repeated after the sign-in
		default:
			return c.Redirect(http.StatusSeeOther, "/sign-in?next="+url.QueryEscape(request.URL.RequestURI()))
		}
		if post {
			lease := s.formLease(c)
			defer lease.close()
			if err := lease.parseForm(c.Request()); err != nil {
				return err
			}
		}
		switch {
		case r.rule == admin && !viewer.IsAdmin():
			return s.needsAdmin(c, viewer)
		case r.rule == operator && !viewer.IsOperator():
			return echo.ErrNotFound
		}
		return r.handle(c, viewer)
	})
}

// isText reports whether every database can store a text unchanged: PostgreSQL refuses NUL and
// invalid UTF-8.
func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// asText removes the parts of a text that isText refuses.
func asText(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "") }

// needsAdmin refuses an admin's page to a member.
func (s *Server) needsAdmin(c echo.Context, viewer *models.Viewer) error {
	if viewer.Organization == nil {
		return newProblem(codeForbidden, "This page is for the admins of an organization, and you belong to none.")
	}
	return s.askAnAdmin(c, viewer, "", "This page is for the admins of "+viewer.Organization.Name)
}

// askAnAdmin refuses a member with a title (the error page's own if it is empty) and a reason, and
// lists the admins who can help.
func (s *Server) askAnAdmin(c echo.Context, viewer *models.Viewer, title, reason string) error {
	admins, err := models.AdminsOf(c.Request().Context(), s.db, viewer.Organization.ID)
	if err != nil {
		return err
	}
	p := newProblem(codeForbidden, ui.Sentence(reason)+" This organization has no admin. The operator of this service can add one.")
	if s.shop != nil {
		p.Detail += " If the organization has no subscription, a member who buys a team plan becomes its admin."
	}
	if len(admins) > 0 {
		p.Detail = ui.Sentence(reason) + " They can help you:"
	}
	p.heading = title
	for _, a := range admins {
		p.helpers = append(p.helpers, views.Person{Name: a.Name, Email: a.Email})
	}
	return p
}

// A page may load only our own styles and images, and its forms may only be sent to us. If our
// answer redirects to another site, such as Stripe, browsers apply the page's policy to that
// redirect and to all further ones, whose addresses we cannot know. So a page with such a form
// allows any HTTPS site. On a server without HTTPS, it also allows this machine.
const (
	PagePolicy    = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
	LeadingPolicy = PagePolicy + " https:"
	LocalPolicy   = LeadingPolicy + " http://127.0.0.1:* http://localhost:*"
)

// policyName is the key under which a request stores the policy of its page.
const policyName = "policy"

func (s *Server) policy(r *pageRoute) string {
	switch {
	case !r.leads:
		return PagePolicy
	case s.https:
		return LeadingPolicy
	}
	return LocalPolicy
}

// PageHeaders sets the headers that every page has.
func PageHeaders(h http.Header, policy string) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	// Not no-referrer: with it, browsers send Origin: null with a form, and a form without
	// Sec-Fetch-Site would be refused.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	h.Set("Cache-Control", "private, no-store")
	h.Set(echo.HeaderContentType, echo.MIMETextHTMLCharsetUTF8)
}

// viewerName is the key under which a request stores its viewer.
const viewerName = "viewer"

// frame returns what is around a page's content: the viewer and the time. A page with the rule
// anyone has no viewer.
func (s *Server) frame(c echo.Context) ui.Frame {
	f := ui.Frame{Now: models.Now(s.now)}
	if viewer, _ := c.Get(viewerName).(*models.Viewer); viewer != nil {
		f.Viewer = &ui.Viewer{Email: viewer.User.Email, Name: viewer.User.Name, Admin: viewer.IsAdmin(), Operator: viewer.IsOperator()}
		if viewer.Organization != nil {
			f.Viewer.Organization = viewer.Organization.Name
		}
	}
	return f
}

// load reads one part of a page, perhaps at the same time as others. If it fails, the page shows an error with the request's ID in its
// place and works otherwise. If the database is unreachable, there is no page at all, because the
// session cannot be read either.
func load[T any](s *Server, c echo.Context, part string, ask func(context.Context) (T, error)) views.Widget[T] {
	var v T
	err := models.Recovered(func() (err error) { v, err = ask(c.Request().Context()); return err })()
	if err != nil {
		level := slog.LevelError
		if hasLeft(c) && models.IsCanceled(err) {
			level = slog.LevelDebug
		}
		s.log.LogAttrs(c.Request().Context(), level, "a part of a page failed", slog.String("request_id", requestID(c)),
			slog.String("route", c.Path()), slog.String("part", part), slog.String("error", err.Error()))
		return views.Widget[T]{Failed: requestID(c)}
	}
	return views.Loaded(v)
}

// standing returns a person's standing. It asks the gate, as the API's usage and check do.
func (s *Server) standing(ctx context.Context, email string) (models.Standing, error) {
	a, err := s.gate.Check(ctx, enforcement.Person{Email: email}, 1)
	return a.Standing, err
}

// show answers with a page. It renders the whole page before it sends the first byte, so that an
// error results in status 500.
func show(c echo.Context, status int, page templ.Component) error {
	var b bytes.Buffer
	if err := page.Render(context.WithoutCancel(c.Request().Context()), &b); err != nil {
		return fmt.Errorf("draw a page: %w", err)
	}
	policy, ok := c.Get(policyName).(string)
	if !ok {
		policy = PagePolicy
	}
	sendPage(c, status, policy, b.Bytes())
	return nil
}

func sendPage(c echo.Context, status int, policy string, page []byte) {
	PageHeaders(c.Response().Header(), policy)
	c.Response().WriteHeader(status)
	_, _ = c.Response().Write(page) // it does not matter if the client is gone
}

// isPage reports whether a path belongs to a page, so that errors are shown as a page too.
func isPage(path string) bool {
	return !strings.HasPrefix(path, "/v1/") && path != "/v1" && path != "/healthz" && path != "/readyz" &&
		path != webhookPath && path != slackCommandsPath && path != slackEventsPath && !strings.HasPrefix(path, "/static/")
}

// SignInLinkPath is the path of one-time links, without their token.
const SignInLinkPath = "/sign-in/"

// maxNext is in bytes. The text is stored in a cookie, and browsers accept cookies of up to 4 kB.
const maxNext = 1000

// ownPath returns next if it is a path of this server, such as /org/members?sort=name, otherwise an
// empty string. A link to our sign-in must not redirect to another site.
func ownPath(next string) string {
	if len(next) > maxNext || !strings.HasPrefix(next, "/") || strings.Contains(next, "//") ||
		strings.Contains(next, `\`) || strings.ContainsFunc(next, isControl) {
		return ""
	}
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" {
		return ""
	}
	return u.RequestURI()
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
