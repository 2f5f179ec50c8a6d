package static_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"

	"tollgate/static"
)

func TestAddressHasTheChecksum(t *testing.T) {
	for name, contentType := range map[string]string{
		"app.css":     "text/css; charset=utf-8",
		"favicon.svg": "image/svg+xml",
	} {
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			stem, ext, _ := strings.Cut(name, ".")
			digits := fmt.Sprintf("%x", sha256.Sum256(want))
			address := static.Address(name)
			if expected := "/static/" + stem + "." + digits[:12] + "." + ext; address != expected {
				t.Errorf("Address(%q) = %q, want %q", name, address, expected)
			}
			content, gotType, ok := static.Open(address)
			if !ok || !bytes.Equal(content, want) {
				t.Errorf("Open(%q) = %d bytes, %t; want the %d bytes of the file", address, len(content), ok, len(want))
			}
			if gotType != contentType {
				t.Errorf("Open(%q) is %q, want %q", address, gotType, contentType)
			}
		})
	}
}

func TestOpenRefusesOtherAddresses(t *testing.T) {
	for _, address := range []string{
		"", "/static/", "/static/app.css", "/static/app.000000000000.css", "app.css",
		"/static/app.source.css", "/static/../static.go", strings.TrimPrefix(static.Address("app.css"), "/"),
	} {
		if content, contentType, ok := static.Open(address); ok || content != nil || contentType != "" {
			t.Errorf("Open(%q) = %d bytes, %q, %t; want nothing", address, len(content), contentType, ok)
		}
	}
}

func TestAddressOfAMissingFilePanics(t *testing.T) {
	for _, name := range []string{"nothing.css", "app.source.css", ""} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Address(%q) did not panic", name)
				}
			}()
			static.Address(name)
		}()
	}
}

func TestStylesheetIsBuilt(t *testing.T) {
	content, _, _ := static.Open(static.Address("app.css"))
	for _, want := range []string{"tailwindcss", "--color-base-100", "prefers-color-scheme:dark"} {
		if !bytes.Contains(content, []byte(want)) {
			t.Errorf("app.css has no %q; build it with `make generate`", want)
		}
	}
}
