package web

import (
	"context"
	"fmt"
	"time"

	"tollgate/models"
)

const (
	// actorSlack is the actor of changes that follow from a person's role in Slack.
	actorSlack = "Slack"
	// workspaceRolePatience is how long a sign-in waits for a person's role in their Slack workspace.
	workspaceRolePatience = 2 * time.Second
)

// appointWorkspaceAdmin makes a person who signed in with Slack an admin of their organization, if
// they are an owner or an admin of the Slack workspace that the bot token belongs to. If Slack does
// not answer, they stay a member until they sign in again.
func (s *Server) appointWorkspaceAdmin(ctx context.Context, person models.LinkedPerson, identity models.SlackIdentity) error {
	if s.slack.client == nil || identity == (models.SlackIdentity{}) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, workspaceRolePatience)
	defer cancel()
	known, err := models.UserByID(ctx, s.db, person.UserID)
	if err != nil || known.Role == models.Admin || known.OrganizationID == nil {
		return err
	}
	user, err := s.slack.user(ctx, identity)
	if user == nil || err != nil {
		return err
	}
	runs := user.IsAdmin || user.IsOwner || user.IsPrimaryOwner
	if !runs || user.TeamID != identity.TeamID || user.ID != identity.UserID || user.Deleted || user.IsBot || user.IsStranger {
		return nil
	}
	change := models.UserChange{Role: new(models.Admin), Actor: actorSlack, UserID: known.ID, Existing: true}
	if _, err := models.SetUser(ctx, s.db, models.Now(s.now), known.Email, change); err != nil {
		return fmt.Errorf("make the user %s an admin: %w", known.ID, err)
	}
	return nil
}
