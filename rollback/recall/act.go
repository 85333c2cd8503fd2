package recall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
)

// act does what a pass found to be done: notes what is there, moves what lies elsewhere, and
// brings what is missing.
func (r *run) act(ctx context.Context, all []candidate, groups map[msgkey.Key]*group) error {
	want := func(f int) int {
		if i, ok := r.match.byName[r.match.want[f]]; ok {
			return i
		}
		return -1
	}
	var missing []int
	var records []record
	sets := make(map[place]*uidRanges) // of what is there, and not ours
	moves := make(map[route][]move)
	note := func(c *candidate) {
		o := r.origin(c)
		_, begun := r.journal.intents[o]
		switch {
		case begun: // it was put there, and whoever did it didn't live to see it
			records = append(records, record{Kind: kindBack, origin: o, Key: c.key, Ours: c.ours})
		case c.ours:
			records = append(records, record{Kind: kindThere, origin: o, Key: c.key, Ours: true})
		default:
			at := place{o.Folder, o.Validity}
			if sets[at] == nil {
				sets[at] = new(uidRanges)
			}
			sets[at].add(o.UID)
		}
	}
	left := r.vanished()
	for i := range all {
		c := &all[i]
		if c.key.IsZero() {
			r.tried[r.origin(c)] = true
			records = append(records, r.notBack(c, ClassUnread, "its content can't be read"))
			continue
		}
		g := groups[c.key]
		if g.candidates[0] != i {
			continue // decided with the first of its group
		}
		for n, d := range g.settle(func(i int) int { return all[i].folder }, want, r.journal.byKey[c.key]) {
			i := g.candidates[n]
			c := &all[i]
			switch d.verdict {
			case bring:
				missing = append(missing, i)
			case before:
				o := r.origin(c)
				records = append(records, record{Kind: kindBefore, origin: o, Key: c.key, Ours: c.ours})
			case present:
				note(c)
			case elsewhere:
				if _, begun := r.journal.intents[r.origin(c)]; begun {
					note(c)
					continue
				}
				switch why := r.mayMove(c, d.at, left); {
				case why == "":
					w := route{d.at.folder, c.folder}
					moves[w] = append(moves[w], move{i, d.at.uid})
				case why == mapped:
					note(c)
				default:
					records = append(records, r.notBack(c, ClassMoved, why))
				}
			}
		}
	}
	for at, u := range sets {
		for _, set := range u.sets() {
			records = append(records, record{Kind: kindThere, origin: origin{Folder: at.folder, Validity: at.validity}, Set: set})
		}
	}
	if err := r.journal.write(records...); err != nil {
		return err
	}
	if err := r.moveAll(ctx, all, moves); err != nil {
		return err
	}
	return errors.Join(r.bring(ctx, all, missing), r.journal.save())
}

// notBack is the record about a candidate that isn't back.
func (r *run) notBack(c *candidate, class Class, why string) record {
	return record{Kind: kindNotBack, origin: r.origin(c), Key: c.key, Ours: c.ours, Size: c.size, Class: class, Reason: why}
}

// route is from a folder of To to the one that matches a folder of From.
type route struct{ to, from int }

// move is a message of To, and the candidate because of which it is moved.
type move struct {
	candidate int
	uid       uint32
}

// vanished returns how many messages that a folder of From had at the watermark aren't there
// any more, by name: no more than these can have been moved from there.
func (r *run) vanished() map[string]int {
	if r.job.Since == nil {
		return nil
	}
	left := make(map[string]int)
	for _, mark := range r.job.Since.Folders {
		left[mark.Name] = int(mark.Messages)
		for i := range r.folders {
			if f := &r.folders[i]; f.Name == mark.Name && f.UIDValidity == mark.UIDValidity {
				left[mark.Name] -= int(f.Messages) - r.above[place{f.Name, f.UIDValidity}]
			}
		}
	}
	return left
}

// mapped is why a message isn't moved that nobody moved: who copied it uses other folders
// than we do.
const mapped = "mapped"

// mayMove returns why a message of To isn't moved to where it is on From; empty: it is.
func (r *run) mayMove(c *candidate, at instance, left map[string]int) string {
	f := &r.match.to[at.folder]
	mark, known := r.job.There.Folder(f.Name)
	if r.job.There != nil && (!known || mark.UIDValidity != f.UIDValidity || at.uid >= mark.UIDNext) {
		for _, n := range left {
			if n > 0 { // it may be one that was moved on From as well
				return fmt.Sprintf("it is in %q there, where its user put it", f.Name)
			}
		}
		return mapped
	}
	name := f.Name
	if i := r.match.back(f.Name); i >= 0 {
		name = r.folders[i].Name
	}
	if left[name] <= 0 {
		return mapped // nothing has left that folder on From
	}
	if r.job.There == nil {
		return fmt.Sprintf("it is in %q there, and without a watermark nobody knows who put it there", f.Name)
	}
	left[name]--
	return ""
}

// moveAll moves messages on To into the folders in which they are on From.
func (r *run) moveAll(ctx context.Context, all []candidate, moves map[route][]move) error {
	routes := make([]route, 0, len(moves))
	for w := range moves {
		routes = append(routes, w)
	}
	slices.SortFunc(routes, func(a, b route) int { return cmp.Or(cmp.Compare(a.to, b.to), cmp.Compare(a.from, b.from)) })
	for _, w := range routes {
		to, err := r.target(ctx, w.from)
		if err == nil {
			var state mailstore.Folder
			if state, err = r.to.Select(ctx, r.match.to[w.to].Name, true); err == nil {
				err = same(&r.match.to[w.to], &state)
			}
		}
		if err == nil {
			uids := make([]uint32, len(moves[w]))
			for i, m := range moves[w] {
				uids[i] = m.uid
			}
			slices.Sort(uids)
			err = r.to.Move(ctx, uids, to.Name)
		}
		var records []record
		for _, m := range moves[w] {
			c := &all[m.candidate]
			switch {
			case err == nil:
				records = append(records, record{Kind: kindMoved, origin: r.origin(c), Key: c.key, Ours: c.ours, To: to.Name})
			case aboutMessages(err):
				records = append(records, r.notBack(c, ClassMoved, fmt.Sprintf("it is in %q there: %v", r.match.to[w.to].Name, err)))
			}
		}
		if werr := r.journal.write(records...); werr != nil {
			return werr
		}
		if err != nil && !aboutMessages(err) {
			return err
		}
	}
	return nil
}

// aboutMessages reports whether an error is about what was asked, and the session goes on.
func aboutMessages(err error) bool {
	for _, k := range []error{mailstore.ErrRefused, mailstore.ErrNoMove, mailstore.ErrNoFolder, mailstore.ErrNoSpace, mailstore.ErrTooLarge} {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

// target returns To's folder for one of From's, which is made if it isn't there.
func (r *run) target(ctx context.Context, from int) (*folder, error) {
	name := r.match.want[from]
	if f := r.kept[name]; f != nil {
		return f, nil
	}
	_, exists := r.match.byName[name]
	if !exists {
		role := r.folders[from].Role
		if err := r.to.Create(ctx, name, role); err != nil {
			return nil, err
		}
		if err := r.journal.write(record{Kind: kindFolder, To: name}); err != nil {
			return nil, err
		}
		r.log.Info("folder made", "platform", r.job.Direction.To, "role", role.String())
	}
	state, err := r.to.Select(ctx, name, true)
	if err != nil {
		return nil, err
	}
	f := &folder{Folder: state, next: state.UIDNext}
	r.kept[name] = f
	return f, nil
}
