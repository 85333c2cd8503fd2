package operation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"mailcutover/routing"
)

// ErrJournal is wrapped by the errors about a journal that can't be written.
var ErrJournal = errors.New("journal of operations can't be written")

// journalAlarm is raised while the journal lacks something that happened.
const journalAlarm = "operation-journal"

// Folder keeps small files that appear whole or not at all; durable.Folder is one. An
// operation's file is written by whoever has claimed the operation, and by nobody else.
type Folder interface {
	Write(name string, write func(io.Writer) error) error
	Open(name string) (io.ReadCloser, error)
	Names() ([]string, error)
}

// journal keeps operations as files on this node's disk.
type journal struct {
	folder Folder
}

const journalSuffix = ".json"

func (j journal) write(o *Operation) error {
	err := j.folder.Write(string(o.ID)+journalSuffix, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(o)
	})
	if err != nil {
		return fmt.Errorf("operation %s: %w: %w", o.ID, ErrJournal, err)
	}
	return nil
}

func (j journal) read(name string) (Operation, error) {
	f, err := j.folder.Open(name)
	if err != nil {
		return Operation{}, fmt.Errorf("read journal %s: %w", name, err)
	}
	defer f.Close()
	var o Operation
	if err := json.NewDecoder(f).Decode(&o); err != nil {
		return Operation{}, fmt.Errorf("read journal %s: %w", name, err)
	}
	return o, nil
}

// enter writes an operation into the journal. What can't be written is kept, and
// written by Tend.
func (r *Runner) enter(op *Operation) error {
	err := r.journal.write(op)
	r.mu.Lock()
	if err != nil {
		r.unwritten[op.ID] = *op
	} else {
		delete(r.unwritten, op.ID)
	}
	left := len(r.unwritten)
	r.mu.Unlock()
	switch {
	case err != nil:
		r.Alarms.Raise(journalAlarm, fmt.Sprintf("The journal of operations can't be written: no operation begins, one under way ends, and is written down later. Look at the disk that has this node's data. %v", err))
	case left == 0:
		r.Alarms.Clear(journalAlarm)
	}
	return err
}

// flush writes what enter couldn't.
func (r *Runner) flush() error {
	r.mu.Lock()
	var late []Operation
	for id, op := range r.unwritten {
		if r.running[id] == nil {
			late = append(late, op)
			r.running[id] = newHandle(op, func(error) {})
		}
	}
	r.mu.Unlock()
	var errs []error
	for i := range late {
		errs = append(errs, r.enter(&late[i]))
		r.release(late[i].ID)
	}
	return errors.Join(errs...)
}

// List returns the operations of this node's journal, and those of other nodes that have
// not ended, the newest last. An entry that can't be read is reported, and left where it
// is.
func (r *Runner) List() ([]Operation, error) {
	names, err := r.Folder.Names()
	if err != nil {
		return nil, fmt.Errorf("list the journal: %w", err)
	}
	known := make(map[routing.OperationID]Operation)
	var errs []error
	for _, name := range names {
		op, err := r.journal.read(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		known[op.ID] = op
	}
	r.mu.Lock()
	for id, op := range r.unwritten {
		known[id] = op
	}
	for id, h := range r.running {
		if _, ok := known[id]; ok {
			known[id] = h.op
		}
	}
	r.mu.Unlock()
	for _, rec := range r.Replica.State().Operations() {
		if _, ok := known[rec.ID]; ok && rec.Runner == r.Node {
			continue
		}
		op, err := FromRecord(&rec)
		errs = append(errs, err)
		known[rec.ID] = op
	}
	ops := make([]Operation, 0, len(known))
	for _, op := range known {
		ops = append(ops, op)
	}
	slices.SortFunc(ops, func(a, b Operation) int { return a.Started.Compare(b.Started) })
	return ops, errors.Join(errs...)
}

// All returns the operations of List and those that the table still has of all nodes, the
// newest last.
func (r *Runner) All(ctx context.Context) ([]Operation, error) {
	ops, err := r.List()
	records, tableErr := r.Table.Operations(ctx)
	errs := []error{err, tableErr}
	known := make(map[routing.OperationID]int, len(ops))
	for i := range ops {
		known[ops[i].ID] = i
	}
	for i := range records {
		rec := &records[i]
		at, ok := known[rec.ID]
		if ok && (!rec.Ended || ops[at].Step.Ended()) {
			continue
		}
		op, err := FromRecord(rec)
		if err != nil {
			errs = append(errs, err)
		}
		if ok {
			ops[at] = op // it ended elsewhere
		} else {
			ops = append(ops, op)
		}
	}
	slices.SortStableFunc(ops, func(a, b Operation) int { return a.Started.Compare(b.Started) })
	return ops, errors.Join(errs...)
}
