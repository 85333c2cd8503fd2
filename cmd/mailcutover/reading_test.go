package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"mailcutover/admin"
)

func TestReadingLine(t *testing.T) {
	for want, p := range map[string]admin.DirectoryProgress{
		"reading ad: 700 objects": {Directory: "ad", Objects: 700},
		"reading ad: [..............................] 0 of about 40000 objects":     {Directory: "ad", Before: 40000},
		"reading ad: [###############...............] 20000 of about 40000 objects": {Directory: "ad", Objects: 20000, Before: 40000},
		"reading ad: [##############################] 50000 of about 40000 objects": {Directory: "ad", Objects: 50000, Before: 40000},
		`reading a\x1b[2J: 1 objects`: {Directory: "a\x1b[2J", Objects: 1},
	} {
		if got := readingLine(&p); got != want && !strings.Contains(want, `\x1b`) || strings.Contains(got, "\x1b") {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The bar follows the reading, and leaves nothing behind.
func TestShowReading(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	tick := make(chan time.Time)
	asked := 0
	var out strings.Builder
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		showReading(ctx, &out, tick, func(context.Context) *admin.DirectoryProgress {
			asked++
			if asked == 2 {
				return nil // between two directories
			}
			return &admin.DirectoryProgress{Directory: "ad", Objects: 10 * asked, Before: 30}
		})
	}()
	for range 3 {
		tick <- time.Now()
	}
	cancel()
	<-ended
	if got := out.String(); !strings.Contains(got, "10 of about 30") || !strings.Contains(got, "30 of about 30") || !strings.HasSuffix(got, "\r\x1b[K") || strings.Contains(got, "\n") {
		t.Errorf("%q", got)
	}
	out.Reset()
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	showReading(ctx, &out, nil, nil)
	if out.Len() > 0 {
		t.Errorf("nothing was read, and %q was drawn", out.String())
	}
}
