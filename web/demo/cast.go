package demo

import (
	"strconv"
	"strings"

	"github.com/google/uuid"

	"tollgate/models"
)

// habit is how a person uses the app.
type habit int

const (
	steady   habit = iota
	heavy          // over the included units in most months
	light          // some units now and then
	newcomer       // started three weeks ago
	leaver         // stopped ten weeks ago
	idle           // never started
)

// appetites has the share of the plan's included units that each habit uses in a full month.
var appetites = map[habit]float64{steady: 0.66, heavy: 1.28, light: 0.18, newcomer: 0.7, leaver: 0.75}

// person is a made-up person.
type person struct {
	name     string
	email    string
	habit    habit
	appetite float64
	team     int // index of their Slack team
	role     models.Role
	// spendLimitCents is nil for most people.
	spendLimitCents *int64
	// plan is the plan of the person's own subscription. It is empty without one.
	plan models.PlanID
}

// team is a made-up Slack team.
type team struct {
	slackID      string
	name         string
	organization int // index
}

// organization is a made-up organization. plan is empty without a subscription.
type organization struct {
	id   uuid.UUID
	name string
	plan models.PlanID
}

// cast has all made-up organizations, teams and people.
type cast struct {
	organizations []organization
	teams         []team
	people        []person
}

// teamPrefix is the prefix of the made-up Slack team IDs. Slack's own IDs never contain a word.
const teamPrefix = "T0DEMO"

// mainOrganization is the ID of the demo's large organization. It is the same in every database, so
// a second run finds it.
var mainOrganization = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://example.com/tollgate/demo"))

// names are made up. The first person is the organization's admin. The last ones have other plans.
var names = strings.Fields(`
	Alma_Teapot Bruno_Paperclip Cora_Lamplight Dario_Windowsill Elsa_Buttonhole Felix_Doormat Greta_Inkpot Hugo_Umbrella Ida_Candlestick
	Jonas_Wheelbarrow Klara_Matchbox Leo_Birdhouse Mira_Thimble Nico_Hammock Olga_Snowglobe Paul_Weathervane Quinn_Bookend Rosa_Kettledrum
	Sami_Lighthouse Tilda_Wristwatch Ugo_Pinecone Vera_Hourglass Wim_Gingerbread Xenia_Clothespin Yara_Tambourine Zeno_Marmalade
	Anton_Periscope Bella_Crossbow Carlo_Toadstool Dora_Sundial Emil_Rowboat Fanny_Haystack Gus_Waffleiron Hedy_Chessboard Ivo_Corkscrew
	Juno_Kaleidoscope Kaspar_Velvet Lotte_Brickwork Milo_Peppermill Nelly_Drawbridge Otto_Sugarbowl Pia_Rainbarrel
	Rufus_Inkwell Selma_Postbox Tobi_Saltshaker Uma_Kitestring Vito_Snowplough Wanda_Pincushion Ximo_Bellpull Yves_Thermos`)

const membersOfMain = 42

// assemble returns the cast for a plan catalog: an organization of 42 people with the largest team
// plan, one person with each individual plan, and three people with each other team plan.
func assemble(c *models.Catalogue) cast {
	var k cast
	var largest models.Plan
	for _, p := range c.Plans {
		if p.Type == models.Team && p.Included >= largest.Included {
			largest = p
		}
	}
	k.organizations = append(k.organizations, organization{id: mainOrganization, name: "Lantern and Kettle (made up)", plan: largest.ID})
	k.addTeam("Lantern", 0)
	k.addTeam("Kettle", 0)
	for i := range membersOfMain {
		k.add(habitOf(i), i%5/3, "")
	}
	k.people[0].role = models.Admin

	// People with their own plan share a Slack team. Its organization has no plan.
	k.organizations = append(k.organizations, organization{name: "Slack team " + k.addTeam("Freelancers", 1)})
	freelancers := len(k.teams) - 1
	for i, p := range c.Plans {
		switch {
		case p.Type == models.Individual:
			freelancer := k.add(heavy, freelancers, p.ID)
			if p.OverageRateCents > 0 && i%2 == 1 {
				freelancer.spendLimitCents = new(10 * p.OverageRateCents)
			}
		case p.ID != largest.ID:
			k.organizations = append(k.organizations, organization{name: p.Name + " of Three (made up)", plan: p.ID})
			k.addTeam(p.Name, len(k.organizations)-1)
			for _, h := range []habit{steady, light, heavy} {
				k.add(h, len(k.teams)-1, "")
			}
		}
	}
	return k
}

// habitOf returns the habit of a member of the large organization.
func habitOf(i int) habit {
	switch {
	case i == 17:
		return newcomer
	case i == 23:
		return leaver
	case i == 38:
		return idle
	case i%8 == 3:
		return heavy
	case i%5 == 4:
		return light
	}
	return steady
}

// addTeam adds a team and returns its Slack ID.
func (k *cast) addTeam(name string, organization int) string {
	id := teamPrefix + strconv.Itoa(len(k.teams)+1)
	k.teams = append(k.teams, team{slackID: id, name: name, organization: organization})
	return id
}

func (k *cast) add(h habit, team int, plan models.PlanID) *person {
	i := len(k.people)
	k.people = append(k.people, person{
		name: strings.ReplaceAll(names[i%len(names)], "_", " "), email: address(i), team: team, role: models.Member, plan: plan,
		habit: h, appetite: appetites[h] * (0.8 + 0.05*float64(i*5%9)),
	})
	return &k.people[i]
}

// address returns the email of the person with this index. With a catalog of many plans, some names
// are used twice.
func address(i int) string {
	local := strings.ToLower(strings.ReplaceAll(names[i%len(names)], "_", "."))
	if i >= len(names) {
		local += strconv.Itoa(i)
	}
	return local + "@example.com"
}

// slackID returns the Slack user ID of the person with this index.
func slackID(i int) string { return "U0DEMO" + strconv.Itoa(100+i) }
