// Package charts draws usage as SVG. Widths are percentages and heights are pixels, so a chart is
// as wide as its page and its text keeps its size. Each chart is a figure with a sentence that says
// what it shows, and a table of the same numbers.
package charts

import (
	"strconv"
	"strings"
	"time"

	"tollgate/models"
	"tollgate/views/ui"
)

// Axis is a vertical scale of whole numbers from 0 to a round number.
type Axis struct {
	// Ticks increase from 0. The last one is the top of the plot.
	Ticks []int64
}

// NewAxis returns a scale that reaches most, with at most the given number of steps. A step is 1, 2
// or 5 times a power of ten.
func NewAxis(most int64, steps int64) Axis {
	most = max(most, 1)
	step := int64(1)
	for i := 0; step*steps < most; i++ {
		// 1, 2, 5, 10, 20, 50, …: every third factor is 2.5.
		if i%3 == 1 {
			step = step / 2 * 5
		} else {
			step *= 2
		}
	}
	var ticks []int64
	for v := int64(0); ; v += step {
		ticks = append(ticks, v)
		if v >= most {
			return Axis{Ticks: ticks}
		}
	}
}

// Top returns the largest value of the scale.
func (a Axis) Top() int64 { return a.Ticks[len(a.Ticks)-1] }

// Height returns the height of v in pixels, in a plot of the given height. Values above the scale
// get the full height.
func (a Axis) Height(v float64, plot float64) float64 {
	return min(max(v, 0)/float64(a.Top()), 1) * plot
}

// percent returns part of whole as an SVG length: "62.5%".
func percent(part, whole float64) string {
	if whole <= 0 {
		return "0%"
	}
	return number(part/whole*100) + "%"
}

// number formats a length with at most two decimals.
func number(v float64) string {
	s := strconv.FormatFloat(v, 'f', 2, 64)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// The smallest widths of a plot in pixels: on screens from 320, from 640 and from 1024 pixels.
const (
	phonePlot  = 210
	tabletPlot = 490
	deskPlot   = 850
)

// fit reports whether values up to most fit side by side above n bars. A digit is at most 8 pixels
// wide.
func fit(most int64, n, width int) bool { return n*(8*len(models.FormatCount(most))+2) <= width }

// The space that a value needs above and below its baseline, and the gap to the line or bar below
// it, in pixels.
const (
	valueAscent  = 11
	valueDescent = 4
	valueGap     = 5
)

// baseline returns where a value is printed: above its bar, whose top is at y, and above each
// horizontal line that would cross it. The highest line is at plotTop, so the value never leaves
// the drawing.
func baseline(y float64, lines []float64) float64 {
	at := y - valueGap
	for moved := true; moved; {
		moved = false
		for _, line := range lines {
			if line > at-valueAscent && line < at+valueDescent {
				at, moved = line-valueGap, true
			}
		}
	}
	return at
}

// lines returns the positions of the grid lines.
func (a Axis) lines() []float64 {
	var lines []float64
	for _, v := range a.Ticks {
		lines = append(lines, a.at(float64(v)))
	}
	return lines
}

// at returns the position of v in a chart, in pixels from the top.
func (a Axis) at(v float64) float64 { return plotTop + plotHeight - a.Height(v, plotHeight) }

// tick formats a round number in the few characters that fit next to an axis: "5,000", "250K",
// "1.5B".
func tick(v int64) string {
	if v < 10_000 {
		return models.FormatCount(v)
	}
	unit, units := int64(1), []string{"", "K", "M", "B", "T", "Qa", "Qi"}
	i := 0
	for v/unit >= 1000 {
		unit *= 1000
		i++
	}
	return strings.TrimSuffix(strconv.FormatFloat(float64(v)/float64(unit), 'f', 1, 64), ".0") + units[i]
}

// MonthName returns the month that contains the middle of the period: "Nov 2026".
func MonthName(p models.Period) string { return middle(p).Format("Jan 2006") }

// shortMonth returns the same month without the year.
func shortMonth(p models.Period) string { return middle(p).Format("Jan") }

func middle(p models.Period) time.Time { return p.Start.UTC().Add(p.End.Sub(p.Start) / 2) }

// Daily is the usage on each day of a billing period. Days are dates in UTC.
type Daily struct {
	Period models.Period
	// Now is the current time, which separates past days from upcoming ones.
	Now time.Time
	// Used is the units of each day, starting with the period's first date. Missing days count as 0.
	Used []int64
	// Previous is the same for the previous period; empty if there was none.
	Previous []int64
	// Included is the units included in the whole period.
	Included int64
}

// day is one date of a Daily.
type day struct {
	date            time.Time
	used            int64
	previous        int64
	today, upcoming bool
}

// ended reports whether the period has ended. Its last date may be today.
func (d *Daily) ended() bool { return !d.Now.Before(d.Period.End) }

// days returns the dates that are at least partly in the period.
func (d *Daily) days() []day {
	var days []day
	today := ui.Midnight(d.Now)
	for date := ui.Midnight(d.Period.Start); date.Before(d.Period.End); date = date.AddDate(0, 0, 1) {
		i := len(days)
		one := day{date: date, today: date.Equal(today) && !d.ended(), upcoming: date.After(today)}
		if i < len(d.Used) {
			one.used = d.Used[i]
		}
		if i < len(d.Previous) {
			one.previous = d.Previous[i]
		}
		days = append(days, one)
	}
	return days
}

// Date is a date in UTC with its usage in units.
type Date struct {
	Date time.Time
	Used int64
}

// Until returns the dates up to today, the same ones as in the chart's table.
func (d *Daily) Until() []Date {
	var dates []Date
	for _, one := range d.days() {
		if !one.upcoming {
			dates = append(dates, Date{one.date, one.used})
		}
	}
	return dates
}

// pace returns the units per day that would use all included units exactly by the period's end.
func (d *Daily) pace() float64 {
	length := d.Period.End.Sub(d.Period.Start).Hours() / 24
	if length <= 0 {
		return 0
	}
	return float64(d.Included) / length
}

// average returns the units per day so far, including today.
func (d *Daily) average() float64 {
	var sum, n int64
	for _, one := range d.days() {
		if !one.upcoming {
			sum += one.used
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return float64(sum) / float64(n)
}

// oneDecimal formats a rate: "2.5", "12". A rate that would round to 0 is "under 0.1".
func oneDecimal(v float64) string {
	if v > 0 && v < 0.05 {
		return "under 0.1"
	}
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
}
