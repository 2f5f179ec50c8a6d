// Package charts draws usage as SVG: widths are percentages and heights pixels, so that a chart takes the width of its
// page and its text keeps its size. Each chart is a figure with a sentence that says what it shows and a table of the
// same numbers.
package charts

import (
	"strconv"
	"strings"
	"time"

	"tollgate/models"
	"tollgate/views/ui"
)

// Axis is a vertical scale of whole numbers from 0 to a round one.
type Axis struct {
	// Ticks rise from 0; the last one is the top of the plot.
	Ticks []int64
}

// NewAxis makes a scale that reaches most, with at most steps intervals of 1, 2 or 5 times a power of ten.
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

// Top is the largest value that the scale shows.
func (a Axis) Top() int64 { return a.Ticks[len(a.Ticks)-1] }

// Height is that of v in a plot of the given height, in pixels. What is above the scale is drawn at its top.
func (a Axis) Height(v float64, plot float64) float64 {
	return min(max(v, 0)/float64(a.Top()), 1) * plot
}

// percent is part of whole as an SVG length: "62.5%".
func percent(part, whole float64) string {
	if whole <= 0 {
		return "0%"
	}
	return number(part/whole*100) + "%"
}

// number writes a length with two decimals at most.
func number(v float64) string {
	s := strconv.FormatFloat(v, 'f', 2, 64)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// The smallest width of a plot in pixels: on a screen of 320, from 640 on, and from 1024 on.
const (
	phonePlot  = 210
	tabletPlot = 490
	deskPlot   = 850
)

// fit says whether values of up to most fit side by side above n bars. A digit is at most 8 pixels wide.
func fit(most int64, n, width int) bool { return n*(8*len(models.FormatCount(most))+2) <= width }

// The room that a value needs above and below its baseline, in pixels, and the distance to the line or bar below it.
const (
	valueAscent  = 11
	valueDescent = 4
	valueGap     = 5
)

// baseline returns where a value is printed: above its bar, whose top is at y, and above each horizontal line that would cross it.
// The highest line is at plotTop, so the value never leaves the drawing.
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

// lines returns where an axis has its grid.
func (a Axis) lines() []float64 {
	var lines []float64
	for _, v := range a.Ticks {
		lines = append(lines, a.at(float64(v)))
	}
	return lines
}

// at returns where v is in a chart, in pixels from the top.
func (a Axis) at(v float64) float64 { return plotTop + plotHeight - a.Height(v, plotHeight) }

// tick writes a round number in the few characters that fit beside an axis: "5,000", "250K", "1.5B".
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

// Month is one billing period of a person or an organization, for the chart of months.
type Month struct {
	Period models.Period
	// BeforeSignUp says that there was nobody to use anything: the month has no figures, which is not 0.
	BeforeSignUp bool
	// Used and Included are units; Included is the period's own limit, not today's.
	Used     int64
	Included int64
	// Overage is the units beyond the limit of the person, or of each member of the organization, so that it may be positive
	// while Used is below Included. OverageCents is its price in cents, before tax.
	Overage, OverageCents int64
	// Current says that the period is not over.
	Current bool
}

// name is the month that most of the period lies in, as people call it: "Nov 2026".
func (m *Month) name() string { return m.middle().Format("Jan 2006") }

// short is the same without the year.
func (m *Month) short() string { return m.middle().Format("Jan") }

func (m *Month) middle() time.Time {
	return m.Period.Start.UTC().Add(m.Period.End.Sub(m.Period.Start) / 2)
}

// Daily is a billing period by its days, which are dates in UTC.
type Daily struct {
	Period models.Period
	// Now tells the days that are over from those to come.
	Now time.Time
	// Used is the units of each day from the period's first date on. A day that it does not reach counts as 0.
	Used []int64
	// Previous is the same of the period before; empty when there was none.
	Previous []int64
	// Included is the units that the plan covers in the whole period.
	Included int64
}

// day is one date of a Daily.
type day struct {
	date            time.Time
	used            int64
	previous        int64
	today, upcoming bool
}

// days lists the dates that the period touches.
func (d *Daily) days() []day {
	var days []day
	today := ui.Midnight(d.Now)
	for date := ui.Midnight(d.Period.Start); date.Before(d.Period.End); date = date.AddDate(0, 0, 1) {
		i := len(days)
		one := day{date: date, today: date.Equal(today), upcoming: date.After(today)}
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

// Date is one date in UTC and the units of it.
type Date struct {
	Date time.Time
	Used int64
}

// Until lists the dates up to today, as the chart's table has them.
func (d *Daily) Until() []Date {
	var dates []Date
	for _, one := range d.days() {
		if !one.upcoming {
			dates = append(dates, Date{one.date, one.used})
		}
	}
	return dates
}

// pace is the units a day that use the included ones up exactly at the period's end.
func (d *Daily) pace() float64 {
	length := d.Period.End.Sub(d.Period.Start).Hours() / 24
	if length <= 0 {
		return 0
	}
	return float64(d.Included) / length
}

// average is the units a day so far, today included.
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

// oneDecimal writes a rate: "2.5", "12"; one that is too small for it is "under 0.1", as it is not nothing.
func oneDecimal(v float64) string {
	if v > 0 && v < 0.05 {
		return "under 0.1"
	}
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
}
