package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
	"unsafe"
)

// errUnreadable is wrapped where a segment has no readable header.
var errUnreadable = errors.New("no readable header")

// errEmpty is returned where a segment ends before its header does: nothing was ever
// written to it with success.
var errEmpty = errors.New("segment has no records")

// scanned is a segment that was read into memory.
type scanned struct {
	decoder
	data  []byte // without the zeros at its end: room that wasn't used (durable.Appender)
	file  []byte // all of it
	first int    // where the first record behind the header begins

	damaged int  // bytes that were passed over
	torn    bool // the last record isn't whole
	holes   bool // something readable, or a whole but damaged record, follows damage
}

// load reads a segment. The error wraps errUnreadable or errEmpty where that is why.
func (l *Ledger) load(number uint64) (*scanned, error) {
	r, err := l.folder.Open(segmentName(number, logSuffix))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var b bytes.Buffer
	if s, ok := r.(io.Seeker); ok {
		if n, err := s.Seek(0, io.SeekEnd); err == nil {
			b.Grow(int(n) + bytes.MinRead)
		}
		if _, err := s.Seek(0, io.SeekStart); err != nil {
			return nil, fmt.Errorf("read segment %d: %w", number, err)
		}
	}
	if _, err := b.ReadFrom(r); err != nil {
		return nil, fmt.Errorf("read segment %d: %w", number, err)
	}
	s := &scanned{file: b.Bytes()}
	if err := s.start(); err != nil {
		return nil, fmt.Errorf("segment %d: %w", number, err)
	}
	return s, nil
}

// start reads the header.
func (s *scanned) start() error {
	s.data = bytes.TrimRight(s.file, "\x00")
	h, n, state := readHeader(s.data)
	if state == frameTorn { // or it ends in zeros itself
		if whole, m, ok := readHeader(s.file); ok == frameOK {
			h, n, state = whole, m, ok
		}
	}
	switch state {
	case frameBad:
		return errUnreadable
	case frameTorn:
		return errEmpty
	}
	s.header = h
	s.names = map[uint64]string{}
	s.first = n
	return nil
}

// frame reads the record at an offset. What ends in zeros itself isn't torn.
func (s *scanned) frame(at int) (k kind, payload []byte, state frameState) {
	if k, payload, state = readFrame(s.data[at:], s.salt); state == frameTorn {
		if k, payload, whole := readFrame(s.file[at:], s.salt); whole == frameOK {
			return k, payload, whole
		}
	}
	return k, payload, state
}

// view returns the bytes of a payload as a string without copying them; they are never
// changed again.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// each calls f with every readable record behind the header, until it returns false. A
// damaged part is passed over up to the next record that reads well. Names are defined
// on the way.
func (s *scanned) each(f func(at int64, k kind, payload string) bool) {
	s.damaged, s.torn, s.holes = 0, false, false
	for at := s.first; at < len(s.data); {
		k, payload, state := s.frame(at)
		if state != frameOK {
			next := s.resume(at + 1)
			s.damaged += next - at
			if next < len(s.data) || state == frameBad {
				s.holes = true
			}
			s.torn = next == len(s.data)
			at = next
			continue
		}
		if k == kindDefine {
			s.define(strings.Clone(view(payload)))
		} else if !f(int64(at), k, view(payload)) {
			return
		}
		at += frameHead + len(payload)
	}
}

// resume returns where the next record is, or the end.
func (s *scanned) resume(at int) int {
	for at < len(s.data) {
		n := bytes.IndexByte(s.data[at:], frameSync)
		if n < 0 {
			break
		}
		at += n
		if _, _, state := s.frame(at); state == frameOK {
			return at
		}
		at++
	}
	return len(s.data)
}

// read reads the record at an offset.
func (s *scanned) read(at int64) (kind, string, bool) {
	if at < 0 || at >= int64(len(s.data)) {
		return 0, "", false
	}
	k, payload, state := s.frame(int(at))
	return k, view(payload), state == frameOK
}

// found is what a start has to know of a segment.
type found struct {
	synced time.Time // of the last mark
	closed bool      // in order
	over   bool      // what the header says is unknown is over
	holes  bool
}

// survey reads what a start has to know; open are the intents without a final outcome, before and
// after.
func (s *scanned) survey(open map[identity]*entry) (f found) {
	at := map[int64]identity{}
	var o outcome
	s.each(func(offset int64, k kind, payload string) bool {
		f.closed = false
		switch k {
		case kindIntent, kindCarried:
			e := &entry{recovered: true}
			if !s.intent(strings.Clone(payload), &e.intent) {
				break
			}
			id := e.intent.identity()
			at[offset] = id
			open[id] = e
		case kindOutcome:
			if !s.outcome(payload, &o) {
				break
			}
			id, ok := at[o.intent]
			if !ok {
				break
			}
			if o.final {
				delete(open, id)
				delete(at, o.intent)
			} else if e := open[id]; e != nil {
				e.answered = o.at
				e.answers = e.answers[:0]
				for _, a := range o.answers {
					a.Text = strings.Clone(a.Text)
					e.answers = append(e.answers, a)
				}
			}
		case kindOver:
			f.over = true
		case kindMark, kindClosed:
			if t, ok := s.mark(payload); ok {
				f.synced = t
				f.closed = k == kindClosed
			}
		}
		return true
	})
	f.holes = s.holes
	return f
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// isGone reports whether a file was removed while somebody read it.
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
