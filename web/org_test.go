package web

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"tollgate/models"
)

// facts returns the figures of a part of a page by name.
func facts(of *html.Node) map[string]string {
	found := map[string]string{}
	for dt := range elements(of, "dt") {
		for next := dt.NextSibling; next != nil; next = next.NextSibling {
			if next.Type == html.ElementNode && next.Data == "dd" {
				found[textOf(dt)] = textOf(next)
				break
			}
		}
	}
	return found
}

// TestTheOrganizationsPageIsTrue compares the page with a query of the events that shares no code
// with it.
func TestTheOrganizationsPageIsTrue(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme := f.organization("Acme", "T1", "T2")
		f.subscribe(models.Subscriber{OrganizationID: &acme}, "business")
		f.person("ada@example.com", "T1", models.Admin, false)
		lastMonth := time.Date(2026, 10, 31, 23, 59, 59, 0, time.UTC)
		for i, units := range []int{7, 120, 33, 33, 33, 101, 95, 3, 3, 3, 80, 0, 1, 12} {
			email := fmt.Sprintf("u%02d@example.com", 50-i)
			f.person(email, "T"+strconv.Itoa(1+i%2), models.Member, false)
			for _, part := range []int{units / 2, units - units/2} {
				if part > 0 {
					f.used(email, part, f.clock().Add(-time.Duration(i)*24*time.Hour))
				}
			}
			f.used(email, 40, lastMonth)
		}
		f.person("eve@example.com", "T3", models.Admin, false)
		f.used("eve@example.com", 500, f.clock())
		f.used("unused@example.com", 500, f.clock())

		var truth []struct {
			Email string
			Used  int64
		}
		november := models.CalendarMonth(f.clock())
		must(t, f.db.NewRaw(`SELECT u.email AS email, CAST(COALESCE((SELECT SUM(e.quantity) FROM usage_events e
				WHERE e.email = u.email AND e.occurred_at >= ? AND e.occurred_at < ?), 0) AS bigint) AS used
			FROM users u, workspaces w WHERE u.workspace_id = w.id AND w.organization_id = ?`,
			november.Start, november.End, acme).Scan(context.Background(), &truth))
		var total, active int64
		for _, u := range truth {
			if total += u.Used; u.Used > 0 {
				active++
			}
		}
		slices.SortFunc(truth, func(a, b struct {
			Email string
			Used  int64
		}) int {
			return cmp.Or(cmp.Compare(b.Used, a.Used), strings.Compare(a.Email, b.Email))
		})

		p := f.signedIn("ada@example.com").get("/org")
		got := facts(p.section("used"))
		want := map[string]string{
			"Total members": "15", "Active members": fmt.Sprint(active), "Total used": models.FormatCount(total),
			"Average per member": fmt.Sprintf("%.2f", float64(total)/15),
		}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s is %q, want %q", name, got[name], value)
			}
		}
		rows := table(p.section("top"))
		if len(rows) != 11 {
			t.Fatalf("%d ranked rows: %q", len(rows)-1, rows)
		}
		for i, row := range rows[1:] {
			u := truth[i]
			level := models.Standing{Used: u.Used, Included: 100}.Level()
			want := []string{
				fmt.Sprintf("%d %s", i+1, u.Email), models.FormatCount(u.Used), "100", fmt.Sprintf("%d%%", u.Used),
				fmt.Sprintf("%.1f%%", float64(u.Used)*100/float64(total)),
				strings.ToUpper(string(level[:1])) + string(level[1:]),
			}
			if !slices.Equal(row, want) {
				t.Errorf("row %d is %q, want %q", i+1, row, want)
			}
		}
		months := table(p.section("months"))
		if now := months[len(months)-1]; now[1] != models.FormatCount(total) || now[2] != "1,500" {
			t.Errorf("this month is %q", now)
		}
		cost := textOf(p.section("cost"))
		says(t, "the cost", cost, []string{"Overage: 21 × $0.20 $4.20", "21 suggestions beyond the plan, by 2 members."}, nil)
	})
}

// members creates an organization with an admin and 60 members, who differ in every column.
func (f *fixture) members() *browser {
	f.t.Helper()
	ctx := context.Background()
	acme := f.organization("Acme", "T1")
	f.subscribe(models.Subscriber{OrganizationID: &acme}, "business")
	f.person("ada@example.com", "T1", models.Admin, false)
	for i := range 60 {
		email := fmt.Sprintf("u%02d@example.com", (i*37)%60)
		f.person(email, "T1", models.Member, false)
		name := ""
		if i%7 > 0 {
			name = fmt.Sprintf("%c%s %d", "aBcDeF"[i%6], "nn", i%9)
		}
		_, err := f.db.NewUpdate().Model((*models.User)(nil)).Set("name = ?", name).Where("email = ?", email).Exec(ctx)
		must(f.t, err)
		if units := (i * 13) % 130; i%5 > 0 && units > 0 {
			f.used(email, units, f.clock())
		}
		if i%4 > 0 {
			f.used(email, 1+i%11, time.Date(2026, 10, 5, 0, 0, 0, 0, time.UTC))
		}
	}
	_, err := f.db.NewUpdate().Model((*models.User)(nil)).Set("name = 'Ada Lovelace'").Where("email = 'ada@example.com'").Exec(ctx)
	must(f.t, err)
	return f.signedIn("ada@example.com")
}

// listed returns the emails on all pages of the members' table.
func (b *browser) listed(query url.Values) (emails []string) {
	b.f.t.Helper()
	query = maps.Clone(query)
	for number := 1; ; number++ {
		query.Set("page", strconv.Itoa(number))
		p := b.get("/org/members?" + query.Encode())
		if p.status != 200 {
			b.f.t.Fatalf("%v: %s %s", query, p.kind(), p.main())
		}
		rows := table(p.find("main", "", ""))
		for _, row := range rows[min(1, len(rows)):] {
			emails = append(emails, row[1])
		}
		if p.find("a", "rel", "next") == nil {
			if len(rows)-1 > 25 {
				b.f.t.Errorf("%d rows on a page", len(rows)-1)
			}
			return emails
		}
		if len(rows) != 26 {
			b.f.t.Errorf("%d rows on page %d, want 25", len(rows)-1, number)
		}
	}
}

func column(rows [][]string, name string) (cells []string) {
	i := slices.Index(rows[0], name)
	for _, r := range rows[1:] {
		cells = append(cells, r[i])
	}
	return cells
}

func TestMembersAreSearchedSortedAndPaged(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		b := f.members()
		all := b.get("/org/members.csv").csv(t)
		if len(all) != 62 {
			t.Fatalf("%d people in the file", len(all)-1)
		}
		var emails []string
		must(t, f.db.NewSelect().Model((*models.User)(nil)).Column("email").Scan(t.Context(), &emails))
		slices.Sort(emails)
		if got := slices.Sorted(slices.Values(column(all, "email"))); !slices.Equal(got, emails) {
			t.Fatalf("the file has %q, want %q", got, emails)
		}
		cell := func(row []string, name string) string { return row[slices.Index(all[0], name)] }
		levels := []string{"safe", "warning", "critical", "exceeded"}
		number := func(text string) int {
			n, err := strconv.Atoi(cmp.Or(text, "-1")) // people without a last period come first
			must(f.t, err)
			return n
		}
		f.step(t, "sorted", func(t *testing.T) {
			for sort, key := range map[string]string{
				"name": "name", "email": "email", "used": "used", "included": "included", "percent": "percent_used", "level": "warning_level",
				"overage": "overage_cents", "last": "last_period_used",
			} {
				for _, order := range []string{"asc", "desc"} {
					want := slices.Clone(all[1:])
					slices.SortFunc(want, func(x, y []string) int {
						a, b := cell(x, key), cell(y, key)
						var by int
						switch key {
						case "name", "email":
							by = strings.Compare(strings.ToLower(a), strings.ToLower(b))
						case "warning_level":
							by = cmp.Compare(slices.Index(levels, a), slices.Index(levels, b))
						default:
							by = cmp.Compare(number(a), number(b))
						}
						if order == "desc" {
							by = -by
						}
						return cmp.Or(by, strings.Compare(cell(x, "email"), cell(y, "email")))
					})
					emails := column(append([][]string{all[0]}, want...), "email")
					q := url.Values{"sort": {sort}, "order": {order}}
					if got := column(b.get("/org/members.csv?"+q.Encode()).csv(t), "email"); !slices.Equal(got, emails) {
						t.Errorf("the file by %s, %s: %q, want %q", sort, order, got, emails)
					}
					p := b.get("/org/members?" + q.Encode())
					sorted := 0
					for th := range elements(p.find("thead", "", ""), "th") {
						if aria := attribute(th, "aria-sort"); aria != "" {
							if sorted++; !strings.HasPrefix(aria, order) {
								t.Errorf("by %s, %s: %s has aria-sort %s", sort, order, textOf(th), aria)
							}
						}
					}
					if sorted != 1 {
						t.Errorf("by %s, %s: %d columns have aria-sort", sort, order, sorted)
					}
					if got := b.listed(q); !slices.Equal(got, emails) {
						t.Errorf("the pages by %s, %s: %q, want %q", sort, order, got, emails)
					}
				}
			}
		})
		f.step(t, "searched and filtered", func(t *testing.T) {
			for _, q := range []url.Values{
				{"q": {"ANN"}}, {"q": {"u1"}}, {"level": {"warning"}}, {"level": {"exceeded"}, "sort": {"email"}},
				{"q": {"example"}, "level": {"safe"}}, {"q": {"no such"}},
			} {
				var want []string
				for _, row := range all[1:] {
					search, level := strings.ToLower(q.Get("q")), q.Get("level")
					if (strings.Contains(strings.ToLower(cell(row, "name")), search) || strings.Contains(cell(row, "email"), search)) &&
						(level == "" || cell(row, "warning_level") == level) {
						want = append(want, cell(row, "email"))
					}
				}
				got, file := b.listed(q), column(b.get("/org/members.csv?"+q.Encode()).csv(t), "email")
				if !slices.Equal(got, file) {
					t.Errorf("%v: the pages have %q, the file %q", q, got, file)
				}
				slices.Sort(want)
				slices.Sort(got)
				if !slices.Equal(got, want) || len(want) == 0 && q.Get("q") != "no such" {
					t.Errorf("%v: %q, want %q", q, got, want)
				}
			}
		})
		f.step(t, "the link to the file has the same query", func(t *testing.T) {
			p := b.get("/org/members?q=u1&level=safe&sort=email&order=desc&page=2")
			if p.find("a", "href", "/org/members.csv?level=safe&order=desc&q=u1&sort=email") == nil {
				t.Errorf("no link to the file with the same people: %s", p.main())
			}
		})
		f.step(t, "invalid queries", func(t *testing.T) {
			for query, found := range map[string]int{
				"page=-1": 25, "page=0": 25, "page=abc": 25, "page=99999999999999999999": 25, "page=999999": 11, "sort=used;DROP+TABLE+users": 25,
				"sort=1&order=desc--": 25, "level=x'": 25,
				"q=%25": 0, "q=_": 0, "q='+OR+1%3D1+--": 0, "q=%00": 0, "q=%ff": 0, "q=<script>alert(1)</script>": 0,
				"q=" + strings.Repeat("a", 5000): 0, "q=a&q=b&q=c": 25, "page=1&page=2": 25,
			} {
				p := b.get("/org/members?" + query)
				if rows := table(p.find("main", "", "")); p.status != 200 || max(0, len(rows)-1) != found || strings.Contains(p.body, "<script") {
					t.Errorf("%.60s: %s, %d rows, want %d", query, p.kind(), len(rows)-1, found)
				}
				if file := b.get("/org/members.csv?" + query); file.status != 200 {
					t.Errorf("%.60s: the file is %s", query, file.kind())
				}
			}
		})
	})
}

func TestOnlyAdminsSeeMembers(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.organization("Acme", "T1")
		f.person("ada@example.com", "T1", models.Admin, false)
		bob := f.person("bob@example.com", "T1", models.Member, false)
		f.person("eve@example.com", "T2", models.Admin, false)
		_, err := f.db.NewUpdate().Model((*models.User)(nil)).Set("name = 'Ada Lovelace'").Where("email = 'ada@example.com'").Exec(t.Context())
		must(t, err)
		id := bob.ID.String()
		for _, path := range []string{"/org", "/org/members", "/org/members.csv", "/org/members/" + id, "/org/members?q=a"} {
			if p := f.signedIn("bob@example.com").get(path); p.status != 403 || !strings.Contains(p.main(), "Ada Lovelace, ada@example.com") ||
				strings.Contains(p.main(), "eve@") {
				t.Errorf("%s by a member: %s %s", path, p.kind(), p.main())
			}
			if p := f.signedIn("eve@example.com").get(path); strings.Contains(p.body, "bob@") || strings.Contains(p.body, "Acme") {
				t.Errorf("%s by another organization's admin: %s %s", path, p.kind(), p.main())
			}
		}
		ada, eve := f.signedIn("ada@example.com"), f.signedIn("eve@example.com")
		if p := ada.get("/org/members/" + id); p.status != 200 || !strings.Contains(p.main(), "bob@example.com") {
			t.Errorf("bob's page: %s %s", p.kind(), p.main())
		}
		if p := eve.get("/org/members/" + id); p.status != 404 {
			t.Errorf("bob's page by eve: %s %s", p.kind(), p.main())
		}
		for _, id := range []string{"7", "00000000-0000-0000-0000-000000000000", "%00", "'", "bob@example.com"} {
			if p := ada.get("/org/members/" + id); p.status != 404 {
				t.Errorf("member %s: %s", id, p.kind())
			}
		}
	})
}

func TestCellsAreNoFormulas(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.organization("Acme", "T1")
		f.person("ada@example.com", "T1", models.Admin, false)
		names := []string{`=HYPERLINK("https://evil.example")`, "+1", "-1", "@SUM(A1)", "\t=1", "＝1+1", ";=1+1", "plain"}
		for i, name := range names {
			email := fmt.Sprintf("u%d@example.com", i)
			f.person(email, "T1", models.Member, false)
			_, err := f.db.NewUpdate().Model((*models.User)(nil)).Set("name = ?", name).Where("email = ?", email).Exec(t.Context())
			must(t, err)
		}
		p := f.signedIn("ada@example.com").get("/org/members.csv?sort=email&q=u")
		rows := p.csv(t)
		for i, row := range rows[1:] {
			want, ok := map[string]string{"plain": "plain", "\t=1": "'\t'=1", ";=1+1": ";'=1+1"}[names[i]]
			if !ok {
				want = "'" + names[i]
			}
			if row[0] != want {
				t.Errorf("the name %q is the cell %q", names[i], row[0])
			}
			for _, cell := range row {
				if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r") {
					t.Errorf("the cell %q is a formula", cell)
				}
			}
		}
		if len(rows) != 9 || !strings.HasPrefix(p.header.Get("Content-Disposition"), "attachment; filename=") ||
			p.header.Get("Cache-Control") != "private, no-store" {
			t.Errorf("%d rows, %v", len(rows), p.header)
		}
	})
}

// If a part of a page fails, the page shows an error with the request's ID in its place. The other
// parts work.
func TestAFailingPartLeavesTheRest(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.organization("Acme", "T1")
		f.person("ada@example.com", "T1", models.Admin, true)
		lastMonth := f.clock().AddDate(0, -1, 0)
		f.used("ada@example.com", 4, lastMonth)
		f.used("ada@example.com", 3, f.clock())
		b := f.signedIn("ada@example.com")
		for _, c := range []struct {
			breaks, repairs, path string
			fails, works          map[string]string
		}{
			{
				"ALTER TABLE usage_records RENAME COLUMN created_at TO broken", "ALTER TABLE usage_records RENAME COLUMN broken TO created_at",
				"/usage",
				map[string]string{"days": "", "months": "", "unusual": ""},
				map[string]string{"left": "2 suggestions left", "reset": "Dec 1, 2026, 00:00 UTC", "do": "paused until the reset"},
			},
			{
				"ALTER TABLE usage_records RENAME COLUMN daily TO broken", "ALTER TABLE usage_records RENAME COLUMN broken TO daily", "/org",
				map[string]string{"days": ""},
				map[string]string{"used": "3 suggestions used", "top": "ada@example.com", "months": "The months as a table"},
			},
			{
				"ALTER TABLE usage_records RENAME COLUMN daily TO broken", "ALTER TABLE usage_records RENAME COLUMN broken TO daily",
				"/org?period=" + lastMonth.Format("2006-01"),
				map[string]string{"days": ""}, map[string]string{"used": "4 suggestions used", "months": "The months as a table"},
			},
			{
				"ALTER TABLE audit_log RENAME TO broken", "ALTER TABLE broken RENAME TO audit_log", "/ops",
				map[string]string{"audit": ""}, map[string]string{"keys": "Starts with"},
			},
		} {
			_, err := f.db.ExecContext(t.Context(), c.breaks)
			must(t, err)
			p := b.get(c.path)
			if p.status != 200 || strings.Contains(p.body, "broken") || strings.Contains(p.body, "column") && strings.Contains(p.body, "SQL") {
				t.Errorf("%s: %s %s", c.path, p.kind(), p.main())
			}
			failed := "send this request ID to your operator: " + p.header.Get("X-Request-Id")
			for id := range c.fails {
				if text := textOf(p.section(id)); !strings.Contains(text, failed) {
					t.Errorf("%s, %s: %s", c.path, id, text)
				}
			}
			for id, words := range c.works {
				if text := textOf(p.section(id)); !strings.Contains(text, words) || strings.Contains(text, "could not be loaded") {
					t.Errorf("%s, %s: %s", c.path, id, text)
				}
			}
			_, err = f.db.ExecContext(t.Context(), c.repairs)
			must(t, err)
			if p := b.get(c.path); p.status != 200 || strings.Contains(p.main(), "could not be loaded") {
				t.Errorf("%s, repaired: %s %s", c.path, p.kind(), p.main())
			}
		}
	})
}
