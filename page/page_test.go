package page

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// said finds the texts that the page says in whoever's language.
var said = []*regexp.Regexp{
	regexp.MustCompile(`\.T "((?:[^"\\]|\\.)*)"`),
	regexp.MustCompile(`\.T\("((?:[^"\\]|\\.)*)"`),
	regexp.MustCompile(`\b(?:text|about): "((?:[^"\\]|\\.)*)"`),
	regexp.MustCompile(`\btitle(?:, [\w.]+)? = "((?:[^"\\]|\\.)*)"`),
	regexp.MustCompile(`return "([A-Z][a-z]+)", `),
	regexp.MustCompile(`state\w+ +state = "(.*?)"`),
}

func TestEveryTextIsTranslated(t *testing.T) {
	var files []string
	for _, pattern := range []string{"templates/*.html", "*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatal("no files", pattern, err)
		}
		files = append(files, found...)
	}
	texts := 0
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") || f == "german.go" {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range said {
			for _, m := range one.FindAllStringSubmatch(string(b), -1) {
				texts++
				if _, ok := german[m[1]]; !ok {
					t.Errorf("%s: %q has no German", f, m[1])
				}
			}
		}
	}
	for _, n := range notices {
		if _, ok := german[n]; !ok {
			t.Errorf("%q has no German", n)
		}
	}
	if texts < 200 {
		t.Errorf("only %d texts found", texts)
	}
	verbs := regexp.MustCompile(`%[a-z]`)
	for english, text := range german {
		if a, b := verbs.FindAllString(english, -1), verbs.FindAllString(text, -1); strings.Join(a, " ") != strings.Join(b, " ") {
			t.Errorf("%q has the verbs %v, its German %v", english, a, b)
		}
	}
}

func TestLocal(t *testing.T) {
	for next, want := range map[string]string{
		"/": "/", "": "/", "/agencies/a?x=1": "/agencies/a?x=1", "//evil.example": "/", "https://evil.example/": "/", "/\\evil.example": "/",
		"javascript:alert(1)": "/", "/signin": "/", "/signout": "/", "/signon/begin": "/", "/a\r\nSet-Cookie: x": "/", "evil": "/",
	} {
		if got := local(next); got != want {
			t.Errorf("local(%q) is %q, want %q", next, got, want)
		}
	}
}
