package web

import (
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"tollgate/models/billing"
)

const (
	// webhookPath is where Stripe sends its events. It is no page and not of the API: what comes is known by its signature.
	webhookPath = billing.WebhookPath
	// webhookLimit is the largest webhook that is taken, in bytes.
	webhookLimit = 1 << 20
	// webhookPatience is what waiting for memory, keeping one, and waiting for it to be applied may take. Stripe waits for some ten seconds.
	webhookPatience = roomPatience + 2*time.Second + queryTimeout
)

// stripeWebhook takes an event of Stripe's. It is 200 as soon as the event is kept: whatever becomes of it then, Stripe need not
// send it again.
func (s *Server) stripeWebhook(c echo.Context) error {
	if s.webhooks == nil || !s.webhooks.Receives() {
		return newProblem(codeNotFound, "Stripe is not connected here.")
	}
	request := c.Request()
	signature := request.Header.Get("Stripe-Signature")
	if err := s.webhooks.CheckSignature(signature); err != nil {
		return s.refuseWebhook(c, err) // without its body: anyone can send one
	}
	if request.ContentLength > webhookLimit {
		return webhookTooLarge()
	}
	// The body, the copy of it that is stored, and what is read from it.
	lease := s.strangerBodies.lease(c, 3)
	defer lease.close()
	payload, err := lease.read(request, nil, webhookLimit)
	switch {
	case isProblem(err):
		return err
	case err != nil:
		return newProblem(codeBadSignature, "The body broke off.")
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
	return newProblem(codePayloadTooLarge, "A webhook has at most 1 MiB.")
}

// refuseWebhook refuses what is not signed by Stripe. Only that counts against the limit of a client, so that Stripe may send as
// much as it wants, also from an address that others share.
func (s *Server) refuseWebhook(c echo.Context, reason error) error {
	if err := s.strangers.take(c); err != nil {
		return err
	}
	s.log.WarnContext(c.Request().Context(), "a webhook was refused", "request_id", requestID(c), "reason", reason.Error())
	return newProblem(codeBadSignature, "The webhook is not signed by Stripe with the secret of this endpoint, its signature is not of the last five minutes, or it is no event.")
}
