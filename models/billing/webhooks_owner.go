package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"tollgate/models"
)

// owner is the owner of an object at Stripe: a person, an organization, or no known owner.
type owner struct{ user, organization *uuid.UUID }

func (o owner) none() bool { return o.user == nil && o.organization == nil }

// The metadata keys that name the owner of a customer or a subscription. Tollgate writes the first
// one.
var (
	organizationKeys = []string{"tollgate_organization", "organization_id"}
	userKeys         = []string{"tollgate_user", "user_id"}
	emailKeys        = []string{"tollgate_email", "email"}
)

// metadataBuyer is the key in a subscription's metadata for the person who bought it for an
// organization without an admin, and so becomes its admin.
const metadataBuyer = "tollgate_buyer"

// The kinds in a reference such as "organization:5e0c…", which Checkout has as its
// client_reference_id.
const (
	organizationReference = "organization:"
	userReference         = "user:"
)

// ownerOf returns the owner of a customer: from its metadata, or else that of one of its
// subscriptions, the stored owner, or the Checkout that created it. The customer's own email does
// not count, because the payer may change it. The customer of an erased person stays theirs: an
// address in the metadata is the erased one, or belongs to someone else by now.
func (a *application) ownerOf(ctx context.Context, customer *models.StripeCustomer) (owner, error) {
	if customer.UserID != nil {
		if erased, err := models.IsErased(ctx, a.tx, *customer.UserID); err != nil || erased {
			return owner{user: customer.UserID}, err
		}
	}
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

// named returns the owner that metadata names. Without a name, there is no owner; reason explains a
// name that cannot be resolved.
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
			reason = fmt.Sprintf("%s %q, which belongs to no known person or organization", key, value)
		}
	}
	return owner{}, reason, nil
}

// referred resolves a reference: "organization:ID", "user:ID", an ID of either, or an email. An
// unknown email creates a person, as everywhere; an unknown ID has no owner.
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

// checkedOut returns the owner from the customer's Checkouts. It reads all their events, including
// applied ones, because the event with the owner may have arrived before the owner existed.
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
		a.problem("Checkout's client_reference_id names %q, which belongs to no known person or organization",
			event.Data.Object.ClientReferenceID)
	}
	return owner{}, nil
}
