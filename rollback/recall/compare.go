package recall

import (
	"cmp"
	"context"
	"errors"
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
	err := each(ctx, r.to, r.match.to, since, content, func(folder int, uid uint32, k msgkey.Key) {
		if g := groups[k]; g != nil {
			g.there = append(g.there, instance{folder, uid})
			known = true
		}
	})
	if err != nil || !known || complete {
		return groups, err
	}
	r.opened = ""
	err = each(ctx, r.from, r.folders, since, content, func(folder int, uid uint32, k msgkey.Key) {
		g := groups[k]
		if g == nil || find(all, folder, uid) {
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

// find reports whether a message is a candidate. They are sorted by folder and UID.
func find(all []candidate, folder int, uid uint32) bool {
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
		state, err := s.Select(ctx, folders[i].Name, false)
		if errors.Is(err, mailstore.ErrNoFolder) {
			continue
		}
		if err == nil {
			err = same(&folders[i], &state)
		}
		if err != nil {
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
