package ledger

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"mailcutover/internal/durable"
)

// retryAfter is how long the disk is left alone after an error.
const retryAfter = 100 * time.Millisecond

// Ticket stands for an intent whose outcome is to be noted. The zero value stands for
// none. It is good for one outcome.
type Ticket struct {
	entry *entry
	n     uint64
}

// entry is an intent that a new segment has to carry. All fields are guarded by
// Ledger.mu.
type entry struct {
	prev, next *entry

	ticket    uint64 // of the Ticket that may still use it; 0: none
	intent    Intent
	offset    int64 // in the segment that is written
	answers   []Answer
	answered  time.Time // zero: there is no outcome yet
	final     bool      // with this outcome the entry is over
	pending   bool      // the outcome is in the queue
	recovered bool      // open when the process before this one ended
	until     time.Time // in doubt until then; zero: not
}

// entries is a list of them, in no order.
type entries struct {
	first *entry
	n     int
}

func (s *entries) add(e *entry) {
	e.prev, e.next = nil, s.first
	if s.first != nil {
		s.first.prev = e
	}
	s.first = e
	s.n++
}

func (s *entries) remove(e *entry) {
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		s.first = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	}
	s.n--
}

// batch is what one write(2) takes to the file. Whoever gets to write takes what all
// others have added by then, so that concurrent transfers share one.
type batch struct {
	buf    []byte
	begin  bool // it begins its segment
	number uint64

	intents []placed // new ones in it
	over    []*entry // that are forgotten once it is written

	users int // that wait for it; guarded by Ledger.mu
	done  bool
	wrote int // bytes that the file took
	err   error
}

type placed struct {
	entry *entry
	end   int // in the batch's buf
}

// Intend notes that the final dot of a transaction is about to be sent. When it returns
// nil, a kill of this process doesn't lose the intent. The ledger keeps i.Recipients: the
// caller must not change that slice any more.
//
// On an error, which wraps [ErrUnavailable], [ErrClosed] or [ErrTooManyRecipients], the
// dot must not be sent.
func (l *Ledger) Intend(i *Intent) (Ticket, error) {
	if len(i.Recipients) > MaxRecipients {
		return Ticket{}, fmt.Errorf("intent of transaction %s: %w: %d", i.Transaction, ErrTooManyRecipients, len(i.Recipients))
	}
	now := l.o.Now()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return Ticket{}, fmt.Errorf("intent of transaction %s: %w", i.Transaction, ErrClosed)
	}
	if err := l.ready(now); err != nil {
		l.mu.Unlock()
		return Ticket{}, fmt.Errorf("intent of transaction %s: %w", i.Transaction, err)
	}
	b, e := l.enter(i, now)
	l.tickets++
	e.ticket = l.tickets
	t := Ticket{e, e.ticket}
	l.mu.Unlock()
	if err := l.flush(b); err != nil {
		return Ticket{}, fmt.Errorf("intent of transaction %s: %w", i.Transaction, err)
	}
	return t, nil
}

// enter adds an intent to the batch to come, which the caller flushes. The caller holds mu.
func (l *Ledger) enter(i *Intent, now time.Time) (*batch, *entry) {
	e := l.newEntry()
	e.intent = *i
	if e.intent.Time.IsZero() {
		e.intent.Time = now
	}
	l.open.add(e)
	b := l.batch()
	l.putIntent(b, e, kindIntent)
	b.intents = append(b.intents, placed{e, len(b.buf)})
	l.segment.records++
	return b, e
}

// Outcome notes what became of an intent: one answer for all recipients, or one for each.
// When it returns, a kill of this process doesn't lose the outcome, unless the disk takes
// no writes; then it is kept in memory and written later. A sender is answered after it.
//
// An answer with [ResultInDoubt] keeps the intent among those that a start reports, for
// Options.DoubtFor. A second outcome for one ticket is ignored.
func (l *Ledger) Outcome(t Ticket, answers ...Answer) {
	e := t.entry
	if e == nil || len(answers) == 0 {
		return
	}
	now := l.o.Now()
	l.mu.Lock()
	if e.ticket != t.n {
		l.mu.Unlock()
		return
	}
	e.ticket = 0
	e.answers = append(e.answers[:0], answers...)
	e.answered = now
	e.final = true
	for i := range answers {
		if answers[i].Result == ResultInDoubt {
			e.final = false
			e.until = now.Add(l.o.DoubtFor)
		}
	}
	l.counts.add(e.answers, len(e.intent.Recipients))
	b := l.putLate(e, now)
	l.mu.Unlock()
	if b != nil {
		_ = l.flush(b) // the entry is still there, and Status tells
	}
}

// putLate adds an entry's outcome, or nothing if the disk takes no writes. The caller
// holds mu, and flushes the batch if there is one.
func (l *Ledger) putLate(e *entry, now time.Time) *batch {
	before := l.segment
	if !l.closed && l.ready(now) != nil || l.segment == nil {
		return nil
	}
	b := l.batch()
	if l.segment == before { // a new segment carries the outcome, too
		l.putOutcome(b, e)
	}
	return b
}

// ready makes sure that there is a segment to add to. The caller holds mu.
func (l *Ledger) ready(now time.Time) error {
	s := l.segment
	switch {
	case s == nil && now.Before(l.trouble.retry) && l.trouble.retry.Sub(now) <= retryAfter: // else the clock was set back
		return fmt.Errorf("%w: %w", ErrUnavailable, l.trouble.err)
	case s == nil,
		s.size >= s.limit,
		s.records > 0 && now.Sub(s.begun) >= l.o.SegmentAge:
		l.begin(now)
	}
	return nil
}

// batch returns the batch to add to. The caller holds mu, and flushes it.
func (l *Ledger) batch() *batch {
	if n := len(l.queue); n > 0 && l.queue[n-1].number == l.segment.number {
		b := l.queue[n-1]
		b.users++
		return b
	}
	return l.newBatch()
}

func (l *Ledger) newBatch() *batch {
	var b *batch
	if n := len(l.spare); n > 0 {
		b, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		b = &batch{}
	}
	b.number = l.segment.number
	b.users = 1
	l.queue = append(l.queue, b)
	return b
}

// begin begins a segment with all that is open. The caller holds mu, and flushes.
func (l *Ledger) begin(now time.Time) {
	l.last++
	h := header{number: l.last, base: now.UnixMicro(), boot: l.o.Boot}
	if !l.unknownUntil.IsZero() {
		h.unknown, h.since = true, micros(l.since)
	}
	h.salt = newSalt(h.number, h.boot, h.base)
	for e := l.open.first; e != nil; e = e.next {
		if !e.pending {
			h.carried++
		}
	}
	s := &segment{encoder: encoder{header: h, names: map[string]uint64{}, mac: l.mac}, begun: now}
	if old := l.segment; old != nil {
		s.scratch = old.scratch
		l.segments[old.number] = &Segment{Number: old.number}
	}
	l.segment = s
	b := l.newBatch()
	b.users = 0
	b.begin = true
	b.buf = h.append(b.buf)
	s.size = int64(len(b.buf))
	for e := l.open.first; e != nil; e = e.next {
		if !e.pending {
			l.putIntent(b, e, kindCarried)
			if !e.answered.IsZero() {
				l.putOutcome(b, e)
			}
		}
	}
	s.limit = s.size + l.o.SegmentBytes
}

// putIntent adds an intent. The caller holds mu.
func (l *Ledger) putIntent(b *batch, e *entry, k kind) {
	s := l.segment
	start := s.size - int64(len(b.buf)) // where the batch begins
	var at int
	before := len(b.buf)
	b.buf, at = s.intent(b.buf, k, &e.intent)
	e.offset = start + int64(at)
	s.size += int64(len(b.buf) - before)
	l.written++
}

// putOutcome adds an outcome. The caller holds mu.
func (l *Ledger) putOutcome(b *batch, e *entry) {
	before := len(b.buf)
	b.buf = l.segment.outcome(b.buf, e.offset, e.answered, e.final, e.answers, &e.intent)
	l.segment.size += int64(len(b.buf) - before)
	if e.final {
		e.pending = true
		b.over = append(b.over, e)
	}
	l.written++
}

// flush returns when b is written.
func (l *Ledger) flush(b *batch) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if b.done {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.leave(b)
	}
	l.mu.Lock()
	queue := l.queue
	l.queue = nil
	l.mu.Unlock()

	var failed error
	for _, q := range queue {
		if failed = l.write(q); failed != nil {
			break
		}
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	if failed != nil {
		queue = append(queue, l.queue...) // what was added since belongs behind it
		l.queue = nil
		l.fail(queue, failed)
	} else if l.trouble.err != nil {
		l.o.Logger.Info("ledger is written again", "since", l.trouble.since)
		l.trouble = trouble{}
	}
	for _, q := range queue {
		q.done = true
		if q.err == nil {
			for _, e := range q.over {
				l.forget(e)
			}
		}
	}
	if l.queue == nil {
		clear(queue)
		l.queue = queue[:0]
	}
	return l.leave(b)
}

// leave ends one caller's use of a batch that is done. The caller holds mu.
func (l *Ledger) leave(b *batch) error {
	err := b.err
	if b.users--; b.users == 0 {
		l.reuse(b)
	}
	return err
}

func (l *Ledger) reuse(b *batch) {
	clear(b.intents)
	clear(b.over)
	*b = batch{buf: b.buf[:0], intents: b.intents[:0], over: b.over[:0]}
	if cap(b.buf) > 1<<20 {
		b.buf = nil
	}
	if len(l.spare) < 64 {
		l.spare = append(l.spare, b)
	}
}

// write writes a batch to its segment. The caller holds writing.
func (l *Ledger) write(b *batch) error {
	if b.begin {
		if err := l.create(b.number); err != nil {
			return err
		}
	}
	if l.bad || l.file == nil || l.fileOf != b.number {
		return fmt.Errorf("segment %d has ended", b.number) // not reached: fail takes all that is queued
	}
	var err error
	if b.wrote, err = l.file.Write(b.buf); err != nil {
		l.bad = true
		if b.begin {
			l.discard(b)
		}
		return fmt.Errorf("write segment %d: %w", b.number, err)
	}
	return nil
}

// discard removes a file that holds nothing but a batch that failed, so that a full disk
// doesn't fill with them. The caller holds writing.
func (l *Ledger) discard(b *batch) {
	err := errors.Join(l.file.Close(), l.o.Disk.Remove(l.path(b.number)))
	if err != nil {
		l.o.Logger.Warn("ledger segment that was not begun can't be removed", "segment", b.number, "error", err)
	}
	l.file, l.fileOf, b.wrote = nil, 0, 0
}

// create ends the file that was written and makes that of a new segment. The caller holds
// writing.
func (l *Ledger) create(number uint64) error {
	if l.file != nil {
		l.mu.Lock()
		l.sealed = append(l.sealed, sealed{l.file, l.fileOf})
		l.segments[l.fileOf].ended = true
		l.mu.Unlock()
		l.file = nil
	}
	create := l.o.Disk.Create
	if disk, ok := l.o.Disk.(durable.Appender); ok {
		create = disk.CreateAppended // two system calls less for each message
	}
	f, err := create(l.path(number))
	if err != nil {
		return fmt.Errorf("begin segment %d: %w", number, err)
	}
	l.file, l.fileOf, l.bad = f, number, false
	l.mu.Lock()
	l.dirty = true
	l.mu.Unlock()
	return nil
}

// fail takes back what could not be written. The caller holds mu and writing.
func (l *Ledger) fail(queue []*batch, err error) {
	now := l.o.Now()
	if l.trouble.err == nil {
		l.trouble.since = now
		l.o.Logger.Error("ledger can't be written, mail is put off", "error", err)
	}
	l.trouble.err = err
	l.trouble.retry = now.Add(retryAfter)
	if s := l.segment; s != nil {
		l.segments[s.number] = &Segment{Number: s.number}
		l.segment = nil
	}
	for _, q := range queue {
		if q.begin && q.number != l.fileOf {
			delete(l.segments, q.number) // it has no file
		}
		if q.wrote > 0 && q.wrote == len(q.buf) {
			continue // written before the one that failed
		}
		q.err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		for _, e := range q.over {
			e.pending = false
		}
		for _, p := range q.intents {
			e := p.entry
			e.ticket = 0
			noted := !e.answered.IsZero() // by Note, with its outcome
			if p.end > q.wrote {
				l.forget(e)
				continue
			}
			if noted {
				continue
			}
			// It may be in the file: what is read there must not look like mail in doubt.
			e.answers = append(e.answers[:0], Answer{Result: ResultNotSent})
			e.answered, e.final = now, true
		}
	}
}

func (l *Ledger) newEntry() *entry {
	e := l.unused
	if e == nil {
		return &entry{}
	}
	l.unused = e.next
	*e = entry{answers: e.answers[:0]}
	return e
}

// forget drops an entry. The caller holds mu.
func (l *Ledger) forget(e *entry) {
	l.open.remove(e)
	clear(e.answers)
	*e = entry{answers: e.answers[:0], next: l.unused}
	l.unused = e
}

const (
	logSuffix   = ".log"
	indexSuffix = ".idx"
)

func segmentName(number uint64, suffix string) string {
	return fmt.Sprintf("%08d%s", number, suffix)
}

func (l *Ledger) path(number uint64) string {
	return filepath.Join(l.o.Dir, segmentName(number, logSuffix))
}
