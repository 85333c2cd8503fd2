package docs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	runbookCommand = regexp.MustCompile("`(mailcutover [^`]+)`")
	runbookBlank   = regexp.MustCompile(`\b[A-Z]{2,}\b`) // what a reader fills in
)

// Exit codes of mailcutover that say that the command itself was right.
const (
	exitFailed       = 1 // also: refused by the node
	exitUsage        = 2
	exitPrecondition = 4
	exitNotAllowed   = 5
)

// runRunbook runs the commands in the runbook's sentences against the lab, in their order. Nothing is
// wrong in the lab, so that the node may refuse what is for a bad night; but each of them has to
// be one that the program takes, and that the node answers.
func runRunbook(t *testing.T, sh *shell, root, home string, here func(string) string) {
	text, err := os.ReadFile(filepath.Join(root, "docs/operations/runbook.md"))
	if err != nil {
		t.Fatal(err)
	}
	operation, err := sh.once(block{script: "mailcutover operation list --json"})
	id := regexp.MustCompile(`"id": ?"([^"]+)"`).FindStringSubmatch(operation)
	if err != nil || id == nil {
		t.Fatalf("the lab's operations: %v\n%s", err, operation)
	}
	filled := map[string]string{"AGENCY": "health", "ADDRESS": "dora@health.example", "NAME": "dora@health.example", "RUN": here("health-8c1f7a52"),
		"TRANSACTION": here("TRANSACTION"), "OPERATION": id[1], "NODE": "mx1", "FILE": "node.yaml", "DIRECTORY": "texts",
		"HEAD": "mx1/1/1/" + strings.Repeat("0", 64)}
	seen := make(map[string]bool)
	for _, m := range runbookCommand.FindAllStringSubmatch(string(text), -1) {
		command := strings.Join(strings.Fields(m[1]), " ")
		if seen[command] {
			continue
		}
		seen[command] = true
		whole := strings.Contains(command, " --") || runbookBlank.MatchString(command)
		script := strings.ReplaceAll(command, "--reason ...", "--reason test")
		script = runbookBlank.ReplaceAllStringFunc(script, func(blank string) string {
			if s := filled[blank]; s != "" {
				return s
			}
			return strings.ToLower(blank)
		})
		printed, err := sh.once(block{script: fmt.Sprintf("cd %s; %s < /dev/null", quote(home), script)})
		var exit *exec.ExitError
		switch {
		case err == nil:
		case !errors.As(err, &exit):
			t.Errorf("%q ends with %v, and prints\n%s", script, err, printed)
		case exit.ExitCode() == exitFailed, exit.ExitCode() == exitPrecondition, exit.ExitCode() == exitNotAllowed:
		case exit.ExitCode() == exitUsage && !whole: // only named in its sentence
		default:
			t.Errorf("docs/operations/runbook.md: %q ends with %v, and prints\n%s", script, err, printed)
		}
	}
	if len(seen) < 80 {
		t.Errorf("only %d commands were found", len(seen))
	}
}
