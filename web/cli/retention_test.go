package cli

import (
	"errors"
	"testing"
	"time"
)

func TestUntilRetained(t *testing.T) {
	for _, test := range []struct {
		took time.Duration
		err  error
		want time.Duration
	}{
		{time.Minute, nil, 59 * time.Minute}, {2 * time.Hour, nil, 0}, {time.Minute, errors.New("a lock timeout"), 5 * time.Minute},
	} {
		if got := untilRetained(test.took, test.err); got != test.want {
			t.Errorf("after a pass of %s with the error %v, the pause is %s, want %s", test.took, test.err, got, test.want)
		}
	}
}
