package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	blockTime = 4 * time.Minute // the longest that one block may take; one compiles the program
	untilTime = 2 * time.Minute // how long something shown may take to come true
)

// shell runs the blocks of one page, one after the other.
type shell struct {
	t      *testing.T
	page   page
	state  string   // the variables and the directory that a block leaves
	env    []string // of the first block
	bound  bindings
	ports  []func(string) string
	ending []func() // of what runs in the background, in reverse
}

// newShell returns the reader's shell.
func newShell(t *testing.T, p page, s setup) *shell {
	t.Helper()
	sh := &shell{t: t, page: p, env: s.env, bound: bindings{}}
	sh.state = filepath.Join(t.TempDir(), "state")
	for _, port := range p.ports {
		free := fmt.Sprint(s.port(port))
		re := regexp.MustCompile(`\b` + port + `\b`)
		sh.ports = append(sh.ports, func(text string) string { return re.ReplaceAllString(text, free) })
	}
	for shown, real := range s.names {
		sh.bound[shown] = real
	}
	begin := fmt.Sprintf("cd %s\nexport HOME=%s\n", quote(s.dir), quote(s.home))
	for _, line := range s.env {
		name, value, _ := strings.Cut(line, "=")
		begin += "export " + name + "=" + quote(sh.real(value)) + "\n"
	}
	if err := os.WriteFile(sh.state, []byte(begin), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sh.end)
	return sh
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// real puts this run's ports, names and ids in the place of the page's.
func (sh *shell) real(text string) string {
	for _, put := range sh.ports {
		text = put(text)
	}
	return sh.bound.put(text)
}

// run carries out one block.
func (sh *shell) run(b block) error {
	where := fmt.Sprintf("%s:%d", sh.page.name, b.line)
	var shown []string
	for _, line := range b.shown {
		for _, put := range sh.ports {
			line = put(line)
		}
		shown = append(shown, line)
	}
	if b.is("background") {
		return sh.background(where, b, shown)
	}
	for until := time.Now().Add(untilTime); ; {
		printed, err := sh.once(b)
		wrong := ""
		if failed := err != nil; failed != b.is("fails") {
			wrong = fmt.Sprintf("%q ends with %v", b.script, err)
		} else if missing := sh.bound.match(shown, printed); missing != "" {
			wrong = fmt.Sprintf("the page shows\n\t%s\nwhich %q doesn't print", missing, b.script)
		} else {
			return nil
		}
		if !b.is("until") || time.Now().After(until) {
			return fmt.Errorf("%s: %s:\n%s", where, wrong, printed)
		}
		select {
		case <-sh.t.Context().Done():
			return sh.t.Context().Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// once runs the script of a block and returns what it printed.
func (sh *shell) once(b block) (printed string, err error) {
	ctx, cancel := context.WithTimeout(sh.t.Context(), blockTime)
	defer cancel()
	script := ". " + quote(sh.state) + "\nset -aeo pipefail\n" + sh.real(b.script) +
		"\n{ export -p; declare -f; printf 'cd %q\\n' \"$PWD\"; } > " + quote(sh.state) + "\n"
	cmd := sh.command(ctx, script)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}
	return string(out), err
}

func (sh *shell) command(ctx context.Context, script string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "--norc", "-c", script)
	cmd.Env = sh.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// output is what a process in the background prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// background starts what runs in a terminal of its own, and waits for what it shows.
func (sh *shell) background(where string, b block, shown []string) error {
	cmd := sh.command(context.WithoutCancel(sh.t.Context()), ". "+quote(sh.state)+"\n"+sh.real(b.script))
	out := new(output)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	ended := make(chan struct{})
	go func() { // ends with the process, for which end waits
		defer close(ended)
		cmd.Wait() // how it ends is no part of the page
	}()
	sh.ending = append(sh.ending, func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(15 * time.Second):
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
		if sh.t.Failed() {
			sh.t.Logf("%s in the background printed:\n%s", where, out)
		}
	})
	for until := time.Now().Add(untilTime); ; {
		missing := sh.bound.match(shown, out.String())
		if missing == "" {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("%s: %q ended:\n%s", where, b.script, out)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(until) {
			return fmt.Errorf("%s: the page shows\n\t%s\nwhich %q doesn't print:\n%s", where, missing, b.script, out)
		}
	}
}

// end ends what runs in the background, the last one first.
func (sh *shell) end() {
	for i := len(sh.ending) - 1; i >= 0; i-- {
		sh.ending[i]()
	}
	sh.ending = nil
}
