package charts

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/a-h/templ"

	"tollgate/models"
)

var (
	chartText = regexp.MustCompile(`<text class="strong([^"]*)" x="([\d.]+)%" y="([\d.]+)"[^>]*>([^<]*)</text>`)
	chartLine = regexp.MustCompile(`<line class="c-(?:pace|limit|past|grid)" x1="([\d.]+)%?" x2="([\d.]+)%" y1="([\d.]+)"`)
	axisText  = regexp.MustCompile(`<text class="quiet" x="-8"[^>]*>([^<]*)</text>`)
)

func float(t *testing.T, s string) float64 {
	t.Helper()
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// collisions returns each place where a number in the chart overlaps a line, another number or the
// edge. It checks the plot's widths on screens of 375, 640, 1024 and 1280 pixels.
func collisions(t *testing.T, chart templ.Component) (found []string) {
	t.Helper()
	var b strings.Builder
	if err := chart.Render(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	type box struct {
		left, right, top, bottom float64
		text                     string
	}
	for _, screen := range []struct{ width, plot float64 }{{375, 265}, {640, 490}, {1024, 850}, {1280, 1058}} {
		var boxes []box
		for _, m := range chartText.FindAllStringSubmatch(b.String(), -1) {
			if strings.Contains(m[1], "hidden sm:") && screen.width < 640 || strings.Contains(m[1], "hidden lg:") && screen.width < 1024 {
				continue
			}
			// In a sans-serif font of 12 pixels, digits are at most 8 pixels wide and 9 high, and a comma
			// reaches 3 pixels below the baseline.
			half, x, y := 4*float64(len(m[4])), float(t, m[2])/100*screen.plot, float(t, m[3])
			boxes = append(boxes, box{x - half, x + half, y - 9, y + 3, m[4]})
		}
		for i, one := range boxes {
			if one.top < 0 {
				found = append(found, fmt.Sprintf("%v: %s leaves the drawing", screen.width, one.text))
			}
			for _, m := range chartLine.FindAllStringSubmatch(b.String(), -1) {
				left, right, y := float(t, m[1])/100*screen.plot, float(t, m[2])/100*screen.plot, float(t, m[3])
				if y > one.top && y < one.bottom && left < one.right && right > one.left {
					found = append(found, fmt.Sprintf("%v: %s overlaps the line %s", screen.width, one.text, m[0]))
				}
			}
			for _, other := range boxes[:i] {
				if one.left < other.right && one.right > other.left && one.top < other.bottom && one.bottom > other.top {
					found = append(found, fmt.Sprintf("%v: %s overlaps %s", screen.width, one.text, other.text))
				}
			}
		}
		for _, m := range axisText.FindAllStringSubmatch(b.String(), -1) {
			if len(m[1]) > 5 {
				found = append(found, "the axis label is too wide: "+m[1])
			}
		}
	}
	return found
}

// shapes returns kinds of usage over n days or months: around the level, even, rising, random,
// tiny, only at the ends, falling and huge.
func shapes(n int, level int64, random *rand.Rand) [][]int64 {
	var all [][]int64
	for kind := range 8 {
		used := make([]int64, n)
		for i := range used {
			switch kind {
			case 0: // close to the level
				used[i] = max(0, level+int64(i%7)-3)
			case 1:
				used[i] = level
			case 2:
				used[i] = level * int64(i) / int64(n)
			case 3:
				used[i] = random.Int64N(level*2 + 1)
			case 4:
				used[i] = random.Int64N(4)
			case 5: // only the first and the last
				if i == 0 || i == n-1 {
					used[i] = level + 1
				}
			case 6:
				used[i] = max(0, level-level*int64(i)/50)
			case 7:
				used[i] = level * random.Int64N(3) * 1000
			}
		}
		all = append(all, used)
	}
	return all
}

func TestChartNumbersCollideWithNothing(t *testing.T) {
	c := &models.Catalogue{UnitSingular: "suggestion", UnitPlural: "suggestions", Currency: "usd"}
	random := rand.New(rand.NewPCG(1, 2))
	levels := []int64{1, 3, 9, 20, 47, 140, 5000, 98_765_432, 999_999_999_999}
	charts := 0
	for _, start := range []string{"2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", "2026-11-14T12:00:00Z"} {
		begin := at(start)
		for _, level := range levels {
			for _, elapsed := range []int{1, 2, 15, 31} {
				for k, used := range shapes(elapsed, level, random) {
					previous := shapes(31, level, random)[(k+3)%8]
					if k == 1 {
						previous = nil
					}
					d := Daily{
						Period: models.Period{Start: begin, End: begin.AddDate(0, 1, 0)}, Now: begin.AddDate(0, 0, elapsed-1).Add(time.Hour),
						Used: used, Previous: previous, Included: level*30 + int64(k),
					}
					charts++
					for _, what := range collisions(t, Days("x", c, d)) {
						t.Errorf("days from %s, used %v, previous period %v, %d included: %s", start, used, previous, d.Included, what)
					}
				}
			}
		}
	}
	for _, level := range levels {
		for k, used := range shapes(6, level, random) {
			limits := shapes(6, level, random)[(k+5)%8]
			d := Monthly{ID: "x", Money: true}
			for i := range 6 {
				start := at("2026-06-01T00:00:00Z").AddDate(0, i, 0)
				d.Months = append(d.Months, models.PastPeriod{
					Period: models.Period{Start: start, End: start.AddDate(0, 1, 0)}, BeforeSignUp: k == 4 && i < 2, Used: used[i],
					Included: limits[i] + level, Overage: max(0, used[i]-limits[i]-level), Current: i == 5,
				})
			}
			charts++
			for _, what := range collisions(t, Months(c, d)) {
				t.Errorf("months %v with limits %v: %s", used, limits, what)
			}
		}
	}
	if t.Failed() {
		return
	}
	t.Logf("%d charts", charts)
}

// TestShareFillsItsShare checks that the bar is as wide as its share.
func TestShareFillsItsShare(t *testing.T) {
	for _, test := range []struct {
		part, whole int64
		want        string
	}{{56, 1000, `class="c-bar" width="5.6%"`}, {1000, 1000, `class="c-bar" width="100%"`}, {0, 1000, `class="c-bar" width="0%"`}} {
		var b strings.Builder
		if err := Share(test.part, test.whole).Render(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), test.want) {
			t.Errorf("Share(%d, %d) draws %s", test.part, test.whole, &b)
		}
	}
}

func TestTick(t *testing.T) {
	for v, want := range map[int64]string{
		0: "0", 500: "500", 5000: "5,000", 10_000: "10K", 250_000: "250K", 1_500_000: "1.5M", 2_000_000_000: "2B",
		500_000_000_000: "500B",
	} {
		if got := tick(v); got != want {
			t.Errorf("tick(%d) = %q, want %q", v, got, want)
		}
	}
}
