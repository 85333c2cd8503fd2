package verify

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
)

// Counts are numbers of messages of a folder, of a mailbox or of many.
type Counts struct {
	Source    int64 `json:"source"`              // on the source
	Target    int64 `json:"target"`              // on the target
	Matched   int64 `json:"matched"`             // on both, in the same folder
	Elsewhere int64 `json:"elsewhere,omitempty"` // on both, on the target in another folder; counted for the target's
	Missing   int64 `json:"missing,omitempty"`   // on the source only
	New       int64 `json:"new,omitempty"`       // on the target only, and newer than the cutover
	Copies    int64 `json:"copies,omitempty"`    // on the target more often than on the source
	Extra     int64 `json:"extra,omitempty"`     // on the target only, and not new
	Dates     int64 `json:"dates,omitempty"`     // matched, but arrived at another second
	Sizes     int64 `json:"sizes,omitempty"`     // matched, but the sizes are further apart than rewriting explains
	Clashes   int64 `json:"clashes,omitempty"`   // of one UID under one UIDVALIDITY, but another message
	Unkeyed   int64 `json:"unkeyed,omitempty"`   // on either, and not compared: nothing names them, and they are too large to be read
}

// Add adds others to c.
func (c *Counts) Add(o *Counts) {
	c.Source += o.Source
	c.Target += o.Target
	c.Matched += o.Matched
	c.Elsewhere += o.Elsewhere
	c.Missing += o.Missing
	c.New += o.New
	c.Copies += o.Copies
	c.Extra += o.Extra
	c.Dates += o.Dates
	c.Sizes += o.Sizes
	c.Clashes += o.Clashes
	c.Unkeyed += o.Unkeyed
}

// Same reports whether nothing but what came since the cutover differs.
func (c *Counts) Same() bool {
	return c.Missing == 0 && c.Extra == 0 && c.Copies == 0 && c.Elsewhere == 0 && c.Dates == 0 && c.Sizes == 0 && c.Clashes == 0
}

// FolderCounts are the numbers of one folder.
type FolderCounts struct {
	Source string `json:"source,omitempty"` // its name there; empty: it isn't there
	Target string `json:"target,omitempty"`
	Counts Counts `json:"counts"`
}

// Comparison is what came out of comparing one mailbox.
type Comparison struct {
	Mailbox routing.MailboxID `json:"mailbox"`
	Agency  routing.AgencyID  `json:"agency"`
	Address routing.Address   `json:"address"`
	Counts  Counts            `json:"counts"`
	Folders []FolderCounts    `json:"folders,omitempty"`

	// Error is why it couldn't be compared; empty: it was.
	Error string `json:"error,omitempty"`
}

// entry is a message on the source side.
type entry struct {
	key     msgkey.Key
	folder  uint32 // number in the comparison's folders
	uid     uint32
	size    uint32 // capped
	arrived int64  // seconds since 1970
	met     bool   // found on the target
}

// identified is a message by its UID, where the two sides' UIDs mean the same.
type identified struct {
	uid uint32
	key msgkey.Key
}

// maxUnnamed is the size up to which a message without Message-ID or date is read to know it.
const maxUnnamed = 32 << 20

// bodiesAtOnce is how many messages are read with one command.
const bodiesAtOnce = 50

// comparing compares one mailbox.
type comparing struct {
	run    *run
	agency *Agency
	row    routing.Row
	index  uint32

	folders []FolderCounts
	numbers map[string]uint32 // by role, or else by name
	entries []entry
	uids    map[uint32][]identified // of the source, in folders of one UIDVALIDITY on both sides
	began   time.Time
}

// number returns a folder's number. Folders with one role are one folder, whatever they are
// called.
func (c *comparing) number(f *mailstore.Folder, source bool) uint32 {
	name := "name " + strings.ToLower(f.Name)
	if f.Role != mailstore.RoleNone {
		name = "role " + f.Role.String()
	}
	i, ok := c.numbers[name]
	if !ok {
		i = uint32(len(c.folders))
		c.numbers[name] = i
		c.folders = append(c.folders, FolderCounts{})
	}
	if at := &c.folders[i]; source && at.Source == "" {
		at.Source = f.Name
	} else if !source && at.Target == "" {
		at.Target = f.Name
	}
	return i
}

// counts returns where a folder's messages are counted.
func (c *comparing) counts(i uint32) *Counts { return &c.folders[i].Counts }

// compare reads one side after the other. It never has sessions at both platforms: their
// connections are counted, and who waits for one while he holds another may wait for ever.
// The source is read first: what the mover copies meanwhile is then rather new than missing.
func (c *comparing) compare(ctx context.Context) error {
	validities, err := c.readSource(ctx)
	if err != nil {
		return err
	}
	if err := c.standings(); err != nil {
		return err
	}
	target, err := c.agency.Target.Open(ctx, c.row, mailstore.Target)
	if err != nil {
		return fmt.Errorf("open on the target: %w", err)
	}
	defer target.Close()
	folders, err := target.Folders(ctx)
	if err != nil {
		return fmt.Errorf("list the target's folders: %w", err)
	}
	for i := range folders {
		if f := &folders[i]; !f.NoSelect {
			n := c.number(f, false)
			if v, ok := validities[n]; ok && v == f.UIDValidity {
				c.uids[n] = nil
			}
		}
	}
	c.identify()
	var before *watermark.Mailbox
	if c.agency.Mark != nil {
		before = c.agency.Mark(c.row.Mailbox)
	}
	for i := range folders {
		if f := &folders[i]; !f.NoSelect {
			if err := c.readTarget(ctx, target, f, c.number(f, false), before); err != nil {
				return fmt.Errorf("list the target's folder %q: %w", f.Name, err)
			}
		}
	}
	for i := range c.entries {
		if e := &c.entries[i]; !e.met {
			c.counts(e.folder).Missing++
		}
	}
	return nil
}

// readSource notes the messages of all folders, and returns the folders' UIDVALIDITY.
func (c *comparing) readSource(ctx context.Context) (validities map[uint32]uint32, err error) {
	source, err := c.agency.Source.Open(ctx, c.row, mailstore.Source)
	if err != nil {
		return nil, fmt.Errorf("open on the source: %w", err)
	}
	defer source.Close()
	folders, err := source.Folders(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the source's folders: %w", err)
	}
	validities = make(map[uint32]uint32)
	for i := range folders {
		f := &folders[i]
		if f.NoSelect {
			continue
		}
		n := c.number(f, true)
		if _, twice := validities[n]; !twice && f.UIDValidity != 0 {
			validities[n] = f.UIDValidity
		}
		err := c.each(ctx, source, f, c.counts(n), func(m *mailstore.Message, key msgkey.Key) error {
			c.counts(n).Source++
			if !key.IsZero() {
				c.entries = append(c.entries, entry{key: key, folder: n, uid: m.UID, size: capped(m.Size), arrived: m.Internal.Unix()})
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list the source's folder %q: %w", f.Name, err)
		}
	}
	return validities, nil
}

// identify notes the UIDs of those folders in which they mean the same on both sides.
func (c *comparing) identify() {
	if len(c.uids) == 0 {
		return
	}
	for i := range c.entries {
		e := &c.entries[i]
		if uids, ok := c.uids[e.folder]; ok {
			c.uids[e.folder] = append(uids, identified{e.uid, e.key})
		}
	}
	for _, uids := range c.uids {
		slices.SortFunc(uids, func(a, b identified) int { return cmp.Compare(a.uid, b.uid) })
	}
}

// standings sorts what was read of the source, and hands each key on once.
func (c *comparing) standings() error {
	slices.SortFunc(c.entries, func(a, b entry) int {
		return cmp.Or(bytes.Compare(a.key[:], b.key[:]), cmp.Compare(a.folder, b.folder))
	})
	return c.run.stand(c.index, c.entries)
}

// readTarget matches a folder's messages with those of the source, and notes suspects.
func (c *comparing) readTarget(ctx context.Context, s mailstore.Session, f *mailstore.Folder, n uint32, before *watermark.Mailbox) error {
	mark, marked := before.Folder(f.Name)
	late := func(uid uint32) bool { // came after the watermark
		return before != nil && (!marked || mark.UIDValidity != f.UIDValidity || uid >= mark.UIDNext)
	}
	return c.each(ctx, s, f, c.counts(n), func(m *mailstore.Message, key msgkey.Key) error {
		at := c.counts(n)
		at.Target++
		if key.IsZero() {
			return nil
		}
		if i, ok := slices.BinarySearchFunc(c.uids[n], m.UID, func(a identified, uid uint32) int { return cmp.Compare(a.uid, uid) }); ok && c.uids[n][i].key != key {
			at.Clashes++
		}
		switch e, known := c.match(key, n, m.Internal.Unix()); {
		case e != nil && e.folder == n:
			at.Matched++
			differ(at, e, m)
		case e != nil:
			at.Elsewhere++
			differ(at, e, m)
		case known:
			at.Copies++
		case c.isNew(m):
			at.New++
		default:
			at.Extra++
			return c.suspect(ctx, m, key, f.Name, late(m.UID))
		}
		return nil
	})
}

// match returns a message of the source with this key that wasn't matched yet, in the same
// folder if there is one, of several there that which arrived at the same second, and whether
// the source has the key at all.
func (c *comparing) match(key msgkey.Key, folder uint32, arrived int64) (e *entry, known bool) {
	i, known := slices.BinarySearchFunc(c.entries, key, func(e entry, key msgkey.Key) int { return bytes.Compare(e.key[:], key[:]) })
	for ; i < len(c.entries) && c.entries[i].key == key; i++ {
		if one := &c.entries[i]; !one.met && (e == nil || one.likeness(folder, arrived) > e.likeness(folder, arrived)) {
			e = one
		}
	}
	if e != nil {
		e.met = true
	}
	return e, known
}

// likeness says how much a message of the source is like one of the target with its key.
func (e *entry) likeness(folder uint32, arrived int64) (n int) {
	if e.folder == folder {
		n += 2
	}
	if e.arrived == arrived {
		n++
	}
	return n
}

// slackOfSizes is by how much two sizes of one message may differ by rewriting: this many
// bytes, and a quarter.
const slackOfSizes = 8 << 10

// differ counts how a matched message differs.
func differ(at *Counts, e *entry, m *mailstore.Message) {
	if apart := e.arrived - m.Internal.Unix(); apart < -1 || apart > 1 {
		at.Dates++
	}
	a, b := int64(e.size), int64(capped(m.Size))
	if less, more := min(a, b), max(a, b); more-less > slackOfSizes+more/4 {
		at.Sizes++
	}
}

// capped returns a size as far as 32 bits show it.
func capped(size int64) uint32 { return uint32(min(max(size, 0), int64(^uint32(0)))) }

const (
	// delay is how long mail may be under way: what was written so long before the cutover
	// may still arrive after it.
	delay = 3 * 24 * time.Hour
	// skew is how far clocks of programs, platforms and nodes may be apart.
	skew = 10 * time.Minute
)

// isNew reports whether a message came to the target since the cutover, or while this run
// was reading, so that the source can't have it.
func (c *comparing) isNew(m *mailstore.Message) bool {
	for _, since := range []time.Time{c.agency.Since, c.began.Add(-time.Minute)} {
		if since.IsZero() || m.Internal.Before(since.Add(-skew)) {
			continue
		}
		// A mover that doesn't keep dates makes everything new; the message knows better.
		if written, ok := m.Facts.Written(); !ok || !written.Before(since.Add(-delay)) {
			return true
		}
	}
	if c.agency.Since.IsZero() {
		return false
	}
	// Our own transactions have the time in them.
	for _, id := range m.Facts.Transactions {
		if at, ok := accepted(id); ok && !at.Before(c.agency.Since.Add(-skew)) {
			return true
		}
	}
	return false
}

// suspect hands a message on that the source doesn't explain, unless it names its mailbox.
func (c *comparing) suspect(ctx context.Context, m *mailstore.Message, key msgkey.Key, folder string, late bool) error {
	s := suspect{key: key, holder: c.index, folder: c.run.book.folder(folder), uid: m.UID}
	if late {
		s.marks |= markLate
	}
	if c.run.people(&m.Facts, c.index, &s) || c.delivered(ctx, &m.Facts) {
		return nil
	}
	return c.run.suspect(&s)
}

// mostAsked is for how many transactions the ledger is asked in a run. Where so many suspects
// carry our line mailboxes are crossed, and what it says of single messages changes nothing.
const mostAsked = 20_000

// delivered reports whether the ledger knows that we brought the message to this mailbox.
func (c *comparing) delivered(ctx context.Context, f *msgkey.Facts) bool {
	ask := c.run.o.Delivered
	if ask == nil {
		return false
	}
	for _, id := range f.Transactions {
		if c.run.asked.Add(1) > mostAsked {
			return false
		}
		if ask(ctx, c.agency.ID, c.row.Mailbox, id) {
			return true
		}
	}
	return false
}

// each calls use for the messages of a folder with their keys; with a zero key for what can't
// be named.
func (c *comparing) each(ctx context.Context, s mailstore.Session, f *mailstore.Folder, at *Counts, use func(*mailstore.Message, msgkey.Key) error) error {
	if f.Messages == 0 {
		return nil
	}
	if _, err := s.Select(ctx, f.Name, false); err != nil {
		return err
	}
	var unnamed []mailstore.Message
	err := s.List(ctx, 1, 0, func(m mailstore.Message) error {
		key, ok := m.Facts.Identity()
		if !ok {
			key, ok = m.Facts.Transaction()
		}
		switch {
		case ok:
			return use(&m, key)
		case m.Size > maxUnnamed:
			at.Unkeyed++
			return use(&m, msgkey.Key{})
		}
		unnamed = append(unnamed, m)
		return nil
	})
	if err != nil {
		return err
	}
	for some := range slices.Chunk(unnamed, bodiesAtOnce) {
		if err := c.eachUnnamed(ctx, s, some, use); err != nil {
			return err
		}
	}
	return nil
}

// eachUnnamed reads messages that only their content names.
func (c *comparing) eachUnnamed(ctx context.Context, s mailstore.Session, some []mailstore.Message, use func(*mailstore.Message, msgkey.Key) error) error {
	uids := make([]uint32, len(some))
	for i := range some {
		uids[i] = some[i].UID
	}
	return s.Bodies(ctx, uids, func(uid uint32, _ int64, body io.Reader) error {
		i := slices.IndexFunc(some, func(m mailstore.Message) bool { return m.UID == uid })
		if i < 0 {
			return nil
		}
		key, err := msgkey.Content(body)
		if err != nil {
			return err
		}
		return use(&some[i], key)
	})
}
