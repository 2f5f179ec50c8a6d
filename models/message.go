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

// GivenMessage is the last message about a warning level that an answer gave to a person in a usage
// record.
type GivenMessage struct {
	// MessageLevel is the level's index in WarningLevels; 0 without a message.
	MessageLevel int64
	// MessageIncluded is the record's included units at that time.
	MessageIncluded int64
}

// Next returns the message that the answer to a decision gives. before and after are the standings
// before and after the decision. ok is false if an earlier answer gave one for this level. After the
// included units were raised, the levels above the person's current one can be reached again.
func (m GivenMessage) Next(before, after Standing) (next GivenMessage, ok bool) {
	given := m.MessageLevel
	if after.Included > m.MessageIncluded {
		given = min(given, before.Level().rank())
	}
	level := after.Level().rank()
	return GivenMessage{level, after.Included}, level > given
}
