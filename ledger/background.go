package ledger

import (
	"errors"
	"fmt"
	"time"

	"mailcutover/internal/durable"
)

// idleMark is how often a ledger without mail is marked as fsynced, so that after a power
// cut not too long a time is unknown.
const idleMark = time.Minute

// run is the ledger's goroutine. It ends with Close.
func (l *Ledger) run() {
	t := time.NewTicker(l.o.SyncEvery)
	defer t.Stop()
	var p pace
	for {
		select {
		case <-l.stop:
			return
		case <-t.C:
			l.tick(&p)
		}
	}
}

// pace remembers what was done last.
type pace struct {
	written uint64
	failed  bool
}

// tick ends doubts that are over, fsyncs, makes an index that is missing, and removes
// what is too old or too much.
func (l *Ledger) tick(p *pace) {
	now := l.o.Now()
	l.settle(now)
	l.turn(now)
	l.mu.Lock()
	written, synced := l.written, l.synced
	l.mu.Unlock()
	if p.failed || written != p.written || now.Sub(synced) >= idleMark {
		if err := l.sync(kindMark); err != nil {
			if !p.failed {
				l.o.Logger.Error("ledger can't be fsynced", "error", err)
			}
			p.failed = true
		} else {
			p.failed = false
		}
		l.mu.Lock()
		p.written = l.written
		l.mu.Unlock()
	}
	l.indexOne()
	l.retain(now)
}

// turn ends a segment that is old enough though no mail comes, so that it can be removed
// when its time is over.
func (l *Ledger) turn(now time.Time) {
	l.mu.Lock()
	s := l.segment
	if s == nil || s.records == 0 || now.Sub(s.begun) < l.o.SegmentAge {
		l.mu.Unlock()
		return
	}
	l.begin(now)
	b := l.batch()
	l.mu.Unlock()
	_ = l.flush(b) // Status tells
}

// settle ends what was in doubt and can't arrive any more.
func (l *Ledger) settle(now time.Time) {
	l.mu.Lock()
	var b *batch
	if until := l.unknownUntil; !until.IsZero() && !now.Before(until) && l.ready(now) == nil {
		b = l.put(kindOver, now)
		l.unknownUntil = time.Time{}
	}
	l.mu.Unlock()
	if b != nil {
		_ = l.flush(b) // if it fails, the next segment's header no longer says so either
	}
	for {
		l.mu.Lock()
		e := l.open.first
		for e != nil && (e.final || e.until.IsZero() || now.Before(e.until)) {
			e = e.next
		}
		if e == nil {
			l.mu.Unlock()
			return
		}
		e.final = true
		if e.answered.IsZero() {
			e.answers = append(e.answers[:0], Answer{Result: ResultInDoubt})
			e.answered = now
			l.counts.add(e.answers, len(e.intent.Recipients))
		}
		b := l.putLate(e, now)
		l.mu.Unlock()
		if b != nil {
			_ = l.flush(b) // the next segment carries it
		}
	}
}

// sync fsyncs what was written and adds a mark that says so.
func (l *Ledger) sync(k kind) error {
	now := l.o.Now()
	l.writing.Lock()
	file, number := l.file, l.fileOf
	l.mu.Lock()
	ended, dirty := l.sealed, l.dirty
	l.sealed, l.dirty = nil, false
	l.mu.Unlock()
	l.writing.Unlock()

	var errs []error
	for _, s := range ended {
		if err := s.file.Sync(); err != nil {
			errs = append(errs, fmt.Errorf("fsync segment %d: %w", s.number, err))
		}
		errs = append(errs, s.file.Close())
	}
	if file != nil {
		if err := file.Sync(); err != nil {
			errs = append(errs, fmt.Errorf("fsync segment %d: %w", number, err))
			l.abandon(file)
		}
	}
	if dirty {
		if err := l.o.Disk.SyncDir(l.o.Dir); err != nil {
			errs = append(errs, fmt.Errorf("fsync directory %s: %w", l.o.Dir, err))
			l.mu.Lock()
			l.dirty = true
			l.mu.Unlock()
		}
	}
	err := errors.Join(errs...)
	l.mu.Lock()
	if err != nil {
		if l.syncErr == nil {
			l.syncSince = now
		}
		l.syncErr = err
		l.mu.Unlock()
		return err
	}
	l.syncErr = nil
	if l.segment == nil || file == nil || l.segment.number != number {
		l.mu.Unlock()
		return nil // what is open was carried into a segment that is not fsynced yet
	}
	b := l.put(k, now)
	l.synced = now
	l.mu.Unlock()
	return l.flush(b)
}

// put adds a note with a time. The caller holds mu, has made ready, and flushes.
func (l *Ledger) put(k kind, t time.Time) *batch {
	b := l.batch()
	n := len(b.buf)
	b.buf = l.segment.mark(b.buf, k, t)
	l.segment.size += int64(len(b.buf) - n)
	return b
}

// abandon ends a segment whose fsync failed: what the kernel dropped isn't told again, so
// all that is open goes into a new file.
func (l *Ledger) abandon(file durable.File) {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == file && l.segment != nil {
		l.segment.limit = 0
	}
}

// finish writes a last mark and closes the files.
func (l *Ledger) finish() error {
	err := l.sync(kindClosed)
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.segment; s != nil {
		l.segments[s.number] = &Segment{Number: s.number}
		l.segment = nil
	}
	if seg := l.segments[l.fileOf]; seg != nil {
		seg.ended = true
	}
	files := l.sealed
	l.sealed = nil
	if l.file != nil {
		files = append(files, sealed{l.file, l.fileOf})
		l.file = nil
	}
	for _, s := range files {
		err = errors.Join(err, s.file.Sync(), s.file.Close())
	}
	if err != nil {
		return fmt.Errorf("close ledger %s: %w", l.o.Dir, err)
	}
	return nil
}
