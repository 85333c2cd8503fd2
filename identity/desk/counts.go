package desk

import (
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/watch"
	"mailcutover/routing"
)

// DirectoryCounts are the figures of one directory.
type DirectoryCounts struct {
	Directory string
	Age       time.Duration // of the last whole reading, from its begin; -1: there was none since the start
	Took      time.Duration // that reading
	Objects   int
	Problems  int    // objects of agencies that can't be used
	Failures  uint64 // readings that didn't come to their end, since the start
}

// DriftCounts are how many rows of an agency differ from its lists in force.
type DriftCounts struct {
	Agency        routing.AgencyID
	Blocks, Other int // that keep it from being cut over, and that don't
}

// Counts are figures for a monitoring system.
type Counts struct {
	Directories []DirectoryCounts // the source's first
	Drift       []DriftCounts     // of agencies with a list in force, by the last reading
}

// Counts returns the figures as they are now.
func (d *Desk) Counts() Counts {
	source, target := d.watch.Views()
	var out Counts
	for _, one := range []struct {
		dir  directory.Directory
		view *watch.View
	}{{d.o.Source, source}, {d.o.Target, target}} {
		if one.dir == nil {
			continue
		}
		c := DirectoryCounts{Directory: one.dir.Name(), Age: -1, Failures: d.watch.Failures(one.dir.Name())}
		if v := one.view; v != nil {
			c.Age, c.Took, c.Objects, c.Problems = d.now().Sub(v.Facts.At), v.Snapshot.Ended.Sub(v.Snapshot.Began), v.Snapshot.Objects, len(v.Problems)
		}
		out.Directories = append(out.Directories, c)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out.Drift = append(out.Drift, d.counted...)
	return out
}

// Progress is how far a reading is that goes on now.
type Progress struct {
	Directory string // empty: none is read now
	Objects   int    // so far
	Before    int    // that it had in the reading before; 0: there was none
}

// Progress returns how far the reading is that goes on now.
func (d *Desk) Progress() Progress {
	name, objects, before := d.watch.Progress()
	return Progress{Directory: name, Objects: objects, Before: before}
}
