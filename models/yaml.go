package models

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"

	"go.yaml.in/yaml/v3"
)

// ParseYAML returns the root of a YAML file, which must have exactly one document of at most limit
// bytes. Its errors begin with the file's name and, where there is one, the line.
func ParseYAML(name string, src []byte, limit int) (*yaml.Node, error) {
	if len(src) > limit {
		return nil, fmt.Errorf("%s: larger than %d KiB", name, limit>>10)
	}
	var doc, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(src))
	if err := decoder.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, yamlError(name, src, err)
	}
	if len(doc.Content) == 0 {
		return nil, fmt.Errorf("%s: the file is empty", name)
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		return nil, fmt.Errorf("%s:%d: a second YAML document begins here; the file must have only one", name, second.Line)
	case !errors.Is(err, io.EOF):
		return nil, yamlError(name, src, err)
	}
	return doc.Content[0], nil
}

// libraryLine matches the beginning of the YAML library's messages.
var libraryLine = regexp.MustCompile(`^yaml: (line \d+: )?`)

// yamlError returns an error with the line where src stops being valid YAML. The library's line may
// be the previous one, the beginning of the enclosing block, or missing. So this function finds the
// longest valid prefix of whole lines; the error is on the next line. For a quote or bracket that
// is never closed, that is the line that opens it.
func yamlError(name string, src []byte, err error) error {
	ends := []int{0}
	for i, b := range src {
		if b == '\n' {
			ends = append(ends, i+1)
		}
	}
	line := len(ends)
	for line > 1 && !isYAML(src[:ends[line-1]]) {
		line--
	}
	return fmt.Errorf("%s:%d: invalid YAML: %s", name, line, libraryLine.ReplaceAllString(err.Error(), ""))
}

func isYAML(src []byte) bool {
	for d := yaml.NewDecoder(bytes.NewReader(src)); ; {
		var n yaml.Node
		if err := d.Decode(&n); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}
