package main

import (
	"os"
	"testing"
)

// TestPage holds docs/architecture/mutants.md to the list, and the list to its promise: what
// the simulation doesn't notice has a test and a reason.
func TestPage(t *testing.T) {
	b, err := os.ReadFile("../../../docs/architecture/mutants.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != text() {
		t.Error("docs/architecture/mutants.md is not what the list says: go run ./test/sim/mutants -page")
	}
	seen := map[string]bool{}
	for i := range mutants {
		m := &mutants[i]
		if (m.why == "") != (m.test.pkg == "") || seen[m.String()] {
			t.Errorf("%s: want both a test and a reason, or neither, once", m)
		}
		seen[m.String()] = true
	}
}

// TestTexts wants each mutant to apply: a change of the code that moves a rule moves it here.
func TestTexts(t *testing.T) {
	t.Chdir("../../..")
	for i := range mutants {
		if _, err := mutants[i].files(t.TempDir()); err != nil {
			t.Errorf("%s: %v", &mutants[i], err)
		}
	}
}
