package campaign

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Tally counts what happened. With a file it goes on from what earlier campaigns counted. Its
// methods are safe for concurrent use.
type Tally struct {
	file string

	mu   sync.Mutex
	kept kept
}

// kept is the file's content.
type kept struct {
	Rounds  int            `json:"rounds"`
	Seconds float64        `json:"seconds"` // of judged rounds
	Next    uint64         `json:"next"`    // seed
	Counts  map[string]int `json:"counts"`  // by KIND/WHAT
}

// ReadTally reads what file has; an empty name, or no such file, is an empty one.
func ReadTally(file string) (*Tally, error) {
	t := &Tally{file: file, kept: kept{Next: 1, Counts: make(map[string]int)}}
	text, err := os.ReadFile(file)
	if file == "" || errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &t.kept)
	}
	if err != nil {
		return nil, fmt.Errorf("read the counts of earlier campaigns: %w", err)
	}
	return t, nil
}

// Add counts.
func (t *Tally) Add(kind, what string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept.Counts[kind+"/"+what] += n
}

// Seed returns the seed of the next round.
func (t *Tally) Seed() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.kept.Next
}

// Judged adds what a round counted, which was found good, and writes the file.
func (t *Tally) Judged(round *Tally, took time.Duration) error {
	round.mu.Lock()
	counts := maps.Clone(round.kept.Counts)
	round.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, n := range counts {
		t.kept.Counts[name] += n
	}
	t.kept.Rounds++
	t.kept.Next++
	t.kept.Seconds += took.Seconds()
	if t.file == "" {
		return nil
	}
	text, err := json.MarshalIndent(&t.kept, "", "  ")
	if err != nil {
		return fmt.Errorf("keep the counts: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(t.file), 0o755); err != nil {
		return fmt.Errorf("keep the counts: %w", err)
	}
	if err := os.WriteFile(t.file+".new", append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("keep the counts: %w", err)
	}
	return os.Rename(t.file+".new", t.file)
}

// Count returns one of the counts.
func (t *Tally) Count(kind, what string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.kept.Counts[kind+"/"+what]
}

// String is a table.
func (t *Tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d rounds, %s\n", t.kept.Rounds, time.Duration(t.kept.Seconds*float64(time.Second)).Round(time.Second))
	for _, name := range slices.Sorted(maps.Keys(t.kept.Counts)) {
		kind, what, _ := strings.Cut(name, "/")
		fmt.Fprintf(&b, "  %-10s %-46s %8d\n", kind, what, t.kept.Counts[name])
	}
	return b.String()
}
