// Package static holds the files a browser fetches as they are, embedded in the binary.
//
// Each is served at an address that carries a checksum of its content, so that a browser may keep it for ever
// (Cache-Control: immutable) and still gets the new one after an upgrade.
package static

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"path"
	"sync"
)

// Named one by one: app.source.css, which lies beside them, is not for browsers.
//
//go:embed app.css favicon.svg
var files embed.FS

// contentTypes is our own list because mime.TypeByExtension answers from the machine's tables, which differ.
var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

type asset struct {
	content     []byte
	contentType string
}

// index is made at the first use and never changes after it.
type index struct {
	addresses map[string]string // by name
	assets    map[string]asset  // by address
}

var load = sync.OnceValue(func() index {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(fmt.Sprintf("static: %v", err)) // an embedded folder is always there
	}
	idx := index{addresses: map[string]string{}, assets: map[string]asset{}}
	for _, entry := range entries {
		name := entry.Name()
		content, err := files.ReadFile(name)
		if err != nil {
			panic(fmt.Sprintf("static: %v", err)) // nor can an embedded file fail to be read
		}
		contentType, ok := contentTypes[path.Ext(name)]
		if !ok {
			panic(fmt.Sprintf("static: no content type for %s", name))
		}
		sum := sha256.Sum256(content)
		ext := path.Ext(name)
		address := "/static/" + name[:len(name)-len(ext)] + "." + hex.EncodeToString(sum[:])[:12] + ext
		idx.addresses[name] = address
		idx.assets[address] = asset{content: content, contentType: contentType}
	}
	return idx
})

// Address is where the embedded file of this name is served: "app.css" is at "/static/app.<checksum>.css", the
// checksum being the first 12 hexadecimal digits of its SHA-256. It panics on a name that is not embedded: that
// is a slip in a template, and the first test that draws the page finds it.
func Address(name string) string {
	address, ok := load().addresses[name]
	if !ok {
		panic(fmt.Sprintf("static: no file %q", name))
	}
	return address
}

// Open returns what is served at an address that Address gave, and ok false for any other, an older version's
// among them. The content belongs to all callers: it must not be written to.
func Open(address string) (content []byte, contentType string, ok bool) {
	a, ok := load().assets[address]
	return a.content, a.contentType, ok
}
