package recall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
)

// run is one call of Engine.Mailbox. It belongs to the caller's goroutine.
type run struct {
	e        *Engine
	job      Job
	log      *slog.Logger
	journal  *journal
	from, to mailstore.Session

	delivered map[msgkey.Key]bool // what the ledgers have; nil: not known
	held      map[msgkey.Key]bool // of which a copy is on its way to To

	// of this run
	passes   int
	messages int
	bytes    int64
	tried    map[origin]bool    // in this run, and not again
	seen     map[place]uint32   // up to which UID a folder of From was looked at
	above    map[place]int      // messages that came after the watermark, as they were seen
	kept     map[string]*folder // of To, that something was put into
	opened   string             // folder of From that is selected

	// of a pass
	folders []mailstore.Folder // From's
	match   *matcher           // To's
	flags   [][]string         // sets of flags, by number
	flagSet map[string]uint32
}

// folder is a folder of To that something is put into.
type folder struct {
	mailstore.Folder
	next uint32 // UIDs below it were there before

	claimed map[uint32]bool // UIDs of this batch that were found
}

// candidate is a message of From that isn't accounted for.
type candidate struct {
	folder  int // in run.folders
	uid     uint32
	flags   uint32 // in run.flags
	key     msgkey.Key
	ours    bool
	content bool // key is of the content; zero until it is computed
	receipt bool
	size    int64
	arrived int64 // seconds since 1970
	zone    int32 // of arrived, in seconds east of UTC
	written int64 // seconds since 1970; noDate: not known
}

const noDate = -1 << 62

// candidatesAtOnce is how many messages of one mailbox are compared at a time, so that
// memory stays flat: 200 bytes each.
const candidatesAtOnce = 50_000

func (r *run) origin(c *candidate) origin {
	f := &r.folders[c.folder]
	return origin{Folder: f.Name, Validity: f.UIDValidity, UID: c.uid}
}

// pass looks for what isn't accounted for, and brings it. It returns how many there were. With
// wanted it looks for messages with these keys, wherever they are, and for no others.
func (r *run) pass(ctx context.Context, wanted map[msgkey.Key]bool) (int, error) {
	if r.tried == nil {
		r.tried, r.seen, r.above = make(map[origin]bool), make(map[place]uint32), make(map[place]int)
	}
	r.kept, r.flagSet, r.flags, r.opened = make(map[string]*folder), make(map[string]uint32), nil, ""
	var err error
	if r.folders, err = r.from.Folders(ctx); err != nil {
		return 0, err
	}
	there, err := r.to.Folders(ctx)
	if err != nil {
		return 0, err
	}
	r.match = newMatcher(r.folders, there)
	var all []candidate
	complete := false
	if wanted == nil {
		all, complete, err = r.look(ctx)
	} else {
		all, err = r.lookFor(ctx, wanted)
	}
	if err != nil || len(all) == 0 {
		return 0, err
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Or(cmp.Compare(a.folder, b.folder), cmp.Compare(a.uid, b.uid)) })
	if err := r.digestCandidates(ctx, all); err != nil {
		return 0, err
	}
	groups, err := r.compare(ctx, all, complete)
	if err != nil {
		return 0, err
	}
	return len(all), r.act(ctx, all, groups)
}

// look lists what came to From since the watermark and isn't accounted for. complete says
// that From has no other messages.
func (r *run) look(ctx context.Context) (all []candidate, complete bool, err error) {
	complete = true
	for i := range r.folders {
		f := &r.folders[i]
		if f.NoSelect {
			continue
		}
		at := place{f.Name, f.UIDValidity}
		from := uint32(1)
		if mark, ok := r.job.Since.Folder(f.Name); ok && mark.UIDValidity == f.UIDValidity {
			from = max(1, mark.UIDNext)
		}
		from = max(from, r.seen[at]+1)
		if from > 1 {
			complete = false
		}
		if f.UIDNext != 0 && f.UIDNext <= from || f.Messages == 0 {
			continue
		}
		if len(all) >= candidatesAtOnce {
			return all, false, nil // the next pass goes on
		}
		if err := r.open(ctx, i); err != nil {
			return nil, false, err
		}
		err := r.from.List(ctx, from, 0, func(m mailstore.Message) error {
			if len(all) >= candidatesAtOnce {
				complete = false
				return nil
			}
			r.seen[at] = max(r.seen[at], m.UID)
			r.above[at]++
			if o := (origin{at.folder, at.validity, m.UID}); r.journal.decided(o) || r.tried[o] {
				complete = false
				return nil
			}
			if c := r.candidate(i, &m); c.ours && r.held[c.key] {
				complete = false
			} else {
				all = append(all, c)
			}
			return nil
		})
		if err != nil {
			return nil, false, err
		}
	}
	return all, complete, nil
}

// lookFor lists all of From for messages with these keys that aren't accounted for: what the
// ledgers have and no pass has seen may lie below the watermark.
func (r *run) lookFor(ctx context.Context, wanted map[msgkey.Key]bool) (all []candidate, err error) {
	for i := range r.folders {
		f := &r.folders[i]
		if f.NoSelect || f.Messages == 0 {
			continue
		}
		if err := r.open(ctx, i); err != nil {
			return nil, err
		}
		err := r.from.List(ctx, 1, 0, func(m mailstore.Message) error {
			o := origin{f.Name, f.UIDValidity, m.UID}
			if k, ours, _ := keyOf(&m, f.Role); ours && wanted[k] && !r.journal.decided(o) && !r.tried[o] {
				all = append(all, r.candidate(i, &m))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// What becomes of folders while a pass looks at them; the mailbox is looked at again.
var (
	// errReplaced: it was made anew, and its UIDs name other messages now.
	errReplaced = errors.New("the folder was replaced meanwhile: its UIDVALIDITY is another one")
	// errVanished: it was listed with messages and can't be opened. Whoever renamed it has them under another
	// name, that a look without them would pass over.
	errVanished = errors.New("the folder was listed and isn't there: it was renamed or removed meanwhile")
)

// open selects a folder of From, by its number, unless it is. Its UIDs mean what they did when
// the pass began.
func (r *run) open(ctx context.Context, folder int) error {
	f := &r.folders[folder]
	if r.opened == f.Name {
		return nil
	}
	r.opened = ""
	err := listed(ctx, r.from, f)
	if err == nil {
		r.opened = f.Name
	}
	return err
}

// listed selects a folder for reading, which has to be the one that was listed.
func listed(ctx context.Context, s mailstore.Session, f *mailstore.Folder) error {
	state, err := s.Select(ctx, f.Name, false)
	if errors.Is(err, mailstore.ErrNoFolder) {
		return fmt.Errorf("%w: %w", errVanished, err)
	}
	if err != nil {
		return err
	}
	return same(f, &state)
}

// same reports with an error that a folder isn't the one any more that was listed.
func same(listed, selected *mailstore.Folder) error {
	if listed.UIDValidity != 0 && listed.UIDValidity != selected.UIDValidity {
		return errReplaced
	}
	return nil
}

// candidate keeps of a listed message what is needed.
func (r *run) candidate(folder int, m *mailstore.Message) candidate {
	c := candidate{folder: folder, uid: m.UID, size: m.Size, receipt: m.Receipt, arrived: m.Internal.Unix(), written: noDate}
	_, zone := m.Internal.Zone()
	c.zone = int32(zone)
	if at, ok := m.Facts.Written(); ok {
		c.written = at.Unix()
	}
	var known bool
	c.key, c.ours, known = keyOf(m, r.folders[folder].Role)
	c.content = !known
	joined := strings.Join(m.Flags, " ")
	n, ok := r.flagSet[joined]
	if !ok {
		n = uint32(len(r.flags))
		r.flags, r.flagSet[joined] = append(r.flags, slices.Clone(m.Flags)), n
	}
	c.flags = n
	return c
}

// keyOf returns by what a listed message is known: our transaction, or who wrote it when.
// False: by its content alone. That is so in Drafts too, since a draft that was saved again has the same
// Message-ID.
func keyOf(m *mailstore.Message, role mailstore.Role) (k msgkey.Key, ours, ok bool) {
	if k, ok = m.Facts.Transaction(); ok {
		return k, true, true
	}
	if role == mailstore.Drafts {
		return msgkey.Key{}, false, false
	}
	k, ok = m.Facts.Identity()
	return k, false, ok
}

// digestCandidates reads the messages that are known by their content alone.
func (r *run) digestCandidates(ctx context.Context, all []candidate) error {
	for first := 0; first < len(all); {
		last := first
		var uids []uint32
		for ; last < len(all) && all[last].folder == all[first].folder; last++ {
			if all[last].content {
				uids = append(uids, all[last].uid)
			}
		}
		part := all[first:last]
		if len(uids) > 0 {
			if err := r.open(ctx, all[first].folder); err != nil {
				return err
			}
			err := digest(ctx, r.from, uids, func(uid uint32, k msgkey.Key) {
				if i, ok := slices.BinarySearchFunc(part, uid, func(c candidate, uid uint32) int { return cmp.Compare(c.uid, uid) }); ok {
					part[i].key = k
				}
			})
			if err != nil {
				return err
			}
		}
		first = last
	}
	return nil
}

// bodiesTogether is how many messages are asked for by one command.
const bodiesTogether = 100

// digest gives messages of the selected folder the keys of their content.
func digest(ctx context.Context, s mailstore.Session, uids []uint32, each func(uint32, msgkey.Key)) error {
	for part := range slices.Chunk(uids, bodiesTogether) {
		err := s.Bodies(ctx, part, func(uid uint32, _ int64, body io.Reader) error {
			k, err := msgkey.Content(body)
			if err == nil {
				each(uid, k)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// window is how long before the oldest candidate a message may have arrived that is the same.
const window = 4 * 24 * time.Hour

// oldest returns from when on messages have to be compared; zero: all.
func oldest(all []candidate) time.Time {
	first := int64(1 << 62)
	for i := range all {
		c := &all[i]
		if c.written == noDate {
			return time.Time{}
		}
		first = min(first, c.written, c.arrived)
	}
	since := time.Unix(first, 0).Add(-window)
	if since.Year() < 1990 {
		return time.Time{}
	}
	return since
}
