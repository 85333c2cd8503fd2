package locate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
)

const (
	// maxFolders is how many folders of a mailbox are looked at: the inbox and those that have
	// a role first.
	maxFolders = 1000

	// maxListed is how many messages are compared one by one, in all folders together.
	maxListed = 50_000

	// maxPlaces is how many places are told. A message in more of them says nothing new.
	maxPlaces = 50

	// early is how long before it came to us a message may have been stored, by a platform's
	// clock and zone.
	early = 48 * time.Hour
)

// Sought names a message. At least one of MessageID and Transactions is set.
type Sought struct {
	MessageID    string               // with or without its brackets
	Transactions []mail.TransactionID // by which it came, if it is known

	// Since is when it came to us, or an earlier moment. Zero: not known; then only what the
	// platform's search finds is found.
	Since time.Time
}

// Place is where the message lies, or a copy of it.
type Place struct {
	Folder  string // as its user named it: personal
	Role    mailstore.Role
	Arrived time.Time // as the platform has it
	Deleted bool      // \Deleted: gone with the next expunge

	// Ours says that this copy came with a transaction that is sought. False for a copy
	// that came otherwise, or on a platform that doesn't keep Received lines.
	Ours bool
}

// Found is what a mailbox has.
type Found struct {
	Places  []Place // in the order of the folders; the inbox is the first
	Folders int     // that were looked at
	Skipped int     // that were not: they couldn't be opened, or are too many
	Cut     bool    // not all messages since could be compared
}

// errNothing is about a search for nothing.
var errNothing = errors.New("neither a Message-ID nor a transaction is named")

// Find looks in all folders of a mailbox. With an error, what was found by then is returned
// too; it wraps the session's error.
func Find(ctx context.Context, s mailstore.Session, w Sought) (Found, error) {
	w.MessageID = bare(w.MessageID)
	if w.MessageID == "" && len(w.Transactions) == 0 {
		return Found{}, errNothing
	}
	folders, err := s.Folders(ctx)
	if err != nil {
		return Found{}, err
	}
	folders = slices.DeleteFunc(folders, func(f mailstore.Folder) bool { return f.NoSelect })
	slices.SortStableFunc(folders, func(a, b mailstore.Folder) int { return rank(a.Role) - rank(b.Role) })
	l := look{s: s, w: w, left: maxListed, skipped: make(map[string]bool), taken: make(map[message]bool)}
	if len(folders) > maxFolders {
		l.Skipped, folders = len(folders)-maxFolders, folders[:maxFolders]
	}
	l.Folders = len(folders)
	if w.MessageID != "" {
		if err := l.each(ctx, folders, l.search); err != nil || l.done() {
			return l.Found, err
		}
	}
	if w.Since.IsZero() {
		l.Cut = len(l.Places) == 0
		return l.Found, nil
	}
	err = l.each(ctx, folders, l.compare)
	return l.Found, err
}

// done reports whether nothing more is looked for: a message with the same Message-ID may be
// the one that its own author sent, so where the transaction is known, it is what counts.
func (l *look) done() bool {
	return len(l.w.Transactions) == 0 && len(l.Places) > 0 || slices.ContainsFunc(l.Places, func(p Place) bool { return p.Ours })
}

// rank orders folders: where one looks first.
func rank(r mailstore.Role) int {
	if r == mailstore.RoleNone {
		return int(mailstore.Archive) + 1
	}
	return int(r)
}

// bare is a Message-ID without brackets.
func bare(id string) string { return strings.Trim(id, "<> \t") }

// look is one search.
type look struct {
	Found
	s       mailstore.Session
	w       Sought
	left    int
	skipped map[string]bool
	taken   map[message]bool
}

type message struct {
	folder string
	uid    uint32
}

// each does the same in each folder. One that fails by itself is counted; an error that ends
// the session ends it.
func (l *look) each(ctx context.Context, folders []mailstore.Folder, do func(context.Context, mailstore.Folder) error) error {
	for _, f := range folders {
		_, err := l.s.Select(ctx, f.Name, false)
		if err == nil {
			err = do(ctx, f)
		}
		switch {
		case err == nil:
		case !errors.Is(err, mailstore.ErrNoFolder) && !errors.Is(err, mailstore.ErrRefused):
			return fmt.Errorf("look for a message: %w", err)
		case !l.skipped[f.Name]:
			l.skipped[f.Name] = true
			l.Skipped++
			l.Folders--
		}
	}
	return nil
}

// search asks the platform.
func (l *look) search(ctx context.Context, f mailstore.Folder) error {
	uids, err := l.s.Find(ctx, l.w.MessageID)
	if err != nil {
		return err
	}
	for _, uid := range uids[max(0, len(uids)-maxPlaces):] { // SEARCH finds parts of ids too
		if err := l.s.List(ctx, uid, uid, func(m mailstore.Message) error { l.take(f, &m); return nil }); err != nil {
			return err
		}
	}
	return nil
}

// errFull ends a list.
var errFull = errors.New("enough was listed")

// compare looks at each message that arrived since.
func (l *look) compare(ctx context.Context, f mailstore.Folder) error {
	if f.Messages == 0 {
		return nil
	}
	err := l.s.ListSince(ctx, l.w.Since.Add(-early), func(m mailstore.Message) error {
		if l.left--; l.left < 0 {
			return errFull
		}
		l.take(f, &m)
		return nil
	})
	if errors.Is(err, errFull) {
		l.Cut = true
		return nil
	}
	return err
}

// take notes a message, if it is the one.
func (l *look) take(f mailstore.Folder, m *mailstore.Message) {
	ours := slices.ContainsFunc(m.Facts.Transactions, func(id mail.TransactionID) bool { return slices.Contains(l.w.Transactions, id) })
	if !ours && (l.w.MessageID == "" || bare(m.Facts.MessageID) != l.w.MessageID) {
		return
	}
	which := message{f.Name, m.UID}
	if l.taken[which] {
		return
	}
	if len(l.Places) == maxPlaces {
		l.Cut = true
		return
	}
	l.taken[which] = true
	l.Places = append(l.Places, Place{
		Folder: f.Name, Role: f.Role, Arrived: m.Internal, Ours: ours,
		Deleted: slices.Contains(m.Flags, `\Deleted`),
	})
}
