// Package browser_test checks every page, in every state, in Debian's Chromium: light, dark and in
// forced colors, on a phone, a tablet and a desktop. The pages are those of views/viewstest. A
// server on loopback sends them with the product's headers.
//
// check.mjs does the checks. Node's packages are installed from package-lock.json, without their
// scripts.
package browser_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/static"
	"tollgate/views/viewstest"
	"tollgate/web"
)

var (
	// all checks each page in nine views, each theme at each width, instead of one. `make browser`
	// sets it.
	all = flag.Bool("all", false, "check every page in every theme at every width")
	// shots is set by `make screenshots`.
	shots = flag.String("shots", "", "the folder for the screenshots")
)

// pageLimit is the largest size of a page with its stylesheet and icon, compressed, in bytes.
const pageLimit = 25_000

// shotLimit is the largest size of a screenshot in bytes.
const shotLimit = 200_000

// job is the input of check.mjs.
type job struct {
	Chromium  string   `json:"chromium"`
	Arguments []string `json:"arguments"`
	Tabs      int      `json:"tabs"`
	Pages     []page   `json:"pages"`
	Views     []view   `json:"views"`
}

type page struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	// Printed is a text that must be on the printed page, with every table. If it is empty, printing
	// is not checked.
	Printed string `json:"printed,omitempty"`
	// View is the index of the only view to check. nil means all.
	View *int `json:"view,omitempty"`
	// Scriptless means that the page is also compared with itself without JavaScript.
	Scriptless bool `json:"scriptless,omitempty"`
	// Shots has the files of screenshots to take, by scheme. If it is set, nothing is checked.
	Shots map[string]string `json:"shots,omitempty"`
	// Shown is the height of the screenshots in pixels, to the end of a card.
	Shown int `json:"shown,omitempty"`
	// Destination is the address to which the page's form must lead. If it is set, nothing else is checked.
	Destination string `json:"destination,omitempty"`
}

// view is one way to show a page. Walk means that the keyboard is checked, too.
type view struct {
	Scheme string `json:"scheme"`
	Forced bool   `json:"forced"`
	Width  int    `json:"width"`
	Walk   bool   `json:"walk"`
}

// views returns each theme at each width with -all. Otherwise, it returns each theme and each width
// once, and each page gets one of them in turn.
func views() []view {
	var list []view
	for i, width := range []int{320, 768, 1280} {
		for k, theme := range []view{{Scheme: "light"}, {Scheme: "dark"}, {Scheme: "light", Forced: true}} {
			if theme.Width = width; i == k || *all {
				theme.Walk = k == 0
				list = append(list, theme)
			}
		}
	}
	return list
}

// result is the output of check.mjs for a page.
type result struct {
	Name     string    `json:"name"`
	Problems []problem `json:"problems"`
}

type problem struct {
	Check string `json:"check"`
	Where string `json:"where"`
	What  string `json:"what"`
}

// serve serves pages as the product does, each at /name.
func serve(t *testing.T, pages map[string]string) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if content, contentType, ok := static.Open(r.URL.Path); ok {
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("X-Content-Type-Options", "nosniff")
			_, _ = w.Write(content)
			return
		}
		content, ok := pages[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		web.PageHeaders(w.Header(), web.PagePolicy)
		_, _ = io.WriteString(w, content)
	}))
	t.Cleanup(server.Close)
	return server
}

// drawn returns all pages in all states.
func drawn(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	for name, page := range viewstest.Pages(t) {
		pages[name] = viewstest.Render(t, page)
	}
	return pages
}

// packages installs Node's packages of package-lock.json, if they are missing or old.
func packages(t *testing.T) {
	t.Helper()
	root := filepath.Join("..", "..")
	lock, err := os.Stat(filepath.Join(root, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	// npm writes this file at the end of an installation.
	installed, err := os.Stat(filepath.Join(root, "node_modules", ".package-lock.json"))
	if err == nil && !installed.ModTime().Before(lock.ModTime()) {
		return
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), find(t, "npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
}

// find returns the path of a program. It fails the test without it, because a skipped test would
// look like one that passed.
func find(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%v; install it with `make deps`", err)
	}
	return path
}

// chromium returns the path of the browser. Debian's version without windows takes about a third less
// processor time.
func chromium(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("chromium-headless-shell"); err == nil {
		return path
	}
	return find(t, "chromium")
}

// browserArguments let the browser load nothing but the pages. Its sandbox does not work as root or
// in containers.
var browserArguments = []string{
	"--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
	"--disable-sync", "--disable-quic", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
}

// run starts a browser and calls each with the result of each page.
func run(t *testing.T, j job, each func(result)) {
	t.Helper()
	packages(t)
	j.Chromium, j.Tabs = chromium(t), 2
	j.Arguments = browserArguments
	input, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), find(t, "node"), "check.mjs")
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	// On SIGTERM, Node ends the browser and itself.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Errorf("check.mjs printed: %s", lines.Text())
			continue
		}
		each(r)
	}
	if err := cmd.Wait(); err != nil || lines.Err() != nil {
		t.Fatalf("check.mjs: %v, %v\n%s", err, lines.Err(), &stderr)
	}
}

func TestEveryPageInABrowser(t *testing.T) {
	began := time.Now()
	pages := drawn(t)
	server := serve(t, pages)
	j := job{Views: views()}
	for i, name := range slices.Sorted(maps.Keys(pages)) {
		p := page{Name: name, Address: server.URL + "/" + name, Scriptless: true}
		if !*all {
			p.View = new(i % len(j.Views))
			p.Scriptless = *p.View == 1 // a third of the states
		}
		if strings.HasPrefix(name, "usage-") && name != "usage-failed" {
			p.Printed = "Billing period: "
		}
		j.Pages = append(j.Pages, p)
	}
	seen := map[string]bool{}
	run(t, j, func(r result) {
		seen[r.Name] = true
		t.Run(r.Name, func(t *testing.T) {
			for _, f := range r.Problems {
				t.Errorf("%s (%s): %s", f.Check, f.Where, f.What)
			}
		})
	})
	if len(seen) != len(pages) {
		t.Errorf("%d of %d pages were checked", len(seen), len(pages))
	}
	each := len(j.Views)
	if !*all {
		each = 1
	}
	fmt.Printf("%d states of pages, each in %d of %d views, in %s\n", len(seen), each, len(j.Views), time.Since(began).Round(time.Second))
}

// Each check finds a problem in a page that has them all.
func TestChecksFindProblems(t *testing.T) {
	server := serve(t, map[string]string{"broken": `<!DOCTYPE html><html lang="en"><head><title>Broken</title>
		<style>p { color: red }</style><link rel="stylesheet" href="` + static.Address("app.css") + `"></head>
		<body><a href="/">Home</a><a href="#main">Skip</a><main id="main">
		<div style="x">wide</div><svg width="1400" height="9"></svg><img src="/missing.png">
		<button class="no-print">.</button><a href="/hidden" tabindex="-1">Not reachable by keyboard</a>
		<section class="scroll-x"><table class="data"><tr><td>First</td></tr>
		<tr><td><div class="w-36 wrap-anywhere">alma.teapot.of.lantern@example.com</div></td></tr>
		<tr><td><svg width="3000" height="9"></svg><button>Far away</button></td></tr></table></section>
		<input type="checkbox" checked aria-label="Selected"><svg class="plot" height="50">
		<line class="c-pace" x1="0" x2="100%" y1="20" y2="20"></line><text class="strong" x="10%" y="24">12</text></svg>
		<noscript>Please turn on JavaScript.</noscript></main></body></html>`})
	j := job{Views: views(), Pages: []page{{Name: "broken", Address: server.URL + "/broken", Printed: "Billing period: ", Scriptless: true}}}
	found := map[string]int{}
	run(t, j, func(r result) {
		for _, f := range r.Problems {
			if *all {
				t.Logf("%s (%s): %s", f.Check, f.Where, f.What)
			}
			found[f.Check]++
		}
	})
	for _, check := range []string{
		"axe", "box", "chart", "console", "html", "keyboard", "print", "script", "skip", "table", "target", "width", "word",
	} {
		if found[check] == 0 {
			t.Errorf("the check %s found nothing; problems by check: %v", check, found)
		}
	}
	if found["look"] != 0 {
		t.Error("the checks of the page failed")
	}
}

// A browser applies the policy of a form's page to the redirect after the form, and to the
// redirects of the site it leads to.
func TestFormsLeadToOtherSites(t *testing.T) {
	arrive := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "there") }))
	defer arrive.Close()
	onward := httptest.NewServer(http.RedirectHandler(arrive.URL+"/there", http.StatusFound))
	defer onward.Close()
	policies := map[string]string{"stays": web.PagePolicy, "leads": web.LocalPolicy}
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			http.Redirect(w, r, onward.URL, http.StatusSeeOther)
			return
		}
		web.PageHeaders(w.Header(), policies[strings.TrimPrefix(r.URL.Path, "/")])
		_, _ = io.WriteString(w, `<!DOCTYPE html><html lang="en"><title>Form</title><link rel="icon" href="data:,">
			<main><form method="post"><button>Go</button></form></main></html>`)
	}))
	defer site.Close()
	var j job
	for name := range policies {
		j.Pages = append(j.Pages, page{Name: name, Address: site.URL + "/" + name, Destination: arrive.URL + "/there"})
	}
	run(t, j, func(r result) {
		stayed := slices.ContainsFunc(r.Problems, func(p problem) bool { return p.Check == "destination" })
		if stayed != (r.Name == "stays") {
			t.Errorf("%s: %+v", r.Name, r.Problems)
		}
	})
}

// The screenshots can be taken. `make screenshots` writes them to docs.
func TestScreenshots(t *testing.T) {
	if *shots == "" {
		*shots = t.TempDir() // the test takes them, too
	}
	if err := os.MkdirAll(*shots, 0o755); err != nil {
		t.Fatal(err)
	}
	pages := drawn(t)
	server := serve(t, pages)
	var j job
	for _, shot := range []struct {
		name, state string
		shown       int
	}{{"usage", "usage-billed-with-limit", 1484}, {"org", "org", 1186}} {
		p := page{Name: shot.state, Address: server.URL + "/" + shot.state, Shots: map[string]string{}, Shown: shot.shown}
		for _, scheme := range []string{"light", "dark"} {
			p.Shots[scheme] = filepath.Join(*shots, shot.name+"-"+scheme+".png")
		}
		j.Pages = append(j.Pages, p)
	}
	run(t, j, func(r result) {
		for _, f := range r.Problems {
			t.Errorf("%s: %s", r.Name, f.What)
		}
	})
	for _, p := range j.Pages {
		for _, file := range p.Shots {
			info, err := os.Stat(file)
			if err != nil {
				t.Error(err)
			} else if info.Size() > shotLimit {
				t.Errorf("%s has %d bytes, more than %d", file, info.Size(), shotLimit)
			}
		}
	}
}

// A page with its stylesheet and icon is small, compressed as a proxy does it.
func TestPagesAreSmall(t *testing.T) {
	shared := 0
	for _, name := range []string{"app.css", "favicon.svg"} {
		content, _, _ := static.Open(static.Address(name))
		shared += compressed(t, content)
	}
	most, largest := 0, ""
	for name, page := range drawn(t) {
		n := shared + compressed(t, []byte(page))
		if n > most {
			most, largest = n, name
		}
		if n > pageLimit {
			t.Errorf("%s has %d bytes with its stylesheet and icon, more than %d", name, n, pageLimit)
		}
	}
	t.Logf("the largest page, %s, has %d bytes, %d of them the stylesheet and the icon", largest, most, shared)
}

func compressed(t *testing.T, content []byte) int {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Len()
}
