package web

import (
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"tollgate/models/billing"
)

const (
	// webhookPath is where Stripe sends its events. It is neither a page nor part of the API: the
	// signature identifies the sender.
	webhookPath = billing.WebhookPath
	// webhookLimit is the maximum size of a webhook, in bytes.
	webhookLimit = 1 << 20
	// webhookPatience is the time for getting memory, storing the webhook, and waiting until it is
	// applied. Stripe waits for about ten seconds.
	webhookPatience = roomPatience + 2*time.Second + queryTimeout
)

// stripeWebhook receives an event from Stripe. It answers 200 as soon as the event is stored:
// Stripe need not send it again, even if applying it fails.
func (s *Server) stripeWebhook(c echo.Context) error {
	if s.webhooks == nil || !s.webhooks.Receives() {
		return newProblem(codeNotFound, "Stripe is not connected here.")
	}
	request := c.Request()
	signature := request.Header.Get("Stripe-Signature")
	if err := s.webhooks.CheckSignature(signature); err != nil {
		return s.refuseWebhook(c, err) // before reading its body, because anyone can send one
	}
	if request.ContentLength > webhookLimit {
		return webhookTooLarge()
	}
	// The body, the stored copy, and the parsed values.
	lease := s.strangerBodies.lease(c, 3)
	defer lease.close()
	payload, err := lease.read(request, nil, webhookLimit)
	switch {
	case isProblem(err):
		return err
	case err != nil:
		return newProblem(codeBadSignature, "The body is incomplete.")
	case len(payload) > webhookLimit:
		return webhookTooLarge()
	}
	err = s.webhooks.Receive(request.Context(), payload, signature)
	switch {
	case errors.Is(err, billing.ErrNotStripes):
		return s.refuseWebhook(c, err)
	case err != nil:
		return err
	}
	return c.JSON(http.StatusOK, struct {
		Received bool `json:"received"`
	}{true})
}

func webhookTooLarge() error {
	return newProblem(codePayloadTooLarge, "The webhook is larger than 1 MiB.")
}

// refuseWebhook refuses a webhook that is not signed by Stripe. Only these count against the
// client's limit, so Stripe may send any number, even from a shared address.
func (s *Server) refuseWebhook(c echo.Context, reason error) error {
	if err := s.strangers.take(c); err != nil {
		return err
	}
	s.log.WarnContext(c.Request().Context(), "a webhook was refused", "request_id", requestID(c), "reason", reason.Error())
	return newProblem(codeBadSignature, "The webhook is not signed by Stripe with the secret of this endpoint, "+
		"its timestamp is more than five minutes from the server's time, or it is not an event.")
}
