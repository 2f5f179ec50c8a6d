package models

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

//go:embed plans.yaml
var embeddedPlans []byte

// PlanID identifies a plan of the catalog, such as "pro".
type PlanID string

// FreePlan is the plan of people without a subscription. Every catalog has it.
const FreePlan PlanID = "free"

// PlanType says who can subscribe to a plan: a person, or an organization for all of its members.
type PlanType string

// The two types of plan.
const (
	Individual PlanType = "individual"
	Team       PlanType = "team"
)

// Plan is an entry in the catalog.
type Plan struct {
	ID          PlanID
	Name        string
	Description string
	Type        PlanType
	// BasePriceCents is the monthly price in cents; for a team plan, per seat.
	BasePriceCents int64
	// Included is the number of units that the base price covers in a billing period; for a team
	// plan, for each member.
	Included int64
	// OverageRateCents is the price in cents of each unit beyond the included ones. 0 is a hard
	// cap.
	OverageRateCents     int64
	StripePriceID        string
	StripeOveragePriceID string
	// StripeMeterID is the ID of the plan's meter, which `tollgate stripe setup` stores and
	// Catalogue.ReadMeters reads; empty until then.
	StripeMeterID string
	// Features are the lines of the pricing page.
	Features     []string
	CallToAction string
}

// Catalogue is the set of plans and the unit that they count.
type Catalogue struct {
	// UnitSingular and UnitPlural name the unit.
	UnitSingular string
	UnitPlural   string
	// Currency is an ISO 4217 code in lower case.
	Currency string
	// MeterEventName is the prefix of the event names of the plans' Stripe meters; see MeterOf.
	MeterEventName string
	// Plans are in the order of the file.
	Plans []Plan

	byID map[PlanID]*Plan
}

// Plan returns the plan with an ID.
func (c *Catalogue) Plan(id PlanID) (Plan, bool) {
	p, ok := c.byID[id]
	if !ok {
		return Plan{}, false
	}
	return *p, true
}

// MeterOf returns the event name of a plan's Stripe meter, such as "slack_speak_suggestions_pro".
func (c *Catalogue) MeterOf(id PlanID) string { return c.MeterEventName + "_" + string(id) }

// Free returns the plan of people without a subscription.
func (c *Catalogue) Free() Plan { return *c.byID[FreePlan] }

// PlanOf returns the plan that a subscription to it gives. An empty ID means no subscription, and
// gives the free plan. A plan that is not in the catalog gives what the free plan gives, under its
// own ID, so that a process whose catalog has the plan can see that the record is outdated.
func (c *Catalogue) PlanOf(id PlanID) Plan {
	if id == "" {
		return c.Free()
	}
	if plan, ok := c.byID[id]; ok {
		return *plan
	}
	free := c.Free()
	free.ID, free.Name = id, string(id)
	return free
}

// IncludesNone reports whether a plan includes no units. A record can include none although its plan
// includes some, because the person used them under an earlier payer in the same period.
func (c *Catalogue) IncludesNone(id PlanID) bool { return c.PlanOf(id).Included == 0 }

// Units formats n units: "1 suggestion", "5 suggestions".
func (c *Catalogue) Units(n int64) string { return FormatCount(n) + " " + c.unit(n) }

// unit returns the name of this number of units, without the number.
func (c *Catalogue) unit(n int64) string {
	if n == 1 {
		return c.UnitSingular
	}
	return c.UnitPlural
}

// LoadCatalogue reads the operator's catalog from a file, or the embedded one if file is empty. It
// reports each error with its line.
func LoadCatalogue(file string) (*Catalogue, error) {
	if file == "" {
		return ParseCatalogue("plans.yaml", embeddedPlans)
	}
	src, err := os.ReadFile(file) //nolint:gosec // the operator names the file on the command line
	if err != nil {
		return nil, fmt.Errorf("plan catalog: %w", err)
	}
	return ParseCatalogue(file, src)
}

// The limits of the numbers in a catalog. They keep all products within 64 bits.
const (
	maxCatalogue  = 256 << 10 // bytes
	maxPriceCents = 100_000_000
	maxIncluded   = 1_000_000_000
	// maxEventName is the maximum length of a meter's event name at Stripe.
	maxEventName = 100
)

var (
	planIDPattern   = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,39}$`)
	currencyPattern = regexp.MustCompile(`^[a-z]{3}$`)
	meterPattern    = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,100}$`)
)

// ParseCatalogue parses a catalog. name is the file name in its error messages.
func ParseCatalogue(name string, src []byte) (*Catalogue, error) {
	root, err := ParseYAML(name, src, maxCatalogue)
	if err != nil {
		return nil, err
	}
	r := catalogueReader{name: name}
	c := r.catalogue(root)
	if len(r.problems) > 0 {
		return nil, errors.Join(r.problems...)
	}
	c.byID = make(map[PlanID]*Plan, len(c.Plans))
	for i := range c.Plans {
		c.byID[c.Plans[i].ID] = &c.Plans[i]
	}
	return c, nil
}

// catalogueReader reads the document node by node. A strict decoder (KnownFields) would report
// neither the line of an invalid value nor missing keys.
type catalogueReader struct {
	name     string
	problems []error
}

func (r *catalogueReader) problem(n *yaml.Node, format string, args ...any) {
	r.problems = append(r.problems, fmt.Errorf("%s:%d: %s", r.name, n.Line, fmt.Sprintf(format, args...)))
}

// fields reads a mapping. It reports unknown, duplicate and missing keys.
func (r *catalogueReader) fields(n *yaml.Node, what string, required []string, known map[string]func(*yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.problem(n, "%s must be a mapping", what)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		read, ok := known[key.Value]
		switch {
		case !ok:
			r.problem(key, "unknown key %q in %s", key.Value, what)
		case seen[key.Value]:
			r.problem(key, "key %q given twice in %s", key.Value, what)
		default:
			seen[key.Value] = true
			read(value)
		}
	}
	for _, key := range required {
		if !seen[key] {
			r.problem(n, "%s lacks %q", what, key)
		}
	}
}

func (r *catalogueReader) text(into *string, key string, empty bool, pattern *regexp.Regexp) func(*yaml.Node) {
	return func(n *yaml.Node) {
		switch {
		case n.Kind != yaml.ScalarNode || n.Tag != "!!str":
			r.problem(n, "%s must be text", key)
		case n.Value == "" && !empty:
			r.problem(n, "%s is empty", key)
		case pattern != nil && !pattern.MatchString(n.Value):
			r.problem(n, "%s %q must match %s", key, n.Value, pattern)
		case len(n.Value) > 500:
			r.problem(n, "%s is longer than 500 bytes", key)
		default:
			*into = n.Value
		}
	}
}

func (r *catalogueReader) number(into *int64, key string, most int64) func(*yaml.Node) {
	return func(n *yaml.Node) {
		v, err := strconv.ParseInt(n.Value, 10, 64)
		switch {
		case n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil:
			r.problem(n, "%s must be a whole number, not %q", key, n.Value)
		case v < 0:
			r.problem(n, "%s is negative: %d", key, v)
		case v > most:
			r.problem(n, "%s is %d, more than the allowed %d", key, v, most)
		default:
			*into = v
		}
	}
}

func (r *catalogueReader) catalogue(n *yaml.Node) *Catalogue {
	c := &Catalogue{}
	var meter *yaml.Node
	r.fields(n, "the catalog", []string{"unit", "currency", "meter_event_name", "plans"}, map[string]func(*yaml.Node){
		"unit": func(n *yaml.Node) {
			r.fields(n, "unit", []string{"singular", "plural"}, map[string]func(*yaml.Node){
				"singular": r.text(&c.UnitSingular, "singular", false, nil),
				"plural":   r.text(&c.UnitPlural, "plural", false, nil),
			})
		},
		"currency": func(n *yaml.Node) {
			r.text(&c.Currency, "currency", false, currencyPattern)(n)
			if exponent(c.Currency) != 2 {
				r.problem(n, "currency %q has no hundredths; prices are in hundredths", c.Currency)
			}
		},
		"meter_event_name": func(n *yaml.Node) {
			r.text(&c.MeterEventName, "meter_event_name", false, meterPattern)(n)
			meter = n
		},
		"plans": func(n *yaml.Node) { c.Plans = r.plans(n) },
	})
	for _, p := range c.Plans {
		if name := c.MeterOf(p.ID); meter != nil && p.ID != FreePlan && len(name) > maxEventName {
			r.problem(meter, "meter_event_name is too long: %q, the event name of the plan's meter, has %d characters, and Stripe accepts %d",
				name, len(name), maxEventName)
			break
		}
	}
	return c
}

func (r *catalogueReader) plans(n *yaml.Node) []Plan {
	if n.Kind != yaml.SequenceNode {
		r.problem(n, "plans must be a list")
		return nil
	}
	var plans []Plan
	lines := map[PlanID]int{}
	for _, item := range n.Content {
		p := r.plan(item)
		if p.ID == "" {
			continue
		}
		if line, doubled := lines[p.ID]; doubled {
			r.problem(item, "plan %q is already defined on line %d", p.ID, line)
			continue
		}
		lines[p.ID] = item.Line
		plans = append(plans, p)
	}
	if _, ok := lines[FreePlan]; !ok {
		r.problem(n, "the plan %q is missing: it is the plan of everyone without a subscription", FreePlan)
	}
	return plans
}

func (r *catalogueReader) plan(n *yaml.Node) Plan {
	var p Plan
	var id, kind string
	r.fields(n, "a plan", []string{"id", "name", "type", "description", "base_price_cents", "included", "overage_rate_cents",
		"features", "call_to_action"},
		map[string]func(*yaml.Node){
			"id":   r.text(&id, "id", false, planIDPattern),
			"name": r.text(&p.Name, "name", false, nil),
			"type": func(n *yaml.Node) {
				r.text(&kind, "type", false, nil)(n)
				if kind != "" && kind != string(Individual) && kind != string(Team) {
					r.problem(n, "type is %q, must be %q or %q", kind, Individual, Team)
				}
			},
			"description":             r.text(&p.Description, "description", false, nil),
			"base_price_cents":        r.number(&p.BasePriceCents, "base_price_cents", maxPriceCents),
			"included":                r.number(&p.Included, "included", maxIncluded),
			"overage_rate_cents":      r.number(&p.OverageRateCents, "overage_rate_cents", maxPriceCents),
			"stripe_price_id":         r.text(&p.StripePriceID, "stripe_price_id", true, nil),
			"stripe_overage_price_id": r.text(&p.StripeOveragePriceID, "stripe_overage_price_id", true, nil),
			"features": func(n *yaml.Node) {
				if n.Kind != yaml.SequenceNode {
					r.problem(n, "features must be a list")
					return
				}
				for _, item := range n.Content {
					var line string
					r.text(&line, "a feature", false, nil)(item)
					p.Features = append(p.Features, line)
				}
			},
			"call_to_action": r.text(&p.CallToAction, "call_to_action", false, nil),
		})
	p.ID, p.Type = PlanID(id), PlanType(kind)
	if p.ID == FreePlan && (p.BasePriceCents != 0 || p.OverageRateCents != 0 || p.Type != Individual) {
		r.problem(n, "the plan %q must be individual and cost nothing", FreePlan)
	}
	return p
}
