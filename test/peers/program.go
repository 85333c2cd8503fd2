package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// ErrSkipped is what Run returns where a test would be skipped.
var ErrSkipped = errors.New("skipped")

// Run lets a program that is no test use peers: f is called with a TB, and what f
// started is stopped when f has returned. What a test would log goes to log; where it
// would fail, f ends and Run returns the reason. f must not be in another goroutine when
// it fails.
func Run(ctx context.Context, name string, log io.Writer, f func(TB)) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &program{ctx: ctx, name: name, log: log}
	defer func() {
		cancel() // before the cleanup, as in a test
		for _, cleanup := range slices.Backward(p.cleanups) {
			if cerr := p.catch(cleanup); err == nil {
				err = cerr
			}
		}
	}()
	return p.catch(func() { f(p) })
}

// program is the TB of a program.
type program struct {
	ctx      context.Context // as a test has one
	name     string
	log      io.Writer
	cleanups []func()
	failed   bool
}

// stop is what Fatalf and Skipf panic with, to leave f from any depth.
type stop struct{ err error }

func (p *program) catch(f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s, ok := r.(stop)
			if !ok {
				panic(r)
			}
			err = s.err
		}
	}()
	f()
	return nil
}

func (p *program) Cleanup(f func())         { p.cleanups = append(p.cleanups, f) }
func (p *program) Context() context.Context { return p.ctx }
func (p *program) Failed() bool             { return p.failed }
func (p *program) Helper()                  {}
func (p *program) Name() string             { return p.name }

func (p *program) Logf(format string, args ...any) { fmt.Fprintf(p.log, format+"\n", args...) }

func (p *program) Fatalf(format string, args ...any) {
	p.failed = true
	panic(stop{fmt.Errorf("%s: %s", p.name, fmt.Sprintf(format, args...))})
}

func (p *program) Skipf(format string, args ...any) {
	panic(stop{fmt.Errorf("%s: %w: %s", p.name, ErrSkipped, fmt.Sprintf(format, args...))})
}
