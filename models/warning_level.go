package models

import "slices"

// WarningLevel says how close a person is to the limit of included units.
type WarningLevel string

// The warning levels, from the lowest usage to the highest.
const (
	Safe     WarningLevel = "safe"
	Warning  WarningLevel = "warning"
	Critical WarningLevel = "critical"
	Exceeded WarningLevel = "exceeded"
)

// WarningLevels lists the levels in that order.
var WarningLevels = []WarningLevel{Safe, Warning, Critical, Exceeded}

// rank returns the level's index in WarningLevels.
func (l WarningLevel) rank() int64 { return int64(slices.Index(WarningLevels, l)) }

// The percentages of the included units at which the levels begin.
const (
	warningPercent  = 80
	criticalPercent = 95
	exceededPercent = 100
)

// counted returns the units that PercentUsed and Level compare with the included ones. While
// included units are left, overage does not count; after that, all used units count.
func (s Standing) counted() int64 {
	if s.Remaining() > 0 {
		return s.Used - s.Overage
	}
	return s.Used
}

// Level returns the warning level of the used units, computed with integers.
func (s Standing) Level() WarningLevel {
	switch hundred := s.counted() * 100; {
	case s.Included <= 0:
		if s.Used > 0 {
			return Exceeded
		}
		return Safe
	case hundred >= s.Included*exceededPercent:
		return Exceeded
	case hundred >= s.Included*criticalPercent:
		return Critical
	case hundred >= s.Included*warningPercent:
		return Warning
	}
	return Safe
}

// PercentUsed returns the used units as a percentage of the included ones, rounded down: 499 of 500
// is 99. If none are included, it is 0 before the first unit and 100 after it.
func (s Standing) PercentUsed() int64 {
	if s.Included <= 0 {
		if s.Used > 0 {
			return 100
		}
		return 0
	}
	return s.counted() * 100 / s.Included
}
