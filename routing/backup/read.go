package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"mailcutover/routing"
)

// Read reads a backup to its end and checks all of it. Its errors wrap [ErrBad], but for those
// of r.
func Read(r io.Reader) (*Copy, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	sum := sha256.New()
	c := &Copy{}
	seen := make(map[string]bool)
	for n := 0; ; n++ {
		text, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: it ends within or before line %d: it was cut", ErrBad, n+1)
		}
		if err != nil {
			return nil, fmt.Errorf("read line %d of a backup: %w", n+1, err)
		}
		var l line
		if err := decode(text, &l); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrBad, n+1, err)
		}
		if (l.Backup != nil) != (n == 0) {
			return nil, fmt.Errorf("%w: line %d: want the first line, and no other, to say what it is a copy of", ErrBad, n+1)
		}
		if l.End == nil {
			sum.Write(text)
			if err := c.take(&l, seen); err != nil {
				return nil, fmt.Errorf("%w: line %d: %w", ErrBad, n+1, err)
			}
			continue
		}
		c.Digest = routing.Digest(sum.Sum(nil))
		if l.End.Lines != n-1 || l.End.SHA256 != c.Digest {
			return nil, fmt.Errorf("%w: %d lines with the SHA-256 %s, its last line says %d with %s: it was altered", ErrBad, n-1, c.Digest, l.End.Lines, l.End.SHA256)
		}
		if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: something stands behind its last line", ErrBad)
		}
		if err := c.check(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBad, err)
		}
		return c, nil
	}
}

// decode takes one JSON value whose fields are all known.
func decode(text []byte, l *line) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(l); err != nil {
		return fmt.Errorf("this program doesn't know it: %w", err)
	}
	if rest := text[d.InputOffset():]; len(bytes.TrimSpace(rest)) > 0 {
		return errors.New("more than one value")
	}
	return nil
}

// take adds what a line has. seen are the keys of the records so far.
func (c *Copy) take(l *line, seen map[string]bool) error {
	f := &c.Contents
	at := c.Header.Position
	set := 0
	var err error
	record := func(key string, revision routing.Revision, removed bool) {
		set++
		switch {
		case seen[key]:
			err = fmt.Errorf("%s stands twice", key)
		case revision > at.Revision:
			err = fmt.Errorf("%s is of revision %d, the copy of %d", key, revision, at.Revision)
		case removed:
			err = fmt.Errorf("%s says that it was removed", key)
		}
		seen[key] = true
	}
	if h := l.Backup; h != nil {
		set++
		if h.Format != format {
			return fmt.Errorf("format %d, this program knows %d", h.Format, format)
		}
		if h.Position.Incarnation == "" || h.Position.Revision == 0 {
			return errors.New("copy of no table")
		}
		c.Header, f.Source, f.Lineage = *h, h.Position, h.Lineage
	}
	if r := l.Agency; r != nil {
		record("agency "+string(r.ID), r.Revision, false)
		if _, e := routing.ParseAgencyID(string(r.ID)); e != nil {
			err = e
		}
		f.Agencies = append(f.Agencies, *r)
	}
	if r := l.Domain; r != nil {
		record("domain "+r.Name, r.Revision, r.Removed)
		f.Domains = append(f.Domains, *r)
	}
	if r := l.Fixed; r != nil {
		record("fixed address "+string(r.Address), r.Revision, r.Removed)
		f.Fixed = append(f.Fixed, *r)
	}
	if r := l.Member; r != nil {
		record("node "+string(r.Node), r.Revision, false)
		f.Members = append(f.Members, *r)
	}
	if r := l.Operation; r != nil {
		record("operation "+string(r.ID), r.Revision, r.Ended)
		f.Operations = append(f.Operations, *r)
	}
	if r := l.Freeze; r != nil {
		record("freeze of "+string(r.Agency), r.Revision, r.Removed)
		f.Freezes = append(f.Freezes, *r)
	}
	if r := l.Document; r != nil {
		record("document "+r.Key, r.Revision, r.Removed)
		f.Documents = append(f.Documents, *r)
	}
	if m := l.Mapping; m != nil {
		record("mapping of agency "+string(m.Agency), 0, false)
		parts := func(yield func([]byte, error) bool) { yield([]byte(m.Text), nil) }
		read, e := routing.ReadMapping(m.Agency, m.Digest, len(m.Text), parts)
		if e != nil {
			return e
		}
		c.Mailboxes += read.Len()
		f.Mappings = append(f.Mappings, read)
	}
	if set != 1 {
		return fmt.Errorf("%d things in one line, want one", set)
	}
	return err
}

// check holds the records to each other: a mapping for each agency that names one, and no
// other; and no name that two have.
func (c *Copy) check() error {
	has := make(map[routing.AgencyID]routing.Digest)
	for _, m := range c.Contents.Mappings {
		has[m.Agency()] = m.Digest()
	}
	for i := range c.Contents.Agencies {
		a := &c.Contents.Agencies[i]
		if has[a.ID] != a.Mapping {
			return fmt.Errorf("agency %s names the mapping %s, and %s is there", a.ID, a.Mapping, has[a.ID])
		}
		if a.Epoch.Term > c.Header.Position.Term {
			return fmt.Errorf("agency %s has epoch %s, the copy is of term %d", a.ID, a.Epoch, c.Header.Position.Term)
		}
		delete(has, a.ID)
	}
	for id := range has {
		return fmt.Errorf("a mapping of agency %s, which isn't there", id)
	}
	f := &c.Contents
	_, err := routing.NewState(routing.Position{}).Apply(routing.Update{
		Position: c.Header.Position, Whole: true, Agencies: f.Agencies, Mappings: f.Mappings, Domains: f.Domains, Fixed: f.Fixed,
		Members: f.Members, Freezes: f.Freezes, Operations: f.Operations, Documents: f.Documents, Lineage: c.Header.Lineage,
	})
	return err
}
