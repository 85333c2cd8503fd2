package mailstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailcutover/rollback/msgkey"
)

// receiptField is the field by which a sender asks to be told (RFC 8098 section 2.1).
const receiptField = "Disposition-Notification-To"

// maxHeader bounds how much of the wanted fields of one message is read.
const maxHeader = 256 << 10

// uidsTogether is how many UIDs are named in one command: the line stays below 8 KiB.
const uidsTogether = 500

var errNoFolder = errors.New("no folder is selected")

// listItems are what is asked of each message.
func listItems() *imap.FetchOptions {
	fields := append(slices.Clone(msgkey.HeaderFields), receiptField)
	return &imap.FetchOptions{
		UID: true, Flags: true, InternalDate: true, RFC822Size: true,
		BodySection: []*imap.FetchItemBodySection{{Specifier: imap.PartSpecifierHeader, HeaderFields: fields, Peek: true}},
	}
}

// List implements [Session].
func (s *session) List(ctx context.Context, from, to uint32, each func(Message) error) error {
	set := imap.UIDSet{imap.UIDRange{Start: imap.UID(max(1, from)), Stop: imap.UID(to)}} // 0 is "*"
	return s.fetchList(ctx, set, func(m Message) error {
		// "n:*" names the last message also where its UID is below n (RFC 9051 section 9, seq-range).
		if m.UID < from || to != 0 && m.UID > to {
			return nil
		}
		return each(m)
	})
}

// ListSince implements [Session].
func (s *session) ListSince(ctx context.Context, since time.Time, each func(Message) error) error {
	uids, err := s.search(ctx, "search by date", &imap.SearchCriteria{Since: since})
	if err != nil {
		return err
	}
	for part := range slices.Chunk(uids, uidsTogether) {
		if err := s.fetchList(ctx, uidSet(part), each); err != nil {
			return err
		}
	}
	return nil
}

// listTries is how often a message is asked for of which the platform told a part only.
const listTries = 3

// fetchList lists messages. It can't be repeated once each was called, so a platform that asks for time within it
// is given it between the chunks only.
//
// A platform may tell a message's new flags at any time (RFC 9051 section 7.5.2, FETCH), also before it gives what was asked of
// that message, and go-imap takes the first for the answer. Such a message, and what comes behind it, is
// asked for again: a message without its header and its date isn't what it seems to be.
func (s *session) fetchList(ctx context.Context, set imap.UIDSet, each func(Message) error) error {
	if s.folder == "" {
		return fmt.Errorf("list messages: %w", errNoFolder)
	}
	var first, last uint32 // UIDs: from where on it lists, and for which each was called
	for try := 1; ; {
		before := last
		again, err := s.fetchListOnce(ctx, set, first, &last, each)
		if err != nil || again == 0 {
			return err
		}
		if last > before {
			try = 1
		}
		if try++; try > listTries || last > again {
			err := fmt.Errorf("%w: message %d without what was asked of it", ErrProtocol, again)
			s.end(err)
			return fmt.Errorf("list messages in mailbox %s on %s: %w", s.mailbox, s.p.o.Platform, err)
		}
		first, set = again, from(set, imap.UID(again))
	}
}

// from is the part of a set that begins with a UID.
func from(set imap.UIDSet, first imap.UID) imap.UIDSet {
	var rest imap.UIDSet
	for _, r := range set {
		if r.Stop != 0 && r.Stop < first { // 0 is "*"
			continue
		}
		r.Start = max(r.Start, first)
		rest = append(rest, r)
	}
	return rest
}

// fetchListOnce lists messages up to the first that wasn't told as a whole, which it returns; 0: all were.
// "n:*" may bring what is below first.
func (s *session) fetchListOnce(ctx context.Context, set imap.UIDSet, first uint32, last *uint32, each func(Message) error) (again uint32, err error) {
	var failed error
	began := false
	list := func() error {
		return s.fetch(set, listItems(), func(msg *imapclient.FetchMessageData) error {
			m, whole, err := s.message(msg)
			switch {
			case err != nil || m.UID == 0 || m.UID < first:
				return err
			case !whole && (again == 0 || m.UID < again):
				again = m.UID
			}
			if again == 0 || m.UID < again {
				began, *last = true, max(*last, m.UID)
				failed = each(m)
			}
			return failed
		})
	}
	var asked error
	err = s.call(ctx, "list messages", func() error {
		again = 0
		err := list()
		if err != nil && began && failed == nil {
			asked = err
			return nil
		}
		return err
	})
	switch {
	case failed != nil:
		return 0, failed
	case asked != nil:
		err = s.kind(asked)
		s.end(err)
		return 0, fmt.Errorf("list messages in mailbox %s on %s: %w", s.mailbox, s.p.o.Platform, err)
	}
	return again, err
}

// fetch calls each for what a FETCH brings. After an error of each the connection is closed,
// since the rest would have to be read.
func (s *session) fetch(set imap.UIDSet, items *imap.FetchOptions, each func(*imapclient.FetchMessageData) error) error {
	cmd := s.c.Fetch(set, items)
	for msg := cmd.Next(); msg != nil; msg = cmd.Next() {
		s.g.allow(0)
		if err := each(msg); err != nil {
			_ = s.g.Close() // so that what follows isn't waited for
			_ = cmd.Close() // gives up go-imap's goroutine; err counts
			return err
		}
	}
	return cmd.Close()
}

// message reads what listItems asked for. whole: date and header were told, if only as NIL.
func (s *session) message(msg *imapclient.FetchMessageData) (m Message, whole bool, err error) {
	var header []byte
	var dated, headed bool
	for item := msg.Next(); item != nil; item = msg.Next() {
		switch item := item.(type) {
		case imapclient.FetchItemDataUID:
			m.UID = uint32(item.UID)
		case imapclient.FetchItemDataFlags:
			m.Flags = flagsOf(item.Flags)
		case imapclient.FetchItemDataInternalDate:
			m.Internal, dated = item.Time, true
		case imapclient.FetchItemDataRFC822Size:
			m.Size = item.Size
		case imapclient.FetchItemDataBodySection:
			headed = true
			if item.Literal == nil {
				continue
			}
			if header, err = io.ReadAll(io.LimitReader(item.Literal, maxHeader)); err != nil {
				return m, false, err
			}
		}
	}
	m.Facts = msgkey.Parse(header, s.p.o.Installation)
	m.Facts.Size, m.Facts.Internal = m.Size, m.Internal
	m.Receipt = hasField(string(header), receiptField)
	return m, dated && headed, nil
}

// hasField reports whether a header has a field.
func hasField(header, field string) bool {
	for line := range strings.Lines(header) {
		if len(line) > len(field) && line[len(field)] == ':' && strings.EqualFold(line[:len(field)], field) {
			return true
		}
	}
	return false
}

// flagsOf returns flags as text, sorted, without \Recent, which nobody can set.
func flagsOf(in []imap.Flag) []string {
	out := make([]string, 0, len(in))
	for _, f := range in {
		if !equalFlags(string(f), `\Recent`) {
			out = append(out, string(f))
		}
	}
	slices.Sort(out)
	return out
}

func uidSet(uids []uint32) imap.UIDSet {
	var set imap.UIDSet
	for _, uid := range uids {
		set.AddNum(imap.UID(uid))
	}
	return set
}

// search returns the UIDs that match, ascending.
func (s *session) search(ctx context.Context, doing string, criteria *imap.SearchCriteria) ([]uint32, error) {
	if s.folder == "" {
		return nil, fmt.Errorf("%s: %w", doing, errNoFolder)
	}
	var uids []uint32
	err := s.call(ctx, doing, func() error {
		uids = nil
		var options *imap.SearchOptions
		if s.caps.Has(imap.CapESearch) {
			options = &imap.SearchOptions{ReturnAll: true}
		}
		data, err := s.c.UIDSearch(criteria, options).Wait()
		if err != nil {
			return err
		}
		for _, uid := range data.AllUIDs() {
			uids = append(uids, uint32(uid))
		}
		slices.Sort(uids)
		return nil
	})
	return uids, err
}

// Find implements [Session].
func (s *session) Find(ctx context.Context, messageID string) ([]uint32, error) {
	if messageID == "" {
		return nil, nil
	}
	return s.search(ctx, "search by Message-ID", &imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Message-ID", Value: messageID}}})
}

// Move implements [Session].
func (s *session) Move(ctx context.Context, uids []uint32, to string) error {
	if !s.caps.Has(imap.CapMove) {
		return fmt.Errorf("move messages in mailbox %s on %s: %w", s.mailbox, s.p.o.Platform, ErrNoMove)
	}
	if s.folder == "" {
		return fmt.Errorf("move messages: %w", errNoFolder)
	}
	for part := range slices.Chunk(uids, uidsTogether) {
		err := s.call(ctx, "move messages", func() error {
			_, err := s.c.Move(uidSet(part), s.names.told(to)).Wait()
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
