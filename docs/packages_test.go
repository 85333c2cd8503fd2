package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sources returns the syntax of every Go file but tests, as far as the imports, by name.
func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	parsed := make(map[string]*ast.File)
	for _, name := range files(t, ".go") {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, filepath.FromSlash(name)), nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		parsed[name] = f
	}
	return parsed
}

func TestEveryPackageHasAPage(t *testing.T) {
	pages := make(map[string]int)
	for name, f := range sources(t) {
		dir := path.Dir(name)
		pages[dir] += 0
		if f.Doc != nil {
			pages[dir]++
		}
	}
	for dir, n := range pages {
		if n != 1 {
			t.Errorf("%s: %d package comments, want one", dir, n)
		}
	}
}

// TestEveryPackageIsAPart holds the table in docs/architecture/README.md, "The parts", to the folders:
// those that a row explains, and does not head, lie below its first one.
func TestEveryPackageIsAPart(t *testing.T) {
	page := documents(t)["docs/architecture/README.md"]
	_, page, ok := strings.Cut(page, "## The parts")
	if !ok {
		t.Fatal("docs/architecture/README.md has no parts")
	}
	folder := regexp.MustCompile("`([a-z0-9/]+)/`")
	named := make(map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| `.*$").FindAllString(page, -1) {
		cells := strings.SplitN(row, "|", 3)
		heads := folder.FindAllStringSubmatch(cells[1], -1)
		for _, f := range heads {
			named[f[1]] = true
		}
		for _, f := range folder.FindAllStringSubmatch(cells[2], -1) {
			if !strings.Contains(f[1], "/") {
				f[1] = path.Join(heads[0][1], f[1])
			}
			named[f[1]] = true
		}
	}
	for name := range sources(t) {
		dir := path.Dir(name)
		if top, _, _ := strings.Cut(dir, "/"); top != "test" && top != "bench" && !strings.HasSuffix(dir, "test") && !named[dir] {
			t.Errorf("%s is no part in docs/architecture/README.md", dir)
			named[dir] = true
		}
	}
	for dir := range named {
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(dir))); err != nil {
			t.Errorf("docs/architecture/README.md: %v", err)
		}
	}
}

// TestImports holds the code to docs/architecture/README.md, "The parts".
func TestImports(t *testing.T) {
	const (
		redis = "github.com/redis/"
		bbolt = "go.etcd.io/"
		viper = "github.com/spf13/viper"
		smtp  = "github.com/emersion/"
	)
	rules := []struct {
		folder    string // and, with a slash at the end, those below it
		mayImport []string
		mayNot    []string
	}{
		{folder: "mail", mayNot: []string{"mailcutover/", redis, bbolt, viper}},
		{folder: "routing", mayNot: []string{"mailcutover/node", "mailcutover/proxy/", "mailcutover/rollback/", "mailcutover/admin", "mailcutover/internal/", redis, bbolt, viper, smtp, "net/smtp"}},
		{folder: "routing/", mayNot: []string{"mailcutover/node", "mailcutover/proxy/", "mailcutover/rollback/", "mailcutover/admin"}},
		{folder: "node/", mayNot: []string{"mailcutover/proxy/", "mailcutover/rollback/", "mailcutover/admin", redis, bbolt, viper, smtp}},
		{folder: "rollback/", mayNot: []string{"mailcutover/proxy/", "mailcutover/admin", redis, bbolt, viper}},
		{folder: "rollback/", mayImport: []string{"rollback/mailstore"}, mayNot: []string{smtp}},
		{folder: "page/", mayNot: []string{"mailcutover/proxy/", "mailcutover/routing", "mailcutover/node", redis, bbolt, viper, smtp}},
		{folder: "proxy/", mayNot: []string{"mailcutover/rollback/", "mailcutover/admin", redis, bbolt, viper}},
		{folder: "", mayImport: []string{"internal/config"}, mayNot: []string{viper}},
		{folder: "", mayImport: []string{"routing/redistable"}, mayNot: []string{redis}},
		{folder: "", mayImport: []string{"routing/localtable", "notice/outbox"}, mayNot: []string{bbolt}},
	}
	for name, f := range sources(t) {
		dir := path.Dir(name)
		for _, rule := range rules {
			below := rule.folder == "" || strings.HasSuffix(rule.folder, "/") && strings.HasPrefix(dir+"/", rule.folder)
			if dir != rule.folder && !below {
				continue
			}
			for _, spec := range f.Imports {
				imported, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				for _, forbidden := range rule.mayNot {
					if strings.HasPrefix(imported, forbidden) && !slices.Contains(rule.mayImport, dir) {
						t.Errorf("%s imports %s", name, imported)
					}
				}
			}
		}
	}
}
