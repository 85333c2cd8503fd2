package recall

import (
	"cmp"
	"context"
	"slices"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
)

// group is all that has one key: a message and its copies.
type group struct {
	candidates []int // in the pass's list
	others     []int // From's other messages, as indices of their folders
	brought    int   // of others: we brought them
	there      []instance
}

// instance is a message on To.
type instance struct {
	folder int // in matcher.to
	uid    uint32
}

// compare looks for the candidates' keys on To, and on From for copies that are no
// candidates.
func (r *run) compare(ctx context.Context, all []candidate, complete bool) (map[msgkey.Key]*group, error) {
	groups := make(map[msgkey.Key]*group, len(all))
	content, known := false, false
	for i := range all {
		if all[i].key.IsZero() {
			continue // it couldn't be read
		}
		g := groups[all[i].key]
		if g == nil {
			g = new(group)
			groups[all[i].key] = g
		}
		g.candidates = append(g.candidates, i)
		content = content || all[i].content
		known = known || r.journal.byKey[all[i].key] > 0
	}
	since := oldest(all)
	found, err := r.find(ctx, all, groups, since, content)
	if known = known || found; err != nil || !known || complete {
		return groups, err
	}
	r.opened = ""
	err = each(ctx, r.from, r.folders, since, content, func(folder int, uid uint32, k msgkey.Key) {
		g := groups[k]
		if g == nil || isCandidate(all, folder, uid) {
			return
		}
		g.others = append(g.others, folder)
		f := &r.folders[folder]
		if _, ok := r.journal.brought[origin{f.Name, f.UIDValidity, uid}]; ok {
			g.brought++
		}
	})
	return groups, err
}

// find notes where messages with the groups' keys are on To. found: there are any.
//
// What was begun and never heard of again (the process was killed, or the platform was too slow) may be on its way still:
// a platform works off what it has of a connection that is gone. So To is looked through until within Settle
// nothing more has come.
func (r *run) find(ctx context.Context, all []candidate, groups map[msgkey.Key]*group, since time.Time, content bool) (found bool, err error) {
	begun := slices.ContainsFunc(all, func(c candidate) bool {
		_, ok := r.journal.intents[r.origin(&c)]
		return ok
	})
	for before := -1; ; {
		if err := r.lookThrough(ctx, groups, since, content); err != nil {
			return false, err
		}
		n := 0
		for _, g := range groups {
			n += len(g.there)
		}
		if !begun || n <= before {
			return n > 0, nil
		}
		before = n
		timer := time.NewTimer(r.e.o.Settle)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false, context.Cause(ctx)
		}
		now, err := r.to.Folders(ctx)
		if err != nil {
			return false, err
		}
		r.match = newMatcher(r.folders, now)
	}
}

// lookTries is how often To is looked through whose user moves messages meanwhile.
const lookTries = 3

// lookThrough looks for the groups' messages on To once. Its user may work: what was
// moved from a folder that wasn't looked at yet into one that was would be missing, and come twice. So if
// something was moved meanwhile it looks again; after lookTries it believes what it saw.
func (r *run) lookThrough(ctx context.Context, groups map[msgkey.Key]*group, since time.Time, content bool) error {
	for try := 1; ; try++ {
		for _, g := range groups {
			g.there = nil
		}
		err := each(ctx, r.to, r.match.to, since, content, func(folder int, uid uint32, k msgkey.Key) {
			if g := groups[k]; g != nil {
				g.there = append(g.there, instance{folder, uid})
			}
		})
		if err != nil {
			return err
		}
		now, err := r.to.Folders(ctx)
		if err != nil {
			return err
		}
		if try == lookTries || !moved(r.match.to, now) {
			return nil
		}
		r.match = newMatcher(r.folders, now)
	}
}

// moved reports whether messages may have been moved between two looks at a mailbox: a folder got
// some, or a name, and one has lost some, or its name.
func moved(before, now []mailstore.Folder) bool {
	was := make(map[string]*mailstore.Folder, len(before))
	for i := range before {
		was[before[i].Name] = &before[i]
	}
	got, lost := false, false
	for i := range now {
		f, old := &now[i], was[now[i].Name]
		if old == nil || old.UIDValidity != f.UIDValidity {
			got = got || f.Messages > 0
			lost = lost || old != nil && old.Messages > 0
		} else {
			came := int64(f.UIDNext) - int64(old.UIDNext)
			got = got || came > 0
			lost = lost || int64(f.Messages) < int64(old.Messages)+came
		}
		delete(was, f.Name)
	}
	for _, old := range was {
		lost = lost || old.Messages > 0
	}
	return got && lost
}

// isCandidate reports whether a message is a candidate. They are sorted by folder and UID.
func isCandidate(all []candidate, folder int, uid uint32) bool {
	_, ok := slices.BinarySearchFunc(all, uid, func(c candidate, uid uint32) int {
		return cmp.Or(cmp.Compare(c.folder, folder), cmp.Compare(c.uid, uid))
	})
	return ok
}

// each calls f with the key of every message that arrived since, or of all if that is zero.
// Those that are known by their content alone are read if content is set, else left out.
func each(ctx context.Context, s mailstore.Session, folders []mailstore.Folder, since time.Time, content bool, f func(folder int, uid uint32, k msgkey.Key)) error {
	for i := range folders {
		if folders[i].NoSelect || folders[i].Messages == 0 {
			continue
		}
		if err := listed(ctx, s, &folders[i]); err != nil {
			return err
		}
		var bare []uint32
		note := func(m mailstore.Message) error {
			if k, _, ok := keyOf(&m, folders[i].Role); ok {
				f(i, m.UID, k)
			} else if content {
				bare = append(bare, m.UID)
			}
			return nil
		}
		var err error
		if since.IsZero() {
			err = s.List(ctx, 1, 0, note)
		} else {
			err = s.ListSince(ctx, since, note)
		}
		if err == nil {
			err = digest(ctx, s, bare, func(uid uint32, k msgkey.Key) { f(i, uid, k) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// verdict is what becomes of a candidate.
type verdict uint8

const (
	bring     verdict = iota // it is missing on To
	before                   // it was brought before, from another place on From or as a retained copy
	present                  // it is on To, in its folder
	elsewhere                // it is on To, in another folder
)

// decision is a verdict, and for elsewhere which message of To it is.
type decision struct {
	verdict
	at instance
}

// settle decides about a group's candidates. want is To's folder for a folder of From, as an
// index, or -1 if there is none. brought is how many messages with this key were brought ever, from
// wherever. To's copies are shared out among From's: what isn't certain is brought, since a copy too many is seen, and
// one too few isn't.
func (g *group) settle(folderOf func(candidate int) int, want func(folder int) int, brought int) []decision {
	out := make([]decision, len(g.candidates))
	there := slices.Clone(g.there)
	take := func(folder int) (instance, bool) {
		i := slices.IndexFunc(there, func(t instance) bool { return folder < 0 || t.folder == folder })
		if i < 0 {
			return instance{}, false
		}
		t := there[i]
		there = slices.Delete(there, i, i+1)
		return t, true
	}
	// What was brought from a place that it has left since, or as a retained copy.
	left := max(0, brought-g.brought)
	n := min(left, len(g.candidates))
	for i := range n {
		out[i].verdict = before
	}
	owed := n // copies on To that aren't for the rest
	for _, folder := range g.others {
		w := want(folder)
		if w < 0 {
			owed++
		} else if _, ok := take(w); !ok {
			owed++
		}
	}
	for i := range n { // the candidate's own copy on To, as far as it is where it was put
		if w := want(folderOf(g.candidates[i])); w >= 0 {
			if _, ok := take(w); ok {
				owed--
			}
		}
	}
	for i := n; i < len(out) && len(there) > owed; i++ {
		if w := want(folderOf(g.candidates[i])); w >= 0 {
			if at, ok := take(w); ok {
				out[i] = decision{present, at}
			}
		}
	}
	for i := n; i < len(out) && len(there) > owed; i++ {
		if out[i].verdict == bring {
			at, _ := take(-1)
			out[i] = decision{elsewhere, at}
		}
	}
	return out
}
