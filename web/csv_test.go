package web

import (
	"strings"
	"testing"

	"tollgate/models"
)

func TestHarmless(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "Ada": "Ada", "ada@example.com": "ada@example.com", "Ada - Bob": "Ada - Bob", "a=b": "a=b", "Smith, Ada": "Smith, Ada",
		"'=1": "'=1", "1 + 1": "1 + 1",
		"=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@SUM(A1)": "'@SUM(A1)", "\t=1": "'\t'=1", "\r=1": "'\r'=1", "\tx": "'\tx",
		"＝1": "'＝1", "＋1": "'＋1", "－1": "'－1", "＠SUM(A1)": "'＠SUM(A1)", "﹦1": "'﹦1",
		";=1": ";'=1", ",=1": ",'=1", "|@A": "|'@A", "Ada;=1;＋2": "Ada;'=1;'＋2", "Ada\n-1": "Ada\n'-1",
		"  =1": "'  =1", `"=1`: `'"=1`, `";=1`: `";'=1`, "Ada; \"=1": "Ada;' \"=1", "\u00a0=1": "'\u00a0=1", "\u200b＝1": "'\u200b＝1",
		"\ufeff=1": "'\ufeff=1",
	} {
		if got := harmless(text); got != want {
			t.Errorf("harmless(%q) = %q, want %q", text, got, want)
		}
	}
	for cell, want := range map[any]string{-5: "-5", int64(-5): "-5", models.PlanID("pro"): "pro"} {
		if got := csvCell(cell); got != want {
			t.Errorf("csvCell(%v) = %q, want %q", cell, got, want)
		}
	}
}

func TestUsageFileNamesEveryPlan(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.used("ada@example.com", 3, f.clock().AddDate(0, -1, 0))
		f.subscribe(models.Subscriber{Email: "ada@example.com"}, "pro")
		f.used("ada@example.com", 4, f.clock())
		rows := f.signedIn("ada@example.com").get("/usage.csv").csv(t)
		plans := map[string]string{}
		for _, row := range rows[1:] {
			if row[3] == "" || row[0] == "period" && row[6] == "" {
				t.Errorf("a row has an empty cell: %q", row)
			}
			plans[row[0]+" "+strings.TrimSuffix(row[1], "T00:00:00Z")] = row[3]
		}
		for row, want := range map[string]string{"period 2026-10-01": "free", "period 2026-11-01": "pro", "day 2026-11-23": "pro"} {
			if plans[row] != want {
				t.Errorf("%s has the plan %q, want %q: %q", row, plans[row], want, rows)
			}
		}
	})
}
