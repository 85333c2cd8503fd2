package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mailcutover/test/peers"
)

// elsewhere is what no test can run, and why. A block with the mark elsewhere consists of
// such commands only.
var elsewhere = []struct {
	command *regexp.Regexp
	why     string
}{
	{regexp.MustCompile(`^(sudo )?apt(-get)? `), "it changes the machine, and make peers has done it"},
	{regexp.MustCompile(`^(sudo )?systemctl `), "there is no systemd where tests run"},
	{regexp.MustCompile(`^git clone `), "it needs the network; the test begins in a checkout"},
	{regexp.MustCompile(`^docker `), "there is no container engine where tests run"},
}

// build makes the program for all pages, and returns the directory that has it.
func build(t *testing.T) string {
	t.Helper()
	file, err := peers.Build(t.Context(), t.TempDir(), "./cmd/mailcutover", false)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(file)
}

// newSetup returns what every page begins with.
func newSetup(t *testing.T, root, bin string) *setup {
	t.Helper()
	s := &setup{home: t.TempDir(), dir: root, names: make(map[string]string)}
	ports := make(map[string]int)
	s.port = func(shown string) int {
		if ports[shown] == 0 {
			ports[shown] = peers.Port(t)
		}
		return ports[shown]
	}
	s.env = []string{
		"PATH=" + bin + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin",
		"LC_ALL=C.UTF-8", "NO_COLOR=1", "TERM=dumb",
		"MAILCUTOVER_API=http://127.0.0.1:8025", // its default, with this run's port
	}
	// "go install" on a page must find what has been downloaded and compiled.
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOFLAGS", "GOPROXY", "GOTOOLCHAIN"} {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatalf("go env %s: %v", name, err)
		}
		s.env = append(s.env, name+"="+strings.TrimSpace(string(out)))
	}
	return s
}

// TestPages runs the commands of every page.
func TestPages(t *testing.T) {
	peers.Need(t, "curl", "jq", "openssl", "postfix", "python", "redis", "slapd", "smtp-sink")
	root, err := peers.Root()
	if err != nil {
		t.Fatal(err)
	}
	bin := build(t)
	t.Run("docs/operations", func(t *testing.T) {
		t.Parallel()
		runOperations(t, root, bin)
	})
	for _, p := range pages(t) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			prepare, ok := setups[p.needs]
			if !ok {
				t.Fatalf("it needs %q, want <!-- run: NAME --> with one of the test's names", p.needs)
			}
			s := newSetup(t, root, bin)
			prepare(t, s)
			sh := newShell(t, p, *s)
			for _, b := range p.blocks {
				if b.is("elsewhere") {
					checkElsewhere(t, p, b)
				} else if err := sh.run(b); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func checkElsewhere(t *testing.T, p page, b block) {
	t.Helper()
	for line := range strings.Lines(b.script) {
		known := false
		for _, e := range elsewhere {
			known = known || e.command.MatchString(strings.TrimSpace(line))
		}
		if !known {
			t.Errorf("%s:%d: why can't %q be run?", p.name, b.line, line)
		}
	}
}
