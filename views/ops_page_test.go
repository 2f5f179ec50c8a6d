package views_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
	"tollgate/views/viewstest"
)

var checkedScope = regexp.MustCompile(`name="scope" value="(\w+)" checked`)

// TestNewKeyFormSelectsOnlyWhatTheAppNeeds checks that the form does not select the scopes read and
// manage by default, and that it explains each scope.
func TestNewKeyFormSelectsOnlyWhatTheAppNeeds(t *testing.T) {
	page := viewstest.Render(t, views.OpsPage(views.Ops{Frame: ui.Frame{Now: viewstest.Now}}))
	var checked []string
	for _, m := range checkedScope.FindAllStringSubmatch(page, -1) {
		checked = append(checked, m[1])
	}
	if want := []string{"check", "consume"}; !slices.Equal(checked, want) {
		t.Errorf("the form selects the scopes %q, want %q", checked, want)
	}
	for _, s := range models.Scopes {
		if !regexp.MustCompile(`>` + string(s) + `</code> <span class="text-sm text-muted">\w`).MatchString(page) {
			t.Errorf("the form does not explain the scope %s", s)
		}
	}
}

func TestAKeyIsShownOnce(t *testing.T) {
	pages := viewstest.OtherPages(t)
	const key = "tg_live_made0up0for0this0picture0only00000x7Ab"
	if n := strings.Count(viewstest.Render(t, pages["ops-new-key"]), key); n != 1 {
		t.Errorf("the response shows the key %d times, want once", n)
	}
	if strings.Contains(viewstest.Render(t, pages["ops"]), key) {
		t.Error("the page shows a key that was not just created")
	}
}

// TestAVoidSaysWhatHappensToItsOverage: overage may be in a report, not in one yet, or billed by hand.
func TestAVoidSaysWhatHappensToItsOverage(t *testing.T) {
	pages := viewstest.Pages(t)
	for page, want := range map[string]string{
		"person-void":            "The overage is already in a report to Stripe.",
		"person-void-unreported": "The overage is not in a report to Stripe yet, so it will not be billed.",
		"person-void-error":      "Tollgate does not bill this overage. If you have billed it by hand, credit it yourself.",
	} {
		if said := text(viewstest.Render(t, pages[page])); !strings.Contains(said, want) {
			t.Errorf("%s does not say %q:\n%s", page, want, said)
		}
	}
}
