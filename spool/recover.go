package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"mailcutover/internal/durable"
	"mailcutover/mail"
)

func (s *Store) problem(p Problem) { s.report.Problems = append(s.report.Problems, p) }

// recovery reads a spool into memory.
type recovery struct {
	s     *Store
	early map[[16]byte][]*outcome // of recipients whose head stands later
	bad   map[[16]byte]position   // bodies with wrong checksums
	cuts  map[uint32]int64        // up to where segments count
	gaps  bool                    // a segment has a damaged part, or is missing
	lost  []lost                  // messages without a readable body
}

type lost struct {
	id  [16]byte
	why string
}

// run reads everything; it changes nothing but the id file of a new spool and what is
// put aside.
func (r *recovery) run() error {
	s := r.s
	numbers, err := r.list()
	if err != nil {
		return err
	}
	if err := s.identify(numbers); err != nil {
		return err
	}
	for i, n := range numbers {
		if err := r.segment(n, i == len(numbers)-1); err != nil {
			return err
		}
	}
	return r.build()
}

// list returns the numbers of the segments in order.
func (r *recovery) list() (numbers []uint32, err error) {
	s := r.s
	names, err := s.disk.Names(s.path(journalDir))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", s.path(journalDir), err)
	}
	for _, name := range names {
		if n := parseCutName(name); n != 0 {
			if r.cuts[n], err = s.readCut(n); err != nil {
				return nil, err
			}
			continue
		}
		n := parseSegmentName(name)
		if n == 0 {
			s.problem(Problem{Path: s.path(journalDir, name), What: "not a file of the journal; it is left alone"})
			continue
		}
		numbers = append(numbers, n)
		s.last = max(s.last, n)
	}
	aside, err := s.disk.Names(s.path(quarantineDir))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", s.path(quarantineDir), err)
	}
	for _, name := range aside { // no number is used again
		s.last = max(s.last, segmentOf(name))
	}
	slices.Sort(numbers)
	return numbers, nil
}

// readCut returns up to where a segment counts.
func (s *Store) readCut(n uint32) (safe int64, err error) {
	path := s.path(journalDir, cutName(n))
	file, err := s.disk.Open(path)
	if err != nil {
		return 0, err
	}
	_, err = fmt.Fscanf(file, cutMagic+" %d\n", &safe)
	if err = errors.Join(err, file.Close()); err != nil {
		s.problem(Problem{Path: path, What: fmt.Sprintf("can't be read: %v; all of the segment counts", err)})
		return 1 << 62, nil
	}
	return safe, nil
}

// segment reads one file of the journal. The last one is fsynced first, since the process
// before may have been killed; the others were, before the next was made. Of the last one the bodies are checked too: a
// power cut may have left holes.
func (r *recovery) segment(n uint32, last bool) error {
	s := r.s
	path := s.segmentPath(n)
	file, err := s.disk.OpenAt(path)
	if err == nil {
		var size int64
		if size, err = file.Size(); err == nil {
			s.segments[n] = &segment{size: size}
			s.report.Bytes += size
			s.report.Segments++
			var gaps []gap
			if cut, ok := r.cuts[n]; ok {
				file = limited{file, min(size, max(cut, headerBytes))}
			}
			if last && !s.o.readOnly {
				r.settle(file)
			}
			gaps, err = s.id.scan(file, n, last, func(rec *record) error {
				r.record(rec)
				return nil
			})
			for _, g := range gaps {
				if err == nil {
					err = r.gap(n, file, g)
				}
			}
		}
		err = errors.Join(err, file.Close())
	}
	if err != nil { // what was read before stays
		r.gaps = true
		s.problem(Problem{Path: path, What: fmt.Sprintf("can't be read: %v", err)})
	}
	return nil
}

// settle makes durable what the last process wrote. After a kill it is in the kernel
// only: without this, compaction could remove an old segment for the sake of copies that
// the next power cut forgets.
func (r *recovery) settle(file durable.Random) {
	s := r.s
	err := file.Sync()
	if err == nil {
		err = s.disk.SyncDir(s.path(journalDir))
	}
	if err != nil {
		s.fail(fmt.Errorf("fsync what the last process wrote: %w", err))
	}
}

// gap puts aside a part of a segment that holds no record.
func (r *recovery) gap(n uint32, file durable.Random, g gap) error {
	s := r.s
	b := make([]byte, g.to-g.from)
	if _, err := file.ReadAt(b, g.from); err != nil && err != io.EOF {
		return err
	}
	if strings.Trim(string(b), "\x00") == "" && g.tail {
		return nil // never written
	}
	what := "damaged: no record can be read"
	if g.tail {
		what = "torn: a write that a crash interrupted, or damage at the end"
	} else {
		r.gaps = true
	}
	name := fmt.Sprintf("%s.%d-%d", segmentName(n), g.from, g.to)
	aside, fresh, err := s.keep(name, b)
	if err != nil {
		return err
	}
	if fresh {
		s.problem(Problem{Path: s.segmentPath(n), From: g.from, To: g.to, What: what, Aside: aside})
	}
	return nil
}

// keep writes bytes into quarantine/, durably; fresh tells whether they weren't there.
func (s *Store) keep(name string, b []byte) (path string, fresh bool, err error) {
	path = s.path(quarantineDir, name)
	r, err := s.disk.Open(path)
	if err == nil {
		return path, false, r.Close()
	}
	if s.o.readOnly {
		return "", true, nil
	}
	folder, err := durable.Open(s.disk, s.path(quarantineDir))
	if err == nil {
		err = folder.Write(name, func(w io.Writer) error {
			_, err := w.Write(b)
			return err
		})
	}
	return path, true, err
}

// record applies one record of the journal.
func (r *recovery) record(rec *record) {
	switch rec.frame.kind {
	case recordMessage:
		f, _, err := parseFixed(rec.head)
		var msg *Message
		if err == nil {
			msg, err = parseHead(rec.head)
		}
		if err != nil {
			r.unreadable(rec, err)
			return
		}
		r.message(rec, &f, msg)
	case recordOutcome:
		o, err := parseOutcome(rec.head)
		if err != nil {
			r.unreadable(rec, err)
			return
		}
		o.at, o.bytes = rec.at, uint16(rec.frame.padded())
		r.outcome(&o)
	default:
		r.unreadable(rec, fmt.Errorf("%w: kind %d", ErrBadRecord, rec.frame.kind))
	}
}

func (r *recovery) unreadable(rec *record, err error) {
	s := r.s
	name := fmt.Sprintf("%s.%d.record", segmentName(rec.at.segment), rec.at.offset)
	r.gaps = true
	aside, fresh, keepErr := s.keep(name, rec.head)
	if fresh {
		s.problem(Problem{Path: s.segmentPath(rec.at.segment), From: int64(rec.at.offset), To: int64(rec.at.offset) + rec.frame.padded(),
			What: errors.Join(err, keepErr).Error(), Aside: aside})
	}
}

func (r *recovery) message(rec *record, f *fixed, msg *Message) {
	s := r.s
	s.seq = max(s.seq, f.seq)
	m := s.x.find(f.id)
	fresh := m == nil
	if fresh {
		m = s.x.insert(f.id)
		m.seq, m.time, m.size, m.bodyCRC, m.first, m.sealed = f.seq, f.time, f.size, f.bodyCRC, f.first, f.sealed
	}
	m.head, m.headBytes = rec.at, frameBytes+rec.frame.head
	if m.body = f.body; f.body == bodyHere {
		m.body = rec.at
	}
	if rec.bodyBad {
		r.bad[f.id] = rec.at
	}
	var known []recipient
	if !fresh {
		known = s.x.recipients(m)
	}
	if len(known) != len(msg.Recipients) {
		rcpts := make([]recipient, len(msg.Recipients))
		for i := copy(rcpts, known); i < len(rcpts); i++ {
			rcpts[i] = s.x.recipient(&msg.Recipients[i])
		}
		for i := len(rcpts); i < len(known); i++ { // they were of an Add that failed
			s.x.release(known[i].name)
		}
		s.x.setRecipients(m, rcpts)
	}
	early := r.early[f.id]
	delete(r.early, f.id)
	for _, o := range early {
		r.outcome(o)
	}
}

func (r *recovery) outcome(o *outcome) {
	s := r.s
	m := s.x.find(o.id)
	if o.ended {
		s.segments[o.at.segment].keepEnded(o)
		if m != nil {
			s.x.rows.free = append(s.x.rows.free, s.x.drop(m))
		}
		delete(r.early, o.id)
		return
	}
	rcpts := s.x.recipientsOf(m)
	if int(o.rcpt) >= len(rcpts) { // the head was moved, or is of an Add that failed
		r.early[o.id] = append(r.early[o.id], o)
		return
	}
	if rc := &rcpts[o.rcpt]; !rc.state.Final() || o.State.Final() { // the last record counts, a final state stays
		rc.state, rc.out, rc.outBytes = o.State, o.at, o.bytes
	}
}

// build makes the order and the counts, and looks for the bodies.
func (r *recovery) build() error {
	s := r.s
	names, err := s.disk.Names(s.path(bodiesDir))
	if err != nil {
		return fmt.Errorf("list %s: %w", s.path(bodiesDir), err)
	}
	files := make(map[[16]byte]bool, len(names))
	for _, name := range names {
		base, ok := strings.CutSuffix(name, bodySuffix)
		id, err := mail.TransactionID(base).Bytes()
		if !ok || err != nil {
			s.problem(Problem{Path: s.path(bodiesDir, name), What: "not a body; it is left alone"})
			continue
		}
		files[id] = true
	}
	s.x.order = make([]uint32, 0, s.x.messages.len())
	s.x.messages.each(func(row uint32) {
		m := s.x.rows.at(row)
		s.x.order = append(s.x.order, row)
		s.x.count(m, 1)
		s.live(m, 1)
		for _, rc := range s.x.recipients(m) {
			if seg := s.segments[rc.out.segment]; seg != nil {
				seg.live += int64(rc.outBytes)
			}
		}
		if why := r.bodyLost(m, files[m.id]); why != "" {
			r.lost = append(r.lost, lost{m.id, why})
		}
		if m.body == bodyInFile {
			delete(files, m.id)
		}
	})
	slices.SortFunc(s.x.order, func(a, b uint32) int { return cmp.Compare(s.x.rows.at(a).seq, s.x.rows.at(b).seq) })
	s.report.Messages = len(s.x.order)
	for id := range files {
		if err := r.orphan(id); err != nil {
			return err
		}
	}
	return nil
}

// bodyLost says why a message has no body; empty if it has one.
func (r *recovery) bodyLost(m *message, file bool) string {
	s := r.s
	switch {
	case m.body == bodyInFile && !file:
		return "the file of the body is lost"
	case m.body == bodyInFile || m.body == m.head && r.bad[m.id] != m.body:
		return ""
	case r.bad[m.id] == m.body:
		return "the body is damaged: wrong checksum"
	}
	head, err := s.readHead(m.body)
	if err == nil {
		var f fixed
		if f, _, err = parseFixed(head); err == nil && (f.id != m.id || f.body != bodyHere) {
			err = ErrDamaged
		}
	}
	if err != nil {
		return fmt.Sprintf("the body at %s is lost: %v", m.body, err)
	}
	return ""
}

// orphan deals with a body that no message names. Nobody was told that it is here,
// unless a record of the journal is lost.
func (r *recovery) orphan(id [16]byte) error {
	s := r.s
	path := s.bodyPath(id)
	if s.o.readOnly {
		s.problem(Problem{Path: path, Transaction: mail.TransactionIDOf(id), What: "a body that no readable record names"})
		return nil
	}
	if !r.gaps {
		if err := s.disk.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a body that was not committed: %w", err)
		}
		return nil
	}
	aside := s.path(quarantineDir, filepath.Base(path))
	if err := s.disk.Rename(path, aside); err != nil {
		return fmt.Errorf("set aside %s: %w", path, err)
	}
	for _, dir := range []string{quarantineDir, bodiesDir} {
		if err := s.disk.SyncDir(s.path(dir)); err != nil {
			return fmt.Errorf("fsync directory %s: %w", s.path(dir), err)
		}
	}
	s.problem(Problem{Path: path, Transaction: mail.TransactionIDOf(id), What: "a body that no readable record names", Aside: aside})
	return nil
}

// finish writes what the start found out about messages.
func (r *recovery) finish() {
	s := r.s
	for _, l := range r.lost {
		s.quarantine(mail.TransactionIDOf(l.id), l.why)
		s.problem(Problem{Path: s.o.Dir, Transaction: mail.TransactionIDOf(l.id), What: l.why})
	}
	s.mu.Lock()
	var ended [][16]byte
	for _, row := range s.x.order { // a kill came before the message could end
		if m := s.x.rows.at(row); s.x.ended(m) {
			ended = append(ended, m.id)
		}
	}
	s.mu.Unlock()
	for _, id := range ended {
		s.unpin(id)
	}
	for _, p := range s.report.Problems {
		s.log.Error("spool: found at start", "problem", p.String())
	}
	if n := len(s.report.Problems); n > 0 {
		s.raise("spool-damaged", "spool %s: %d things could not be read; the first: %s", s.o.Dir, n, s.report.Problems[0])
	}
}

// quarantine puts all recipients of a message that aren't final into quarantine.
func (s *Store) quarantine(id mail.TransactionID, why string) {
	var changes []Outcome
	s.Each(Filter{Transaction: id}, func(e Entry) bool {
		if e.State != StateQuarantined {
			changes = append(changes, Outcome{Transaction: id, Recipient: e.Recipient, State: StateQuarantined, Reason: why})
		}
		return true
	})
	if len(changes) == 0 {
		return
	}
	if err := s.Set(changes...); err != nil {
		s.log.Error("spool: quarantine", "transaction", id, "error", err)
	}
}
