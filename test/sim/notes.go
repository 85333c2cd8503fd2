package sim

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// notes puts what nodes log into the trace.
type notes struct {
	run  *Run
	node string
	with []slog.Attr
}

// Enabled implements slog.Handler.
func (n *notes) Enabled(_ context.Context, l slog.Level) bool {
	return n.run.log != nil && l >= n.run.level
}

// Handle implements slog.Handler.
func (n *notes) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	for _, a := range n.with {
		text += fmt.Sprintf(" %s=%v", a.Key, a.Value)
	}
	r.Attrs(func(a slog.Attr) bool { text += fmt.Sprintf(" %s=%v", a.Key, a.Value); return true })
	n.run.mu.Lock()
	defer n.run.mu.Unlock()
	fmt.Fprintf(n.run.log, "%12.6f   %s: %s %s\n", time.Since(n.run.began).Seconds(), n.node, r.Level, text)
	return nil
}

// WithAttrs implements slog.Handler.
func (n *notes) WithAttrs(a []slog.Attr) slog.Handler {
	c := *n
	c.with = append(slices.Clone(n.with), a...)
	return &c
}

// WithGroup implements slog.Handler.
func (n *notes) WithGroup(string) slog.Handler { return n }
