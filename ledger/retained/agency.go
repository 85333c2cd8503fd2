package retained

import (
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/internal/seal"
	"mailcutover/routing"
)

// agency has the copies of one agency. The writer alone alters it, under Store.mu; next,
// coming and writing are the writer's alone.
type agency struct {
	id       routing.AgencyID
	segments []*segment // the oldest first
	secrets  map[keyID][]byte
	key      keyID // that new segments have; zero: none yet

	next    uint64 // number of the next segment
	coming  uint64 // and of the next larger body that isn't finished
	writing *writing
}

// segment is a pair of files, and larger bodies that belong to it.
type segment struct {
	number  uint64
	copies  int
	large   uint64 // highest number of a larger body
	bytes   int64  // of all files
	first   time.Time
	last    time.Time
	damaged int // heads that can't be read
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

// writing is the segment that is written.
type writing struct {
	header
	seg            *segment
	heads, bodies  durable.File
	headsAt        int64 // bytes in the files
	bodiesAt       int64
	headSeal       cipher.AEAD // nil: not encrypted
	bodySeal       cipher.AEAD
	begun          time.Time
	dirty          bool // written since the last fsync; guarded by Store.mu
	newHeads       []byte
	newBodies      []byte
	newCopies      []*Copy
	newLarge       int64 // bytes of larger bodies among them
	waiting        []*op // for what is new
	unsynced, gone bool  // names not fsynced; it has ended. Guarded by Store.mu
}

// keyID names a data key of an agency; zero: none.
type keyID [8]byte

const (
	headsSuffix  = "heads"
	bodiesSuffix = "bodies"
	bodySuffix   = "body"
	keySuffix    = "key"
	comingSuffix = "coming"
)

func (a *agency) name(number uint64, suffix string) string {
	return fmt.Sprintf("%s.%08d.%s", a.id, number, suffix)
}

func (a *agency) largeName(segment, large uint64) string {
	return fmt.Sprintf("%s.%08d.%08d.%s", a.id, segment, large, bodySuffix)
}

func (a *agency) keyName(id keyID) string {
	return fmt.Sprintf("%s.%s.%s", a.id, hex.EncodeToString(id[:]), keySuffix)
}

// fileName is the name of a file taken apart.
type fileName struct {
	agency  routing.AgencyID
	suffix  string
	number  uint64
	large   uint64
	key     keyID
	ordered bool // it has a number
}

func parseName(name string) (f fileName, ok bool) {
	parts := strings.Split(name, ".")
	if len(parts) < 3 || len(parts) > 4 {
		return f, false
	}
	id, err := routing.ParseAgencyID(parts[0])
	if err != nil {
		return f, false
	}
	f.agency, f.suffix = id, parts[len(parts)-1]
	if f.suffix == keySuffix && len(parts) == 3 {
		raw, err := hex.DecodeString(parts[1])
		return f, copy(f.key[:], raw) == len(f.key) && err == nil
	}
	if f.number, err = strconv.ParseUint(parts[1], 10, 64); err != nil || f.number == 0 {
		return f, false
	}
	f.ordered = true
	switch f.suffix {
	case headsSuffix, bodiesSuffix, comingSuffix:
		return f, len(parts) == 3
	case bodySuffix:
		if len(parts) == 4 {
			f.large, err = strconv.ParseUint(parts[2], 10, 64)
			return f, err == nil
		}
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
	w := &writing{begun: s.o.Now(), dirty: true, unsynced: true}
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
	w.seg = &segment{number: w.number, bytes: w.headsAt}
	s.mu.Lock()
	a.writing = w
	a.segments = append(a.segments, w.seg)
	s.mu.Unlock()
	return nil
}

// end finishes the segment that is written, if any. It is fsynced: what follows is another one.
func (s *Store) end(a *agency) {
	w := a.writing
	if w == nil {
		return
	}
	t := totals{copies: uint64(w.seg.copies), large: w.seg.large, bytes: w.seg.bytes + endBytes, first: w.seg.first, last: w.seg.last}
	err := w.bodies.Sync()
	if err == nil {
		_, err = w.heads.Write(t.append(nil, w.seed()))
	}
	if err == nil {
		err = w.heads.Sync()
	}
	s.abandon(a)
	if err != nil { // without totals a start reads the heads instead
		s.o.Logger.Warn("retained copies: segment isn't finished", "agency", a.id, "segment", w.number, "error", err)
		return
	}
	s.mu.Lock()
	w.seg.bytes += endBytes
	s.mu.Unlock()
}

// abandon closes the files that are written: nothing goes behind what failed.
func (s *Store) abandon(a *agency) {
	w := a.writing
	if w == nil {
		return
	}
	s.mu.Lock()
	a.writing, w.gone = nil, true
	s.mu.Unlock()
	if err := errors.Join(w.heads.Close(), w.bodies.Close()); err != nil {
		s.o.Logger.Warn("retained copies: close segment", "agency", a.id, "segment", w.number, "error", err)
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
