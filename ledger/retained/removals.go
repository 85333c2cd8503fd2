package retained

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	"mailcutover/internal/durable"
	"mailcutover/routing"
)

// removalsName is the file that has the record of what was removed.
const removalsName = "removed.json"

// maxRemovals is how many removals are listed; older ones are only counted.
const maxRemovals = 1000

// removals is the record of what was removed.
type removals struct {
	mu   sync.Mutex
	file removalsFile
}

type removalsFile struct {
	Agencies map[routing.AgencyID]*Removed `json:"agencies"`
	Last     []Removal                     `json:"last"` // the oldest first
}

// Removed is what is no longer there of an agency.
type Removed struct {
	Removal        // the last one; Copies, Bytes, First and Last are of all
	Segment uint64 `json:"segment"` // up to which all are gone
}

// readRemovals reads the record. One that can't be read is set aside: it is no reason not to
// start.
func (s *Store) readRemovals() (*removals, error) {
	r := &removals{}
	f, err := s.folder.Open(removalsName)
	if err == nil {
		var b []byte
		b, err = io.ReadAll(f)
		err = errors.Join(err, f.Close())
		if err == nil {
			if err = json.Unmarshal(b, &r.file); err != nil {
				r.file = removalsFile{}
				aside, again := s.folder.SetAside(removalsName, s.o.Now())
				s.o.Logger.Error("the record of removed copies can't be read and was set aside", "file", aside, "error", err)
				err = again
			}
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if r.file.Agencies == nil {
		r.file.Agencies = make(map[routing.AgencyID]*Removed)
	}
	return r, err
}

// add writes down that copies are about to be removed, up to a segment. What a crash had removed
// twice is counted once.
func (r *removals) add(folder *durable.Folder, one *Removal, segment uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := removalsFile{Agencies: make(map[routing.AgencyID]*Removed, len(r.file.Agencies)+1), Last: slices.Clone(r.file.Last)}
	for id, of := range r.file.Agencies {
		next.Agencies[id] = of
	}
	sum := Removed{Removal: *one, Segment: segment}
	if before := r.file.Agencies[one.Agency]; before != nil {
		if before.Segment >= segment {
			return nil
		}
		sum.Copies += before.Copies
		sum.Bytes += before.Bytes
		if !before.First.IsZero() {
			sum.First = before.First
		}
		if before.Last.After(sum.Last) {
			sum.Last = before.Last
		}
	}
	next.Agencies[one.Agency] = &sum
	next.Last = append(next.Last, *one)
	next.Last = next.Last[max(0, len(next.Last)-maxRemovals):]
	err := folder.Write(removalsName, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", " ")
		return e.Encode(&next)
	})
	if err != nil {
		return fmt.Errorf("write the record of removed copies: %w", err)
	}
	r.file = next
	return nil
}

// of returns what is gone of an agency; false if nothing is.
func (r *removals) of(id routing.AgencyID) (Removed, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if of := r.file.Agencies[id]; of != nil {
		return *of, true
	}
	return Removed{}, false
}

// upTo returns the segment of an agency up to which all are gone, by agency.
func (r *removals) upTo() map[routing.AgencyID]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	up := make(map[routing.AgencyID]uint64, len(r.file.Agencies))
	for id, of := range r.file.Agencies {
		up[id] = of.Segment
	}
	return up
}

// Removals returns the last removals, the oldest first: 1000 at most.
func (s *Store) Removals() []Removal {
	s.removals.mu.Lock()
	defer s.removals.mu.Unlock()
	return slices.Clone(s.removals.file.Last)
}
