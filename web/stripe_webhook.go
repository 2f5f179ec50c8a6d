package web

import (
	"errors"
	"io"
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
	// webhookPatience is what keeping one may take, and waiting for it to be applied. Stripe waits for some ten seconds.
	webhookPatience = 2*time.Second + queryTimeout
)

// stripeWebhook takes an event of Stripe's. It is 200 as soon as the event is kept: whatever becomes of it then, Stripe need not
// send it again.
func (s *Server) stripeWebhook(c echo.Context) error {
	if s.webhooks == nil || !s.webhooks.Receives() {
		return newProblem(codeNotFound, "Stripe is not connected here.")
	}
	request := c.Request()
	payload, err := io.ReadAll(http.MaxBytesReader(c.Response(), request.Body, webhookLimit))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return newProblem(codePayloadTooLarge, "A webhook has at most 1 MiB.")
	} else if err != nil {
		return newProblem(codeBadSignature, "The body broke off.")
	}
	err = s.webhooks.Receive(request.Context(), payload, request.Header.Get("Stripe-Signature"))
	switch {
	case errors.Is(err, billing.ErrNotStripes):
		s.log.WarnContext(request.Context(), "a webhook was refused", "request_id", requestID(c), "reason", err.Error())
		return newProblem(codeBadSignature, "The webhook is not signed by Stripe with the secret of this endpoint, its signature is not of the last five minutes, or it is no event.")
	case err != nil:
		return err
	}
	return c.JSON(http.StatusOK, struct {
		Received bool `json:"received"`
	}{true})
}
