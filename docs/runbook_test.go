package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const runbook = "docs/operations/runbook.md"

// entry is a section of the runbook.
type entry struct{ title, body string }

// entries returns the sections about alarms or alerts, by name up to the first "/".
func entries(t *testing.T, kind string) map[string]entry {
	t.Helper()
	found := make(map[string]entry)
	for _, section := range strings.Split(read(t, runbook), "\n### ")[1:] {
		title, body, _ := strings.Cut(section, "\n")
		name, is := strings.CutPrefix(title, kind+" ")
		if !is {
			continue
		}
		body, _, _ = strings.Cut(body, "\n## ")
		found[name] = entry{title, body}
	}
	return found
}

// stem is the part of an alarm's name that doesn't say of whom it is.
func stem(name string) string {
	name, _, _ = strings.Cut(name, "/")
	name, _, _ = strings.Cut(name, ":")
	if strings.HasPrefix(name, "login-") {
		return "login-WHAT" // one entry for all of them
	}
	return name
}

// through are files that raise alarms whose names come from elsewhere in the package, from
// a map or a parameter; the names are found there.
var through = map[string]string{
	"internal/daemon/names.go":   "say's parameter",
	"internal/daemon/adopt.go":   "the key of the adoption, and names of another spool's",
	"internal/daemon/notices.go": "the name of a channel's refusal",
	"internal/alarm/alarm.go":    "Set itself",
	"internal/alarm/standing.go": "the map of a look",
	"spool/store.go":             "raise's parameter",
	"rollback/operation/undo.go": "hookAlarm",
}

var (
	alarmMap  = regexp.MustCompile(`^(texts|alarms|to|now)$`)
	alarmName = regexp.MustCompile(`^[a-z][a-z-]*[a-z]([/:-].*)?$`)
)

// raised returns the names of all alarms that the program raises, each with a file.
func raised(t *testing.T) map[string]string {
	t.Helper()
	names := make(map[string]string)
	packages := make(map[string]map[string]*ast.File)
	for name := range sources(t) {
		if strings.HasPrefix(name, "test/") || strings.HasPrefix(name, "demo/") || strings.HasPrefix(name, "bench/") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, filepath.FromSlash(name)), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if dir := path.Dir(name); packages[dir] == nil {
			packages[dir] = map[string]*ast.File{name: f}
		} else {
			packages[dir][name] = f
		}
	}
	for _, files := range packages {
		known := known(files)
		for name, f := range files {
			note := func(e ast.Expr) bool {
				alarm := leftmost(e, known)
				if !alarmName.MatchString(alarm) {
					return false
				}
				names[stem(alarm)] = name
				return true
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					if called(n.Fun, "Raise", "raise", "say") && len(n.Args) > 0 && !note(n.Args[0]) && called(n.Fun, "Raise") && through[name] == "" {
						t.Errorf("%s raises an alarm whose name this test can't find: say in through where it comes from", name)
					}
				case *ast.AssignStmt:
					for i, left := range n.Lhs {
						if of, ok := left.(*ast.Ident); ok && of.Name == "key" && through[name] != "" && i < len(n.Rhs) {
							note(n.Rhs[i])
						}
						if at, ok := left.(*ast.IndexExpr); ok {
							if of, ok := at.X.(*ast.Ident); ok && alarmMap.MatchString(of.Name) {
								note(at.Index)
							}
						}
					}
				}
				return true
			})
		}
	}
	return names
}

func called(fun ast.Expr, names ...string) bool {
	switch fun := fun.(type) {
	case *ast.Ident:
		return slices.Contains(names, fun.Name)
	case *ast.SelectorExpr:
		return slices.Contains(names, fun.Sel.Name)
	}
	return false
}

// known are the constants and functions of a package that are, or begin with, a string.
func known(files map[string]*ast.File) map[string]ast.Expr {
	values := make(map[string]ast.Expr)
	for _, f := range files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if v, ok := s.(*ast.ValueSpec); ok && d.Tok == token.CONST {
						for i, n := range v.Names {
							if i < len(v.Values) {
								values[n.Name] = v.Values[i]
							}
						}
					}
				}
			case *ast.FuncDecl:
				if d.Body == nil || len(d.Body.List) != 1 || !strings.Contains(strings.ToLower(d.Name.Name), "alarm") && d.Name.Name != "key" {
					continue
				}
				if r, ok := d.Body.List[0].(*ast.ReturnStmt); ok && len(r.Results) == 1 {
					if _, again := values[d.Name.Name].(*ast.BinaryExpr); !again {
						values[d.Name.Name] = r.Results[0]
					}
				}
			}
		}
	}
	return values
}

// leftmost returns the string with which an expression begins; "" if it can't be seen.
func leftmost(e ast.Expr, known map[string]ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, _ := strconv.Unquote(e.Value) // "" for numbers
		return s
	case *ast.BinaryExpr:
		left := leftmost(e.X, known)
		if right := leftmost(e.Y, known); left != "" && strings.HasPrefix(right, "-") {
			return left + right
		}
		return left
	case *ast.Ident:
		if v := known[e.Name]; v != nil {
			delete(known, e.Name) // a name of itself ends
			defer func() { known[e.Name] = v }()
			return leftmost(v, known)
		}
	case *ast.CallExpr:
		switch fun := e.Fun.(type) {
		case *ast.Ident:
			return leftmost(fun, known)
		case *ast.SelectorExpr:
			return leftmost(fun.Sel, known)
		}
	}
	return ""
}

func TestRunbookHasEachAlarm(t *testing.T) {
	in := make(map[string]bool)
	for name := range entries(t, "Alarm") {
		in[stem(name)] = true
	}
	raised := raised(t)
	if len(raised) < 40 {
		t.Fatalf("only %d alarms are found in the code: %v", len(raised), raised)
	}
	for name, file := range raised {
		if !in[name] {
			t.Errorf("%s has no entry for the alarm %q of %s", runbook, name, file)
		}
	}
	for name := range in {
		if raised[name] == "" {
			t.Errorf("%s has an entry for the alarm %q, which nothing raises", runbook, name)
		}
	}
}

func TestRunbookHasEachAlert(t *testing.T) {
	in := entries(t, "Alert")
	rules := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(read(t, "configs/prometheus/alerts.yaml"), -1) {
		rules[m[1]] = true
		if _, ok := in[m[1]]; !ok {
			t.Errorf("%s has no entry for the alert %s", runbook, m[1])
		}
	}
	for name := range in {
		if !rules[name] {
			t.Errorf("%s has an entry for the alert %s, which isn't a rule", runbook, name)
		}
	}
}

func TestRunbookEntriesAreWhole(t *testing.T) {
	for _, kind := range []string{"Alarm", "Alert"} {
		for _, e := range entries(t, kind) {
			for _, part := range []string{"means", "do", "see", "undo", "wake"} {
				if !strings.Contains(strings.ToLower(e.body), "**"+part+"**") {
					t.Errorf("%s: %s doesn't say **%s**", runbook, e.title, part)
				}
			}
		}
	}
}
