package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	readyWithin = 2 * time.Minute  // for a peer to accept connections, on a busy machine
	stopWithin  = 30 * time.Second // from SIGTERM to SIGKILL
	pollEvery   = 20 * time.Millisecond
	logKept     = 256 << 10 // bytes of a peer's output that are shown on failure
)

// Process is a running peer. Its methods are safe for concurrent use.
type Process struct {
	name string
	make func() *exec.Cmd
	addr string                      // must accept connections before the peer counts as ready
	says string                      // or, if not empty, its output must have this
	asks func(context.Context) error // or, if not nil, this must return nil
	out  *tail

	examples []string // files of configs/peers that it was configured from

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended and was waited for
}

// startProcess starts a peer and waits until it accepts connections at addr. make returns
// a new command each time, so that the peer can be restarted. examples are the files of
// configs/peers that it was configured from.
func startProcess(t TB, name, addr string, make func() *exec.Cmd, examples ...string) *Process {
	t.Helper()
	p := &Process{name: name, make: make, addr: addr, out: &tail{max: logKept}, examples: examples}
	p.own(t)
	return p
}

// own starts the peer for the test and ends it with the test.
func (p *Process) own(t TB) {
	t.Helper()
	t.Cleanup(func() {
		p.Kill() // nothing is kept, and an orderly end takes Postfix a second
		if t.Failed() {
			t.Logf("output of %s:\n%s", p.name, p.out)
		}
	})
	if err := p.Start(t.Context()); err != nil {
		t.Fatalf("%v", err)
	}
}

// Start starts the peer, again after Stop or Kill, with the same ports and directory,
// and returns when it is ready for connections. It is an error if it runs.
func (p *Process) Start(ctx context.Context) error {
	_, before := p.out.since(0)
	if err := p.launch(); err != nil {
		return err
	}
	ready := func(ctx context.Context) error {
		if p.asks != nil {
			return p.asks(ctx)
		}
		if p.says == "" {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.addr)
			if err != nil {
				return err
			}
			return conn.Close()
		}
		if said, _ := p.out.since(before); !strings.Contains(said, p.says) {
			return fmt.Errorf("it has not said %q", p.says)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s at %s: %w (%w)", p.name, p.addr, err, ctx.Err())
		case <-p.ended():
			return fmt.Errorf("wait for %s at %s: it ended: %s", p.name, p.addr, p.out)
		case <-time.After(pollEvery):
		}
	}
}

func (p *Process) launch() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return fmt.Errorf("start %s: it runs", p.name)
	}
	var cmd *exec.Cmd
	for try := 0; ; try++ {
		cmd = p.make()
		cmd.Stdout, cmd.Stderr = p.out, p.out
		// A group of its own, so that its children end with it; and no orphans if the test
		// process is killed.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
		cmd.WaitDelay = stopWithin
		err := cmd.Start()
		if err == nil {
			break
		}
		// A program that was just written is busy as long as a child that another goroutine
		// started meanwhile, and that inherited the file, has not become its own program.
		if !errors.Is(err, syscall.ETXTBSY) || try == 100 {
			return fmt.Errorf("start %s: %w", p.name, err)
		}
		time.Sleep(pollEvery)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() { // ends with the process, for which Stop waits
		defer close(done)
		if err := cmd.Wait(); err != nil {
			fmt.Fprintf(p.out, "%s: %v\n", p.name, err)
		}
	}()
	return nil
}

func (p *Process) ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// Stop ends the peer with SIGTERM, with SIGKILL if that takes over 30 s, and waits for
// it. Stopping a stopped peer does nothing.
func (p *Process) Stop() { p.end(syscall.SIGTERM) }

// Kill ends the peer and all its children with SIGKILL and waits for it.
func (p *Process) Kill() { p.end(syscall.SIGKILL) }

func (p *Process) end(signal syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	group := -p.cmd.Process.Pid
	if signal == syscall.SIGTERM {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		_ = syscall.Kill(group, syscall.SIGCONT)
		select {
		case <-p.done:
		case <-time.After(stopWithin):
		}
	}
	_ = syscall.Kill(group, syscall.SIGKILL) // what is left of the children, too
	<-p.done
	waitGone(p.cmd.Process.Pid)
	p.cmd = nil
}

// waitGone waits until no process of a group that was killed runs any more. A child that isn't
// ours to wait for has its sockets until it was given a processor once more, and whoever
// starts the peer again wants their ports.
func waitGone(group int) {
	for end := time.Now().Add(stopWithin); time.Now().Before(end); time.Sleep(pollEvery / 4) {
		if syscall.Kill(-group, 0) != nil || !running(group) {
			return
		}
	}
}

// running reports whether a process of the group is more than a zombie, which has no files.
func running(group int) bool {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return false
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// PID (NAME) STATE PARENT GROUP ..., and the name may have anything in it (proc(5)).
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) > 2 && fields[2] == strconv.Itoa(group) && fields[0] != "Z" && fields[0] != "X" {
			return true
		}
	}
	return false
}

// Pause stops the peer and its children with SIGSTOP: connections stay open, the kernel
// still takes new ones, and nothing is answered until Resume.
func (p *Process) Pause() error { return p.signalGroup(syscall.SIGSTOP) }

// Resume ends a Pause.
func (p *Process) Resume() error { return p.signalGroup(syscall.SIGCONT) }

func (p *Process) signalGroup(signal syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return fmt.Errorf("%s to %s: it does not run", signal, p.name)
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, signal); err != nil {
		return fmt.Errorf("%s to %s: %w", signal, p.name, err)
	}
	return nil
}

// Signal sends a signal to the peer alone, not to its children.
func (p *Process) Signal(signal syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return fmt.Errorf("%s to %s: it does not run", signal, p.name)
	}
	if err := p.cmd.Process.Signal(signal); err != nil {
		return fmt.Errorf("%s to %s: %w", signal, p.name, err)
	}
	return nil
}

// Ended returns a channel that is closed when the peer, as it was last started, has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended() }

// PID returns the process id, 0 if the peer does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Command returns the command line.
func (p *Process) Command() []string { return p.make().Args }

// Examples returns the files of configs/peers that the peer was configured from.
func (p *Process) Examples() []string { return slices.Clone(p.examples) }

// Output returns the last 256 KiB of what the peer wrote to its standard output and error.
func (p *Process) Output() string { return p.out.String() }

// run runs a client to its end and returns its output, both streams together, and its
// exit status. A client that can't be run at all, or outlives the test, fails the test.
func run(t TB, stdin []byte, program string, args ...string) (output string, status int) {
	t.Helper()
	path, err := lookPath(program)
	if err != nil {
		t.Fatalf("run %s: %v", program, err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = stopWithin
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() < 0) {
		t.Fatalf("run %s: %v\n%s", program, err, out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// mustRun is run for programs whose failure is the test's failure.
func mustRun(t TB, program string, args ...string) string {
	t.Helper()
	out, status := run(t, nil, program, args...)
	if status != 0 {
		t.Fatalf("run %s %q: exit status %d\n%s", program, args, status, out)
	}
	return out
}

// tempDir makes a directory that ends with the test. Its path is short, because Dovecot
// makes Unix sockets in it, whose paths can't be longer than 107 bytes (unix(7)), and
// others may read it, because peers change their user.
func tempDir(t TB, peer string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mc-"+peer+"-")
	if err != nil {
		t.Fatalf("directory for %s: %v", peer, err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Logf("remove directory of %s: %v", peer, err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatalf("directory for %s: %v", peer, err)
	}
	return dir
}

// Root returns the repository's directory: the first one with a go.mod, from the working
// directory upwards.
func Root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod in %s or above", start)
		}
	}
}

// example returns the example configuration configs/peers/name.
func example(t TB, name string) []byte {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatalf("find configs/peers/%s: %v", name, err)
	}
	b, err := os.ReadFile(filepath.Join(root, "configs", "peers", name))
	if err != nil {
		t.Fatalf("read the example configuration: %v", err)
	}
	return b
}

// writeFile writes a file of a peer.
func writeFile(t TB, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatalf("write %s: %v", name, err)
	}
}

// WaitFor returns when done says so, and fails the test, naming what it waited for,
// after the time within or when the test's context ends.
func WaitFor(t TB, within time.Duration, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("no %s within %v", what, within)
		case <-tick.C:
		}
	}
}

// tail keeps the last bytes written to it.
type tail struct {
	max int

	mu      sync.Mutex
	buf     []byte
	written int // in all
}

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p...)
	w.written += len(p)
	if len(w.buf) > 2*w.max {
		w.buf = append([]byte(nil), w.buf[len(w.buf)-w.max:]...)
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.buf[max(0, len(w.buf)-w.max):])
}

// since returns what is kept of that which was written after the first mark bytes, and
// the mark of what comes next.
func (w *tail) since(mark int) (text string, next int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.buf[max(0, len(w.buf)-(w.written-mark)):]), w.written
}
