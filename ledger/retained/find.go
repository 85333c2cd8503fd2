package retained

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"time"

	"mailcutover/internal/seal"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/routing"
)

// Query says which copies are wanted: those for which all that is set holds.
type Query struct {
	Agency      routing.AgencyID
	Transaction mail.TransactionID
	Recipient   routing.Address   // canonical, of a recipient
	Mailbox     routing.MailboxID // of a recipient
	Platform    routing.PlatformID
	Since       time.Time // kept from then on
	Until       time.Time // and before
}

// wants reports whether a copy is wanted.
func (q *Query) wants(c *Copy) bool {
	if q.Transaction != "" && c.Transaction != q.Transaction || q.Platform != "" && c.Platform != q.Platform ||
		!q.Since.IsZero() && c.Kept.Before(q.Since) || !q.Until.IsZero() && !c.Kept.Before(q.Until) {
		return false
	}
	return q.Recipient == "" && q.Mailbox.IsZero() || slices.ContainsFunc(c.Recipients, func(r ledger.Recipient) bool {
		return (q.Recipient == "" || r.Address == q.Recipient) && (q.Mailbox.IsZero() || r.Mailbox == q.Mailbox)
	})
}

// skips reports whether a segment has nothing that is wanted.
func (q *Query) skips(g *segment) bool {
	if g.copies == 0 && g.damaged == 0 {
		return true
	}
	if g.damaged > 0 {
		return false // its times may not be those of all
	}
	since := q.Since
	if id, err := q.Transaction.Bytes(); err == nil && q.Transaction != "" {
		if t := created(id); t.After(since) { // a copy is younger than its message
			since = t
		}
	}
	return !since.IsZero() && g.last.Before(since) || !q.Until.IsZero() && !g.first.Before(q.Until)
}

// clockSkew is how far the clock of the node that named a message may be ahead of this one's.
const clockSkew = 5 * time.Minute

// created returns a time before which a message can't have been named: its id begins with the
// milliseconds since 1970 (UUIDv7, RFC 9562 section 5.7). The zero time if it is no such id.
func created(id [16]byte) time.Time {
	if id[6]>>4 != 7 {
		return time.Time{}
	}
	var ms int64
	for _, b := range id[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms).Add(-clockSkew)
}

// Find yields the copies that a query asks for: agency by agency, the oldest first. It sees what
// was there when it began; what is removed meanwhile is left out. An error is about one segment
// and wraps [ErrDamaged], or is the context's; after the former the next ones follow. Copies are
// the caller's.
func (s *Store) Find(ctx context.Context, q Query) iter.Seq2[Copy, error] {
	return func(yield func(Copy, error) bool) {
		for _, of := range s.wanted(&q) {
			if err := ctx.Err(); err != nil {
				yield(Copy{}, err)
				return
			}
			more := true
			damaged, err := s.scan(of.agency, of.number, func(c *Copy) bool {
				if q.wants(c) {
					more = yield(*c, nil)
				}
				return more && ctx.Err() == nil
			})
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if damaged > 0 {
				s.noteDamage(of.agency, of.number, damaged)
				err = errors.Join(err, fmt.Errorf("agency %s, segment %d: %w: %d of its heads", of.agency, of.number, ErrDamaged, damaged))
			}
			if more && ctx.Err() != nil {
				err = ctx.Err()
			}
			if !more || err != nil && !yield(Copy{}, err) || ctx.Err() != nil {
				return
			}
		}
	}
}

// segmentOf is a segment that is to be read.
type segmentOf struct {
	agency routing.AgencyID
	number uint64
}

func (s *Store) wanted(q *Query) (all []segmentOf) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, a := range s.agencies {
		if q.Agency != "" && id != q.Agency {
			continue
		}
		for _, g := range a.segments {
			if !q.skips(g) {
				all = append(all, segmentOf{id, g.number})
			}
		}
	}
	slices.SortFunc(all, func(x, y segmentOf) int {
		if x.agency != y.agency {
			if x.agency < y.agency {
				return -1
			}
			return 1
		}
		return int(x.number) - int(y.number)
	})
	return all
}

func (s *Store) noteDamage(id routing.AgencyID, number uint64, damaged int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.agencies[id].segments {
		if g.number == number {
			g.damaged = max(g.damaged, damaged)
		}
	}
}

// scan reads the heads of a segment and calls each with what they say, until it returns false.
// It returns how many heads, or groups of them, can't be read.
func (s *Store) scan(id routing.AgencyID, number uint64, each func(*Copy) bool) (damaged int, err error) {
	a := &agency{id: id}
	f, err := s.o.Disk.OpenAt(s.path(a.name(number, headsSuffix)))
	if err != nil {
		return 0, err
	}
	size, err := f.Size()
	var data []byte
	if err == nil {
		data = make([]byte, size) // maxHeads and a frame, at most
		var n int
		n, err = f.ReadAt(data, 0)
		data = data[:n]
		if err == io.EOF {
			err = nil
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, fmt.Errorf("read heads of agency %s, segment %d: %w", id, number, err)
	}
	h, at := readHeader(data)
	if at < 0 {
		return 0, nil
	}
	if at == 0 || h.number != number {
		return 1, nil
	}
	aead, err := s.cipher(id, h.key, h.salt, "heads")
	if err != nil {
		return 1, fmt.Errorf("agency %s, segment %d: %w: %w", id, number, ErrDamaged, err)
	}
	bad := false // within something that can't be read
	for at < len(data) {
		k, payload, n := readFrame(data[at:], h.seed())
		if n == -1 && !wholeBehind(data[at:], h.seed()) {
			break // torn: written right now, or when the process was killed
		}
		if n <= 0 {
			if !bad {
				damaged++
			}
			bad = true
			at++
			continue
		}
		bad = false
		if k == kindEnd {
			break
		}
		head := payload
		if aead != nil {
			if head, err = aead.Open(nil, nonceOf(uint64(at)), payload, []byte{byte(kindCopy)}); err != nil {
				damaged++
				at += n
				continue
			}
		}
		c := Copy{Agency: id, place: place{segment: number}}
		if k != kindCopy || c.read(head) != nil {
			damaged++
		} else if !each(&c) {
			return damaged, nil
		}
		at += n
	}
	return damaged, nil
}

// wholeBehind reports whether a whole frame follows what looks like a torn one: then it is
// damage.
func wholeBehind(data []byte, seed uint32) bool {
	for i := 1; i < len(data); i++ {
		if data[i] == frameSync {
			if _, _, n := readFrame(data[i:], seed); n > 0 {
				return true
			}
		}
	}
	return false
}

// cipher returns what a file of an agency was sealed with; nil: it was not.
func (s *Store) cipher(id routing.AgencyID, key keyID, salt [16]byte, context string) (cipher.AEAD, error) {
	if key == (keyID{}) {
		return nil, nil
	}
	s.mu.Lock()
	var secret []byte
	if a := s.agencies[id]; a != nil {
		secret = a.secrets[key]
	}
	s.mu.Unlock()
	if secret == nil {
		return nil, errors.New("its data key can't be opened")
	}
	return seal.Derive(secret, salt[:], context)
}
