package billing

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/form"
)

// subscriptionWithPeriod is a subscription with its current period, for every version of Stripe's
// API. Versions since 2025-03-31 have the period on the items, where the SDK does not read it.
// Source:
// https://docs.stripe.com/changelog/basil/2025-03-31/deprecate-subscription-current-period-start-and-end
type subscriptionWithPeriod struct{ stripe.Subscription }

// UnmarshalJSON reads the period from the items if the subscription itself has none. If the items
// have different periods, the subscription gets none, because no single period says when its usage
// is billed.
func (s *subscriptionWithPeriod) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, &s.Subscription); err != nil || s.CurrentPeriodStart != 0 || s.CurrentPeriodEnd != 0 {
		return err
	}
	type period struct {
		Start int64 `json:"current_period_start"`
		End   int64 `json:"current_period_end"`
	}
	var content struct {
		Items struct {
			Data []period `json:"data"`
		} `json:"items"`
	}
	if err := json.Unmarshal(data, &content); err != nil {
		return err
	}
	var common period
	for _, item := range content.Items.Data {
		switch {
		case item == period{} || item == common:
		case common == period{}:
			common = item
		default:
			return nil
		}
	}
	s.CurrentPeriodStart, s.CurrentPeriodEnd = common.Start, common.End
	return nil
}

// subscriptionPage is one page of a list of subscriptions.
type subscriptionPage struct {
	stripe.APIResource
	stripe.ListMeta
	Data []*subscriptionWithPeriod `json:"data"`
}

// subscription fetches one subscription.
func (c *Client) subscription(ctx context.Context, id string) (*stripe.Subscription, error) {
	var s subscriptionWithPeriod
	err := c.backend.Call(http.MethodGet, "/v1/subscriptions/"+url.PathEscape(id), c.key, &stripe.SubscriptionParams{Params: params(ctx)}, &s)
	return &s.Subscription, err
}

// listSubscriptions calls do for each subscription of a list. It returns Stripe's error.
func (c *Client) listSubscriptions(ctx context.Context, list *stripe.SubscriptionListParams, do func(*stripe.Subscription)) error {
	list.Context, list.Limit = ctx, stripe.Int64(100)
	found := stripe.GetIter(list, func(p *stripe.Params, b *form.Values) ([]any, stripe.ListContainer, error) {
		page := &subscriptionPage{}
		err := c.backend.CallRaw(http.MethodGet, "/v1/subscriptions", c.key, b, p, page)
		all := make([]any, len(page.Data))
		for i, s := range page.Data {
			all[i] = s
		}
		return all, page, err
	})
	for found.Next() {
		do(&found.Current().(*subscriptionWithPeriod).Subscription)
	}
	return found.Err()
}
