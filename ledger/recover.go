package ledger

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// segmentNumber returns the number in a file's name.
func segmentNumber(name, suffix string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, ok && err == nil && segmentName(n, suffix) == name
}

// recover finds out what the process before left.
func (l *Ledger) recover() error {
	names, err := l.folder.Names()
	if err != nil {
		return fmt.Errorf("list segments: %w", err)
	}
	var numbers []uint64
	for _, name := range names {
		if n, ok := segmentNumber(name, logSuffix); ok {
			numbers = append(numbers, n)
			l.last = max(l.last, n)
		}
	}
	slices.Sort(numbers)
	now := l.o.Now()
	unsafe := l.secure(numbers)
	chain, numbers, lost := l.chain(numbers, now)
	open := map[identity]*entry{}
	var newest found
	l.unknown = lost || unsafe != nil
	for _, s := range chain {
		f := s.survey(open)
		if f.synced.IsZero() {
			f.synced = newest.synced
		}
		l.unknown = l.unknown || f.holes || s.unknown && !f.over
		newest = f
	}
	if n := len(chain); n > 0 && !newest.closed && (l.o.Boot == "" || chain[n-1].boot != l.o.Boot) {
		l.unknown = true
	}
	l.synced = newest.synced
	for _, n := range numbers {
		l.segments[n] = l.summary(n)
	}
	if l.unknown && l.synced.IsZero() {
		l.synced = l.lastMark(numbers)
	}
	until := now.Add(l.o.DoubtFor)
	if l.unknown {
		l.since = l.synced
		l.unknownUntil = until
		for _, s := range chain { // a start before this one may have found it already
			if since := fromMicros(s.since); s.unknown && since.Before(l.since) {
				l.since = since
			}
		}
	}
	for id, e := range open {
		if id.local {
			l.notTold(&e.intent)
			continue
		}
		e.until = until
		l.open.add(e)
		l.doubts = append(l.doubts, e.intent)
	}
	slices.SortFunc(l.doubts, func(a, b Intent) int { return a.Time.Compare(b.Time) })
	if len(l.doubts) > 0 || l.unknown {
		l.o.Logger.Warn("ledger has mail in doubt", "intents", len(l.doubts), "unknown", l.unknown, "since", l.since)
	}
	return nil
}

// secure makes durable what the process before wrote in its last second and, since it was killed, did
// not fsync: the newest segments, back to one with a mark, which says that all before it is. Else
// this start would write a mark after it, and a power cut could take it still, with nobody to say so.
func (l *Ledger) secure(numbers []uint64) error {
	var errs []error
	for _, n := range slices.Backward(numbers) {
		if err := l.fsync(n); err != nil {
			l.o.Logger.Warn("ledger segment of the process before can't be fsynced", "segment", n, "error", err)
			errs = append(errs, err)
		}
		if s, err := l.load(n); err == nil && !s.survey(map[identity]*entry{}).synced.IsZero() {
			break
		}
	}
	if len(numbers) > 0 {
		errs = append(errs, l.o.Disk.SyncDir(l.o.Dir))
	}
	return errors.Join(errs...)
}

func (l *Ledger) fsync(number uint64) error {
	f, err := l.o.Disk.OpenAt(filepath.Join(l.o.Dir, segmentName(number, logSuffix)))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// chain returns the newest segments that are needed to know what is open, oldest first,
// and the numbers of all readable ones. It sets aside what can't be read, and says
// whether that was the end of the ledger.
func (l *Ledger) chain(numbers []uint64, now time.Time) (chain []*scanned, rest []uint64, lost bool) {
	rest = slices.Clone(numbers)
	for i := len(numbers) - 1; i >= 0; i-- {
		n := numbers[i]
		s, err := l.load(n)
		if err != nil {
			rest = slices.Delete(rest, i, i+1)
			lost = lost || !errors.Is(err, errEmpty)
			l.setAside(n, err, now)
			continue
		}
		chain = append(chain, s)
		if s.carriesAll() {
			break
		}
	}
	slices.Reverse(chain)
	return chain, rest, lost
}

// carriesAll reports whether what was open before is in the segment, too.
func (s *scanned) carriesAll() bool {
	n := uint64(0)
	if s.carried > 0 {
		s.each(func(_ int64, k kind, _ string) bool {
			if k == kindCarried {
				n++
			}
			return n < s.carried
		})
	}
	return n >= s.carried
}

// setAside gives a segment that can't be read another name, and removes one that ends
// before its header does: nothing was ever written to it with success.
func (l *Ledger) setAside(number uint64, why error, now time.Time) {
	if errors.Is(why, errEmpty) {
		if err := l.folder.Remove(segmentName(number, logSuffix)); err != nil {
			l.o.Logger.Warn("empty ledger segment can't be removed", "segment", number, "error", err)
		}
		return
	}
	to, err := l.folder.SetAside(segmentName(number, logSuffix), now)
	if err != nil {
		to = segmentName(number, logSuffix)
	}
	l.mu.Lock()
	l.aside = append(l.aside, to)
	l.mu.Unlock()
	l.o.Logger.Warn("ledger segment set aside", "file", to, "reason", why, "error", err)
}

// lastMark returns the last time at which everything was fsynced.
func (l *Ledger) lastMark(numbers []uint64) time.Time {
	for _, n := range slices.Backward(numbers) {
		if s, err := l.load(n); err == nil {
			if f := s.survey(map[identity]*entry{}); !f.synced.IsZero() {
				return f.synced
			}
		}
	}
	return time.Time{}
}
