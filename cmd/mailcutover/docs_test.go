package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// mention is a command line of ours that stands in a document, a comment or a text.
type mention struct {
	where string
	line  string // from "mailcutover" on
	whole bool   // one to be typed as it is: neither a command's name in a sentence, nor with "..."
}

// ofLine finds a command line within a line of shell or settings.
var ofLine = regexp.MustCompile(`(?:^|[\s(;|&"'/` + "`" + `])mailcutover ((?:-|[a-z]).*)`)

// TestDocumentedCommandsExist holds every command line in documents, examples of settings
// and texts of the program to the commands that there are.
func TestDocumentedCommandsExist(t *testing.T) {
	all := mentions(t)
	if len(all) < 200 {
		t.Fatalf("only %d command lines found", len(all))
	}
	for _, m := range all {
		if err := understand(m); err != nil {
			t.Errorf("%s: %q: %v", m.where, m.line, err)
		}
	}
}

func mentions(t *testing.T) []mention {
	t.Helper()
	var found []mention
	err := fs.WalkDir(os.DirFS("../.."), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules"):
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		full := filepath.Join("../..", filepath.FromSlash(name))
		switch {
		case filepath.Ext(name) == ".md" && name != "docs/reference/commands.md":
			b, err := os.ReadFile(full)
			if err != nil {
				return err
			}
			found = append(found, ofDocument(name, string(b))...)
		case filepath.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go") && !strings.HasPrefix(name, "test/"):
			of, err := ofCode(name, full)
			if err != nil {
				return err
			}
			found = append(found, of...)
		case strings.HasPrefix(name, "configs/") || strings.HasPrefix(name, "packaging/") || name == "docker-compose.yml" || name == "Dockerfile":
			b, err := os.ReadFile(full)
			if err != nil {
				return err
			}
			for i, line := range strings.Split(string(b), "\n") {
				if strings.Contains(line, ": mailcutover ") && !strings.Contains(line, "action:") {
					continue // a value, such as a name and what it is
				}
				if m := ofLine.FindStringSubmatch(line); m != nil && command(m[1]) {
					said, _, _ := strings.Cut(m[1], `"`)
					found = append(found, mention{where: fmt.Sprintf("%s:%d", name, i+1), line: cut(said)})
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var span = regexp.MustCompile("`(?:[A-Z_]+=\\S+ )*mailcutover ([^`]+)`")

// ofDocument finds the command lines in blocks and code spans.
func ofDocument(name, text string) []mention {
	var found []mention
	fenced, joined := false, ""
	for i, line := range strings.Split(text, "\n") {
		where := fmt.Sprintf("%s:%d", name, i+1)
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
			continue
		}
		block := fenced || strings.HasPrefix(line, "    ")
		if !block {
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				found = append(found, mention{where: where, line: cut(m[1])})
			}
			continue
		}
		if line = joined + strings.TrimSpace(line); strings.HasSuffix(line, `\`) {
			joined = strings.TrimSuffix(line, `\`)
			continue
		}
		joined = ""
		if m := ofLine.FindStringSubmatch(line); m != nil && command(m[1]) {
			typed := strings.HasPrefix(strings.TrimSpace(line), "mailcutover ") && !strings.Contains(line, "...")
			found = append(found, mention{where: where, line: cut(m[1]), whole: typed})
		}
	}
	return found
}

var (
	verb   = regexp.MustCompile(`%(\[\d+\])?[a-zA-Z]`)
	glued  = regexp.MustCompile(`([a-z])%(\[\d+\])?[a-zA-Z]`) // more flags, perhaps
	format = regexp.MustCompile(`^mailcutover [a-z ]*\d`)     // the name of a format of files
)

// ofCode finds the command lines in the strings of a source file: hints and alarms.
func ofCode(name, full string) ([]mention, error) {
	set := gotoken.NewFileSet()
	f, err := parser.ParseFile(set, full, nil, 0)
	if err != nil {
		return nil, err
	}
	var found []mention
	ast.Inspect(f, func(n ast.Node) bool {
		lit, ok := n.(*ast.BasicLit)
		if !ok || lit.Kind != gotoken.STRING {
			return true
		}
		s, err := strconv.Unquote(lit.Value)
		if err != nil {
			return true
		}
		if format.MatchString(s) || s == "mailcutover audit key handover\n" {
			return true
		}
		s = glued.ReplaceAllString(s, "$1")
		s = verb.ReplaceAllString(s, "X")
		for _, part := range strings.Split(s, "mailcutover ")[1:] {
			part, _, _ = strings.Cut(part, "\n")
			if command(part) {
				part, _, _ = strings.Cut(part, "\"")
				found = append(found, mention{where: set.Position(lit.Pos()).String(), line: cut(part)})
			}
		}
		return true
	})
	return found, nil
}

// command reports whether what stands behind our name begins with one of the commands, so
// that it isn't a sentence about the product.
func command(line string) bool {
	first, rest, _ := strings.Cut(line, " ")
	first = strings.Trim(first, ".,;:'\"`")
	for _, c := range newRootCommand().Commands() {
		if c.Name() != first {
			continue
		}
		// "mailcutover demo writes..." is a sentence, and so is one that goes on with a word
		// that no command has there.
		second, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		second = strings.Trim(second, ".,;:'\"`")
		if c.HasSubCommands() && second != "" && !strings.HasPrefix(second, "-") {
			for _, s := range c.Commands() {
				if s.Name() == second {
					return true
				}
			}
			// A group that is a command itself is named in sentences.
			return !c.Runnable() && !sentenceWord.MatchString(second)
		}
		return true
	}
	return strings.HasPrefix(first, "--")
}

var sentenceWord = regexp.MustCompile(`^(is|are|was|has|had|of|to|in|at|on|and|or|that|the|can|does|says)$`)

// cut ends a command line where the shell, or the sentence, goes on.
func cut(line string) string {
	for _, end := range []string{" | ", " || ", " && ", "; ", " > ", " >> ", " 2>", "  #", " # ", ")", ", ", ". ", ": ", " (", "&>", "   "} {
		line, _, _ = strings.Cut(line, end)
	}
	return strings.TrimRight(strings.TrimSpace(line), ".,;:`&")
}

// understand looks for a command line's command and flags, and where it is whole also
// whether the command would take it.
func understand(m mention) error {
	words := shellWords(m.line)
	root := newRootCommand()
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	if cmd.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") && !placeholder(rest[0]) {
		return fmt.Errorf("%s has no command %q", cmd.CommandPath(), rest[0])
	}
	if cmd.HasSubCommands() && len(rest) > 0 && placeholder(rest[0]) {
		return nil // whichever it is
	}
	cmd.InitDefaultHelpFlag()
	for i, w := range rest {
		if !strings.HasPrefix(w, "-") || w == "-" || i > 0 && rest[i-1] == "--" {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
		flag := lookup(cmd, name, strings.HasPrefix(w, "--"))
		if flag == nil {
			return fmt.Errorf("%s has no flag %s", cmd.CommandPath(), w)
		}
		if m.whole && !strings.Contains(w, "=") && flag.NoOptDefVal == "" && i+1 >= len(rest) {
			return fmt.Errorf("%s wants a value", w)
		}
	}
	if !m.whole {
		return nil
	}
	if err := cmd.ParseFlags(rest); err != nil && !strings.ContainsAny(m.line, "$") && !hasPlaceholder(rest) {
		return err
	}
	if help, _ := cmd.Flags().GetBool("help"); help {
		return nil
	}
	if cmd.Runnable() && !strings.Contains(m.line, "$") {
		if err := cmd.ValidateRequiredFlags(); err != nil {
			return err
		}
		if cmd.HasSubCommands() {
			return nil
		}
		return cmd.ValidateArgs(cmd.Flags().Args())
	}
	return nil
}

func lookup(cmd *cobra.Command, name string, long bool) *pflag.Flag {
	for _, set := range []*pflag.FlagSet{cmd.Flags(), cmd.InheritedFlags()} {
		if long {
			if f := set.Lookup(name); f != nil {
				return f
			}
		} else if len(name) == 1 {
			if f := set.ShorthandLookup(name); f != nil {
				return f
			}
		}
	}
	return nil
}

var capitals = regexp.MustCompile(`^[A-Z][A-Z./-]*$`)

// placeholder reports whether a word stands for what the reader puts there.
func placeholder(w string) bool { return w == "..." || w == "X" || capitals.MatchString(w) }

func hasPlaceholder(words []string) bool {
	for _, w := range words {
		if placeholder(w) {
			return true
		}
	}
	return false
}

// shellWords splits a command line as a shell does, as far as documents need it.
func shellWords(line string) []string {
	var words []string
	var word strings.Builder
	inWord, quote := false, rune(0)
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' && inWord && word.Len() > 0 && !strings.HasSuffix(word.String(), "="): // an apostrophe of a sentence
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if inWord || quote != 0 { // a sentence was cut within a quotation
		words = append(words, word.String())
	}
	return words
}

// ranElsewhere are commands that neither a page nor a script here runs, with a test that runs
// them, or the call behind them, and what stands there.
var ranElsewhere = map[string]struct{ test, words string }{
	"directory forwards":   {"internal/daemon/identity_forwards_test.go", "Forwards("},
	"operation publish":    {"internal/daemon/nodes_test.go", "Publish("},
	"operation without":    {"cmd/mailcutover/propose_test.go", "without-hook"},
	"restore":              {"internal/daemon/restore_test.go", "Restore("},
	"recall accept":        {"rollback/recall/desk/desk_test.go", ".Accept("},
	"recall copies":        {"rollback/recall/desk/desk_test.go", "Copies("},
	"recall end":           {"rollback/recall/desk/desk_test.go", ".End("},
	"recall run":           {"test/e2e/recall_test.go", `"recall", "run"`},
	"recall take-over":     {"rollback/recall/desk/nodes_test.go", "TakeOver("},
	"table bootstrap":      {"test/cluster/found_test.go", `"table", "bootstrap"`},
	"table names-complete": {"test/cluster/names_test.go", "names-complete"},
	"table reconcile":      {"test/cluster/redis_test.go", `"reconcile"`},
	"verify findings":      {"test/e2e/verify_test.go", `"verify", "findings"`},
	"verify mailboxes":     {"test/e2e/verify_test.go", `"verify", "mailboxes"`},
	"verify mark":          {"test/e2e/verify_test.go", `"verify", "mark"`},
	"verify messages":      {"test/e2e/verify_test.go", `"verify", "messages"`},
	"verify stop":          {"admin/verify_test.go", "/v1/verify/stop"},
}

// TestEveryCommandIsRun asks of each command that a page which is run, a script in testdata
// or a test elsewhere runs it.
func TestEveryCommandIsRun(t *testing.T) {
	ran := make(map[string]bool)
	for _, line := range scripted(t) {
		if cmd, _, err := newRootCommand().Find(shellWords(cut(line))); err == nil {
			ran[strings.TrimPrefix(cmd.CommandPath(), "mailcutover ")] = true
		}
	}
	for _, group := range newRootCommand().Commands() {
		all := below(group)
		if !group.HasSubCommands() {
			all = []*cobra.Command{group}
		}
		for _, cmd := range all {
			name := strings.TrimPrefix(cmd.CommandPath(), "mailcutover ")
			switch other, is := ranElsewhere[name]; {
			case ran[name] && is:
				t.Errorf("%q is run here too: take it out of ranElsewhere", name)
			case ran[name], cmd.Hidden:
			case !is:
				t.Errorf("no page and no script runs %q", name)
			default:
				b, err := os.ReadFile(filepath.Join("../..", filepath.FromSlash(other.test)))
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(string(b), other.words) {
					t.Errorf("%s doesn't run %q: it has no %s", other.test, name, other.words)
				}
			}
		}
	}
}

// scripted returns the command lines in pages that are run, and in scripts.
func scripted(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, name := range []string{"../../docs/*.md", "../../docs/*/*.md", "testdata/commands/*.txtar"} {
		found, err := filepath.Glob(name)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %v", name, found, err)
		}
		for _, file := range found {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text, script := string(b), filepath.Ext(file) == ".txtar"
			if !script && !strings.Contains(text, "<!-- run: ") {
				continue
			}
			shell := false
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, "```") {
					shell = strings.HasPrefix(line, "```sh") && !strings.Contains(line, "elsewhere")
					continue
				}
				if m := ofLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil && (shell || script && !strings.HasPrefix(line, "#")) {
					lines = append(lines, m[1])
				}
			}
		}
	}
	return lines
}
