package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// readingPause is the time between two looks at how far the node is.
const readingPause = 250 * time.Millisecond

// whileReading makes a call that lets the directories be read, and shows on a terminal how far
// that is. Elsewhere, and without refresh, it only makes the call.
func (c *connection) whileReading(cmd *cobra.Command, client *admin.Client, refresh bool, call func() error) error {
	if !refresh || c.json || !isTerminal(cmd.ErrOrStderr()) {
		return call()
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	tick := time.NewTicker(readingPause)
	defer tick.Stop()
	var bar sync.WaitGroup
	bar.Go(func() {
		showReading(ctx, cmd.ErrOrStderr(), tick.C, func(ctx context.Context) *admin.DirectoryProgress {
			d, err := client.Directories(ctx, false)
			if err != nil {
				return nil // the call itself says what is wrong
			}
			return d.Reading
		})
	})
	err := call()
	cancel()
	bar.Wait()
	return err
}

// showReading draws a bar, in one line that it clears in the end, until ctx ends.
func showReading(ctx context.Context, w io.Writer, tick <-chan time.Time, ask func(context.Context) *admin.DirectoryProgress) {
	drawn := false
	for {
		select {
		case <-tick:
		case <-ctx.Done():
			if drawn {
				fmt.Fprint(w, "\r\x1b[K")
			}
			return
		}
		if p := ask(ctx); p != nil {
			fmt.Fprintf(w, "\r\x1b[K%s", readingLine(p))
			drawn = true
		}
	}
}

// readingLine is the bar. How many objects there will be isn't known; those of the reading
// before say it well enough.
func readingLine(p *admin.DirectoryProgress) string {
	if p.Before <= 0 {
		return fmt.Sprintf("reading %s: %d objects", printable(p.Directory), p.Objects)
	}
	const width = 30
	done := min(p.Objects, p.Before) * width / p.Before
	return fmt.Sprintf("reading %s: [%s%s] %d of about %d objects", printable(p.Directory), strings.Repeat("#", done), strings.Repeat(".", width-done), p.Objects, p.Before)
}
