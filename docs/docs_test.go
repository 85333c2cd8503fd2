// Package docs_test holds the documents to the repository: links lead somewhere, and what
// code cites exists.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = ".."

// files returns the names, from the repository's root, of all files with an extension,
// without hidden directories and test data.
func files(t *testing.T, extension string) []string {
	t.Helper()
	var names []string
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules"):
			return fs.SkipDir
		case !d.IsDir() && filepath.Ext(name) == extension:
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("list the files *%s: %v", extension, err)
	}
	if len(names) == 0 {
		t.Fatalf("no files *%s below %s", extension, root)
	}
	return names
}

// documents returns the text of every document by its name.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	for _, name := range files(t, ".md") {
		texts[name] = read(t, name)
	}
	return texts
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func exists(name string) bool {
	_, err := os.Stat(filepath.Join(root, filepath.FromSlash(name)))
	return err == nil
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// anchor returns the fragment that forges give a heading.
func anchor(title string) string {
	kept := strings.Map(func(r rune) rune {
		switch {
		case r == ' ' || r == '-':
			return '-'
		case r == '_' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r > 0x7f:
			return r
		default:
			return -1
		}
	}, strings.ToLower(strings.TrimSpace(title)))
	return "#" + kept
}

func TestRelativeLinksLeadSomewhere(t *testing.T) {
	texts := documents(t)
	for name, text := range texts {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			to, fragment, _ := strings.Cut(m[1], "#")
			target := name
			if to != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(name), to))
			}
			if !exists(target) {
				t.Errorf("%s: link to %s: no such file", name, m[1])
				continue
			}
			if fragment == "" {
				continue
			}
			found := false
			for _, h := range heading.FindAllStringSubmatch(texts[target], -1) {
				found = found || anchor(h[1]) == "#"+fragment
			}
			if !found {
				t.Errorf("%s: link to %s: no such heading", name, m[1])
			}
		}
	}
}

// repositoryPath finds what looks like a path of this repository: in a command, or in
// backquotes, or in code.
var repositoryPath = regexp.MustCompile("(?:^|[\\s`(\"'./])((?:cmd|configs|demo|docs|internal|mail|node|proxy|rollback|routing|admin|test|tools|bench)/[A-Za-z0-9_./*-]*[A-Za-z0-9_*])")

// elsewhere are addresses of others' pages, which have paths like ours.
var elsewhere = regexp.MustCompile(`https?://\S+`)

func TestPathsExist(t *testing.T) {
	for name, text := range documents(t) {
		for _, m := range repositoryPath.FindAllStringSubmatch(elsewhere.ReplaceAllString(text, ""), -1) {
			path := strings.TrimSuffix(m[1], ".")
			if strings.Contains(path, "*") {
				if found, err := filepath.Glob(filepath.Join(root, path)); err != nil || len(found) == 0 {
					t.Errorf("%s: %s matches nothing", name, path)
				}
				continue
			}
			if !exists(path) && !exists(filepath.Join(filepath.Dir(name), path)) {
				t.Errorf("%s: %s: no such file or folder", name, path)
			}
		}
	}
}

var goRun = regexp.MustCompile(`go run (\./\S+|\.)`)

func TestCommandsToRunArePrograms(t *testing.T) {
	for name, text := range documents(t) {
		for _, m := range goRun.FindAllStringSubmatch(text, -1) {
			folder := strings.TrimRight(m[1], "`.,;:)")
			main, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
			if err != nil || len(main) == 0 {
				t.Errorf("%s: %s: no program there", name, m[0])
			}
		}
	}
}

var makeTarget = regexp.MustCompile("`(?:[A-Z_]+=\\S+ )?make ([a-z]+)`")

func TestMakeTargetsExist(t *testing.T) {
	makefile := read(t, "Makefile")
	for name, text := range documents(t) {
		for _, m := range makeTarget.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s: %s: the Makefile has no such target", name, m[0])
			}
		}
	}
}

var (
	promise   = regexp.MustCompile(`\bP([1-9][0-9]?)\b`)
	nodeRule  = regexp.MustCompile(`[Nn]ode rules? ([0-9]+)(?:(?:,| to| and) ([0-9]+))?`)
	document  = regexp.MustCompile(`docs/[A-Za-z0-9_/.-]*\.md`)
	sectionOf = regexp.MustCompile(`(docs/[A-Za-z0-9_/.-]*\.md)[^"]{0,3}"([^"]+)"`)
)

// comments returns the comments of a Go file that stand on lines of their own or behind
// code, joined, so that a citation may be broken over lines.
func comments(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if _, comment, ok := strings.Cut(line, "//"); ok {
			b.WriteString(strings.TrimSpace(comment))
			b.WriteByte(' ')
		}
	}
	return b.String()
}

func TestCitedPromisesAndRulesExist(t *testing.T) {
	promises := read(t, "docs/architecture/promises.md")
	rules := read(t, "docs/architecture/switch.md")
	checkCitations := func(name, text string) {
		for _, m := range promise.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(promises, "\n## P"+m[1]+" ") {
				t.Errorf("%s: cites %s, which docs/architecture/promises.md doesn't have", name, m[0])
			}
		}
		for _, m := range nodeRule.FindAllStringSubmatch(text, -1) {
			for _, n := range m[1:] {
				if n != "" && !strings.Contains(rules, "\n### Node rule "+n+":") {
					t.Errorf("%s: cites %s, which docs/architecture/switch.md doesn't have", name, m[0])
				}
			}
		}
	}
	for _, name := range files(t, ".go") {
		if name == "docs/docs_test.go" {
			continue
		}
		text := comments(read(t, name))
		checkCitations(name, text)
		for _, cited := range document.FindAllString(text, -1) {
			if !exists(cited) {
				t.Errorf("%s: cites %s: no such document", name, cited)
			}
		}
		for _, m := range sectionOf.FindAllStringSubmatch(text, -1) {
			if exists(m[1]) && !strings.Contains(read(t, m[1]), "# "+m[2]+"\n") {
				t.Errorf("%s: cites %q of %s: no such section", name, m[2], m[1])
			}
		}
	}
	for name, text := range documents(t) {
		checkCitations(name, text)
	}
}

func TestPromisesAreNumberedWithoutGap(t *testing.T) {
	found := regexp.MustCompile(`(?m)^## P(\d+) `).FindAllStringSubmatch(read(t, "docs/architecture/promises.md"), -1)
	rules := regexp.MustCompile(`(?m)^### Node rule (\d+):`).FindAllStringSubmatch(read(t, "docs/architecture/switch.md"), -1)
	for _, numbered := range [][][]string{found, rules} {
		if len(numbered) != 10 {
			t.Errorf("%d promises or node rules, want 10", len(numbered))
		}
		for i, m := range numbered {
			if want := []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"}[i]; m[1] != want {
				t.Errorf("number %s stands where %s should", m[1], want)
			}
		}
	}
}

var newReply = regexp.MustCompile(`NewReply\((\d+), (\d+), (\d+), (\d+),`)

// TestRepliesAreListed holds the table of replies to the code.
func TestRepliesAreListed(t *testing.T) {
	const table = "docs/architecture/message.md"
	listed := read(t, table)
	found := 0
	for _, name := range files(t, ".go") {
		if strings.HasSuffix(name, "_test.go") || !strings.HasPrefix(name, "mail/") && !strings.HasPrefix(name, "proxy/") {
			continue
		}
		for _, m := range newReply.FindAllStringSubmatch(read(t, name), -1) {
			found++
			if m[1][0] == '2' {
				continue // what a platform said, noted; a sender's 250 is the listener's
			}
			if code := m[1] + " " + strings.Join(m[2:], "."); !strings.Contains(listed, code) {
				t.Errorf("%s: the reply %s is not in %s", name, code, table)
			}
		}
	}
	if found == 0 {
		t.Errorf("no replies found in the code")
	}
}
