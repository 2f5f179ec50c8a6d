package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"tollgate/models"
)

// Regular is a person who uses the app while the demo runs.
type Regular struct {
	Email       string
	SlackTeamID string
	SlackUserID string
}

// Regulars returns the demo's people who use the app: all except those who left or never started.
func Regulars(ctx context.Context, db *models.DB) ([]Regular, error) {
	var found []Regular
	if err := db.NewSelect().TableExpr("users AS u").Join("JOIN workspaces AS w ON w.id = u.workspace_id").
		Column("u.email", "w.slack_team_id", "u.slack_user_id").
		Where("w.slack_team_id LIKE ?", teamPrefix+"%").Where("u.slack_user_id IS NOT NULL").Order("u.email").Scan(ctx, &found); err != nil {
		return nil, fmt.Errorf("find the demo's people: %w", err)
	}
	away := map[string]bool{}
	for i := range membersOfMain {
		if h := habitOf(i); h == leaver || h == idle {
			away[address(i)] = true
		}
	}
	return slices.DeleteFunc(found, func(r Regular) bool { return away[r.Email] }), nil
}

// UsualDay returns how many units the demo's people use on a usual working day, which is the median
// of the working days of the past four weeks, and how many they have used today.
func UsualDay(ctx context.Context, db *models.DB, now time.Time) (usual, today int64, err error) {
	const days = 28
	midnight := now.UTC().Truncate(24 * time.Hour)
	var events []models.UsageEvent
	if err := db.NewSelect().Model(&events).Column("occurred_at", "quantity").Where("occurred_at >= ?", midnight.AddDate(0, 0, -days)).
		Where("occurred_at < ?", midnight.AddDate(0, 0, 1)).Scan(ctx); err != nil {
		return 0, 0, fmt.Errorf("read the demo's recent usage: %w", err)
	}
	var units [days + 1]int64 // by days before today
	for _, e := range events {
		day := e.OccurredAt.UTC().Truncate(24 * time.Hour)
		units[int(midnight.Sub(day)/(24*time.Hour))] += e.Quantity
	}
	var working []int64
	for ago := 1; ago <= days; ago++ {
		if day := midnight.AddDate(0, 0, -ago).Weekday(); day != time.Saturday && day != time.Sunday {
			working = append(working, units[ago])
		}
	}
	slices.Sort(working)
	return working[len(working)/2], units[0], nil
}

// Traffic is a made-up Slack app. Before each suggestion, it calls the HTTP API, as a real app
// does. In a day, it uses about as many units as on a usual day: quickly at first, so that a viewer
// sees the pages change, then more and more slowly.
type Traffic struct {
	URL    string
	Key    string
	Log    *slog.Logger
	Now    func() time.Time
	People []Regular
	// Pace is the mean time between two calls.
	Pace time.Duration
	// Usual is the number of units of a usual day, and Today the number that were used today before
	// the traffic.
	Usual, Today int64

	began time.Time // of the traffic, or of the current day if that is later
	spent int64     // units since then

	run  string // the prefix of each idempotency key, so that two demos on one database have different keys
	call int
	// full has the people who have used plenty, so that a demo that runs for a week does not use more
	// and more.
	full  map[string]bool
	holds []openHold
}

// openHold is a hold whose work is in progress.
type openHold struct {
	id       string
	quantity int64
	until    time.Time
}

// plenty is the percentage of the included units at which a person stops.
const plenty = 150

// Run makes one call after another until ctx ends.
func (t *Traffic) Run(ctx context.Context) {
	t.began = t.Now()
	t.run, t.full = fmt.Sprintf("demo-%d", t.began.UnixNano()), map[string]bool{}
	client := &http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if err := t.step(ctx, client); err != nil && ctx.Err() == nil {
			t.Log.Warn("a made-up call failed", "error", err)
		}
		timer.Reset(t.Pace/2 + time.Duration(rand.Int64N(int64(t.Pace)+1))) //nolint:gosec // made up
	}
}

// spread is how long the traffic takes to use about two thirds of the units that are left of the
// day.
const spread = 10 * time.Minute

// mayUse reports whether the traffic may use more units now.
func (t *Traffic) mayUse() bool {
	now := t.Now()
	if midnight := now.UTC().Truncate(24 * time.Hour); t.began.Before(midnight) {
		t.began, t.spent, t.Today = midnight, 0, 0
	}
	left := max(t.Usual-t.Today, t.Usual/8, 8)
	return float64(t.spent) < float64(left)*(1-math.Exp(-float64(now.Sub(t.began))/float64(spread)))
}

// step makes one call: it ends a hold that is due, or makes a request for a person.
func (t *Traffic) step(ctx context.Context, client *http.Client) error {
	if i := slices.IndexFunc(t.holds, func(h openHold) bool { return !h.until.After(t.Now()) }); i >= 0 {
		h := t.holds[i]
		t.holds = slices.Delete(t.holds, i, i+1)
		if rand.IntN(4) == 0 { //nolint:gosec // made up
			return t.post(ctx, client, "/v1/holds/"+h.id+"/release", map[string]any{}, nil)
		}
		part := 1 + rand.Int64N(h.quantity) //nolint:gosec // made up
		return t.post(ctx, client, "/v1/holds/"+h.id+"/settle", map[string]any{"quantity": part}, nil)
	}
	t.call++
	// Some people make more requests than others.
	who := t.People[int(float64(len(t.People))*rand.Float64()*rand.Float64())] //nolint:gosec // made up
	body := map[string]any{"slack_team_id": who.SlackTeamID, "slack_user_id": who.SlackUserID}
	if t.call%2 == 0 {
		body["email"] = who.Email
	}
	path, quantity := "/v1/consume", int64(1)
	switch {
	case !t.mayUse() || t.full[who.Email]:
		path = "/v1/check"
	case rand.IntN(5) == 0: //nolint:gosec // made up
		path, quantity = "/v1/holds", 3
		body["ttl_seconds"] = 60
	}
	body["quantity"] = quantity
	if path != "/v1/check" {
		body["idempotency_key"] = fmt.Sprintf("%s-%d", t.run, t.call)
	}
	var answer struct {
		Allowed     bool  `json:"allowed"`
		PercentUsed int64 `json:"percent_used"`
		Hold        *struct {
			ID string `json:"id"`
		} `json:"hold"`
	}
	if err := t.post(ctx, client, path, body, &answer); err != nil {
		return err
	}
	t.full[who.Email] = answer.PercentUsed >= plenty
	if path != "/v1/check" && answer.Allowed {
		t.spent += quantity
	}
	if answer.Hold != nil {
		t.holds = append(t.holds, openHold{answer.Hold.ID, quantity, t.Now().Add(4 * t.Pace)})
	}
	return nil
}

// post makes a call and reads its answer into answer, which may be nil.
func (t *Traffic) post(ctx context.Context, client *http.Client, path string, body, answer any) error {
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+t.Key)
	r.Header.Set("Content-Type", "application/json")
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, response.Status, strings.TrimSpace(string(text)))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}
