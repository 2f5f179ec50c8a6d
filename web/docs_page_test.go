package web

import (
	"fmt"
	"strings"
	"testing"

	"tollgate/models/modelstest"
)

// Each call with a body has an example that works, and each query parameter has its type.
func TestExamplesOfTheDocs(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	id, _ := f.team("team")
	f.post("/v1/consume", fmt.Sprintf(memberCall, "ada", 1, "a")).want(t, 200, nil)
	docs := f.browser().get("/docs").main()
	for _, r := range f.web.api() {
		if body, ok := exampleBodies[r.id]; ok != (r.request != nil && !r.optionalBody) {
			t.Errorf("%s has an example of its body: %t", r.id, ok)
		} else if ok {
			path := strings.NewReplacer("{email}", "ada@example.com", "{id}", id.String()).Replace(r.path)
			if got := f.call(r.method, path, body); got.status != 200 && got.code() != "unknown_hold" {
				t.Errorf("the example of %s: %d %s", r.id, got.status, got.raw)
			}
		}
		if example := f.web.example(&r); strings.Contains(example, "-X PATCH") != (r.method == "PATCH") {
			t.Errorf("the example of %s is %q", r.id, example)
		}
	}
	says(t, "/docs", docs, []string{
		"?months integer, 1 to 36", "?cursor string The next_cursor of an earlier response.", "?period string The month in which",
		"/v1/organizations/{id}/members",
	}, []string{"0 to 0", "`"})
}
