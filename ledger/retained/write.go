package retained

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"slices"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/internal/seal"
	"mailcutover/routing"
)

const (
	// mostAtOnce is how many orders one write takes at most.
	mostAtOnce = 64
	// retryAfter is how long the disk is left alone after an error.
	retryAfter = time.Second
	// upkeepEvery is how often it is looked for what has to go by its age or its agency's end.
	upkeepEvery = 30 * time.Second
	// syncEvery is how often what was written is fsynced.
	syncEvery = 10 * time.Second
	// maxHeads ends a segment of very small messages, so that its heads can be read at once.
	maxHeads = 16 << 20
)

// opKind is what the writer is to do.
type opKind uint8

const (
	opSmall   opKind = iota + 1 // keep copies whose body is one chunk
	opLarge                     // a chunk of a larger body; the first one makes its files
	opFinish                    // the last chunk, and keep copies
	opAbandon                   // remove the files of a larger body
	opErase                     // remove all copies of an agency
	opUpkeep                    // look now
)

// op is an order to the writer. The caller may look at it again only when it has ended.
type op struct {
	kind   opKind
	chunk  packed
	plain  []byte
	room   []byte
	copies []*Copy  // by agency; nil: none for this one
	files  []*large // by agency

	agency  routing.AgencyID
	reason  string
	removed Removal

	err  error
	done chan struct{} // closed by the writer
}

func newOp(k opKind) *op { return &op{kind: k, done: make(chan struct{})} }

// ended reports whether the writer is done with it.
func (o *op) ended() bool {
	select {
	case <-o.done:
		return true
	default:
		return false
	}
}

// large is a body with a file of its own, for one agency. It is the writer's.
type large struct {
	agency routing.AgencyID
	name   string
	file   durable.File // nil: not begun, or over
	at     int64
	chunks uint64
	salt   [16]byte
	aead   cipher.AEAD
	key    keyID
	err    error
}

// do gives an order and waits for its end, for as long as patience lasts.
func (s *Store) do(o *op, patience time.Duration) error {
	select { // first without a timer
	case s.ops <- o:
	default:
		if patience == 0 {
			return errStalled
		}
		t := time.NewTimer(patience)
		defer t.Stop()
		select {
		case s.ops <- o:
		case <-t.C:
			s.stalled.Store(true)
			return errStalled
		case <-s.stop:
			return ErrClosed
		}
	}
	if patience == 0 {
		return nil
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-o.done:
		return o.err
	case <-t.C:
		s.stalled.Store(true)
		return errStalled
	case <-s.stop:
		// The writer serves what it has before it ends.
		select {
		case <-o.done:
			return o.err
		case <-t.C:
			return ErrClosed
		}
	}
}

// write is the goroutine that writes and removes.
func (s *Store) write() {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	batch := make([]*op, 0, mostAtOnce)
	for {
		select {
		case o := <-s.ops:
			s.serve(s.gather(append(batch[:0], o)))
		case <-tick.C:
			s.upkeep()
		case <-s.stop:
			for {
				all := s.gather(batch[:0])
				if len(all) == 0 {
					break
				}
				s.serve(all)
			}
			for _, a := range s.agencies {
				s.end(a)
			}
			return
		}
	}
}

// gather adds what others ordered by now.
func (s *Store) gather(batch []*op) []*op {
	for len(batch) < mostAtOnce {
		select {
		case o := <-s.ops:
			batch = append(batch, o)
		default:
			return batch
		}
	}
	return batch
}

// serve carries out orders, and tells those who gave them.
func (s *Store) serve(batch []*op) {
	s.makeRoom()
	for _, o := range batch {
		switch o.kind {
		case opSmall, opFinish:
			s.keep(o)
		case opLarge:
			o.err = s.more(o)
		case opAbandon:
			s.drop(o.files)
		case opErase:
			s.flushAll()
			o.removed, o.err = s.erase(o.agency, o.reason)
		case opUpkeep:
			s.flushAll()
			s.upkeep()
		}
	}
	s.flushAll()
	s.stalled.Store(false)
	for i, o := range batch {
		close(o.done)
		batch[i] = nil
	}
}

// agency returns an agency's copies, which it makes a place for.
func (s *Store) agency(id routing.AgencyID) *agency {
	if a := s.agencies[id]; a != nil { // only the writer adds any
		return a
	}
	a := &agency{id: id, secrets: make(map[keyID][]byte), next: 1, coming: 1}
	s.mu.Lock()
	s.agencies[id] = a
	s.mu.Unlock()
	return a
}

// keep adds copies to their segments; flushAll writes them.
func (s *Store) keep(o *op) {
	for i, c := range o.copies {
		if c == nil {
			continue
		}
		if s.o.WayBack(c.Agency) == WayBackOver {
			continue // finalised meanwhile
		}
		a := s.agency(c.Agency)
		if err := s.add(a, o, i, c); err != nil {
			s.trouble(a, 1, err)
			o.err = err
		}
	}
	if o.files != nil {
		s.drop(o.files) // what has become a copy has no file any more
	}
}

func (s *Store) add(a *agency, o *op, i int, c *Copy) error {
	if s.room.none {
		return errNoRoom
	}
	if w := a.writing; w != nil && s.full(w) {
		s.flush(a)
		s.end(a)
	}
	if a.writing == nil {
		if err := s.begin(a); err != nil {
			return err
		}
	}
	w := a.writing
	if o.kind == opFinish {
		f := o.files[i]
		if f.err == nil {
			f.err = f.add(o.chunk)
		}
		if f.err != nil {
			return f.err
		}
		if err := s.settle(a, f, c); err != nil {
			return err
		}
		w.newLarge += f.at
	} else {
		c.place = place{segment: w.number, offset: w.bodiesAt + int64(len(w.newBodies))}
		before := len(w.newBodies)
		w.newBodies = o.chunk.append(w.newBodies, w.bodySeal, uint64(c.place.offset))
		c.place.stored = int64(len(w.newBodies) - before)
	}
	head, err := c.append(nil)
	if err != nil {
		return err
	}
	w.newHeads = appendCopy(w.newHeads, w.seed(), w.headSeal, w.headsAt+int64(len(w.newHeads)), head)
	w.newCopies = append(w.newCopies, c)
	w.waiting = append(w.waiting, o)
	return nil
}

// full reports whether a segment has to end.
func (s *Store) full(w *writing) bool {
	return w.seg.bytes+w.newLarge+int64(len(w.newBodies)) >= s.o.SegmentBytes || w.headsAt+int64(len(w.newHeads)) >= maxHeads ||
		w.seg.copies > 0 && s.o.Now().Sub(w.begun) >= segmentAge
}

// flushAll writes what is new of all agencies.
func (s *Store) flushAll() {
	for _, a := range s.agencies {
		s.flush(a)
	}
}

// flush writes what is new of an agency: bodies, then heads.
func (s *Store) flush(a *agency) {
	w := a.writing
	if w == nil || len(w.newCopies) == 0 {
		return
	}
	_, err := w.bodies.Write(w.newBodies)
	if err == nil {
		_, err = w.heads.Write(w.newHeads)
	}
	n := len(w.newCopies)
	s.mu.Lock()
	if err == nil {
		w.bodiesAt += int64(len(w.newBodies))
		w.headsAt += int64(len(w.newHeads))
		for _, c := range w.newCopies {
			w.seg.add(c)
		}
		s.counts.kept += uint64(n)
		if s.counts.err != nil {
			s.o.Logger.Info("copies are retained again", "since", s.counts.since)
			s.counts.err = nil
		}
	}
	// What failed may be on the disk, too.
	w.seg.bytes += int64(len(w.newBodies)+len(w.newHeads)) + w.newLarge
	w.dirty = true
	s.mu.Unlock()
	for _, o := range w.waiting {
		if err != nil {
			o.err = err
		}
	}
	clear(w.newCopies)
	clear(w.waiting)
	w.newHeads, w.newBodies, w.newCopies, w.waiting, w.newLarge = w.newHeads[:0], w.newBodies[:0], w.newCopies[:0], w.waiting[:0], 0
	if cap(w.newBodies) > 4<<20 {
		w.newBodies = nil
	}
	if err != nil {
		s.abandon(a)
		s.trouble(a, n, fmt.Errorf("write segment %d: %w", w.number, err))
	}
	s.bound(a)
}

// trouble counts copies that the disk has not taken, and leaves it alone for a moment.
func (s *Store) trouble(a *agency, n int, err error) {
	s.retry.Store(s.o.Now().Add(retryAfter).UnixNano())
	s.notKept(a.id, n, err)
}

// more adds a chunk to a larger body, for all agencies. It fails if that fails for all.
func (s *Store) more(o *op) error {
	var errs []error
	for _, f := range o.files {
		if f.err == nil && f.file == nil {
			f.err = s.beginLarge(f)
		}
		if f.err == nil {
			f.err = f.add(o.chunk)
		}
		if f.err != nil {
			errs = append(errs, f.err)
		}
	}
	if len(errs) < len(o.files) {
		return nil
	}
	s.retry.Store(s.o.Now().Add(retryAfter).UnixNano())
	return errors.Join(errs...)
}

func (s *Store) beginLarge(f *large) error {
	if s.room.none {
		return errNoRoom
	}
	a := s.agency(f.agency)
	secret, err := s.secret(a)
	if err != nil {
		return err
	}
	copy(f.salt[:], seal.Salt(len(f.salt)))
	if secret != nil {
		f.key = a.key
		if f.aead, err = seal.Derive(secret, f.salt[:], "body"); err != nil {
			return err
		}
	}
	f.name = a.name(a.coming, comingSuffix)
	a.coming++
	if f.file, err = s.o.Disk.Create(s.path(f.name)); err != nil {
		return fmt.Errorf("begin the copy of a body: %w", err)
	}
	return nil
}

func (f *large) add(p packed) error {
	b := p.append(nil, f.aead, f.chunks)
	if _, err := f.file.Write(b); err != nil {
		return fmt.Errorf("write the copy of a body: %w", err)
	}
	f.chunks++
	f.at += int64(len(b))
	return nil
}

// settle makes a larger body one of the segment that is written.
func (s *Store) settle(a *agency, f *large, c *Copy) error {
	w := a.writing
	if f.key != w.key { // erased meanwhile
		return fmt.Errorf("keep the copy of a body: %w", ErrRemoved)
	}
	number := w.seg.large + 1
	err := f.file.Close()
	f.file = nil
	if err == nil {
		err = s.o.Disk.Rename(s.path(f.name), s.path(a.largeName(w.number, number)))
	}
	if err != nil {
		return fmt.Errorf("keep the copy of a body: %w", errors.Join(err, s.remove(f.name)))
	}
	s.mu.Lock()
	w.seg.large = number
	s.mu.Unlock()
	c.place = place{segment: w.number, large: number, stored: f.at, salt: f.salt}
	return nil
}

// drop removes larger bodies that have not become copies.
func (s *Store) drop(files []*large) {
	for _, f := range files {
		if f.file == nil {
			continue
		}
		if err := errors.Join(f.file.Close(), s.remove(f.name)); err != nil {
			s.o.Logger.Warn("retained copies: remove what was not kept", "agency", f.agency, "error", err)
		}
		f.file = nil
	}
}

// keepSynced is the goroutine that fsyncs what was written.
func (s *Store) keepSynced() {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.sync()
		case <-s.stop:
			return // the writer fsyncs what it ends
		}
	}
}

// sync fsyncs the segments that are written. The files of one that ends meanwhile were fsynced
// by who ended it.
func (s *Store) sync() {
	var all []*writing
	names := false
	s.mu.Lock()
	for _, a := range s.agencies {
		if w := a.writing; w != nil && w.dirty {
			w.dirty = false
			names = names || w.unsynced
			w.unsynced = false
			all = append(all, w)
		}
	}
	s.mu.Unlock()
	var errs []error
	if names {
		errs = append(errs, s.o.Disk.SyncDir(s.o.Dir))
	}
	for _, w := range all {
		err := errors.Join(w.bodies.Sync(), w.heads.Sync())
		s.mu.Lock()
		gone := w.gone
		s.mu.Unlock()
		if !gone {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(slices.DeleteFunc(errs, func(err error) bool { return err == nil })...); err != nil {
		s.o.Logger.Warn("retained copies are not fsynced: a power cut would cost them", "error", err)
	}
}
