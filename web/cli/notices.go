package cli

import (
	"context"
	"time"

	"tollgate/models"
	"tollgate/models/notify"
	"tollgate/web"
)

// StartWorkers starts the workers for Stripe and for notices, and adds to a server's options what it
// needs of them. stop stops them and waits for them. The demo has none: its made-up usage is not billed.
func (s *Settings) StartWorkers(ctx context.Context, d Deployment, o *web.Options) (stop func(), err error) {
	if d.Background != nil {
		return func() {}, nil
	}
	stopStripe, err := s.StartStripe(ctx, o)
	if err != nil {
		return nil, err
	}
	stopNotices, err := s.startNotices(ctx, o)
	if err != nil {
		stopStripe()
		return nil, err
	}
	return func() { stopNotices(); stopStripe() }, nil
}

// startNotices starts the worker that delivers notices, and notes in a server's options which channels
// people can choose. The worker stops when ctx ends; stop waits for it.
func (s *Settings) startNotices(ctx context.Context, o *web.Options) (stop func(), err error) {
	options := notify.Options{
		DB: o.DB, Catalogue: o.Catalogue, Now: time.Now, Log: o.Log, BaseURL: o.BaseURL, SlackToken: s.SlackBotToken,
		SlackAPI: s.slackAPI(), Tracer: o.Tracer,
	}
	if s.SlackBotToken != "" {
		o.NoticeChannels = append(o.NoticeChannels, models.ChannelSlack)
	}
	if s.SMTP != "" {
		if options.SMTP, err = notify.ParseSMTP(s.SMTP); err != nil {
			return nil, err
		}
		o.NoticeChannels = append(o.NoticeChannels, models.ChannelMail)
	}
	worker := notify.New(options)
	if err := worker.RegisterMetrics(o.Metrics, o.Log); err != nil {
		return nil, err
	}
	worker.Start(ctx)
	return worker.Stop, nil
}
