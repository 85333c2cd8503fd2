package verify_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
	"mailcutover/routing"
)

// letter is a message as a platform keeps it.
type letter struct {
	uid      uint32
	raw      string
	internal time.Time
}

// folderOf is a folder of a platform.
type folderOf struct {
	role     mailstore.Role
	validity uint32
	letters  []letter
}

// platform keeps mailboxes in memory, by login. It only gives, as verify only reads.
type platform struct {
	mu     sync.Mutex
	boxes  map[string]map[string]*folderOf
	fail   map[string]error // Open's error, by login
	opened int
}

func newPlatform() *platform {
	return &platform{boxes: make(map[string]map[string]*folderOf), fail: make(map[string]error)}
}

// put appends a message to a folder.
func (p *platform) put(login, folder, raw string, internal time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	box := p.boxes[login]
	if box == nil {
		box = make(map[string]*folderOf)
		p.boxes[login] = box
	}
	f := box[folder]
	if f == nil {
		f = &folderOf{validity: uint32(len(box)*1000 + len(login) + 7)}
		switch folder {
		case "INBOX":
			f.role = mailstore.Inbox
		case "Sent", "Gesendete Elemente":
			f.role = mailstore.Sent
		}
		box[folder] = f
	}
	uid := uint32(1)
	if n := len(f.letters); n > 0 {
		uid = f.letters[n-1].uid + 1
	}
	f.letters = append(f.letters, letter{uid, raw, internal})
}

// keep drops the messages of a mailbox that keep refuses.
func (p *platform) keep(login string, keep func(raw string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	box := p.boxes[login]
	for _, name := range slices.Sorted(maps.Keys(box)) { // in one order, as keep may draw
		f := box[name]
		f.letters = slices.DeleteFunc(f.letters, func(l letter) bool { return !keep(l.raw) })
	}
}

func (p *platform) Open(_ context.Context, row routing.Row, side mailstore.Side) (mailstore.Session, error) {
	login := row.At(side == mailstore.Target).Login
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened++
	if err := p.fail[login]; err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return &session{platform: p, box: p.boxes[login]}, nil
}

// session reads one mailbox. What isn't asked for panics, by the nil interface.
type session struct {
	mailstore.Session
	platform *platform
	box      map[string]*folderOf
	at       *folderOf
}

func (s *session) Folders(context.Context) ([]mailstore.Folder, error) {
	s.platform.mu.Lock()
	defer s.platform.mu.Unlock()
	var all []mailstore.Folder
	for name, f := range s.box {
		one := mailstore.Folder{Name: name, Role: f.role, UIDValidity: f.validity, UIDNext: 1, Messages: uint32(len(f.letters))}
		if n := len(f.letters); n > 0 {
			one.UIDNext = f.letters[n-1].uid + 1
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b mailstore.Folder) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	return all, nil
}

func (s *session) Select(_ context.Context, folder string, write bool) (mailstore.Folder, error) {
	if write {
		return mailstore.Folder{}, fmt.Errorf("opened for writing")
	}
	s.at = s.box[folder]
	return mailstore.Folder{Name: folder}, nil
}

func (s *session) List(_ context.Context, from, _ uint32, each func(mailstore.Message) error) error {
	for _, l := range s.at.letters {
		facts := msgkey.Parse([]byte(l.raw), installation)
		if err := each(mailstore.Message{UID: l.uid, Internal: l.internal, Size: int64(len(l.raw)), Facts: facts}); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) Bodies(_ context.Context, uids []uint32, each func(uint32, int64, io.Reader) error) error {
	for _, l := range s.at.letters {
		if slices.Contains(uids, l.uid) {
			if err := each(l.uid, int64(len(l.raw)), bytes.NewReader([]byte(l.raw))); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *session) Close() error { return nil }
