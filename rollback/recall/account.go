package recall

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"mailcutover/rollback/msgkey"
)

// account is what a mailbox's journal says.
type account struct {
	brought map[origin]msgkey.Key // found again on To after we had put them there
	intents map[origin]msgkey.Key // begun, and nothing known since
	there   map[place]*uidRanges  // on To without us
	ours    map[msgkey.Key]bool   // transactions that are accounted for
	failed  map[origin]NotBack
	sent    map[msgkey.Key]bool // copies that were handed over

	byKey   map[msgkey.Key]int // how many of brought and sent have the key
	byUsers int                // of brought
	copied  int
	moved   int

	rewritten int
	flags     map[string]int
	folders   []string
	damaged   int // lines
}

// place is a folder on From for as long as its UIDs mean the same.
type place struct {
	folder   string
	validity uint32
}

func newAccount() *account {
	return &account{
		brought: make(map[origin]msgkey.Key), intents: make(map[origin]msgkey.Key), there: make(map[place]*uidRanges),
		ours: make(map[msgkey.Key]bool), failed: make(map[origin]NotBack), byKey: make(map[msgkey.Key]int), flags: make(map[string]int), sent: make(map[msgkey.Key]bool),
	}
}

// apply takes a record into account.
func (a *account) apply(r *record) {
	switch r.Kind {
	case kindIntent:
		if _, done := a.brought[r.origin]; !done {
			a.intents[r.origin] = r.Key
		}
	case kindAppended: // the intent stands until the message is found
	case kindBack:
		if _, done := a.brought[r.origin]; done {
			return
		}
		delete(a.intents, r.origin)
		delete(a.failed, r.origin)
		a.brought[r.origin] = r.Key
		a.byKey[r.Key]++
		if r.Ours {
			a.ours[r.Key] = true
		} else {
			a.byUsers++
		}
		if r.Rewritten {
			a.rewritten++
		}
	case kindBefore, kindThere, kindMoved:
		at := place{r.Folder, r.Validity}
		if a.there[at] == nil {
			a.there[at] = new(uidRanges)
		}
		n := a.there[at].parse(cmp.Or(r.Set, strconv.FormatUint(uint64(r.UID), 10)))
		if r.UID != 0 {
			delete(a.failed, r.origin)
			delete(a.intents, r.origin)
		} else { // one of the set may have been named as not back before
			maps.DeleteFunc(a.failed, func(o origin, _ NotBack) bool { return place{o.Folder, o.Validity} == at && a.there[at].has(o.UID) })
		}
		switch {
		case r.Ours:
			a.ours[r.Key] = true
		case r.Kind == kindThere:
			a.copied += n
		}
		if r.Kind == kindMoved {
			a.moved += n
		}
	case kindNotBack:
		if a.decided(r.origin) {
			return // another node's journal says how it ended
		}
		delete(a.intents, r.origin)
		a.failed[r.origin] = NotBack{Key: r.Key, Folder: r.Folder, UID: r.UID, Size: r.Size, Class: r.Class, Reason: r.Reason}
		// What lies in another folder is there all the same.
		if r.Class == ClassMoved && r.Ours {
			a.ours[r.Key] = true
		}
	case kindSent:
		if !a.sent[r.Key] {
			a.sent[r.Key] = true
			a.byKey[r.Key]++
		}
	case kindFolder:
		a.folders = append(a.folders, r.To)
	case kindFlags:
		for flag, n := range r.Flags {
			a.flags[flag] += n
		}
	}
}

// decided reports whether a message of From is accounted for.
func (a *account) decided(o origin) bool {
	if _, ok := a.brought[o]; ok {
		return true
	}
	if f, ok := a.failed[o]; ok && f.Class == ClassMoved {
		return true
	}
	return a.there[place{o.Folder, o.Validity}].has(o.UID)
}

// result returns the numbers. delivered are the transactions of the ledgers; nil: not known.
func (a *account) result(delivered map[msgkey.Key]bool) Result {
	r := Result{
		ByUsers: a.byUsers, Copied: a.copied, Moved: a.moved, Rewritten: a.rewritten,
		FlagsNotTaken: maps.Clone(a.flags), Folders: slices.Clone(a.folders),
	}
	for _, f := range a.failed {
		r.NotBack = append(r.NotBack, f)
	}
	slices.SortFunc(r.NotBack, func(x, y NotBack) int {
		return cmp.Or(cmp.Compare(x.Folder, y.Folder), cmp.Compare(x.UID, y.UID), cmp.Compare(x.Key.String(), y.Key.String()))
	})
	if delivered == nil {
		r.DeliveredBack = len(a.ours)
		return r
	}
	r.Delivered = len(delivered)
	for k := range a.ours {
		if delivered[k] {
			r.DeliveredBack++
		}
	}
	return r
}

// uidRanges is a set of UIDs, ascending and without gaps or overlaps between ranges that
// could be one.
type uidRanges struct{ r [][2]uint32 }

// has reports whether uid is in the set. It is false for a nil set.
func (u *uidRanges) has(uid uint32) bool {
	if u == nil {
		return false
	}
	i, found := slices.BinarySearchFunc(u.r, uid, func(r [2]uint32, uid uint32) int { return cmp.Compare(r[0], uid) })
	return found || i > 0 && uid <= u.r[i-1][1]
}

// add puts uid into the set, and reports whether it wasn't there.
func (u *uidRanges) add(uid uint32) bool {
	if uid == 0 || u.has(uid) {
		return false
	}
	i, _ := slices.BinarySearchFunc(u.r, uid, func(r [2]uint32, uid uint32) int { return cmp.Compare(r[0], uid) })
	left, right := i > 0 && u.r[i-1][1]+1 == uid, i < len(u.r) && u.r[i][0] == uid+1
	switch {
	case left && right:
		u.r[i-1][1] = u.r[i][1]
		u.r = slices.Delete(u.r, i, i+1)
	case left:
		u.r[i-1][1] = uid
	case right:
		u.r[i][0] = uid
	default:
		u.r = slices.Insert(u.r, i, [2]uint32{uid, uid})
	}
	return true
}

// parse adds what sets wrote, and returns how many were new.
func (u *uidRanges) parse(set string) int {
	n := 0
	for part := range strings.SplitSeq(set, ",") {
		first, last, _ := strings.Cut(part, ":")
		lo, err := strconv.ParseUint(first, 10, 32)
		hi, err2 := strconv.ParseUint(cmp.Or(last, first), 10, 32)
		if err != nil || err2 != nil || hi < lo {
			continue
		}
		for uid := lo; uid <= hi; uid++ {
			if u.add(uint32(uid)) {
				n++
			}
		}
	}
	return n
}

// rangesTogether is how many ranges one record has at most.
const rangesTogether = 1000

// sets writes the set in parts that fit a record each.
func (u *uidRanges) sets() []string {
	var sets []string
	for part := range slices.Chunk(u.r, rangesTogether) {
		var b strings.Builder
		for i, r := range part {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strconv.FormatUint(uint64(r[0]), 10))
			if r[1] > r[0] {
				b.WriteString(":" + strconv.FormatUint(uint64(r[1]), 10))
			}
		}
		sets = append(sets, b.String())
	}
	return sets
}
