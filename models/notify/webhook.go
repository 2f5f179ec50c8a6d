package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// webhookChannel sends notices to endpoints, as Standard Webhooks describes.
// Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
type webhookChannel struct {
	client *http.Client
	now    func() time.Time
}

func newWebhookChannel(o Options) *webhookChannel {
	dial := o.Dial
	if dial == nil {
		dial = publicDialer().DialContext
	}
	return &webhookChannel{now: o.Now, client: &http.Client{
		Timeout: callPatience,
		// No proxy: it would connect to addresses that this process refuses.
		Transport: &http.Transport{
			Proxy: nil, DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: callPatience / 2, MaxIdleConnsPerHost: 1, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 16 << 10,
		},
		// A redirect could lead anywhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// webhookBody is the payload of a webhook.
type webhookBody struct {
	// Type is "notice." and the notice's kind.
	Type string `json:"type"`
	// Timestamp is when the notice was written.
	Timestamp time.Time   `json:"timestamp"`
	Data      webhookData `json:"data"`
}

type webhookData struct {
	NoticeID     uuid.UUID            `json:"notice_id"`
	User         *webhookUser         `json:"user,omitempty"`
	Organization *webhookOrganization `json:"organization,omitempty"`
	PeriodStart  time.Time            `json:"period_start"`
	Threshold    int64                `json:"threshold,omitempty"`
	Facts        models.NoticeFacts   `json:"facts"`
	Title        string               `json:"title"`
	Text         string               `json:"text"`
	UsageURL     string               `json:"usage_url"`
}

type webhookUser struct {
	ID    uuid.UUID `json:"id"`
	Email string    `json:"email"`
}

type webhookOrganization struct {
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name"`
}

// payload returns the body of a webhook. It is stored at the first attempt, so that all attempts send
// the same one.
func (w *Worker) payload(j *job) (string, error) {
	n := &j.notice
	body := webhookBody{Type: "notice." + string(n.Kind), Timestamp: n.CreatedAt.UTC(), Data: webhookData{
		NoticeID: n.ID, PeriodStart: n.PeriodStart.UTC(), Threshold: n.Threshold, Facts: n.Facts, Title: j.message.title,
		Text: strings.Join(j.message.paragraphs, " "), UsageURL: j.message.usage,
	}}
	if n.SubjectKind == models.SubjectOrganization {
		body.Data.Organization = &webhookOrganization{n.Subject, j.message.subject}
	} else {
		body.Data.User = &webhookUser{n.Subject, j.message.subject}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return "", fmt.Errorf("encode a webhook: %w", err)
	}
	return string(text), nil
}

// send sends a webhook once.
func (c *webhookChannel) send(ctx context.Context, j *job) outcome {
	key, err := j.endpoint.SigningKey()
	if err != nil {
		return failed(err.Error())
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, j.endpoint.URL, strings.NewReader(*j.row.Payload))
	if err != nil {
		return failed(errorText(err))
	}
	id, timestamp := j.row.ID.String(), strconv.FormatInt(c.now().Unix(), 10)
	// The names are in lower case in the standard. HTTP ignores the case.
	request.Header.Set("Webhook-Id", id)
	request.Header.Set("Webhook-Timestamp", timestamp)
	request.Header.Set("Webhook-Signature", sign(key, id, timestamp, *j.row.Payload))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "Tollgate")
	answer, err := c.client.Do(request)
	if err != nil {
		return unknown(errorText(err))
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.CopyN(io.Discard, answer.Body, 4<<10) // so that the connection can be used again
	detail := fmt.Sprintf("the endpoint answered %d", answer.StatusCode)
	switch {
	case answer.StatusCode >= 200 && answer.StatusCode < 300:
		return sent()
	case answer.StatusCode == http.StatusGone:
		out := failed(detail + " (gone)")
		out.gone = true
		return out
	}
	out := notSent(detail)
	if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && seconds > 0 {
		out.after = time.Duration(min(seconds, int(maxDelay/time.Second))) * time.Second
	}
	return out
}

// sign returns the signature header of a webhook.
func sign(key []byte, id, timestamp, body string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "." + body))
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
