package verify

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
)

// common is on how many mailboxes' source side a message stands that says nothing about whose
// it is, unless it names somebody.
const common = 8

// standingsOf reads a partition of the source side's keys, sorted.
func (r *run) standingsOf(part int) ([]standing, error) {
	all := make([]standing, 0, r.standings.count(part))
	err := r.standings.each(part, func(b []byte) {
		var s standing
		s.read(b)
		all = append(all, s)
	})
	slices.SortFunc(all, func(a, b standing) int {
		return cmp.Or(bytes.Compare(a.key[:], b.key[:]), cmp.Compare(a.mailbox, b.mailbox))
	})
	return all, err
}

// holders returns the part of sorted standings with a suspect's key.
func holders(all []standing, s *suspect) []standing {
	i, _ := slices.BinarySearchFunc(all, s, func(one standing, s *suspect) int { return bytes.Compare(one.key[:], s.key[:]) })
	n := i
	for n < len(all) && all[n].key == s.key {
		n++
	}
	return all[i:n]
}

// join brings suspects together with the mailboxes on whose source side they stand.
func (r *run) join(ctx context.Context) error {
	for part := range partitions {
		if err := ctx.Err(); err != nil {
			return err
		}
		if r.suspects.count(part) == 0 {
			continue
		}
		all, err := r.standingsOf(part)
		if err != nil {
			return err
		}
		var failed error
		err = r.suspects.each(part, func(b []byte) {
			var s suspect
			s.read(b)
			if err := r.attribute(&s, holders(all, &s)); err != nil {
				failed = err
			}
		})
		if err := cmp.Or(err, failed); err != nil {
			return err
		}
	}
	return nil
}

// attribute writes what a suspect is evidence of.
func (r *run) attribute(s *suspect, stands []standing) error {
	e := evidence{key: s.key, holder: s.holder, folder: s.folder, uid: s.uid, marks: s.marks, stands: uint16(min(len(stands), 1<<16-1))}
	write := func(owner uint32, named bool) error {
		e.owner, e.named = owner, named
		var buf [evidenceSize]byte
		if err := r.evidences.add(int(e.holder)%partitions, e.put(buf[:0])); err != nil {
			return fmt.Errorf("%w: %w", errScratch, err)
		}
		return nil
	}
	wrote := false
	for i := range stands {
		if named := s.names(stands[i].mailbox); named || len(stands) <= common {
			wrote = true
			if err := write(stands[i].mailbox, named); err != nil {
				return err
			}
		}
	}
	if len(stands) == 0 {
		for _, owner := range s.named {
			if owner != none {
				wrote = true
				if err := write(owner, true); err != nil {
					return err
				}
			}
		}
	}
	if wrote {
		return nil
	}
	return write(none, false)
}
