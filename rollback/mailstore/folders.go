package mailstore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// Folders implements [Session].
func (s *session) Folders(ctx context.Context) ([]Folder, error) {
	var folders []Folder
	err := s.call(ctx, "list folders", func() error {
		var err error
		folders, err = s.list()
		return err
	})
	return folders, err
}

// list asks for all folders, and for the state of each.
func (s *session) list() ([]Folder, error) {
	var options *imap.ListOptions
	if s.caps.Has(imap.CapListExtended) {
		options = &imap.ListOptions{ReturnSubscribed: true, ReturnSpecialUse: s.caps.Has(imap.CapSpecialUse)}
		if s.caps.Has(imap.CapListStatus) {
			options.ReturnStatus = s.statusItems()
		}
	}
	listed, err := s.c.List("", "*", options).Collect()
	if err != nil {
		return nil, err
	}
	var folders []Folder
	var attrs [][]imap.MailboxAttr
	var ask []int // whose state wasn't told
	for _, l := range listed {
		s.names.setDelim(l.Delim)
	}
	for _, l := range listed {
		name, own := s.names.listed(l.Mailbox)
		if !own || s.notMail(name) {
			continue
		}
		f := Folder{
			Name:       name,
			NoSelect:   slices.Contains(l.Attrs, imap.MailboxAttrNoSelect) || slices.Contains(l.Attrs, imap.MailboxAttrNonExistent),
			Subscribed: options == nil || slices.Contains(l.Attrs, imap.MailboxAttrSubscribed),
		}
		if l.Status != nil {
			f.fill(l.Status)
		} else if !f.NoSelect {
			ask = append(ask, len(folders))
		}
		folders, attrs = append(folders, f), append(attrs, l.Attrs)
	}
	if folders, attrs, err = s.askAll(folders, attrs, ask); err != nil {
		return nil, err
	}
	assignRoles(folders, attrs, s.p.o.Names)
	slices.SortFunc(folders, func(a, b Folder) int { return cmp.Compare(a.Name, b.Name) })
	return folders, nil
}

// together is how many STATUS are sent before the first is answered.
const together = 16

// askAll asks for the state of those folders that LIST told nothing of. One that is gone
// meanwhile is left out.
func (s *session) askAll(folders []Folder, attrs [][]imap.MailboxAttr, ask []int) ([]Folder, [][]imap.MailboxAttr, error) {
	gone := make(map[int]bool)
	for batch := range slices.Chunk(ask, together) {
		commands := make([]*imapclient.StatusCommand, len(batch))
		for i, n := range batch {
			commands[i] = s.c.Status(s.names.told(folders[n].Name), s.statusItems())
		}
		var first error
		for i, n := range batch {
			data, err := commands[i].Wait()
			switch {
			case err == nil:
				folders[n].fill(data)
			case errors.Is(s.kind(err), ErrNoFolder):
				gone[n] = true
			case first == nil:
				first = err
			}
		}
		if first != nil {
			return nil, nil, first
		}
	}
	if len(gone) == 0 {
		return folders, attrs, nil
	}
	var f []Folder
	var a [][]imap.MailboxAttr
	for i := range folders {
		if !gone[i] {
			f, a = append(f, folders[i]), append(a, attrs[i])
		}
	}
	return f, a, nil
}

// statusItems are what is asked of a folder.
func (s *session) statusItems() *imap.StatusOptions {
	return &imap.StatusOptions{NumMessages: true, UIDNext: true, UIDValidity: true, HighestModSeq: s.caps.Has(imap.CapCondStore)}
}

// fill takes what STATUS said.
func (f *Folder) fill(d *imap.StatusData) {
	f.UIDValidity, f.UIDNext, f.HighestModSeq = d.UIDValidity, uint32(d.UIDNext), d.HighestModSeq
	if d.NumMessages != nil {
		f.Messages = *d.NumMessages
	}
}

// notMail reports whether a folder holds no mail by the settings, or is below one.
func (s *session) notMail(name string) bool {
	for _, n := range s.p.o.NotMail {
		if n = fold(n); fold(name) == n || strings.HasPrefix(fold(name), n+"/") {
			return true
		}
	}
	return false
}

// Select implements [Session].
func (s *session) Select(ctx context.Context, folder string, write bool) (Folder, error) {
	s.folder, s.write = "", false
	f := Folder{}
	err := s.call(ctx, "open a folder", func() error {
		s.folder, s.write = folder, write
		var err error
		f, err = s.askSelect()
		return err
	})
	if err != nil {
		s.folder = ""
	}
	return f, err
}

// sel opens the folder again that was open before.
func (s *session) sel(ctx context.Context) (f Folder, err error) {
	err = s.kind(s.guarded(ctx, 0, func() error {
		f, err = s.askSelect()
		return err
	}))
	return f, err
}

func (s *session) askSelect() (Folder, error) {
	data, err := s.c.Select(s.names.told(s.folder), &imap.SelectOptions{ReadOnly: !s.write, CondStore: s.caps.Has(imap.CapCondStore)}).Wait()
	if err != nil {
		return Folder{}, err
	}
	f := Folder{Name: s.folder, UIDValidity: data.UIDValidity, UIDNext: uint32(data.UIDNext), HighestModSeq: data.HighestModSeq, Messages: data.NumMessages}
	for _, flag := range data.PermanentFlags {
		if flag == imap.FlagWildcard {
			f.AnyKeyword = true
		} else {
			f.Flags = append(f.Flags, string(flag))
		}
	}
	return f, nil
}

// Create implements [Session].
func (s *session) Create(ctx context.Context, folder string, role Role) error {
	levels := strings.Split(folder, "/")
	for i := range levels {
		name := strings.Join(levels[:i+1], "/")
		if _, listed := s.names.platform[name]; listed || name == "INBOX" {
			continue
		}
		told := s.names.told(name)
		err := s.call(ctx, "make a folder", func() error {
			var options *imap.CreateOptions
			if i == len(levels)-1 && role < numRoles && useAttributes[role] != "" && s.caps.Has(imap.CapCreateSpecialUse) {
				options = &imap.CreateOptions{SpecialUse: []imap.MailboxAttr{useAttributes[role]}}
			}
			err := s.c.Create(told, options).Wait()
			if alreadyThere(err) {
				err = nil
			}
			if err == nil {
				err = s.c.Subscribe(told).Wait()
				if said := (*imap.Error)(nil); errors.As(err, &said) {
					err = nil // the folder is there; its user may have to look for it
				}
			}
			return err
		})
		if err != nil {
			return err
		}
		s.names.platform[name] = told
	}
	return nil
}

// alreadyThere reports whether a folder couldn't be made because it exists.
func alreadyThere(err error) bool {
	var said *imap.Error
	return errors.As(err, &said) && (said.Code == imap.ResponseCodeAlreadyExists || strings.Contains(strings.ToLower(said.Text), "already exist"))
}
