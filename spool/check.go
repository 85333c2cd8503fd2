package spool

import (
	"errors"
	"fmt"
	"io"

	"mailcutover/internal/durable"
	"mailcutover/mail"
)

// Check reads all of the spool in dir, bodies too, while no process has it open, and
// reports what isn't as it was written. A disk of nil is the machine's. Without repair
// it changes nothing in the spool; with repair it does what a start does, and puts
// messages whose bodies are damaged into quarantine. ErrInUse: a process has it open.
func Check(disk durable.Disk, dir string, repair bool) (Report, error) {
	id, err := Owner(disk, dir)
	if err != nil {
		return Report{}, fmt.Errorf("check: %w", err)
	}
	s, err := prepare(Options{Disk: disk, Dir: dir, Node: id.Owner, readOnly: !repair, manual: true})
	if err == nil {
		err = s.start()
	}
	if err != nil {
		return Report{}, fmt.Errorf("check spool %s: %w", dir, err)
	}
	var last mail.TransactionID
	var damaged []Problem
	s.Each(Filter{}, func(e Entry) bool {
		if e.Transaction == last {
			return true
		}
		last = e.Transaction
		if err := s.verify(e.Transaction); err != nil && !errors.Is(err, ErrUnknown) {
			damaged = append(damaged, Problem{Path: dir, Transaction: e.Transaction, What: err.Error()})
		}
		return true
	})
	for _, p := range damaged {
		if repair {
			s.quarantine(p.Transaction, "the body is damaged")
			p.What += "; its recipients are in quarantine"
		}
		s.problem(p)
	}
	report := s.report
	if repair {
		err = s.Close()
	} else if s.lock != nil {
		err = s.lock.Close()
	}
	if err != nil {
		return report, fmt.Errorf("check spool %s: %w", dir, err)
	}
	return report, nil
}

// verify reads a message's head and body.
func (s *Store) verify(id mail.TransactionID) error {
	if _, err := s.Get(id); err != nil {
		return err
	}
	b, err := s.Open(id)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, b)
	if err == nil {
		err = b.Verify()
	}
	return errors.Join(err, b.Close())
}
