package retained

import (
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/internal/seal"
	"mailcutover/routing"
)

// agency has the copies of one agency. The writer alone alters it, under Store.mu; next and
// writing are the writer's alone.
type agency struct {
	id       routing.AgencyID
	segments []*segment       // the oldest first
	secrets  map[keyID][]byte // nil: its file is there and can't be opened
	key      keyID            // that new segments have; zero: none yet

	next    uint64   // number of the next segment
	writing *writing // that new messages go to; nil: one has to be begun
}

// segment is a pair of files.
type segment struct {
	number  uint64
	copies  int
	bytes   int64 // of both files
	first   time.Time
	last    time.Time
	begun   time.Time // by this process; zero: by one before
	damaged int       // heads that can't be read
}

// oldest returns when the oldest copy was kept; of a segment that has none yet, when it was begun.
func (g *segment) oldest() time.Time {
	if g.copies == 0 {
		return g.begun
	}
	return g.first
}

// newest is oldest for the newest copy.
func (g *segment) newest() time.Time {
	if g.copies == 0 {
		return g.begun
	}
	return g.last
}

// add counts a copy.
func (g *segment) add(c *Copy) {
	g.copies++
	if g.first.IsZero() || c.Kept.Before(g.first) {
		g.first = c.Kept
	}
	if c.Kept.After(g.last) {
		g.last = c.Kept
	}
}

// writing is a segment that is written.
type writing struct {
	header
	agency        *agency
	seg           *segment
	heads, bodies durable.File
	headsAt       int64 // bytes in the files
	bodiesAt      int64
	passed        int64       // bytes of the bodies that were handed to the disk; guarded by Store.mu
	headSeal      cipher.AEAD // nil: not encrypted
	bodySeal      cipher.AEAD

	open    int   // messages that have a part of their body in it and haven't ended
	full    bool  // no other message goes to it
	err     error // nothing goes to it any more
	dirty   bool  // written since the last fsync; guarded by Store.mu
	created bool  // its names are not fsynced yet; guarded by Store.mu

	// What the next write takes.
	newHeads  []byte
	newBodies []byte
	newCopies []*Copy
	waiting   []*op // for newCopies
}

// keyID names a data key of an agency; zero: none.
type keyID [8]byte

const (
	headsSuffix  = "heads"
	bodiesSuffix = "bodies"
	keySuffix    = "key"
)

func (a *agency) name(number uint64, suffix string) string {
	return fmt.Sprintf("%s.%08d.%s", a.id, number, suffix)
}

func (a *agency) keyName(id keyID) string {
	return fmt.Sprintf("%s.%s.%s", a.id, hex.EncodeToString(id[:]), keySuffix)
}

// fileName is the name of a file taken apart.
type fileName struct {
	agency routing.AgencyID
	suffix string
	number uint64 // of a segment
	key    keyID  // of a data key
}

func parseName(name string) (f fileName, ok bool) {
	parts := strings.Split(name, ".")
	if len(parts) != 3 {
		return f, false
	}
	id, err := routing.ParseAgencyID(parts[0])
	if err != nil {
		return f, false
	}
	f.agency, f.suffix = id, parts[2]
	switch f.suffix {
	case keySuffix:
		raw, err := hex.DecodeString(parts[1])
		return f, copy(f.key[:], raw) == len(f.key) && err == nil
	case headsSuffix, bodiesSuffix:
		f.number, err = strconv.ParseUint(parts[1], 10, 64)
		return f, err == nil && f.number > 0
	}
	return f, false
}

// keyContext is what the sealed data key of an agency is.
func keyContext(id routing.AgencyID, key keyID) string {
	return "data key of retained copies " + string(id) + " " + hex.EncodeToString(key[:])
}

// secret returns the data key of new copies, which it makes if there is none; nil without keys.
func (s *Store) secret(a *agency) ([]byte, error) {
	if s.o.Keys == nil {
		return nil, nil
	}
	if a.key != (keyID{}) {
		return a.secrets[a.key], nil
	}
	var id keyID
	copy(id[:], seal.Salt(len(id)))
	secret := seal.NewSecret()
	if err := s.putKey(a, id, secret); err != nil {
		return nil, fmt.Errorf("make data key of agency %s: %w", a.id, err)
	}
	s.mu.Lock()
	a.secrets[id], a.key = secret, id
	s.mu.Unlock()
	return secret, nil
}

// putKey writes a data key, sealed with the operator's first one.
func (s *Store) putKey(a *agency, id keyID, secret []byte) error {
	sealed, err := s.o.Keys.Seal(nil, secret, keyContext(a.id, id))
	if err != nil {
		return err
	}
	return s.folder.Write(a.keyName(id), func(w io.Writer) error {
		_, err := w.Write(sealed)
		return err
	})
}

// getKey reads a data key, and seals it again if the operator's first key is another one by now.
func (s *Store) getKey(a *agency, id keyID) error {
	a.secrets[id] = nil // whatever comes, its file goes with the copies
	if s.o.Keys == nil {
		return errors.New("no keys are configured")
	}
	r, err := s.folder.Open(a.keyName(id))
	if err != nil {
		return err
	}
	sealed, err := io.ReadAll(io.LimitReader(r, 1<<10))
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	secret, err := s.o.Keys.Open(sealed, keyContext(a.id, id))
	if err != nil {
		return err
	}
	a.secrets[id] = secret
	if name, _ := seal.KeyOf(sealed); name != s.o.Keys.Current() {
		return s.putKey(a, id, secret)
	}
	return nil
}

// begin begins a segment of an agency.
func (s *Store) begin(a *agency) error {
	secret, err := s.secret(a)
	if err != nil {
		return err
	}
	w := &writing{agency: a, dirty: true, created: true}
	w.number = a.next
	copy(w.salt[:], seal.Salt(len(w.salt)))
	if secret != nil {
		w.key = a.key
		if w.headSeal, err = seal.Derive(secret, w.salt[:], "heads"); err == nil {
			w.bodySeal, err = seal.Derive(secret, w.salt[:], "bodies")
		}
		if err != nil {
			return err
		}
	}
	what := fmt.Sprintf("begin segment %d of agency %s", w.number, a.id)
	a.next++ // its names are used, whatever comes
	if w.bodies, err = s.o.Disk.Create(s.path(a.name(w.number, bodiesSuffix))); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if w.heads, err = s.o.Disk.Create(s.path(a.name(w.number, headsSuffix))); err != nil {
		return fmt.Errorf("%s: %w", what, errors.Join(err, w.bodies.Close(), s.remove(a.name(w.number, bodiesSuffix))))
	}
	first := w.header.append(nil)
	if _, err := w.heads.Write(first); err != nil {
		err = errors.Join(err, w.heads.Close(), w.bodies.Close(), s.remove(a.name(w.number, bodiesSuffix), a.name(w.number, headsSuffix)))
		return fmt.Errorf("%s: %w", what, err)
	}
	w.headsAt = int64(len(first))
	w.seg = &segment{number: w.number, bytes: w.headsAt, begun: s.o.Now()}
	a.writing = w
	s.mu.Lock()
	s.writings = append(s.writings, w)
	a.segments = append(a.segments, w.seg)
	s.mu.Unlock()
	return nil
}

// finish ends a segment that has all it gets. Its files are fsynced and closed by who fsyncs: the
// writer doesn't wait for that.
func (s *Store) finish(w *writing) {
	s.flush(w)
	if w.err != nil {
		return
	}
	t := totals{copies: uint64(w.seg.copies), bytes: w.seg.bytes + endBytes, first: w.seg.first, last: w.seg.last}
	if _, err := w.heads.Write(t.append(nil, w.seed())); err != nil {
		// Without totals a start reads the heads instead.
		s.abandon(w, fmt.Errorf("finish segment %d: %w", w.number, err))
		return
	}
	w.err = ErrClosed
	if w.agency.writing == w {
		w.agency.writing = nil
	}
	s.mu.Lock()
	w.seg.bytes += endBytes
	s.forget(w)
	s.ended = append(s.ended, w)
	s.mu.Unlock()
	s.wakeSyncer()
}

// forget takes a segment off those that are written. s.mu is held.
func (s *Store) forget(w *writing) {
	s.writings = slices.DeleteFunc(s.writings, func(one *writing) bool { return one == w })
}

// abandon closes a segment's files: nothing is added to it any more, and err is why.
func (s *Store) abandon(w *writing, err error) {
	w.err = err
	if w.agency.writing == w {
		w.agency.writing = nil
	}
	s.mu.Lock()
	s.forget(w)
	s.mu.Unlock()
	if err := errors.Join(w.heads.Close(), w.bodies.Close()); err != nil {
		s.o.Logger.Warn("retained copies: close segment", "agency", w.agency.id, "segment", w.number, "error", err)
	}
}

// rotate lets new messages go to another segment; those that are under way go on in this one.
func (s *Store) rotate(w *writing) {
	w.full = true
	w.agency.writing = nil
	s.release(w)
}

// release finishes a segment that is full once nothing is under way in it.
func (s *Store) release(w *writing) {
	if w.full && w.open == 0 && w.err == nil {
		s.finish(w)
	}
}

func (s *Store) path(name string) string { return s.o.Dir + "/" + name }

// remove removes files; that one isn't there is no error.
func (s *Store) remove(names ...string) error {
	var errs []error
	for _, name := range names {
		if err := s.o.Disk.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
