package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// killGrace is how long a command's output is waited for after it was killed: something
// that it started may hold the pipe open.
const killGrace = 2 * time.Second

var errTooMuch = fmt.Errorf("answer is larger than %d MiB", maxAnswer>>20)

// run starts the command with the question on its standard input.
func (h *Hook) run(ctx context.Context, c Call, question io.Reader) (answer []byte, output string, err error) {
	cmd := exec.CommandContext(ctx, h.Command[0], h.Command[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=" + os.Getenv("HOME"),
		"MAILCUTOVER_HOOK=" + string(h.Kind), "MAILCUTOVER_OPERATION=" + string(c.Operation),
		"MAILCUTOVER_AGENCY=" + string(c.Agency), "MAILCUTOVER_PLATFORM=" + string(h.Platform),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killGrace
	cmd.Stdin = question
	out, notes := &bounded{limit: maxAnswer}, &tail{}
	cmd.Stdout, cmd.Stderr = out, notes
	err = cmd.Run()
	switch cause := context.Cause(ctx); {
	case out.full:
		err = errTooMuch
	case cause != nil && err != nil:
		err = fmt.Errorf("killed: %w", cause)
	case errors.Is(err, syscall.EPIPE):
		err = nil // it answered without reading everything; the answer says what it did
	}
	if err != nil {
		err = fmt.Errorf("command %s: %w", h.Command[0], err)
	}
	return out.buffer.Bytes(), printable(notes.b), err
}

// bounded is a buffer that takes no more than its limit, and ends the command then. It has
// no method of the buffer, whose ReadFrom knows of no limit.
type bounded struct {
	buffer bytes.Buffer
	limit  int
	full   bool
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.buffer.Len()+len(p) > b.limit {
		b.full = true
		return 0, errTooMuch
	}
	return b.buffer.Write(p)
}

// tail keeps the end of what is written.
type tail struct{ b []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > 4*maxText {
		t.b = append(t.b[:0], t.b[len(t.b)-maxText:]...)
	}
	return len(p), nil
}
