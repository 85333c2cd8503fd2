package desk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailcutover/routing"
)

const (
	// cleanPause is the time between two looks at what can go, unless an agency was finalised.
	cleanPause = 10 * time.Minute

	// runsKept is how many runs of an agency the table keeps that are over and left nothing open.
	runsKept = 20

	// marksKept is how old watermarks are before they go that no agency and no run names: those of a
	// cutover that is under way are named when it is done.
	marksKept = 7 * 24 * time.Hour
)

// Removal is what is removed for good on this node, or from the table.
type Removal struct {
	Agency  routing.AgencyID // empty: of several, such as watermarks of cutovers that were given up
	What    string           // in words
	Reason  string
	Runs    []ID     // whose documents go from the table
	Texts   []string // how these runs ended
	Files   []string // directories and files of this node that go
	Digests []string // of watermarks that go
}

// clean removes what isn't needed any more: journals, progress and watermarks of agencies whose way
// back is over, or of cutovers that no run names any more; and the oldest runs.
func (k *keeper) clean(ctx context.Context) {
	d := k.d
	s := d.o.Replica.State()
	over := ""
	for _, a := range s.Agencies() {
		if a.Finalised {
			over += string(a.ID) + " "
		}
	}
	if over == k.over && d.now().Sub(k.swept) < cleanPause {
		return
	}
	if err := errors.Join(d.cleanTable(ctx, s), d.cleanDisk(ctx, s)); err != nil {
		if ctx.Err() == nil {
			d.o.Logger.Warn("recall: what isn't needed any more isn't removed", "error", err)
		}
		return
	}
	k.over, k.swept = over, d.now()
}

// removed tells of a removal before it happens.
func (d *Desk) removed(ctx context.Context, r *Removal) error {
	if d.o.Removed == nil {
		return nil
	}
	if err := d.o.Removed(ctx, r); err != nil {
		return fmt.Errorf("record that %s is removed: %w", r.What, err)
	}
	return nil
}

// settled reports whether a run is over and has left nothing for people.
func (r *Run) settled(s *routing.State) bool {
	switch r.Stands(s) {
	case Done:
		t := r.Totals(s)
		return r.Accepted != nil || t.left() == ""
	case Ended:
		return true
	}
	return false
}

// cleanTable removes the documents of each agency's oldest runs, and what agencies that are finalised
// kept for a recall.
func (d *Desk) cleanTable(ctx context.Context, s *routing.State) error {
	runs, err := Runs(s)
	if err != nil {
		return nil // written by another version, which may need what this one doesn't know
	}
	var errs []error
	for _, a := range s.Agencies() {
		var old []Run
		for i := range runs {
			if runs[i].Agency == a.ID && runs[i].settled(s) {
				old = append(old, runs[i])
			}
		}
		old = old[:max(0, len(old)-runsKept)]
		gone := &Removal{Agency: a.ID, What: fmt.Sprintf("what the table has of %d old recalls", len(old)), Reason: fmt.Sprintf("the newest %d are kept", runsKept)}
		var keys []string
		for i := range old {
			t := old[i].Totals(s)
			gone.Runs, gone.Texts = append(gone.Runs, old[i].ID), append(gone.Texts, t.Text())
			keys = append(keys, runKey(old[i].ID))
			for _, p := range old[i].Parts(s) {
				keys = append(keys, partKey(old[i].ID, p.Node))
			}
		}
		if a.Finalised {
			if _, ok := s.Document(knownPrefix + string(a.ID)); ok {
				keys = append(keys, knownPrefix+string(a.ID))
				gone.Reason, gone.What = "the way back is finalised", gone.What+", and the watermarks"
			}
		}
		for _, doc := range s.Documents(diskPrefix) {
			of, agency, ok := splitDisk(doc.Key)
			if ok && agency == a.ID && !d.needed(s, runs, of, agency) {
				keys = append(keys, doc.Key)
			}
		}
		if keys == nil {
			continue
		}
		if gone.Runs != nil || a.Finalised {
			if err := d.removed(ctx, gone); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, d.drop(ctx, gone.What, keys))
	}
	return errors.Join(errs...)
}

// drop removes documents from the table, as far as they are there.
func (d *Desk) drop(ctx context.Context, what string, keys []string) error {
	ctx, cancel := context.WithTimeout(ctx, keepPatience)
	defer cancel()
	return d.store(ctx, "remove "+what, func(s *routing.State) ([]routing.Document, error) {
		var docs []routing.Document
		for _, key := range keys {
			if doc, ok := s.Document(key); ok {
				docs = append(docs, routing.Document{Key: key, Removed: true, Revision: doc.Revision})
			}
		}
		return docs, nil
	})
}

// splitDisk takes the key of a disk's document apart.
func splitDisk(key string) (of string, agency routing.AgencyID, ok bool) {
	parts := strings.Split(strings.TrimPrefix(key, diskPrefix), "/")
	if len(parts) != 3 {
		return "", "", false
	}
	agency, ok = agencyOf(parts[1])
	return parts[0], agency, ok
}

// agencyOf returns whose journals a directory has, by its name.
func agencyOf(dir string) (routing.AgencyID, bool) {
	i := strings.LastIndex(dir, "-from-")
	if i <= 0 {
		return "", false
	}
	return routing.AgencyID(dir[:i]), true
}

// needed reports whether journals are of any use: a run names their operation, or may come to.
func (d *Desk) needed(s *routing.State, runs []Run, of string, agency routing.AgencyID) bool {
	a, ok := s.Agency(agency)
	if !ok {
		return true // this copy of the table may be behind
	}
	k, _ := knownOf(s, agency)
	if !a.Finalised && string(k.Operation) == of {
		return true
	}
	return slices.ContainsFunc(runs, func(r Run) bool {
		return r.Agency == agency && journalsOf(&r) == of && (!a.Finalised || r.Stands(s) == Running)
	})
}

// cleanDisk removes this node's journals and progress of runs that nobody goes on with, and
// watermarks that nobody names.
func (d *Desk) cleanDisk(ctx context.Context, s *routing.State) error {
	runs, err := Runs(s)
	if err != nil {
		return nil
	}
	gone := make(map[routing.AgencyID]*Removal)
	of := func(id routing.AgencyID) *Removal {
		if gone[id] == nil {
			gone[id] = &Removal{Agency: id, What: "journals and progress of recalls", Reason: "no run goes on with them"}
			if a, ok := s.Agency(id); ok && a.Finalised {
				gone[id].Reason = "the way back is finalised"
			}
		}
		return gone[id]
	}
	top := filepath.Join(d.o.Dir, "journals")
	operations, err := names(top)
	if err != nil {
		return err
	}
	for _, operation := range operations {
		dirs, err := names(filepath.Join(top, operation))
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			if id, ok := agencyOf(dir); ok && !d.needed(s, runs, operation, id) {
				r := of(id)
				r.Files = append(r.Files, filepath.Join(top, operation, dir))
			}
		}
	}
	for i := range runs {
		r := &runs[i]
		if a, ok := s.Agency(r.Agency); !ok || !a.Finalised || !r.settled(s) {
			continue
		}
		path := d.progressPath(r.ID)
		if _, err := os.Stat(path); err == nil {
			one := of(r.Agency)
			one.Files = append(one.Files, path)
		}
	}
	var errs []error
	for _, r := range gone {
		errs = append(errs, d.remove(ctx, r))
	}
	return errors.Join(append(errs, d.cleanStrays(ctx, runs), d.cleanMarks(ctx, s, runs))...)
}

// cleanStrays removes the progress of runs that the table doesn't have any more.
func (d *Desk) cleanStrays(ctx context.Context, runs []Run) error {
	files, err := names(filepath.Join(d.o.Dir, "runs"))
	if err != nil {
		return err
	}
	gone := &Removal{What: "progress of recalls", Reason: "the table doesn't have them any more"}
	for _, file := range files {
		id, ok := strings.CutSuffix(file, doneSuffix)
		path := filepath.Join(d.o.Dir, "runs", file)
		if ok && !slices.ContainsFunc(runs, func(r Run) bool { return r.ID == ID(id) }) && d.old(path) {
			gone.Files = append(gone.Files, path)
		}
	}
	return d.remove(ctx, gone)
}

// cleanMarks removes watermarks that no agency and no run names, once they are old enough.
func (d *Desk) cleanMarks(ctx context.Context, s *routing.State, runs []Run) error {
	named := make(map[routing.Digest]bool)
	for _, a := range s.Agencies() {
		if !a.Finalised {
			k, _ := knownOf(s, a.ID)
			named[k.Watermarks] = true
		}
	}
	over := make(map[routing.Digest]bool) // of agencies whose way back is over
	for i := range runs {
		a, ok := s.Agency(runs[i].Agency)
		if ok && a.Finalised && runs[i].Stands(s) != Running {
			over[runs[i].Watermarks] = true
		} else {
			named[runs[i].Watermarks] = true
		}
	}
	all, err := d.files.All()
	if err != nil {
		return err
	}
	gone := &Removal{What: "watermarks", Reason: "no agency's way back needs them"}
	for digest, since := range all {
		if !named[digest] && (over[digest] || d.now().Sub(since) > marksKept) {
			gone.Digests = append(gone.Digests, digest.String())
		}
	}
	if gone.Digests == nil {
		return nil
	}
	slices.Sort(gone.Digests)
	if err := d.removed(ctx, gone); err != nil {
		return err
	}
	var errs []error
	for _, text := range gone.Digests {
		digest, err := routing.ParseDigest(text)
		if err == nil {
			err = d.files.Remove(digest)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// old reports whether a file is old enough not to be of something that this copy of the table
// hasn't heard of yet.
func (d *Desk) old(path string) bool {
	info, err := os.Stat(path)
	return err == nil && d.now().Sub(info.ModTime()) > marksKept
}

// remove removes files of this node, after it was told.
func (d *Desk) remove(ctx context.Context, r *Removal) error {
	if r.Files == nil {
		return nil
	}
	slices.Sort(r.Files)
	if err := d.removed(ctx, r); err != nil {
		return err
	}
	var errs []error
	for _, path := range r.Files {
		d.opening.Lock()
		delete(d.open, path)
		err := os.RemoveAll(path)
		d.opening.Unlock()
		if err != nil {
			errs = append(errs, fmt.Errorf("remove %s of agency %s: %w", r.What, r.Agency, err))
		}
	}
	d.o.Logger.Info("recall: removed", "agency", r.Agency, "what", r.What, "files", len(r.Files), "reason", r.Reason)
	return errors.Join(errs...)
}

// names lists a directory; none if it isn't there.
func names(dir string) ([]string, error) {
	all, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var texts []string
	for _, e := range all {
		texts = append(texts, e.Name())
	}
	return texts, nil
}
