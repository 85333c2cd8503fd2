package retained

import (
	"errors"
	"fmt"
	"slices"
	"time"

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
	syncEvery = 30 * time.Second
	// maxHeads ends a segment of very small messages, so that its heads can be read at once.
	maxHeads = 16 << 20
)

// opKind is what the writer is to do.
type opKind uint8

const (
	opKeep   opKind = iota + 1 // write the last chunk, and keep copies
	opPart                     // write a chunk that isn't the last
	opDrop                     // the chunks that were written become no copy
	opErase                    // remove all copies of an agency
	opUpkeep                   // look now
)

// op is an order to the writer. The caller may look at it again only when it has ended.
type op struct {
	kind   opKind
	chunk  packed
	plain  []byte
	room   []byte
	copies []*Copy // by agency; nil: none for this one
	parts  []*part // by agency; nil: the chunk is the only one

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

// part is what of a body is on the disk, for one agency. It is the writer's.
type part struct {
	agency routing.AgencyID
	in     *writing // nil: not begun, or over
	chunks []span
	err    error
}

// do gives an order and waits for its end, for as long as patience lasts.
func (s *Store) do(o *op, patience time.Duration) error {
	t := time.NewTimer(patience)
	defer t.Stop()
	if err := s.order(o, t.C); err != nil {
		return err
	}
	stop := s.stop
	for {
		select {
		case <-o.done:
			return o.err
		case <-t.C:
			s.stalled.Store(true)
			return errStalled
		case <-stop:
			stop = nil // the writer serves what it has before it ends
		}
	}
}

// order gives an order, and doesn't wait for its end. late ends the wait for a place.
func (s *Store) order(o *op, late <-chan time.Time) error {
	select {
	case s.ops <- o:
		return nil
	case <-late:
		s.stalled.Store(true)
		return errStalled
	case <-s.stop:
		return ErrClosed
	}
}

// write is the goroutine that writes and removes.
func (s *Store) write() {
	defer close(s.written)
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
			for _, w := range slices.Clone(s.writings) {
				s.finish(w)
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
		case opKeep:
			s.keep(o)
		case opPart:
			o.err = s.more(o)
		case opDrop:
			s.drop(o.parts)
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
	a := &agency{id: id, secrets: make(map[keyID][]byte), next: 1}
	s.mu.Lock()
	s.agencies[id] = a
	s.mu.Unlock()
	return a
}

// keep adds copies to their segments; flushAll writes them.
func (s *Store) keep(o *op) {
	for i, c := range o.copies {
		if c == nil || s.o.WayBack(c.Agency) == WayBackOver { // finalised meanwhile
			continue
		}
		a := s.agency(c.Agency)
		if err := s.add(a, o, i, c); err != nil {
			s.trouble(a, 1, err)
			o.err = err
		}
	}
	s.drop(o.parts) // what has become a copy is no part any more
}

func (s *Store) add(a *agency, o *op, i int, c *Copy) error {
	p := &part{agency: a.id}
	if o.parts != nil {
		p = o.parts[i]
	}
	if err := s.addChunk(a, p, o.chunk); err != nil {
		return err
	}
	w := p.in
	if o.parts == nil {
		w.open--
	}
	c.place = place{segment: w.number, chunks: p.chunks}
	head, err := c.append(nil)
	if err != nil {
		return err
	}
	w.newHeads = appendCopy(w.newHeads, w.seed(), w.headSeal, w.headsAt+int64(len(w.newHeads)), head)
	w.newCopies = append(w.newCopies, c)
	w.waiting = append(w.waiting, o)
	return nil
}

// addChunk adds a chunk to the segment that the ones before are in, or else to the one of now.
func (s *Store) addChunk(a *agency, p *part, chunk packed) error {
	if p.in == nil {
		if s.room.none {
			return errNoRoom
		}
		if w := a.writing; w != nil && s.full(w) {
			s.rotate(w)
		}
		if a.writing == nil {
			if err := s.begin(a); err != nil {
				return err
			}
		}
		p.in = a.writing
		p.in.open++
	}
	w := p.in
	if w.err != nil {
		return w.err
	}
	at := w.bodiesAt + int64(len(w.newBodies))
	w.newBodies = chunk.append(w.newBodies, w.bodySeal, uint64(at))
	p.chunks = append(p.chunks, span{at, w.bodiesAt + int64(len(w.newBodies)) - at})
	return nil
}

// full reports whether a segment has to end.
func (s *Store) full(w *writing) bool {
	return w.seg.bytes+int64(len(w.newBodies)) >= s.o.SegmentBytes || w.headsAt+int64(len(w.newHeads)) >= maxHeads ||
		w.seg.copies > 0 && s.o.Now().Sub(w.begun) >= segmentAge
}

// flushAll writes what is new of all agencies.
func (s *Store) flushAll() {
	for _, w := range slices.Clone(s.writings) {
		s.flush(w)
	}
}

// flush writes what is new of a segment: bodies, then heads.
func (s *Store) flush(w *writing) {
	if w.err != nil || len(w.newBodies) == 0 {
		return
	}
	_, err := w.bodies.Write(w.newBodies)
	if err == nil && len(w.newHeads) > 0 {
		_, err = w.heads.Write(w.newHeads)
	}
	n := len(w.newCopies)
	s.mu.Lock()
	w.bodiesAt += int64(len(w.newBodies))
	w.headsAt += int64(len(w.newHeads))
	w.seg.bytes += int64(len(w.newBodies) + len(w.newHeads)) // what failed may be on the disk, too
	w.dirty = true
	if err == nil && n > 0 {
		for _, c := range w.newCopies {
			w.seg.add(c)
		}
		s.counts.kept += uint64(n)
		if s.counts.err != nil {
			s.o.Logger.Info("copies are retained again", "since", s.counts.since)
			s.counts.err = nil
		}
	}
	s.mu.Unlock()
	for _, o := range w.waiting {
		if err != nil {
			o.err = err
		}
	}
	clear(w.newCopies)
	clear(w.waiting)
	w.newHeads, w.newBodies, w.newCopies, w.waiting = w.newHeads[:0], w.newBodies[:0], w.newCopies[:0], w.waiting[:0]
	if cap(w.newBodies) > 1<<20 {
		w.newBodies = nil
	}
	if err != nil {
		err = fmt.Errorf("write segment %d: %w", w.number, err)
		s.abandon(w, err)
		s.trouble(w.agency, n, err)
	}
	s.bound(w.agency)
}

// trouble counts copies that the disk has not taken, and leaves it alone for a moment.
func (s *Store) trouble(a *agency, n int, err error) {
	if !errors.Is(err, ErrRemoved) { // else a bound, or its agency's end, took its beginning
		s.retry.Store(s.o.Now().Add(retryAfter).UnixNano())
	}
	s.notKept(a.id, n, err)
}

// more adds a chunk to a longer body, for all agencies. It fails if that fails for all.
func (s *Store) more(o *op) error {
	var errs []error
	for _, p := range o.parts {
		if p.err == nil {
			p.err = s.addChunk(s.agency(p.agency), p, o.chunk)
		}
		if p.err != nil {
			errs = append(errs, p.err)
		}
	}
	if len(errs) < len(o.parts) {
		return nil
	}
	err := errors.Join(errs...)
	if !errors.Is(err, ErrRemoved) {
		s.retry.Store(s.o.Now().Add(retryAfter).UnixNano())
	}
	return err
}

// drop ends what is under way of a longer body. What is written of it stays, and counts for
// nothing, until its segment goes.
func (s *Store) drop(parts []*part) {
	for _, p := range parts {
		if w := p.in; w != nil {
			p.in = nil
			w.open--
			s.release(w)
		}
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
		case <-s.wake:
			s.closeEnded()
		case <-s.written:
			s.closeEnded()
			return
		}
	}
}

// closeEnded fsyncs and closes segments that have ended.
func (s *Store) closeEnded() {
	s.mu.Lock()
	all := s.ended
	s.ended = nil
	s.mu.Unlock()
	for _, w := range all {
		if err := errors.Join(w.bodies.Sync(), w.heads.Sync(), w.bodies.Close(), w.heads.Close()); err != nil {
			s.o.Logger.Warn("retained copies are not fsynced: a power cut would cost them", "agency", w.agency.id, "segment", w.number, "error", err)
		}
	}
}

// sync fsyncs the segments that are written.
func (s *Store) sync() {
	var all []*writing
	names := false
	s.mu.Lock()
	for _, w := range s.writings {
		if w.dirty {
			all = append(all, w)
			names = names || w.created
			w.dirty, w.created = false, false
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
		if slices.Contains(s.writings, w) {
			errs = append(errs, err)
		}
		s.mu.Unlock()
	}
	if err := errors.Join(errs...); err != nil {
		s.o.Logger.Warn("retained copies are not fsynced: a power cut would cost them", "error", err)
	}
}
