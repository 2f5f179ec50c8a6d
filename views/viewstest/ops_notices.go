package viewstest

import (
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/views"
)

// opsNotices returns notices that were not delivered, and webhook endpoints.
func opsNotices() views.OpsNotices {
	id := func(name string) uuid.UUID { return uuid.NewSHA1(uuid.NameSpaceURL, []byte(name)) }
	problem := func(kind models.NoticeKind, channel models.NoticeChannel, state models.DeliveryState, to string) models.NoticeProblem {
		return models.NoticeProblem{
			NoticeDelivery: models.NoticeDelivery{Channel: channel, State: state, CreatedAt: Now.Add(-26 * time.Hour)}, Kind: kind, To: to,
		}
	}
	refused := problem(models.NoticeFirstOverage, models.ChannelMail, models.DeliveryFailed, "quinn.bookend.of.the.lantern@example.com")
	refused.Tries = []models.NoticeAttempt{
		{Number: 1, At: Now.Add(-26 * time.Hour), Outcome: models.AttemptNotSent,
			Detail: "sending SMTP RCPT TO command: 451 4.7.1 Try again later"},
		{Number: 2, At: Now.Add(-25 * time.Hour), Outcome: models.AttemptFailed, Detail: "sending SMTP RCPT TO command: 550 5.1.1 No such user"},
	}
	lost := problem(models.NoticeIncluded, models.ChannelSlack, models.DeliveryUnknown, "alma.teapot@example.com")
	lost.Tries = []models.NoticeAttempt{{Number: 1, At: Now.Add(-2 * time.Hour), Outcome: models.AttemptUnknown,
		Detail: "the process ended before it stored the outcome"}}
	return views.OpsNotices{
		Problems: []models.NoticeProblem{lost, refused},
		Endpoints: []models.WebhookEndpoint{
			{ID: id("1"), URL: "https://hooks.example.com/tollgate", CreatedBy: "hugo.umbrella@example.com", CreatedAt: Now.AddDate(0, -1, 0)},
			{ID: id("2"), URL: "https://old.example.com/a/long/path/that/does/not/fit/on/a/phone/in/one/line",
				CreatedBy: "hugo.umbrella@example.com",
				CreatedAt: Now.AddDate(0, -3, 0), DisabledAt: new(Now.AddDate(0, 0, -4)), Reason: "the endpoint answered 410 (gone)"},
		},
	}
}
