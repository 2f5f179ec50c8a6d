//go:build linux

package e2e_test

import (
	"flag"
	"testing"
)

// writeReliability makes TestFaults write its table: `make soak` does this.
var writeReliability = flag.Bool("write-reliability", false, "write the tables of docs/reliability.md")

func writeReliabilityTables(*testing.T, map[string][]outcome) {}
