package web

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/slack-go/slack"
	"go.yaml.in/yaml/v3"
)

// TestSlackManifest checks that the manifest in docs has the addresses and scopes that Tollgate needs
// and no more, and that docs/slack.md has a reason for each scope.
func TestSlackManifest(t *testing.T) {
	raw, err := os.ReadFile("../docs/slack-manifest.yml")
	must(t, err)
	var tree map[string]any
	must(t, yaml.Unmarshal(raw, &tree))
	text, err := json.Marshal(tree)
	must(t, err)
	var m slack.Manifest
	strict := json.NewDecoder(strings.NewReader(string(text)))
	strict.DisallowUnknownFields()
	must(t, strict.Decode(&m))

	guide, err := os.ReadFile("../docs/slack.md")
	must(t, err)
	bot, user := []string{"chat:write", "commands", "users:read", "users:read.email"}, []string{"email", "openid", "profile"}
	if got := m.OAuthConfig.Scopes; !slices.Equal(got.Bot, bot) || !slices.Equal(got.User, user) {
		t.Errorf("the scopes are %+v", got)
	}
	for _, scope := range append(bot, user...) {
		if row := regexp.MustCompile("(?m)^\\|[^|]*`" + scope + "`[^|]*\\| (bot|user) \\| [A-Z].*\\. \\|$"); !row.Match(guide) {
			t.Errorf("docs/slack.md has no reason for the scope %s", scope)
		}
	}
	const server = "https://tollgate.example.com"
	if c := m.Features.SlashCommands; len(c) != 1 || c[0].Command != "/usage" || c[0].Url != server+slackCommandsPath {
		t.Errorf("the commands are %+v", c)
	}
	if e := m.Settings.EventSubscriptions; e.RequestUrl != server+slackEventsPath || !slices.Equal(e.BotEvents, []string{"app_home_opened"}) {
		t.Errorf("the events are %+v", e)
	}
	if urls := m.OAuthConfig.RedirectUrls; !slices.Equal(urls, []string{server + callbackPath}) {
		t.Errorf("the redirect URLs are %q", urls)
	}
	if !m.Features.AppHome.HomeTabEnabled || m.Settings.SocketModeEnabled || m.Settings.TokenRotationEnabled {
		t.Errorf("the features are %+v, the settings %+v", m.Features, m.Settings)
	}
	if steps := regexp.MustCompile(`(?m)^\d+\. `).FindAll(guide, -1); len(steps) != 10 {
		t.Errorf("%d steps, want 10", len(steps))
	}
}
