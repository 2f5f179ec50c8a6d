package views

import (
	"tollgate/models"
	"tollgate/views/ui"
)

// OpsNotices is the operator's view of notices.
type OpsNotices struct {
	Problems  []models.NoticeProblem
	Endpoints []models.WebhookEndpoint
}

// WebhookForm is the form that adds a webhook endpoint. If it is shown again, it keeps its entry.
type WebhookForm struct {
	// Token becomes the ID of the endpoint, so that a form that is sent twice adds one.
	Token string
	URL   string
}

// FieldIDWebhookURL is the ID of the form's field.
const FieldIDWebhookURL = "webhook-url"

// WebhookRemove is the page that asks for confirmation before an endpoint is removed.
type WebhookRemove struct {
	Frame    ui.Frame
	Endpoint models.WebhookEndpoint
}

// endpointStatus says whether an endpoint gets notices.
func endpointStatus(e *models.WebhookEndpoint) string {
	if e.DisabledAt == nil {
		return "Active"
	}
	return "Disabled " + ui.Day(*e.DisabledAt) + ": " + ui.Sentence(e.Reason) + " To use it again, remove it and add it again."
}

var noticeKinds = map[models.NoticeKind]string{
	models.NoticeIncluded: "Included units", models.NoticeFirstOverage: "First overage", models.NoticeSpendLimit: "Spend limit",
	models.NoticeMemberLimit: "Member limit", models.NoticeOrganizationSpendLimit: "Organization limit",
	models.NoticeTrialEnding: "Trial ending", models.NoticePaymentPastDue: "Payment past due", models.NoticeDigest: "Daily summary",
}

var noticeChannels = map[models.NoticeChannel]string{
	models.ChannelSlack: "Slack", models.ChannelMail: "Email", models.ChannelWebhook: "Webhook",
}

var noticeStates = map[models.DeliveryState]string{
	models.DeliveryFailed: "Failed", models.DeliveryUnknown: "Unknown; not sent again",
}

var attemptOutcomes = map[models.AttemptOutcome]string{
	models.AttemptSending: "in progress", models.AttemptSent: "sent", models.AttemptNotSent: "not sent", models.AttemptFailed: "failed",
	models.AttemptUnknown: "outcome unknown",
}

// tryText says what came of an attempt.
func tryText(a *models.NoticeAttempt) string {
	if a.Detail == "" {
		return attemptOutcomes[a.Outcome]
	}
	return attemptOutcomes[a.Outcome] + " (" + a.Detail + ")"
}
