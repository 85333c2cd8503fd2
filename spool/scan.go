package spool

import (
	"fmt"
	"hash/crc32"
	"io"

	"mailcutover/internal/durable"
)

// record is a record as scan found it. head is valid until the next one.
type record struct {
	at      position
	frame   frame
	head    []byte
	bodyBad bool // the body behind the head was looked at, and is damaged
}

// gap is a part of a segment that holds no readable record.
type gap struct {
	from, to int64
	tail     bool // nothing readable follows: as a crash in the middle of a write leaves it
}

// window reads a file in pieces.
type window struct {
	r    io.ReaderAt
	size int64
	b    []byte
	at   int64
}

const windowBytes = 64 << 10

// bytes returns n bytes at off; fewer at the end of the file.
func (w *window) bytes(off, n int64) ([]byte, error) {
	n = max(0, min(n, w.size-off))
	if off < w.at || off+n > w.at+int64(len(w.b)) {
		want := min(max(n, windowBytes), w.size-off)
		if int64(cap(w.b)) < want {
			w.b = make([]byte, want)
		}
		w.b, w.at = w.b[:max(want, 0)], off
		got, err := w.r.ReadAt(w.b, off)
		w.b = w.b[:got]
		if err != nil && err != io.EOF {
			return nil, err
		}
	}
	b := w.b[off-w.at:]
	return b[:min(n, int64(len(b)))], nil
}

// scan calls yield for each record of a segment, in order, and returns the parts that
// hold none. After a bad record it looks for the next good one. With bodies it checks
// the bodies behind the heads too. It returns an error if the file can't be read or
// yield returned one.
func (s spoolID) scan(file durable.Random, number uint32, bodies bool, yield func(*record) error) (gaps []gap, err error) {
	size, err := file.Size()
	if err != nil {
		return nil, fmt.Errorf("scan segment %d: %w", number, err)
	}
	w := &window{r: file, size: size}
	off, bad := int64(headerBytes), int64(-1)
	b, err := w.bytes(0, headerBytes)
	if err != nil {
		return nil, fmt.Errorf("scan segment %d: %w", number, err)
	}
	if id, n, ok := parseHeader(b); !ok || id != s || n != number {
		off, bad = 0, 0
	}
	for off < size {
		rec, err := s.recordAt(w, number, off, bodies)
		if err != nil {
			return gaps, fmt.Errorf("scan segment %d: %w", number, err)
		}
		if rec == nil {
			if bad < 0 {
				bad = off
			}
			off += align
			continue
		}
		if bad >= 0 {
			gaps, bad = append(gaps, gap{from: bad, to: off}), -1
		}
		if err := yield(rec); err != nil {
			return gaps, err
		}
		off += rec.frame.padded()
	}
	if bad >= 0 {
		gaps = append(gaps, gap{from: bad, to: size, tail: true})
	}
	return gaps, nil
}

// recordAt returns the record at off, or nil if there is none that is whole.
func (s spoolID) recordAt(w *window, number uint32, off int64, bodies bool) (*record, error) {
	raw, err := w.bytes(off, frameBytes)
	if err != nil {
		return nil, err
	}
	f, ok := parseFrame(raw)
	if !ok || off+f.padded() > w.size || off > 1<<32-1 {
		return nil, nil
	}
	all, err := w.bytes(off, frameBytes+int64(f.head))
	if err != nil {
		return nil, err
	}
	p := position{number, uint32(off)}
	if int64(len(all)) < frameBytes+int64(f.head) || !s.proves(p, &f, all, all[frameBytes:]) {
		return nil, nil
	}
	rec := &record{at: p, frame: f}
	if !bodies || f.body == 0 {
		rec.head = all[frameBytes:]
		return rec, nil
	}
	all, err = w.bytes(off, frameBytes+int64(f.head)+int64(f.body))
	if err != nil {
		return nil, err
	}
	rec.head = all[frameBytes : frameBytes+f.head]
	rec.bodyBad = crc32.Checksum(all[frameBytes+f.head:], castagnoli) != f.bodyCRC
	return rec, nil
}
