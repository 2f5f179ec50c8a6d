package demo

import (
	"strconv"
	"strings"

	"github.com/google/uuid"

	"tollgate/models"
)

// habit is how somebody uses the app.
type habit int

const (
	steady   habit = iota
	heavy          // over the included units in most months
	light          // some units now and then
	newcomer       // began three weeks ago
	leaver         // stopped ten weeks ago
	idle           // never began
)

// appetites are shares of the plan's included units that a full month of each habit takes.
var appetites = map[habit]float64{steady: 0.66, heavy: 1.28, light: 0.18, newcomer: 0.7, leaver: 0.75}

// person is one of the cast.
type person struct {
	name     string
	email    string
	habit    habit
	appetite float64
	team     int // index of their Slack team
	role     models.Role
	// spendLimitCents is nil for most.
	spendLimitCents *int64
	// plan is their own subscription's, if they have one.
	plan models.PlanID
}

// team is a Slack team of the cast.
type team struct {
	slackID      string
	name         string
	organization int // index
}

// organization is one of the cast's; plan is empty without a subscription.
type organization struct {
	id   uuid.UUID
	name string
	plan models.PlanID
}

type cast struct {
	organizations []organization
	teams         []team
	people        []person
}

// teamPrefix begins the Slack team ids of the cast. Slack's own never contain a word.
const teamPrefix = "T0DEMO"

// mainOrganization is the id of the organization that the demo is about. It is the same in every database, so that a
// second run finds the first one's.
var mainOrganization = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://example.com/tollgate/demo"))

// names are nobody's. The first is the organization's admin; the last ones are on the other plans.
var names = strings.Fields(`
	Alma_Teapot Bruno_Paperclip Cora_Lamplight Dario_Windowsill Elsa_Buttonhole Felix_Doormat Greta_Inkpot Hugo_Umbrella Ida_Candlestick
	Jonas_Wheelbarrow Klara_Matchbox Leo_Birdhouse Mira_Thimble Nico_Hammock Olga_Snowglobe Paul_Weathervane Quinn_Bookend Rosa_Kettledrum
	Sami_Lighthouse Tilda_Wristwatch Ugo_Pinecone Vera_Hourglass Wim_Gingerbread Xenia_Clothespin Yara_Tambourine Zeno_Marmalade
	Anton_Periscope Bella_Crossbow Carlo_Toadstool Dora_Sundial Emil_Rowboat Fanny_Haystack Gus_Waffleiron Hedy_Chessboard Ivo_Corkscrew
	Juno_Kaleidoscope Kaspar_Velvet Lotte_Brickwork Milo_Peppermill Nelly_Drawbridge Otto_Sugarbowl Pia_Rainbarrel
	Rufus_Inkwell Selma_Postbox Tobi_Saltshaker Uma_Kitestring Vito_Snowplough Wanda_Pincushion Ximo_Bellpull Yves_Thermos`)

const membersOfMain = 42

// assemble casts the catalogue: an organization of 42 people on its largest team plan, one person on each individual
// plan, and three people on each other team plan.
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

	// People on a plan of their own share a Slack team whose organization has none.
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

// habitOf spreads the habits over the large organization.
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

// addTeam returns the new team's Slack id.
func (k *cast) addTeam(name string, organization int) string {
	id := teamPrefix + strconv.Itoa(len(k.teams)+1)
	k.teams = append(k.teams, team{slackID: id, name: name, organization: organization})
	return id
}

func (k *cast) add(h habit, team int, plan models.PlanID) *person {
	i := len(k.people)
	k.people = append(k.people, person{
		name: strings.ReplaceAll(names[i%len(names)], "_", " "), email: address(i), habit: h, appetite: appetites[h] * (0.8 + 0.05*float64(i*5%9)),
		team: team, role: models.Member, plan: plan,
	})
	return &k.people[i]
}

// address is the email of the person with this index. A catalogue of many plans uses some names twice.
func address(i int) string {
	local := strings.ToLower(strings.ReplaceAll(names[i%len(names)], "_", "."))
	if i >= len(names) {
		local += strconv.Itoa(i)
	}
	return local + "@example.com"
}

// slackID is the Slack user id of the person with this index.
func slackID(i int) string { return "U0DEMO" + strconv.Itoa(100+i) }
