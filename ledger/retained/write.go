package retained

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"mailcutover/routing"
)

const (
	// mostAtOnce is how many orders are carried out before it is looked what waits to be written.
	mostAtOnce = 64
	// gatherBytes is how much is written at once, if that much comes. Few large writes cost a
	// fraction of what many small ones do, where the kernel keeps what is written in large pieces.
	gatherBytes = 512 << 10
	// gatherFor is how long a copy waits at most for others to share its write. It waits only
	// while other messages pass of which a copy is made.
	gatherFor = time.Millisecond
	// retryAfter is how long the disk is left alone after an error.
	retryAfter = time.Second
	// upkeepEvery is how often it is looked for what has to go by its age or its agency's end.
	upkeepEvery = 30 * time.Second
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
	chunk  packed  // the writer takes its memory back
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

// order gives an order, and doesn't wait for its end. For a place it waits as long as patience
// lasts; an order that found none is over.
func (s *Store) order(o *op, patience time.Duration) error {
	select {
	case s.ops <- o:
		return nil
	default:
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case s.ops <- o:
		return nil
	case <-t.C:
		s.stalled.Store(true)
		return errStalled
	case <-s.stop:
		return ErrClosed
	}
}

// wait waits for the end of an order, as long as patience lasts.
func (s *Store) wait(o *op, patience time.Duration) error {
	if o.ended() {
		return o.err
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-o.done:
		return o.err
	case <-t.C:
		s.stalled.Store(true)
		return errStalled
	case <-s.written: // it has served what it had
		if o.ended() {
			return o.err
		}
		return ErrClosed
	}
}

// write is the goroutine that writes and removes.
func (s *Store) write() {
	defer close(s.written)
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	together := time.NewTimer(gatherFor)
	defer together.Stop()
	for {
		select {
		case o := <-s.ops:
			first := len(s.kept) == 0
			s.serve(o)
			switch {
			case len(s.kept) == 0:
			case s.passing.Load() <= 0:
				s.settle()
			case first:
				together.Reset(gatherFor)
			}
		case <-together.C:
			s.settle()
		case <-tick.C:
			s.settle()
			s.upkeep()
		case <-s.stop:
			for len(s.ops) > 0 {
				s.serve(nil)
			}
			s.settle()
			for _, w := range slices.Clone(s.writings) {
				s.finish(w)
			}
			return
		}
	}
}

// serve carries out an order, and what others ordered by now. Copies wait for settle.
func (s *Store) serve(o *op) {
	s.makeRoom()
	for n := 0; n < mostAtOnce; n++ {
		if o != nil {
			s.carryOut(o)
		}
		select {
		case o = <-s.ops:
		default:
			return
		}
	}
	s.carryOut(o)
}

func (s *Store) carryOut(o *op) {
	switch o.kind {
	case opKeep:
		s.keep(o)
		s.putBuffer(o.chunk.framed)
		s.kept = append(s.kept, o)
		return
	case opPart:
		s.more(o)
		s.putBuffer(o.chunk.framed)
	case opDrop:
		s.drop(o.parts)
	case opErase:
		s.settle()
		o.removed, o.err = s.erase(o.agency, o.reason)
	case opUpkeep:
		s.settle()
		s.upkeep()
	}
	close(o.done)
}

// settle writes what is new, and tells those who wait for it.
func (s *Store) settle() {
	s.flushAll()
	s.stalled.Store(false)
	for i, o := range s.kept {
		close(o.done)
		s.kept[i] = nil
	}
	s.kept = s.kept[:0]
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
			s.trouble(a, err)
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
	if p.err != nil { // its beginning is missing
		return p.err
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
	if w.bodySeal != nil {
		w.newBodies = chunk.seal(w.newBodies, w.bodySeal, uint64(at))
	} else {
		w.newBodies = append(w.newBodies, chunk.plain()...)
	}
	p.chunks = append(p.chunks, span{at, w.bodiesAt + int64(len(w.newBodies)) - at})
	if len(w.newBodies) >= gatherBytes {
		s.flush(w)
	}
	return w.err
}

// wrote notes what was written to a segment's files; what failed may be there, too. s.mu is held.
func (s *Store) wrote(w *writing, bodies, heads int) {
	w.bodiesAt += int64(bodies)
	w.headsAt += int64(heads)
	w.seg.bytes += int64(bodies + heads)
	w.dirty = true
	if w.bodiesAt-w.passed >= passBytes {
		s.wakeSyncer()
	}
}

// full reports whether a segment has to end.
func (s *Store) full(w *writing) bool {
	return w.seg.bytes+int64(len(w.newBodies)) >= s.o.SegmentBytes || w.headsAt+int64(len(w.newHeads)) >= maxHeads ||
		w.seg.copies > 0 && s.o.Now().Sub(w.seg.begun) >= segmentAge
}

// flushAll writes what is new of all agencies.
func (s *Store) flushAll() {
	for _, w := range slices.Clone(s.writings) {
		s.flush(w)
	}
}

// flush writes what is new of a segment: bodies, then heads.
func (s *Store) flush(w *writing) {
	if w.err != nil || len(w.newBodies) == 0 && len(w.newHeads) == 0 {
		return
	}
	var err error
	if len(w.newBodies) > 0 {
		_, err = w.bodies.Write(w.newBodies)
	}
	if err == nil && len(w.newHeads) > 0 {
		_, err = w.heads.Write(w.newHeads)
	}
	n := len(w.newCopies)
	s.mu.Lock()
	s.wrote(w, len(w.newBodies), len(w.newHeads))
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
	if cap(w.newBodies) > 4*gatherBytes {
		w.newBodies = nil
	}
	if err != nil {
		err = fmt.Errorf("write segment %d: %w", w.number, err)
		s.abandon(w, err)
		for range n {
			s.trouble(w.agency, err)
		}
	}
	s.bound(w.agency)
}

// trouble counts a copy that the disk has not taken, and leaves it alone for a moment.
func (s *Store) trouble(a *agency, err error) {
	if !errors.Is(err, ErrRemoved) { // else a bound, or its agency's end, took its beginning
		s.retry.Store(s.o.Now().Add(retryAfter).UnixNano())
	}
	s.notKept(a.id, err)
}

// more adds a chunk to a longer body, for all agencies.
func (s *Store) more(o *op) {
	for _, p := range o.parts {
		if p.err != nil {
			continue
		}
		if p.err = s.addChunk(s.agency(p.agency), p, o.chunk); p.err != nil && !errors.Is(p.err, ErrRemoved) {
			s.retry.Store(s.o.Now().Add(retryAfter).UnixNano())
		}
	}
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
