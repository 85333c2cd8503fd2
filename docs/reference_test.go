package docs_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// syntax returns a file of the repository, parsed.
func syntax(t *testing.T, name string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, filepath.FromSlash(name)), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// cells returns the code spans that begin a row of a page's tables, by how often.
func cells(t *testing.T, page string) map[string]int {
	t.Helper()
	found := make(map[string]int)
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(read(t, page), -1) {
		found[m[1]]++
	}
	return found
}

// compare holds the rows of a page to what the code has.
func compare(t *testing.T, page string, code map[string]string) {
	t.Helper()
	shown := cells(t, page)
	for _, name := range slices.Sorted(maps.Keys(code)) {
		if shown[name] == 0 {
			t.Errorf("%s has no row for `%s` of %s", page, name, code[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(shown)) {
		if code[name] == "" {
			t.Errorf("%s has a row for `%s`, which isn't in the code", page, name)
		}
	}
}

// answer are the strings of the login protocols' files that are whole answers.
var answer = map[string]*regexp.Regexp{
	"proxy/login/imap/reply.go":         regexp.MustCompile(`^(NO|BAD|\* BYE) .*[^\[]$`),
	"proxy/login/pop3/replies.go":       regexp.MustCompile(`^(\+OK|-ERR .*|\+OK .*)\r\n$`),
	"proxy/login/submission/replies.go": regexp.MustCompile(`^\d\d\d .+\r\n$`),
	"proxy/login/sieve/replies.go":      regexp.MustCompile(`^(OK|NO|BYE) .+\r\n$`),
}

// answers returns all answers that we give to peers, each with its file.
func answers(t *testing.T) map[string]string {
	t.Helper()
	found := make(map[string]string)
	for name, re := range answer {
		ast.Inspect(syntax(t, name), func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil && re.MatchString(s) {
					found[strings.TrimRight(s, "\r\n")] = name
				}
			}
			return true
		})
	}
	for name := range sources(t) {
		if !strings.HasPrefix(name, "proxy/") {
			continue
		}
		ast.Inspect(syntax(t, name), func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !called(call.Fun, "NewReply") || len(call.Args) != 5 {
				return true
			}
			var v [5]string
			for i, arg := range call.Args {
				lit, ok := arg.(*ast.BasicLit)
				if !ok {
					return true // what a platform said
				}
				v[i] = lit.Value
			}
			text, _ := strconv.Unquote(v[4]) // "" is no answer of ours
			if text != "" {
				found[fmt.Sprintf("%s %s.%s.%s %s", v[0], v[1], v[2], v[3], text)] = name
			}
			return true
		})
	}
	return found
}

func TestReferenceHasEachAnswer(t *testing.T) {
	code := answers(t)
	if len(code) < 100 {
		t.Fatalf("only %d answers are found in the code", len(code))
	}
	compare(t, "docs/reference/replies.md", code)
}

// levels are the methods of a logger, with the place of the message among their arguments.
var levels = map[string]int{"Debug": 0, "Info": 0, "Warn": 0, "Error": 0, "DebugContext": 1, "InfoContext": 1, "WarnContext": 1, "ErrorContext": 1, "With": -1}

var (
	logger    = regexp.MustCompile(`(?i)^(log|logger|l)$`)
	attribute = regexp.MustCompile(`^[a-z][a-z_]*$`)
)

// fields returns the names of all attributes of the log, each with a file.
func fields(t *testing.T) map[string]string {
	t.Helper()
	found := make(map[string]string)
	note := func(e ast.Expr, name string) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil && attribute.MatchString(s) {
				found[s] = name
			}
		}
	}
	for name := range sources(t) {
		if strings.HasPrefix(name, "test/") || strings.HasPrefix(name, "demo/") || strings.HasPrefix(name, "bench/") {
			continue
		}
		ast.Inspect(syntax(t, name), func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if of, ok := method.X.(*ast.Ident); ok && of.Name == "slog" && len(call.Args) == 2 {
				note(call.Args[0], name)
				return true
			}
			at, is := levels[method.Sel.Name]
			if !is || !isLogger(method.X) {
				return true
			}
			for i := at + 1; i < len(call.Args); i += 2 {
				note(call.Args[i], name)
			}
			return true
		})
	}
	return found
}

// isLogger reports whether an expression ends in the name of a logger, or makes one.
func isLogger(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return logger.MatchString(e.Name) || e.Name == "slog"
	case *ast.SelectorExpr:
		return logger.MatchString(e.Sel.Name)
	case *ast.CallExpr:
		return called(e.Fun, "Default", "log", "logger", "With")
	}
	return false
}

func TestReferenceHasEachLogField(t *testing.T) {
	code := fields(t)
	if len(code) < 50 {
		t.Fatalf("only %d fields are found in the code", len(code))
	}
	compare(t, "docs/reference/log.md", code)
}
