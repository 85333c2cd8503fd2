package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"
)

// ErrNotThere is about a message that is not in the INBOX.
var ErrNotThere = errors.New("the message is not in its INBOX")

const (
	// searchPause is the time between two looks for a message.
	searchPause = 500 * time.Millisecond

	// mostFolders is in how many folders besides the INBOX a message is looked for that isn't there.
	mostFolders = 50
)

// Login logs in through the listener, by IMAP, and opens the INBOX. logged is called while the session is
// there, with the address that it has on our side. Then the INBOX is searched for a message with
// this Message-ID (with brackets; empty: none), until it is there or patience is over: ErrNotThere, with the
// folder where it is instead.
//
// A message that was found is deleted: that one by its UID, after its Message-ID was read once more. Where
// the platform can expunge only all that is marked as deleted (no UIDPLUS, RFC 4315), it stays if something
// else is marked. left says why it is still there; empty: it is deleted, or none was looked for.
func (e *Entrance) Login(ctx context.Context, a Account, logged func(client netip.AddrPort), messageID string, patience time.Duration) (left string, err error) {
	nc, err := e.dial(ctx)
	if err != nil {
		return "", fmt.Errorf("login of %s: %w", a.Login, err)
	}
	defer nc.Close()
	client, err := netip.ParseAddrPort(nc.LocalAddr().String())
	if err != nil {
		return "", fmt.Errorf("login of %s: %w", a.Login, err)
	}
	start := e.TLS
	if e.Implicit {
		start = nil
	}
	s, err := logIn(ctx, nc, start, a)
	if err != nil {
		return "", err
	}
	defer s.leave()
	logged(client)
	if messageID == "" {
		return "", nil
	}
	if err := s.await(ctx, messageID, patience); err != nil {
		return "", fmt.Errorf("INBOX of %s: %w", a.Login, err)
	}
	if left, err = s.takeAway(messageID); err != nil {
		left = fmt.Sprintf("it couldn't be deleted: %v", plain(err))
	}
	return left, nil
}

// await looks into the INBOX until a message is there.
func (s session) await(ctx context.Context, messageID string, patience time.Duration) error {
	for until := time.Now().Add(patience); ; {
		found, err := s.find(messageID)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("search: %w", context.Cause(ctx))
		case err != nil:
			return fmt.Errorf("search: %w", plain(err))
		case len(found) > 0:
			return nil
		case time.Now().After(until):
			if folder := s.elsewhere(messageID); folder != "" {
				return fmt.Errorf("%w after %s, but in its folder %q", ErrNotThere, patience.Round(time.Second), folder)
			}
			return fmt.Errorf("%w after %s", ErrNotThere, patience.Round(time.Second))
		}
		select {
		case <-time.After(searchPause):
		case <-ctx.Done():
		}
		if err := s.Noop().Wait(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("look again: %w", plain(err))
		}
	}
}

// find searches the folder that is open. A search finds parts of Message-IDs, too.
func (s session) find(messageID string) ([]imap.UID, error) {
	found, err := s.UIDSearch(&imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Message-ID", Value: messageID}}}, nil).Wait()
	if err != nil {
		return nil, err
	}
	return found.AllUIDs(), nil
}

// elsewhere returns the folder in which a message is that isn't in the INBOX; empty: it isn't known.
func (s session) elsewhere(messageID string) string {
	folders, err := s.List("", "*", nil).Collect()
	if err != nil {
		return ""
	}
	for _, f := range folders[:min(len(folders), mostFolders)] {
		if slices.Contains(f.Attrs, imap.MailboxAttrNoSelect) || f.Mailbox == "INBOX" {
			continue
		}
		if _, err := s.Select(f.Mailbox, &imap.SelectOptions{ReadOnly: true}).Wait(); err != nil {
			continue
		}
		if found, err := s.find(messageID); err == nil && len(found) > 0 {
			return f.Mailbox
		}
	}
	return ""
}

// takeAway deletes a message from the INBOX. left is why it is still there; empty: it isn't.
func (s session) takeAway(messageID string) (left string, err error) {
	box, err := s.Select("INBOX", nil).Wait()
	if err != nil {
		return "", err
	}
	if len(box.PermanentFlags) > 0 && !slices.Contains(box.PermanentFlags, imap.FlagDeleted) {
		return "this login may not delete there", nil
	}
	ours, err := s.named(messageID)
	if err != nil {
		return "", err
	}
	if len(ours) == 0 {
		return "it isn't there under its Message-ID any more", nil
	}
	set := imap.UIDSetNum(ours...)
	mark := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}
	if err := s.Store(set, mark, nil).Close(); err != nil {
		return "", err
	}
	if s.Caps().Has(imap.CapUIDPlus) {
		return "", s.UIDExpunge(set).Close()
	}
	// Without UIDPLUS EXPUNGE takes whatever is marked, also what its user may want back.
	marked, err := s.UIDSearch(&imap.SearchCriteria{Flag: []imap.Flag{imap.FlagDeleted}}, nil).Wait()
	if err != nil {
		return "", err
	}
	if others := slices.DeleteFunc(marked.AllUIDs(), func(uid imap.UID) bool { return slices.Contains(ours, uid) }); len(others) > 0 {
		mark.Op = imap.StoreFlagsDel
		return fmt.Sprintf("%d other messages are marked as deleted there, and the platform can't expunge one alone", len(others)), s.Store(set, mark, nil).Close()
	}
	return "", s.Expunge().Close()
}

// named returns the UIDs of messages with exactly this Message-ID.
func (s session) named(messageID string) (ours []imap.UID, err error) {
	found, err := s.find(messageID)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	section := &imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"Message-ID"}, Peek: true}
	messages, err := s.Fetch(imap.UIDSetNum(found...), &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		header, err := mail.ReadMessage(bytes.NewReader(append(m.FindBodySection(section), "\r\n\r\n"...)))
		if err == nil && m.UID != 0 && header.Header.Get("Message-Id") == messageID {
			ours = append(ours, m.UID)
		}
	}
	return ours, nil
}
