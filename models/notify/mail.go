package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
)

// mailChannel sends mail through an SMTP server.
type mailChannel struct{ smtp *SMTP }

// mailHTML is the HTML part of a mail. It loads nothing from anywhere.
//
//go:embed mail.html
var mailHTML string

// UnsubscribePath is the path of the unsubscribe page. Its parameter is the token.
const UnsubscribePath = "/unsubscribe"

// compose returns the mail for a job.
func (m *mailChannel) compose(j *job) (*mail.Msg, error) {
	letter := mail.NewMsg(mail.WithNoDefaultUserAgent())
	letter.FromMailAddress(m.smtp.From)
	if err := letter.AddToFormat(j.to.Name, j.to.Email); err != nil {
		return nil, err
	}
	_, domain, _ := strings.Cut(m.smtp.From.Address, "@")
	letter.SetMessageIDWithValue(j.row.ID.String() + "@" + domain)
	letter.SetDate()
	letter.Subject("Tollgate: " + j.message.title)
	unsubscribe := j.message.base + UnsubscribePath + "?token=" + url.QueryEscape(j.unsubscribe)
	letter.SetListUnsubscribe(unsubscribe)
	letter.SetListUnsubscribePost()
	letter.SetGenHeader("Auto-Submitted", "auto-generated")
	settings := j.message.base + "/settings"
	letter.SetBodyString(mail.TypeTextPlain, j.message.plain()+"\n\n-- \nYou get this email because email is on in your notice settings.\n"+
		"Change your notice settings: "+settings+"\nUnsubscribe: "+unsubscribe+"\n")
	page, err := template.New("mail").Parse(mailHTML)
	if err != nil {
		return nil, err
	}
	var html bytes.Buffer
	err = page.Execute(&html, map[string]any{
		"Title": j.message.title, "Paragraphs": j.message.paragraphs, "Step": j.message.step, "Usage": j.message.usage, "Settings": settings,
		"Unsubscribe": unsubscribe,
	})
	if err != nil {
		return nil, err
	}
	letter.AddAlternativeString(mail.TypeTextHTML, html.String())
	return letter, nil
}

// send sends a mail. Only the server's answer after the mail's last line says that it was sent. Before
// that, it is certain that nothing was sent.
func (m *mailChannel) send(ctx context.Context, j *job) outcome {
	letter, err := m.compose(j)
	if err != nil {
		return failed(err.Error())
	}
	policy := mail.TLSOpportunistic
	switch {
	case m.smtp.local():
		policy = mail.NoTLS // its certificate is often self-signed, and nothing leaves this machine
	case m.smtp.User != "":
		policy = mail.TLSMandatory
	}
	settings := &tls.Config{ServerName: m.smtp.Host, MinVersion: tls.VersionTLS12}
	// The connection ends with ctx, whatever the client waits for.
	var conn net.Conn
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		var err error
		if m.smtp.Implicit {
			conn, err = (&tls.Dialer{Config: settings}).DialContext(ctx, network, address)
		} else {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		}
		return conn, err
	}
	options := []mail.Option{
		mail.WithPort(m.smtp.Port), mail.WithTimeout(callPatience), mail.WithTLSConfig(settings), mail.WithTLSPolicy(policy),
		mail.WithDialContextFunc(dial),
	}
	if m.smtp.Implicit {
		options = append(options, mail.WithSSL())
	}
	if m.smtp.User != "" {
		method := mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover)
		if m.smtp.local() && !m.smtp.Implicit {
			method = mail.WithOpportunisticSMTPAuth(mail.SMTPAuthPlainNoEnc, mail.SMTPAuthLoginNoEnc)
		}
		options = append(options, method, mail.WithUsername(m.smtp.User), mail.WithPassword(m.smtp.Password))
	}
	client, err := mail.NewClient(m.smtp.Host, options...)
	if err != nil {
		return failed(err.Error())
	}
	session, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		if conn != nil {
			_ = conn.Close()
		}
		return notSent("could not connect to the mail server: " + err.Error())
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	err = client.SendWithSMTPClient(session, letter)
	out := mailOutcome(letter.IsDelivered(), err)
	if out.result != sent().result {
		// No QUIT: after an interrupted mail, it would end the mail, so that the server would accept it.
		_ = conn.Close()
		return out
	}
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_ = client.CloseWithSMTPClient(session) // it is sent in any case
	return out
}

// mailOutcome returns the outcome of an attempt. delivered means that the server accepted the mail.
func mailOutcome(delivered bool, err error) outcome {
	if delivered {
		return sent()
	}
	refused := (*mail.SendError)(nil)
	if !errors.As(err, &refused) {
		return unknown(fmt.Sprint(err))
	}
	code := refused.ErrorCode()
	switch {
	case code >= 500 && code < 600:
		return failed(err.Error())
	case code >= 400 && code < 500:
		return notSent(err.Error())
	case refused.Reason == mail.ErrSMTPDataClose, refused.Reason == mail.ErrAmbiguous, refused.Reason == mail.ErrSMTPReset:
		return unknown(err.Error())
	case refused.Reason == mail.ErrGetSender, refused.Reason == mail.ErrGetRcpts, refused.Reason == mail.ErrNoUnencoded:
		return failed(err.Error())
	}
	return notSent(err.Error())
}
