package ledger

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"mailcutover/mail"
	"mailcutover/routing"
)

// manyHits is from when on a segment is read as a whole rather than record by record.
const manyHits = 1000

// Query says which records are wanted: those for which all that is set holds.
type Query struct {
	Transaction mail.TransactionID
	MessageID   string           // with or without brackets
	From        string           // envelope sender, case ignored; "<>" for the null sender
	Recipient   string           // canonical address of a recipient, case ignored
	Agency      routing.AgencyID // of a recipient
	Platform    routing.PlatformID
	Result      Result    // of a recipient
	Since       time.Time // intents from then on
	Until       time.Time // and before
}

// search is a query in the form in which records are compared.
type search struct {
	Query
	from, recipient []string // spellings: in clear, and as a hash
	hashes          []uint32 // to look up in an index; nil: all records are read
}

func (l *Ledger) search(q Query) *search {
	s := &search{Query: q}
	s.MessageID = bareMessageID(q.MessageID)
	s.from = l.spellings(q.From)
	if q.From == "<>" {
		s.from = []string{""}
	}
	s.recipient = l.spellings(q.Recipient)
	add := func(k byte, spellings ...string) {
		for _, sp := range spellings {
			s.hashes = append(s.hashes, hashKey(k, sp))
		}
	}
	switch {
	case q.Transaction != "":
		add(keyTransaction, string(q.Transaction))
	case s.MessageID != "":
		add(keyMessageID, s.MessageID)
	case q.Recipient != "":
		add(keyRecipient, s.recipient...)
	case q.From != "":
		add(keyFrom, s.from...)
	}
	return s
}

// spellings returns how an address may stand in the ledger.
func (l *Ledger) spellings(address string) []string {
	if address == "" {
		return nil
	}
	all := []string{strings.ToLower(cut(address, maxAddress))}
	if mac := newMAC(l.o.HashKey); mac != nil {
		sum := hashAddress(mac, address)
		all = append(all, hashText(string(sum[:])))
	}
	return all
}

// intent reports whether an intent is wanted, as far as it can say.
func (s *search) intent(i *Intent) bool {
	if s.Transaction != "" && i.Transaction != s.Transaction ||
		s.MessageID != "" && i.MessageID != s.MessageID ||
		s.Platform != "" && i.Platform != s.Platform ||
		!s.Since.IsZero() && i.Time.Before(s.Since) ||
		!s.Until.IsZero() && !i.Time.Before(s.Until) ||
		s.from != nil && !slices.Contains(s.from, strings.ToLower(i.From)) {
		return false
	}
	return s.recipient == nil && s.Agency == "" || slices.ContainsFunc(i.Recipients, s.wants)
}

func (s *search) wants(r Recipient) bool {
	return (s.Agency == "" || r.Agency == s.Agency) &&
		(s.recipient == nil || slices.Contains(s.recipient, strings.ToLower(string(r.Address))))
}

// record reports whether the result is wanted, of a recipient that is.
func (s *search) record(r *Record) bool {
	if s.Result == ResultUnknown {
		return true
	}
	for n := range r.Recipients {
		if s.wants(r.Recipients[n]) && r.Answer(n).Result == s.Result {
			return true
		}
	}
	return false
}

// skips reports whether a segment can't have what is wanted.
func (s *search) skips(seg *Segment) bool {
	if seg.IndexBytes == 0 {
		return false
	}
	if seg.First.IsZero() || !s.Since.IsZero() && seg.Last.Before(s.Since) || !s.Until.IsZero() && !seg.First.Before(s.Until) {
		return true
	}
	return s.Agency != "" && !slices.Contains(seg.Agencies, s.Agency)
}

// live is the state of the segment that is written, taken before it is read.
type live struct {
	number  uint64
	size    int64
	pending map[int64]struct{}
}

// Find yields the records that a query asks for, newest first by the time of the intent's
// writing, without reading more of the ledger than it has to: one page of the index per
// segment where a transaction, Message-ID or address is given. It sees what was written
// when it began. An error is about one segment that can't be read; the next ones follow.
//
// What has no outcome is [ResultPending] if it is under way in this process, and otherwise
// [ResultInDoubt], or [ResultNotAcknowledged] if the intent is Local.
func (l *Ledger) Find(ctx context.Context, q Query) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		s := l.search(q)
		now, segments := l.snapshot()
		carried := map[identity]struct{}{}
		for i := range segments {
			if err := ctx.Err(); err != nil {
				yield(Record{}, err)
				return
			}
			seg := &segments[i]
			if s.skips(seg) {
				continue
			}
			if !l.findIn(ctx, s, seg, &now, carried, yield) {
				return
			}
		}
	}
}

// snapshot returns the segments, newest first.
func (l *Ledger) snapshot() (live, []Segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := live{pending: map[int64]struct{}{}}
	var all []Segment
	for _, seg := range l.segments {
		all = append(all, *seg)
	}
	if l.segment != nil {
		now.number, now.size = l.segment.number, l.segment.size
		all = append(all, Segment{Number: now.number})
		for e := l.open.first; e != nil; e = e.next {
			if !e.recovered {
				now.pending[e.offset] = struct{}{}
			}
		}
	}
	slices.SortFunc(all, func(a, b Segment) int { return cmp.Compare(b.Number, a.Number) })
	return now, all
}

// hit is a record that is wanted: where it and its outcome are.
type hit struct{ intent, outcome int64 } // outcome -1: none

// source is where records of one segment are read from.
type source struct {
	dec  *decoder
	read func(at int64) (kind, string, bool)
}

// findIn searches one segment. It returns false when nobody wants more.
func (l *Ledger) findIn(ctx context.Context, s *search, seg *Segment, now *live, carried map[identity]struct{}, yield func(Record, error) bool) bool {
	src, hits, end, err := l.hits(s, seg)
	if isGone(err) || errors.Is(err, errEmpty) {
		return true // removed meanwhile, or just created
	}
	if err != nil {
		return yield(Record{}, err)
	}
	defer end()
	slices.SortFunc(hits, func(a, b hit) int {
		return cmp.Or(cmp.Compare(b.intent, a.intent), cmp.Compare(b.outcome, a.outcome))
	})
	hits = slices.CompactFunc(hits, func(a, b hit) bool { return a.intent == b.intent })
	var o outcome
	for n, h := range hits {
		if n%1000 == 999 && ctx.Err() != nil {
			return yield(Record{}, ctx.Err())
		}
		var r Record
		k, payload, ok := src.read(h.intent)
		if !ok || k != kindIntent && k != kindCarried || !src.dec.intent(payload, &r.Intent) || !s.intent(&r.Intent) {
			continue // another key with the same hash, or damaged
		}
		id := r.identity()
		if _, ok := carried[id]; ok {
			continue // its newer copy says more
		}
		if h.outcome >= 0 {
			if k, payload, ok := src.read(h.outcome); ok && k == kindOutcome && src.dec.outcome(payload, &o) {
				r.Answers, r.Answered = slices.Clone(o.answers), o.at
			}
		}
		if r.Answers == nil {
			_, pending := now.pending[h.intent]
			r.Answers = []Answer{{Result: ResultInDoubt}}
			switch {
			case seg.Number == now.number && (pending || h.intent >= now.size):
				r.Answers[0].Result = ResultPending
			case r.Local:
				r.Answers[0] = Answer{Result: ResultNotAcknowledged, Text: notTold}
			}
		}
		r.clone()
		if k == kindCarried {
			carried[r.identity()] = struct{}{}
		}
		if s.record(&r) && !yield(r, nil) {
			return false
		}
	}
	return true
}

// hits finds what is wanted in a segment, or may be.
func (l *Ledger) hits(s *search, seg *Segment) (source, []hit, func(), error) {
	if s.hashes != nil && seg.IndexBytes > 0 {
		src, hits, end, err := l.indexed(s, seg)
		if err == nil || isGone(err) {
			return src, hits, end, err
		}
		l.o.Logger.Warn("ledger index can't be used", "error", err)
	}
	data, err := l.load(seg.Number)
	if err != nil {
		return source{}, nil, nil, err
	}
	return source{&data.decoder, data.read}, data.scan(s), func() {}, nil
}

// scan finds what is wanted by reading a whole segment.
func (s *scanned) scan(q *search) []hit {
	var hits []hit
	at := map[int64]int{}
	var i Intent
	s.each(func(offset int64, k kind, payload string) bool {
		switch k {
		case kindIntent, kindCarried:
			if s.intent(payload, &i) && q.intent(&i) {
				at[offset] = len(hits)
				hits = append(hits, hit{offset, -1})
			}
		case kindOutcome:
			f := fields{rest: payload}
			if n, ok := at[int64(f.uvarint())]; ok {
				hits[n].outcome = offset
			}
		}
		return true
	})
	return hits
}

// indexed finds what may be wanted by a segment's index.
func (l *Ledger) indexed(s *search, seg *Segment) (src source, hits []hit, end func(), err error) {
	r, done, err := l.readerAt(segmentName(seg.Number, indexSuffix))
	if err != nil {
		return source{}, nil, nil, err
	}
	defer done()
	x, err := readIndex(r, seg.Number)
	if err != nil {
		return source{}, nil, nil, err
	}
	var offsets []int64
	for _, h := range s.hashes {
		found, err := x.lookup(r, h)
		if err != nil {
			return source{}, nil, nil, err
		}
		offsets = append(offsets, found...)
	}
	if len(offsets) == 0 {
		return source{}, nil, func() {}, nil
	}
	src.dec = &x.decoder
	end = func() {}
	if len(offsets) > manyHits {
		data, err := l.load(seg.Number)
		if err != nil {
			return source{}, nil, nil, err
		}
		src.read = data.read
	} else {
		log, done, err := l.readerAt(segmentName(seg.Number, logSuffix))
		if err != nil {
			return source{}, nil, nil, err
		}
		end = done
		src.read = func(at int64) (kind, string, bool) { return readAt(log, at, x.salt) }
	}
	for _, at := range offsets {
		switch k, payload, ok := src.read(at); {
		case ok && k == kindOutcome:
			f := fields{rest: payload}
			hits = append(hits, hit{int64(f.uvarint()), at})
		case ok:
			hits = append(hits, hit{at, -1})
		}
	}
	return src, hits, end, nil
}

// readAt reads one record.
func readAt(r io.ReaderAt, at int64, salt uint32) (kind, string, bool) {
	b := make([]byte, 512)
	n, err := r.ReadAt(b, at)
	if err != nil && err != io.EOF || n < frameHead {
		return 0, "", false
	}
	b = b[:n]
	k, payload, state := readFrame(b, salt)
	if size := frameHead + (int(b[2]) | int(b[3])<<8 | int(b[4])<<16); state == frameTorn && size <= frameHead+maxPayload {
		b = make([]byte, size)
		if n, _ := r.ReadAt(b, at); n < size {
			return 0, "", false
		}
		k, payload, state = readFrame(b, salt)
	}
	return k, view(payload), state == frameOK
}

// clone makes a record independent of the segment that it was read from.
func (r *Record) clone() {
	r.Transaction = mail.TransactionID(strings.Clone(string(r.Transaction)))
	r.Platform = routing.PlatformID(strings.Clone(string(r.Platform)))
	r.Host = strings.Clone(r.Host)
	r.From = strings.Clone(r.From)
	r.MessageID = strings.Clone(r.MessageID)
	for i := range r.Recipients {
		p := &r.Recipients[i]
		p.Address = routing.Address(strings.Clone(string(p.Address)))
		p.Agency = routing.AgencyID(strings.Clone(string(p.Agency)))
	}
	for i := range r.Answers {
		r.Answers[i].Text = strings.Clone(r.Answers[i].Text)
	}
}
