package models

// Notify says which answers of the API have a message for the person.
type Notify string

// The values of Notify. A refusal has a message unless Notify is NotifyNever.
const (
	// NotifyOnce means the first answer of a usage record at each warning level.
	NotifyOnce Notify = "once"
	// NotifyAlways means each answer with a notice.
	NotifyAlways Notify = "always"
	// NotifyNever means no answer.
	NotifyNever Notify = "never"
)

// NotifyValues lists the values of Notify, the default first.
var NotifyValues = []Notify{NotifyOnce, NotifyAlways, NotifyNever}

// MessageDue reports whether an answer with this standing is the first one at its warning level. given
// is the record's message level.
func MessageDue(given int64, s *Standing) (level int64, due bool) {
	level = s.Level().rank()
	return level, level > given
}

// level returns the record's warning level.
func (r *UsageRecord) level() WarningLevel {
	return Standing{
		Used: r.SuggestionsUsed, Overage: r.OverageUsed, Held: r.UnitsHeld, OverageHeld: r.OverageHeld,
		Included: r.SuggestionsIncluded + r.Granted,
	}.Level()
}

// raised updates the record after one of its limits was raised, so that the levels above the current
// one can be reached again.
func (r *UsageRecord) raised() {
	r.LimitRaises++
	r.MessageLevel = min(r.MessageLevel, r.level().rank())
}

// joinMessages updates the message level after units of another record moved to this record. given is
// the other record's message level. A level that had a message there does not get another one here.
func (r *UsageRecord) joinMessages(given int64) {
	r.MessageLevel = min(max(r.MessageLevel, given), r.level().rank())
}

// isRaised reports whether a limit is higher than before; nil means no limit.
func isRaised(before, after *int64) bool {
	return before != nil && (after == nil || *after > *before)
}
