package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is more at the end than it may be is named, and nothing else.
func TestLeft(t *testing.T) {
	begin := usage{{"mx1", "descriptors"}: 30, {"mx1", "heap"}: 8 << 20, {"mx1", "disk: audit"}: 1 << 20, {redis, "connections"}: 20}
	for name, c := range map[string]struct {
		end  usage
		want string
	}{
		"as it was":              {begin, ""},
		"fewer":                  {usage{{"mx1", "descriptors"}: 3}, ""},
		"a few descriptors more": {usage{{"mx1", "descriptors"}: 35}, ""},
		"too many descriptors":   {usage{{"mx1", "descriptors"}: 36}, "descriptors of mx1: 30 at the beginning, 36 at the end"},
		"some heap more":         {usage{{"mx1", "heap"}: 12 << 20}, ""},
		"too much heap":          {usage{{"mx1", "heap"}: 13 << 20}, "heap of mx1: 8 at the beginning, 13 at the end, 12 allowed MiB"},
		"a message left":         {usage{{"mx1", "spool's messages"}: 1}, "spool's messages of mx1: 0"},
		"what grows on purpose":  {usage{{"mx1", "disk: audit"}: 1 << 30}, ""},
		"connections to Redis":   {usage{{"mx1", "descriptors"}: 30, {redis, "connections"}: 26}, "connections of redis"},
	} {
		t.Run(name, func(t *testing.T) {
			var left []string
			for _, r := range compare(begin, nil, c.end) {
				if r.left() {
					left = append(left, r.what())
				}
			}
			if c.want == "" && left != nil || c.want != "" && (len(left) != 1 || !strings.HasPrefix(left[0], c.want)) {
				t.Errorf("left %q, want %q", left, c.want)
			}
		})
	}
}

// Peaks are of each look, and rest is what is least.
func TestMostAndLeast(t *testing.T) {
	a, b := usage{{"mx1", "heap"}: 5, {"mx1", "goroutines"}: 7}, usage{{"mx1", "heap"}: 6, {"mx1", "goroutines"}: 2}
	if m := usage(nil).most(a).most(b); m[key{"mx1", "heap"}] != 6 || m[key{"mx1", "goroutines"}] != 7 {
		t.Errorf("most: %v", m)
	}
	if l := a.least(b); l[key{"mx1", "heap"}] != 5 || l[key{"mx1", "goroutines"}] != 2 {
		t.Errorf("least: %v", l)
	}
	if !a.shrinks(b) || b.shrinks(b) {
		t.Error("what shrinks isn't seen, or what doesn't is")
	}
}

func TestMetricsAndDisk(t *testing.T) {
	u := make(usage)
	page := "# HELP go_goroutines x\ngo_goroutines 71\nprocess_open_fds 38\ngo_memstats_heap_alloc_bytes 8.4e+06\nprocess_resident_memory_bytes 5e7\n"
	if err := u.metrics("mx1", page); err == nil || !strings.Contains(err.Error(), "mailcutover_spool_messages") {
		t.Errorf("a page without the spool: %v", err)
	}
	if err := u.metrics("mx1", page+"mailcutover_spool_messages 3\n"); err != nil || u[key{"mx1", "goroutines"}] != 71 || u[key{"mx1", "heap"}] != 8.4e6 {
		t.Errorf("%v, %v", u, err)
	}
	dir := t.TempDir()
	for _, name := range []string{"spool/journal/1.log", "answers/1"} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 64<<10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.disk("mx1", dir); err != nil || u[key{"mx1", "disk: spool"}] < 64<<10 || u[key{"mx1", "disk: other"}] < 64<<10 || u[key{"mx1", "disk: ledger"}] != 0 {
		t.Errorf("%v, %v", u, err)
	}
}

func TestWrongCommandLines(t *testing.T) {
	for _, args := range [][]string{{"more"}, {"-for", "0s"}, {"-rate", "0"}, {"-rest", "-1s"}, {"-fast"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil || errors.Is(err, errLeft) {
			t.Errorf("%q: %v", args, err)
		}
	}
}
