package ledger

import (
	"errors"
	"slices"
	"time"
)

// Removal reports a segment that was removed.
type Removal struct {
	Segment
	Reason string // "age" or "size"
}

// retain removes segments that are too old, and the oldest beyond Options.MaxBytes.
func (l *Ledger) retain(now time.Time) {
	if l.o.MaxAge <= 0 && l.o.MaxBytes <= 0 {
		return
	}
	l.mu.Lock()
	var all []*Segment
	var size int64
	for _, seg := range l.segments {
		all = append(all, seg)
		size += seg.Bytes + seg.IndexBytes
	}
	if l.segment != nil {
		size += l.segment.size
	}
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b *Segment) int { return int(a.Number) - int(b.Number) })
	for _, seg := range all {
		if seg.Bytes == 0 {
			if seg.retry.IsZero() {
				return // not looked at yet
			}
			continue // can't be read now
		}
		var reason string
		switch {
		case l.o.MaxAge > 0 && now.Sub(seg.Last) > l.o.MaxAge:
			reason = "age"
		case l.o.MaxBytes > 0 && size > l.o.MaxBytes:
			reason = "size"
		default:
			return
		}
		if !l.remove(seg, reason) {
			return
		}
		size -= seg.Bytes + seg.IndexBytes
	}
}

// remove removes a segment, index first: a segment without one gets it again.
func (l *Ledger) remove(seg *Segment, reason string) bool {
	if seg.IndexBytes > 0 {
		if err := l.folder.Remove(segmentName(seg.Number, indexSuffix)); err != nil && !isGone(err) {
			l.o.Logger.Error("ledger index can't be removed", "error", err)
			return false
		}
	}
	if err := l.folder.Remove(segmentName(seg.Number, logSuffix)); err != nil && !errors.Is(err, errEmpty) && !isGone(err) {
		l.o.Logger.Error("ledger segment can't be removed", "error", err)
		return false
	}
	l.mu.Lock()
	delete(l.segments, seg.Number)
	l.mu.Unlock()
	l.o.Logger.Info("ledger segment removed", "segment", seg.Number, "intents", seg.Intents, "bytes", seg.Bytes, "first", seg.First, "last", seg.Last, "reason", reason)
	if l.o.Removed != nil {
		l.o.Removed(Removal{*seg, reason})
	}
	return true
}
