package models

import (
	"testing"
	"time"

	"github.com/google/uuid"
)

// An email may pass to another person between locking people and reading records. Such a record is
// left out.
func TestARecordOfAnotherPersonIsLeftOut(t *testing.T) {
	ada, other := uuid.New(), uuid.New()
	people := persons{ada: {user: ada}}
	people.gather(time.Now(), []*UsageRecord{{UserID: ada, ID: 1}, {UserID: other, ID: 2}}, nil, nil, nil)
	if got := people[ada].records; len(people) != 1 || len(got) != 1 || got[0].ID != 1 {
		t.Errorf("%d people and %d records; want 1 and 1", len(people), len(got))
	}
}
