package ledger

import (
	"slices"
	"time"
)

// Counts are recipients by result, since the start.
type Counts struct {
	Delivered, NotAcknowledged, Refused, InDoubt, NotSent uint64
}

func (c *Counts) add(answers []Answer, recipients int) {
	for i := range recipients {
		switch answers[min(i, len(answers)-1)].Result {
		case ResultDelivered:
			c.Delivered++
		case ResultNotAcknowledged:
			c.NotAcknowledged++
		case ResultRefused:
			c.Refused++
		case ResultInDoubt:
			c.InDoubt++
		case ResultNotSent:
			c.NotSent++
		}
	}
}

// Status is how a ledger is doing.
type Status struct {
	Err       error     // why nothing can be written now; nil: all is well
	ErrSince  time.Time // when that began
	SyncErr   error     // why the last fsync failed; the ledger goes on, but a power cut may lose more than a second
	SyncSince time.Time

	Open     int       // intents without a final outcome
	Synced   time.Time // everything before is on the disk
	First    time.Time // time of the oldest record kept; zero: none
	Bytes    int64     // of all segments and indexes
	Segments []Segment // finished ones, oldest first
	Aside    []string  // files set aside since the start
	Counts   Counts
}

// Status returns how the ledger is doing.
func (l *Ledger) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{
		Err: l.trouble.err, ErrSince: l.trouble.since, SyncErr: l.syncErr, SyncSince: l.syncSince,
		Open: l.open.n, Synced: l.synced, Aside: slices.Clone(l.aside), Counts: l.counts,
	}
	if l.segment != nil {
		s.Bytes = l.segment.size
		s.First = l.segment.begun
	}
	for _, seg := range l.segments {
		s.Segments = append(s.Segments, *seg)
		s.Bytes += seg.Bytes + seg.IndexBytes
	}
	slices.SortFunc(s.Segments, func(a, b Segment) int { return int(a.Number) - int(b.Number) })
	for _, seg := range s.Segments {
		if !seg.First.IsZero() {
			s.First = seg.First
			break
		}
	}
	return s
}
