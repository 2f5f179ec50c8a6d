// Package static has the embedded files that are served without changes.
//
// The address of each file contains a checksum of its content. So a browser can cache the file
// permanently (Cache-Control: immutable), and still gets the new one after an upgrade.
package static

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"path"
	"sync"
)

// Each file is listed, because app.source.css in this folder is not for browsers.
//
//go:embed app.css favicon.svg
var files embed.FS

// contentTypes is used instead of mime.TypeByExtension, whose results depend on the machine.
var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

type asset struct {
	content     []byte
	contentType string
}

// index is built at the first use and never changes.
type index struct {
	addresses map[string]string // by name
	assets    map[string]asset  // by address
}

var load = sync.OnceValue(func() index {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(fmt.Sprintf("static: %v", err)) // an embedded folder always exists
	}
	idx := index{addresses: map[string]string{}, assets: map[string]asset{}}
	for _, entry := range entries {
		name := entry.Name()
		content, err := files.ReadFile(name)
		if err != nil {
			panic(fmt.Sprintf("static: %v", err)) // an embedded file can always be read
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

// Address returns the address of an embedded file. For "app.css", it is
// "/static/app.<checksum>.css", where the checksum is the first 12 hexadecimal digits of the file's
// SHA-256. It panics if the file does not exist: this is an error in a template, which every test
// of the page finds.
func Address(name string) string {
	address, ok := load().addresses[name]
	if !ok {
		panic(fmt.Sprintf("static: no file %q", name))
	}
	return address
}

// Open returns the file at an address that Address returned. For any other address, such as one of
// an older version, ok is false. All callers share the content and must not change it.
func Open(address string) (content []byte, contentType string, ok bool) {
	a, ok := load().assets[address]
	return a.content, a.contentType, ok
}
