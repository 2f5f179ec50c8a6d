package stripetest_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"
)

func TestUsageThroughTheSDK(t *testing.T) {
	s := newStandIn(nil)
	c := s.sdk()
	must(c.BillingMeterEvents.New(&stripe.BillingMeterEventParams{
		EventName: stripe.String("suggestions"), Identifier: stripe.String("a"), Timestamp: stripe.Int64(start.Unix()),
		Payload: map[string]string{"stripe_customer_id": "cus_1", "value": "12"},
	}))(t)
	i := c.BillingMeterEventSummaries.List(&stripe.BillingMeterEventSummaryListParams{
		ID: stripe.String(s.meter), Customer: stripe.String("cus_1"),
		StartTime: stripe.Int64(start.Unix()), EndTime: stripe.Int64(start.Add(time.Minute).Unix()),
	})
	if !i.Next() || i.BillingMeterEventSummary().AggregatedValue != 12 || i.Next() || i.Err() != nil {
		t.Errorf("the summaries are %+v, %v", i.BillingMeterEventSummaryList(), i.Err())
	}
	if got := ids(t, c.BillingMeters.List(&stripe.BillingMeterListParams{Status: stripe.String("active")}),
		func(m *stripe.BillingMeter) string { return m.ID }); got != s.meter {
		t.Errorf("the meters are %q", got)
	}
	if a := must(c.Accounts.Get())(t); a.ID != "acct_standin" {
		t.Errorf("the account is %q", a.ID)
	}
	_, err := c.BillingMeterEvents.New(&stripe.BillingMeterEventParams{
		EventName: stripe.String("suggestions"), Payload: map[string]string{"stripe_customer_id": "cus_9", "value": "12"},
	})
	refused(t, "unknown customer", err, 400, "payload[stripe_customer_id]")
}

func TestCustomers(t *testing.T) {
	s := newStandIn(nil)
	c := s.sdk()
	p := &stripe.CustomerParams{Email: stripe.String("a@example.com")}
	p.AddMetadata("tollgate_user", "7")
	p.AddMetadata("quantity", "12")
	made := must(c.Customers.New(p))(t)
	if made.Email != "a@example.com" || made.Metadata["tollgate_user"] != "7" || made.Metadata["quantity"] != "12" ||
		made.Created != start.Unix() {
		t.Errorf("the new customer is %+v", made)
	}
	change := &stripe.CustomerParams{Name: stripe.String("Ann")}
	change.AddMetadata("tollgate_user", "")
	change.AddMetadata("more", "1")
	must(c.Customers.Update(made.ID, change))(t)
	got := must(c.Customers.Get(made.ID, nil))(t)
	if got.Name != "Ann" || got.Email != "a@example.com" || len(got.Metadata) != 2 || got.Metadata["more"] != "1" {
		t.Errorf("the updated customer is %+v", got)
	}
	find := func() string {
		return ids(t, c.Customers.List(&stripe.CustomerListParams{Email: stripe.String("a@example.com")}),
			func(c *stripe.Customer) string { return c.ID })
	}
	if find() != made.ID {
		t.Errorf("the found customers are %q", find())
	}
	if d := must(c.Customers.Del(made.ID, nil))(t); !d.Deleted {
		t.Errorf("the deletion returned %+v", d)
	}
	if got := must(c.Customers.Get(made.ID, nil))(t); !got.Deleted || got.ID != made.ID {
		t.Errorf("the deleted customer is %+v", got)
	}
	if find() != "" {
		t.Errorf("a deleted customer was found")
	}
	_, err := c.Customers.Update(made.ID, change)
	refused(t, "update of a deleted customer", err, 404, "id")
	_, err = c.Customers.Get("cus_9", nil)
	refused(t, "an unknown customer", err, 404, "id")
	if a := s.must(t, "POST /v1/customers", url.Values{"color": {"red"}}, ""); a.status != 400 || a.error("code") != "parameter_unknown" {
		t.Errorf("unknown parameter: %d %v", a.status, a.body)
	}
	if a := s.must(t, post, event("z", "1", start, "payload[stripe_customer_id]", made.ID), ""); a.status != 400 ||
		a.error("code") != "resource_missing" {
		t.Errorf("usage of a deleted customer: %d %v", a.status, a.body)
	}
}
