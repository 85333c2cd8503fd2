package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"mailcutover/routing"
)

// Keys of the plan's documents in the table.
const (
	wavePrefix = "wave/"
	stopKey    = "plan/stop"
	liftedKey  = "plan/lifted"
	// turnKey is changed by everything that decides what may start next, so that of two that
	// decide at once the later one decides anew.
	turnKey = "plan/turn"
)

// maxDocument is the largest document that the table takes, in bytes.
const maxDocument = 64 << 10

// ErrUnreadable is about a document that this version of the program can't read.
var ErrUnreadable = errors.New("can't be read by this version of the program")

// Document returns the wave as the table keeps it, to be stored in the place of what it was
// read from.
func (w *Wave) Document() (routing.Document, error) {
	return document(wavePrefix+string(w.Name), w, w.Revision)
}

func document(key string, v any, rev routing.Revision) (routing.Document, error) {
	b, err := json.Marshal(v)
	if err == nil && len(b) > maxDocument {
		err = fmt.Errorf("%d bytes are more than the table takes", len(b))
	}
	if err != nil {
		return routing.Document{}, fmt.Errorf("store %s: %w", key, err)
	}
	return routing.Document{Key: key, Text: string(b), Revision: rev}, nil
}

// read reads a document; false: there is none.
func read(s *routing.State, key string, into any) (rev routing.Revision, ok bool, err error) {
	d, ok := s.Document(key)
	if !ok {
		return 0, false, nil
	}
	if err := strict(d.Text, into); err != nil {
		return 0, true, fmt.Errorf("%s: %w: %w", key, ErrUnreadable, err)
	}
	return d.Revision, true, nil
}

// Find returns the wave of a name. ErrNoWave: there is none.
func Find(s *routing.State, name Name) (w Wave, err error) {
	rev, ok, err := read(s, wavePrefix+string(name), &w)
	if err == nil && !ok {
		err = fmt.Errorf("wave %q: %w", name, ErrNoWave)
	}
	if err == nil && w.Name != name {
		err = fmt.Errorf("%s%s: %w: it says that it is %s", wavePrefix, name, ErrUnreadable, w.Name)
	}
	w.Revision = rev
	return w, err
}

// Waves returns all waves, the oldest first, and what can't be read as errors.
func Waves(s *routing.State) (all []Wave, unreadable []error) {
	for _, d := range s.Documents(wavePrefix) {
		w, err := Find(s, Name(d.Key[len(wavePrefix):]))
		if err != nil {
			unreadable = append(unreadable, err)
			continue
		}
		all = append(all, w)
	}
	slices.SortStableFunc(all, func(a, b Wave) int { return a.Made.Compare(b.Made) })
	return all, unreadable
}

// Kept is for how long a wave stays in the table after its end.
const Kept = 180 * 24 * time.Hour

// Outdated returns the removals of waves that ended longer than Kept ago, a few at a time.
func Outdated(s *routing.State, now time.Time) (gone []routing.Document) {
	all, _ := Waves(s)
	for i := range all {
		if w := &all[i]; w.Standing.Over() && now.Sub(w.Over) > Kept && len(gone) < 20 {
			gone = append(gone, routing.Document{Key: wavePrefix + string(w.Name), Removed: true, Revision: w.Revision})
		}
	}
	return gone
}

// Turn returns the document that everything changes that decides what may start next.
func Turn(s *routing.State) routing.Document {
	d, _ := s.Document(turnKey)
	n, _ := strconv.ParseUint(d.Text, 10, 64) // of another form: counted anew
	d.Key, d.Text = turnKey, strconv.FormatUint(n+1, 10)
	return d
}
