package models_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tollgate/models"
)

// The numbers are those of the product's price list. No other test repeats them.
func TestEmbeddedCatalogue(t *testing.T) {
	c := embedded(t)
	type numbers struct {
		id             models.PlanID
		kind           models.PlanType
		included, rate int64
		price          bool
	}
	var got []numbers
	for _, p := range c.Plans {
		got = append(got, numbers{p.ID, p.Type, p.Included, p.OverageRateCents, p.BasePriceCents > 0})
		if p.Name == "" || p.Description == "" || p.CallToAction == "" || len(p.Features) == 0 {
			t.Errorf("plan %q has nothing to show: %+v", p.ID, p)
		}
		if same, ok := c.Plan(p.ID); !ok || same.Name != p.Name {
			t.Errorf("plan %q is found as %+v, %v", p.ID, same, ok)
		}
	}
	want := []numbers{
		{"free", models.Individual, 5, 0, false}, {"starter", models.Individual, 25, 35, true}, {"pro", models.Individual, 75, 30, true},
		{"team", models.Team, 50, 25, true}, {"business", models.Team, 100, 20, true},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	free := c.Free()
	if free.Description != "Limited free tier for evaluation" || free.CallToAction != "Get Started Free" || len(free.Features) != 3 ||
		free.Features[1] != "AI learns YOUR writing style" {
		t.Errorf("free is %+v", free)
	}
	if c.MeterEventName != "slack_speak_suggestions" || c.Currency != "usd" {
		t.Errorf("meter %q, currency %q", c.MeterEventName, c.Currency)
	}
	if _, ok := c.Plan("gold"); ok {
		t.Error("a plan that does not exist is found")
	}
}

func TestUnits(t *testing.T) {
	c := embedded(t)
	for n, want := range map[int64]string{0: "0 suggestions", 1: "1 suggestion", 2: "2 suggestions", 1804: "1,804 suggestions"} {
		if got := c.Units(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// plans is a valid catalog. The tests below name its line numbers.
const plans = `unit:
  singular: reply
  plural: replies
currency: eur
meter_event_name: replies
plans:
  - id: free
    name: Free
    type: individual
    description: For a look
    base_price_cents: 0
    included: 3
    overage_rate_cents: 0
    features: []
    call_to_action: Look
  - id: crew
    name: Crew
    type: team
    description: For crews
    base_price_cents: 900
    included: 40
    overage_rate_cents: 12
    stripe_price_id: price_1
    stripe_overage_price_id: price_2
    features:
      - Forty replies
      - "And more: always"
    call_to_action: Join
`

func TestParseCatalogue(t *testing.T) {
	c, err := models.ParseCatalogue("my.yaml", []byte(plans))
	if err != nil {
		t.Fatal(err)
	}
	crew, ok := c.Plan("crew")
	want := models.Plan{
		ID: "crew", Name: "Crew", Description: "For crews", Type: models.Team, BasePriceCents: 900, Included: 40, OverageRateCents: 12,
		StripePriceID: "price_1", StripeOveragePriceID: "price_2", CallToAction: "Join",
	}
	features := crew.Features
	crew.Features = nil
	if !ok || !slices.Equal(features, []string{"Forty replies", "And more: always"}) || !equalPlans(crew, want) {
		t.Errorf("got %+v with %q", crew, features)
	}
	if c.Units(2) != "2 replies" || c.Currency != "eur" || c.MeterEventName != "replies" || len(c.Plans) != 2 {
		t.Errorf("got %+v", c)
	}
}

func equalPlans(a, b models.Plan) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Description == b.Description && a.Type == b.Type && a.BasePriceCents == b.BasePriceCents &&
		a.Included == b.Included && a.OverageRateCents == b.OverageRateCents && a.StripePriceID == b.StripePriceID &&
		a.StripeOveragePriceID == b.StripeOveragePriceID && a.CallToAction == b.CallToAction
}

// Each case puts invalid YAML on the line that it names.
func TestSyntaxErrorsNameTheirLine(t *testing.T) {
	for _, test := range []struct {
		name     string
		old, new string // replaced in plans, once
		line     int
	}{
		{"a tab on the first line", "unit:\n", "\tunit:\n", 1},
		{"a tab", "    included: 40", "\tincluded: 40", 21},
		{"too little indentation", "    included: 40", "   included: 40", 21},
		{"too much indentation", "    included: 40", "      included: 40", 21},
		{"a colon in a text", "name: Crew", "name: Crew: all", 17},
		{"an unclosed quote", "description: For crews", `description: "For crews`, 19},
		{"text after a quote", "name: Crew", `name: "Crew" all`, 17},
		{"an unclosed bracket", "features: []", "features: [", 14},
		{"an extra bracket", "features: []", "features: []]", 14},
		{"a key without its colon", "included: 40", "included", 21},
		{"an unknown anchor", "included: 40", "included: *forty", 21},
		{"a percent sign", "name: Crew", "name: %Crew", 17},
		{"an at sign", "name: Crew", "name: @Crew", 17},
		{"a bad escape", "name: Crew", `name: "\q"`, 17},
		{"the last line", "call_to_action: Join", "call_to_action: @Join", 28},
		{"a byte that is not UTF-8", "name: Crew", "name: Cr\xffew", 17},
		{"a control character", "name: Crew", "name: Cr\x01ew", 17},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !strings.Contains(plans, test.old) {
				t.Fatalf("%q is not in the catalog", test.old)
			}
			_, err := models.ParseCatalogue("my.yaml", []byte(strings.Replace(plans, test.old, test.new, 1)))
			if want := fmt.Sprintf("my.yaml:%d: ", test.line); err == nil || !strings.HasPrefix(err.Error(), want) ||
				strings.Contains(err.Error(), "yaml: line") {
				t.Errorf("got %v, want it to begin with %q", err, want)
			}
		})
	}
}

// Each error stops the start and is reported with its line.
func TestParseCatalogueRefuses(t *testing.T) {
	for _, test := range []struct {
		name     string
		old, new string // replaced in plans, once
		want     []string
	}{
		{"unknown key", "currency: eur", "currency: eur\ncolor: red", []string{`my.yaml:5: unknown key "color" in the catalog`}},
		{"second document", "call_to_action: Join\n", "call_to_action: Join\n---\nplans: []\n",
			[]string{"my.yaml:29: a second YAML document begins here"}},
		{"invalid second document", "call_to_action: Join\n", "call_to_action: Join\n---\n: [\n", []string{"my.yaml:30: invalid YAML: "}},
		{"unknown key of a unit", "plural: replies", "plural: replies\n  dual: two", []string{`my.yaml:4: unknown key "dual" in unit`}},
		{"unknown key of a plan", "included: 40", "included: 40\n    seats: 5", []string{`my.yaml:22: unknown key "seats" in a plan`}},
		{"doubled key", "included: 40", "included: 40\n    included: 41", []string{`my.yaml:22: key "included" given twice in a plan`}},
		{"doubled key at the top", "currency: eur", "currency: eur\ncurrency: usd",
			[]string{`my.yaml:5: key "currency" given twice in the catalog`}},
		{"doubled id", "id: crew", "id: free", []string{`my.yaml:16: the plan "free" must be individual and cost nothing`,
			`my.yaml:16: plan "free" is already defined on line 7`}},
		{"missing key", "    call_to_action: Join\n", "", []string{`my.yaml:16: a plan lacks "call_to_action"`}},
		{"missing key at the top", "currency: eur\n", "", []string{`my.yaml:1: the catalog lacks "currency"`}},
		{"missing free plan", "id: free", "id: gratis", []string{`my.yaml:7: the plan "free" is missing`}},
		{"free plan that costs", "base_price_cents: 0", "base_price_cents: 1",
			[]string{`my.yaml:7: the plan "free" must be individual and cost nothing`}},
		{"free plan for teams", "type: individual", "type: team", []string{`my.yaml:7: the plan "free" must be individual and cost nothing`}},
		{"free plan with overage", "overage_rate_cents: 0", "overage_rate_cents: 1",
			[]string{`my.yaml:7: the plan "free" must be individual and cost nothing`}},
		{"negative number", "included: 40", "included: -40", []string{`my.yaml:21: included is negative: -40`}},
		{"negative price", "base_price_cents: 900", "base_price_cents: -1", []string{`my.yaml:20: base_price_cents is negative: -1`}},
		{"number too large", "included: 40", "included: 1000000001",
			[]string{`my.yaml:21: included is 1000000001, more than the allowed 1000000000`}},
		{"number beyond 64 bits", "included: 40", "included: 99999999999999999999", []string{`my.yaml:21: included must be a whole number`}},
		{"no number", "included: 40", "included:", []string{`my.yaml:21: included must be a whole number, not ""`}},
		{"no text", "name: Crew", "name:", []string{"my.yaml:17: name must be text"}},
		{"unit is not a mapping", "unit:\n  singular: reply\n  plural: replies\n", "unit:\n\n", []string{"my.yaml:1: unit must be a mapping"}},
		{"no features", "features: []", "features:", []string{"my.yaml:14: features must be a list"}},
		{"not a number", "included: 40", "included: forty", []string{`my.yaml:21: included must be a whole number, not "forty"`}},
		{"a number as text", "included: 40", `included: "40"`, []string{`my.yaml:21: included must be a whole number, not "40"`}},
		{"a fraction", "overage_rate_cents: 12", "overage_rate_cents: 12.5",
			[]string{`my.yaml:22: overage_rate_cents must be a whole number, not "12.5"`}},
		{"a list as number", "included: 40", "included: [40]", []string{`my.yaml:21: included must be a whole number`}},
		{"wrong type", "type: team", "type: clan", []string{`my.yaml:18: type is "clan", must be "individual" or "team"`}},
		{"text that is a number", "name: Crew", "name: 7", []string{`my.yaml:17: name must be text`}},
		{"empty text", "name: Crew", `name: ""`, []string{`my.yaml:17: name is empty`}},
		{"text that is too long", "name: Crew", "name: " + strings.Repeat("x", 501), []string{`my.yaml:17: name is longer than 500 bytes`}},
		{"invalid id", "id: crew", "id: Crew!", []string{`my.yaml:16: id "Crew!" must match`}},
		{"invalid currency", "currency: eur", "currency: EUR", []string{`my.yaml:4: currency "EUR" must match`}},
		{"currency without hundredths", "currency: eur", "currency: jpy", []string{`my.yaml:4: currency "jpy" has no hundredths`}},
		{"currency of thousandths", "currency: eur", "currency: kwd", []string{`my.yaml:4: currency "kwd" has no hundredths`}},
		{"meter name that is too long", "meter_event_name: replies", "meter_event_name: " + strings.Repeat("x", 96),
			[]string{`my.yaml:5: meter_event_name is too long`}},
		{"invalid meter name", "meter_event_name: replies", "meter_event_name: my replies",
			[]string{`my.yaml:5: meter_event_name "my replies" must match`}},
		{"features that are not a list", "features: []", "features: many", []string{`my.yaml:14: features must be a list`}},
		{"a feature that is not text", "- Forty replies", "- [Forty]", []string{`my.yaml:26: a feature must be text`}},
		{"a plan that is not a mapping", "  - id: crew", "  - free lunch\n  - id: crew", []string{`my.yaml:16: a plan must be a mapping`}},
		{"several errors", "included: 40\n    overage_rate_cents: 12", "included: -1\n    overage_rate_cents: x",
			[]string{"my.yaml:21: ", "my.yaml:22: "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !strings.Contains(plans, test.old) {
				t.Fatalf("%q is not in the catalog", test.old)
			}
			_, err := models.ParseCatalogue("my.yaml", []byte(strings.Replace(plans, test.old, test.new, 1)))
			if err == nil {
				t.Fatal("accepted")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(test.want) {
				t.Errorf("%d errors, want %d: %v", len(lines), len(test.want), err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q", err, want)
				}
			}
		})
	}
}

func TestParseCatalogueRefusesTheWhole(t *testing.T) {
	for src, want := range map[string]string{
		"":                   "my.yaml: the file is empty",
		"- a\n- b\n":         "my.yaml:1: the catalog must be a mapping",
		"unit: [\n":          "my.yaml:1: invalid YAML: ",
		"a: 1\nplans: 3\n":   "my.yaml:2: plans must be a list",
		"plans: []\n":        `my.yaml:1: the plan "free" is missing`,
		"unit: suggestion\n": "my.yaml:1: unit must be a mapping",
	} {
		_, err := models.ParseCatalogue("my.yaml", []byte(src))
		wantError(t, err, want)
	}
}

func TestLoadCatalogueFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mine.yaml")
	if _, err := models.LoadCatalogue(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file that is missing: %v", err)
	}
	if err := os.WriteFile(file, []byte(plans), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := models.LoadCatalogue(file)
	if err != nil || c.Free().Included != 3 {
		t.Errorf("got %+v, %v", c, err)
	}
}
