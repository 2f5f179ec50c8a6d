//go:build linux

package e2e_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"
	"github.com/emersion/go-smtp"
	"github.com/slack-go/slack/slacktest"
	"github.com/wneessen/go-mail"
)

// The people in an inbox have a name such as "ada", from which their address and their Slack user
// ID follow.
const (
	inboxTeam   = "T1"
	inboxDomain = "@notices.example"
)

func slackID(name string) string { return "U" + strings.ToUpper(name) }

// inbox is what people get in Slack and by email. Each process has its own servers, so it is known
// which process sends.
type inbox struct {
	t *testing.T

	mu          sync.Mutex
	slack, mail map[string][]string // by name; see summary
	// unsubscribe has the link in each person's last email.
	unsubscribe map[string]string
	// A message to the held person is accepted, but has no answer before answer is closed. holding
	// gets the process that waits for it.
	held    string
	holding chan int
	answer  chan struct{}
}

func newInbox(t *testing.T) *inbox {
	return &inbox{t: t, slack: map[string][]string{}, mail: map[string][]string{}, unsubscribe: map[string]string{}}
}

// hold leaves the next messages to a person without an answer until release.
func (b *inbox) hold(name string) (holding <-chan int, release func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held, b.holding, b.answer = name, make(chan int, 10), make(chan struct{})
	release = sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.held = ""
		close(b.answer)
	})
	b.t.Cleanup(release)
	return b.holding, release
}

// add adds a message that a process sent, and returns when it may be answered.
func (b *inbox) add(process int, all map[string][]string, name, text string) {
	b.mu.Lock()
	all[name] = append(all[name], summary(text))
	held, holding, answer := b.held == name, b.holding, b.answer
	b.mu.Unlock()
	if held {
		holding <- process
		<-answer
	}
}

// of returns what a person got by channel, sorted.
func (b *inbox) of(name string) map[string][]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return map[string][]string{"Slack": slices.Sorted(slices.Values(b.slack[name])), "mail": slices.Sorted(slices.Values(b.mail[name]))}
}

var summaryFormat = regexp.MustCompile(`(?s)^([^.]+)\.\s+You've used (.*?)\. `)

// summary returns a message's title and figures, such as "Running low: 80 of 100 suggestions
// (80%)".
func summary(text string) string {
	if found := summaryFormat.FindStringSubmatch(text); found != nil {
		return found[1] + ": " + found[2]
	}
	return text
}

// slackAPI starts a stand-in for Slack for one process and returns its address.
func (b *inbox) slackAPI(process int) string {
	s := slacktest.NewTestServer(func(c slacktest.Customize) {
		c.Handle("/auth.test", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"ok":true,"team_id":"`+inboxTeam+`"}`)
		})
		c.Handle("/chat.postMessage", func(w http.ResponseWriter, r *http.Request) {
			b.add(process, b.slack, strings.ToLower(strings.TrimPrefix(r.FormValue("channel"), "U")), r.FormValue("text"))
			_, _ = io.WriteString(w, `{"ok":true,"channel":"D1","ts":"1.1"}`)
		})
	})
	s.Start()
	b.t.Cleanup(s.Stop)
	return s.GetAPIURL()
}

// smtp starts a mail server for one process and returns its address.
func (b *inbox) smtp(process int) string {
	b.t.Helper()
	l, err := new(net.ListenConfig).Listen(b.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &delivery{inbox: b, process: process}, nil }))
	s.Domain = "localhost"
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(l); err != nil && !errors.Is(err, smtp.ErrServerClosed) {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(func() {
		_ = s.Close()
		serving.Wait()
	})
	return "smtp://" + l.Addr().String() + "?from=tollgate@example.com"
}

// delivery is one connection of a process to its mail server.
type delivery struct {
	*inbox
	process int
	to      []string
}

func (d *delivery) Mail(string, *smtp.MailOptions) error { return nil }

func (d *delivery) Rcpt(to string, _ *smtp.RcptOptions) error {
	d.to = append(d.to, to)
	return nil
}

// Data reads an email to its end. The process has no answer before Data returns.
func (d *delivery) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err // an interrupted email is dropped
	}
	letter, err := mail.EMLToMsgFromReader(bytes.NewReader(text))
	if err != nil {
		d.t.Errorf("an email is not readable: %v\n%s", err, text)
		return err
	}
	plain, err := letter.GetParts()[0].GetContent()
	link := letter.GetGenHeader(mail.HeaderListUnsubscribe)
	if err != nil || len(link) != 1 || len(d.to) != 1 {
		d.t.Errorf("an email to %q has the unsubscribe links %q, %v", d.to, link, err)
		return errors.New("invalid email")
	}
	name := strings.TrimSuffix(d.to[0], inboxDomain)
	d.mu.Lock()
	d.unsubscribe[name] = strings.Trim(link[0], "<>")
	d.mu.Unlock()
	d.add(d.process, d.mail, name, string(plain))
	return nil
}

func (d *delivery) Reset()        { d.to = nil }
func (d *delivery) Logout() error { return nil }

// inboxClient is the client ID at the issuer.
const inboxClient = "1.2"

// slackIssuer starts an OpenID issuer that signs people in as Slack does. A code is the person's
// name, a dot, and the nonce of the sign-in.
func slackIssuer(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	documents := &oidctest.Server{
		PublicKeys: []oidctest.PublicKey{{PublicKey: key.Public(), KeyID: "1", Algorithm: oidc.ES256}}, Algorithms: []string{oidc.ES256},
	}
	mux := http.NewServeMux()
	mux.Handle("/", documents)
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		name, nonce, _ := strings.Cut(r.PostFormValue("code"), ".")
		now := time.Now()
		claims, err := json.Marshal(body{
			"iss": "http://" + r.Host, "aud": inboxClient, "sub": slackID(name), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
			"nonce": nonce, "https://slack.com/team_id": inboxTeam, "https://slack.com/user_id": slackID(name),
			"email": name + inboxDomain, "email_verified": true,
		})
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		token := oidctest.SignIDToken(key, "1", oidc.ES256, string(claims))
		if err := json.NewEncoder(w).Encode(body{"access_token": "xoxp-1", "token_type": "Bearer", "id_token": token}); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	documents.SetIssuer(server.URL)
	return server.URL
}
