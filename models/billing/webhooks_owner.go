package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"tollgate/models"
)

// owner is whose something of Stripe's is: a person's, an organization's, or nobody's that is known.
type owner struct{ user, organization *uuid.UUID }

func (o owner) none() bool { return o.user == nil && o.organization == nil }

// The keys of metadata by which a customer or a subscription names whose it is. The first is what we write.
var (
	organizationKeys = []string{"tollgate_organization", "organization_id"}
	userKeys         = []string{"tollgate_user", "user_id"}
	emailKeys        = []string{"tollgate_email", "email"}
)

// The kinds in a reference such as "organization:5e0c…", which Checkout carries as its client_reference_id.
const (
	organizationReference = "organization:"
	userReference         = "user:"
)

// ownerOf is whose a customer is: its own metadata says so, else that of one of its subscriptions, else what was known
// before, else the Checkout that it came from. An email that the customer itself has says nothing, as whoever pays may change it.
func (a *application) ownerOf(ctx context.Context, customer *models.StripeCustomer) (owner, error) {
	named, reason, err := a.named(ctx, a.at.metadata)
	if err != nil || !named.none() {
		return named, err
	}
	if reason != "" {
		a.problem("the customer's metadata names %s", reason)
	}
	for _, s := range a.at.subscriptions {
		if named, _, err := a.named(ctx, s.Metadata); err != nil || !named.none() {
			return named, err
		}
	}
	if customer.UserID != nil || customer.OrganizationID != nil {
		return owner{user: customer.UserID, organization: customer.OrganizationID}, nil
	}
	return a.checkedOut(ctx, customer.ID)
}

// named is whom metadata names. Without a name it is nobody; with one that cannot be followed, reason says what it names.
func (a *application) named(ctx context.Context, metadata map[string]string) (_ owner, reason string, err error) {
	for _, kind := range []struct {
		keys   []string
		prefix string
	}{{organizationKeys, organizationReference}, {userKeys, userReference}, {emailKeys, ""}} {
		for _, key := range kind.keys {
			value := strings.TrimSpace(metadata[key])
			if value == "" {
				continue
			}
			found, err := a.referred(ctx, kind.prefix+value)
			if err != nil || !found.none() {
				return found, "", err
			}
			reason = fmt.Sprintf("%s %q, whom nobody knows", key, value)
		}
	}
	return owner{}, reason, nil
}

// referred follows a reference: "organization:ID", "user:ID", an id of either, or an email. Somebody with an email that is
// not known is made, as everywhere; an id that is not known is nobody's.
func (a *application) referred(ctx context.Context, reference string) (owner, error) {
	text, isOrganization := strings.CutPrefix(reference, organizationReference)
	text, isUser := strings.CutPrefix(text, userReference)
	id, err := uuid.Parse(text)
	if err != nil {
		if isOrganization || isUser {
			return owner{}, nil
		}
		return a.byEmail(ctx, text)
	}
	if !isUser {
		if known, err := a.tx.NewSelect().Model((*models.Organization)(nil)).Where("id = ?", id).Exists(ctx); err != nil || known {
			return owner{organization: &id}, err
		}
	}
	if !isOrganization {
		if known, err := a.tx.NewSelect().Model((*models.User)(nil)).Where("id = ?", id).Exists(ctx); err != nil || known {
			return owner{user: &id}, err
		}
	}
	return owner{}, nil
}

func (a *application) byEmail(ctx context.Context, text string) (owner, error) {
	email, err := models.ParseEmail(text)
	if err != nil {
		return owner{}, nil
	}
	id, err := models.EnsureUser(ctx, a.tx, email, a.now)
	return owner{user: &id}, err
}

// checkedOut is whom the Checkouts of a customer were for. That is told by their events alone, applied ones too: the one
// that names the owner may have come before anybody knew them.
func (a *application) checkedOut(ctx context.Context, customer string) (owner, error) {
	var events []models.StripeWebhookEvent
	if err := a.tx.NewSelect().Model(&events).Column("payload").Where("stripe_customer_id = ? AND type = ?", customer, checkoutCompleted).
		Order("received_at DESC").Limit(5).Scan(ctx); err != nil {
		return owner{}, err
	}
	for _, e := range events {
		var event struct {
			Data struct {
				Object struct {
					ClientReferenceID string `json:"client_reference_id"`
				}
			}
		}
		if json.Unmarshal([]byte(e.Payload), &event) != nil || event.Data.Object.ClientReferenceID == "" {
			continue
		}
		found, err := a.referred(ctx, event.Data.Object.ClientReferenceID)
		if err != nil || !found.none() {
			return found, err
		}
		a.problem("Checkout's client_reference_id names %q, whom nobody knows", event.Data.Object.ClientReferenceID)
	}
	return owner{}, nil
}
