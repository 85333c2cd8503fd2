package desk

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"mailcutover/rollback/verify"
	"mailcutover/routing"
)

// Comparisons calls use with the numbers of each mailbox of an agency that a run compared, as
// long as it returns true. ErrNotHere if they don't lie on this node.
func (d *Desk) Comparisons(run string, agency routing.AgencyID, use func(*verify.Comparison) bool) error {
	return read(d.o.Dir, run, "mailboxes", func(c *verify.Comparison) bool { return c.Agency != agency || use(c) })
}

// Messages calls use with each message of a finding, as long as it returns true. ErrNotHere if
// they don't lie on this node: the run that saw it last went elsewhere.
func (d *Desk) Messages(t *Tracked, use func(*verify.Message) bool) error {
	return read(d.o.Dir, t.Run, "messages", func(m *verify.Message) bool { return m.Finding != t.ID || use(m) })
}

// read reads the details of a run, line by line.
func read[T any](dir, run, what string, use func(*T) bool) error {
	if run == "" || strings.ContainsAny(run, "/\\.") {
		return fmt.Errorf("details of comparison %q: %w", run, ErrNotHere)
	}
	f, err := os.Open(detailsPath(dir, run, what))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("details of comparison %s: %w", run, ErrNotHere)
	}
	if err != nil {
		return fmt.Errorf("details of comparison %s: %w", run, err)
	}
	defer f.Close()
	for in := json.NewDecoder(bufio.NewReader(f)); in.More(); {
		var one T
		if err := in.Decode(&one); err != nil {
			return fmt.Errorf("details of comparison %s: %w", run, err)
		}
		if !use(&one) {
			return nil
		}
	}
	return nil
}

// sweepDetails removes the details of runs that nothing in the table speaks of any more.
func (d *Desk) sweepDetails() {
	s := d.o.Replica.State()
	wanted := make(map[string]bool)
	for _, a := range s.Agencies() {
		r, err := RecordOf(s, a.ID)
		all, err2 := Findings(s, a.ID)
		if err != nil || err2 != nil {
			return // a newer program may want them
		}
		for _, o := range []*Outcome{r.Last, r.Full} {
			if o != nil {
				wanted[o.Run] = true
			}
		}
		for i := range all {
			wanted[all[i].Run] = true
		}
	}
	files, err := filepath.Glob(filepath.Join(d.o.Dir, "*.json"))
	if err != nil {
		return
	}
	for _, file := range files {
		run, _, _ := strings.Cut(filepath.Base(file), ".")
		if !wanted[run] {
			if err := os.Remove(file); err != nil {
				d.o.Logger.Warn("old details of a comparison are not removed", "error", err)
			}
		}
	}
}
