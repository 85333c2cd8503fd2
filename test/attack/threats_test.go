package attack

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mailcutover/test/peers"
)

// What the page of threats calls tested is a test, in the package that it names.
func TestThreatsAreTested(t *testing.T) {
	t.Parallel()
	root, err := peers.Root()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "architecture", "threats.md"))
	if err != nil {
		t.Fatal(err)
	}
	// `folder` TestOne, TestTwo
	cited := regexp.MustCompile("`([a-z0-9/]+)` ((?:(?:Test|Fuzz)[A-Za-z0-9]+(?:, )?)+)")
	name := regexp.MustCompile(`(?:Test|Fuzz)[A-Za-z0-9]+`)
	n := 0
	for _, m := range cited.FindAllStringSubmatch(string(page), -1) {
		files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(m[1]), "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		var source strings.Builder
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(text)
		}
		for _, test := range name.FindAllString(m[2], -1) {
			if n++; !strings.Contains(source.String(), "func "+test+"(") {
				t.Errorf("%s has no %s", m[1], test)
			}
		}
	}
	if n < 80 {
		t.Errorf("only %d tests are cited: this test doesn't read the page", n)
	}
}
