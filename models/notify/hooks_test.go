package notify

import (
	"context"
	"strings"
	"testing"

	"github.com/uptrace/bun"
)

// onlyReads fails a test with each statement that is not a SELECT.
type onlyReads struct{ t *testing.T }

func (h onlyReads) BeforeQuery(ctx context.Context, e *bun.QueryEvent) context.Context {
	if !strings.HasPrefix(e.Query, "SELECT") {
		h.t.Errorf("an idle worker ran %q", e.Query)
	}
	return ctx
}

func (onlyReads) AfterQuery(context.Context, *bun.QueryEvent) {}
