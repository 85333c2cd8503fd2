package watermark

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/routing"
)

// ErrDamaged is wrapped by errors about bytes that are not the set that their name says.
var ErrDamaged = errors.New("watermarks are damaged")

// format is the first line of a set, before compression, and bounds what is read.
const (
	format  = "mailcutover watermarks 1"
	suffix  = ".watermarks"
	maxLine = 8 << 20 // a mailbox with some ten thousand folders
)

// head is the second line.
type head struct {
	Agency    routing.AgencyID     `json:"agency"`
	Operation routing.OperationID  `json:"operation"`
	Taken     time.Time            `json:"taken"`
	Sides     []routing.PlatformID `json:"sides"`
}

// row is each line after it.
type row struct {
	Side int `json:"side"` // index in head
	*Mailbox
}

// encode writes a set: the format's line, the head, and a line for each mailbox of each side,
// ascending, compressed by gzip, which has a checksum and is read by plain tools.
func encode(w io.Writer, s *Set) error {
	z := gzip.NewWriter(w)
	b := bufio.NewWriter(z)
	fmt.Fprintln(b, format)
	e := json.NewEncoder(b)
	h := head{Agency: s.Agency, Operation: s.Operation, Taken: s.Taken.UTC()}
	for i := range s.Sides {
		h.Sides = append(h.Sides, s.Sides[i].Platform)
	}
	if err := e.Encode(h); err != nil {
		return err
	}
	for i := range s.Sides {
		all := slices.SortedFunc(maps.Values(s.Sides[i].Mailboxes), func(a, b *Mailbox) int { return cmp.Compare(a.Mailbox.String(), b.Mailbox.String()) })
		for _, m := range all {
			if err := e.Encode(row{Side: i, Mailbox: m}); err != nil {
				return err
			}
		}
	}
	return errors.Join(b.Flush(), z.Close())
}

// decode reads what encode wrote.
func decode(r io.Reader) (*Set, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	lines := bufio.NewScanner(z)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	if !lines.Scan() || lines.Text() != format || !lines.Scan() {
		return nil, fmt.Errorf("%w: they don't begin with %q", ErrDamaged, format)
	}
	var h head
	if err := json.Unmarshal(lines.Bytes(), &h); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	s := &Set{Agency: h.Agency, Operation: h.Operation, Taken: h.Taken}
	for _, p := range h.Sides {
		s.Sides = append(s.Sides, Side{Platform: p, Mailboxes: make(map[routing.MailboxID]*Mailbox)})
	}
	for lines.Scan() {
		one := row{Mailbox: new(Mailbox)}
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if one.Side < 0 || one.Side >= len(s.Sides) {
			return nil, fmt.Errorf("%w: side %d of %d", ErrDamaged, one.Side, len(s.Sides))
		}
		id, of := one.Mailbox.Mailbox, s.Sides[one.Side].Mailboxes
		if _, twice := of[id]; twice || id == (routing.MailboxID{}) {
			return nil, fmt.Errorf("%w: a line without a mailbox, or with one that was there before", ErrDamaged)
		}
		of[id] = one.Mailbox
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return s, nil
}

// Files keeps sets on a node's disk, each named by the digest of its bytes.
type Files struct{ on *durable.Folder }

// Open opens a folder, and makes it if it isn't there.
func Open(path string) (*Files, error) {
	f, err := durable.Open(nil, path)
	if err != nil {
		return nil, fmt.Errorf("open the folder of watermarks: %w", err)
	}
	return &Files{f}, nil
}

func name(d routing.Digest) string { return d.String() + suffix }

// Put keeps a set and returns its name. It is on disk then.
func (f *Files) Put(s *Set) (routing.Digest, error) {
	var b bytes.Buffer
	if err := encode(&b, s); err != nil {
		return routing.Digest{}, fmt.Errorf("write the watermarks of agency %s: %w", s.Agency, err)
	}
	d := routing.Digest(sha256.Sum256(b.Bytes()))
	return d, f.write(d, b.Bytes())
}

// Take keeps the bytes of a set that another node had. ErrDamaged if they are another one.
func (f *Files) Take(d routing.Digest, text []byte) error {
	if got := routing.Digest(sha256.Sum256(text)); got != d {
		return fmt.Errorf("take watermarks %s: %w: the digest of the bytes is %s", d, ErrDamaged, got)
	}
	return f.write(d, text)
}

func (f *Files) write(d routing.Digest, text []byte) error {
	err := f.on.Write(name(d), func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
	if err != nil {
		return fmt.Errorf("keep watermarks %s: %w", d, err)
	}
	return nil
}

// Bytes returns a set as it lies on the disk, for another node. The error wraps
// fs.ErrNotExist if it isn't here.
func (f *Files) Bytes(d routing.Digest) ([]byte, error) {
	r, err := f.on.Open(name(d))
	if err != nil {
		return nil, fmt.Errorf("read watermarks %s: %w", d, err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err == nil && routing.Digest(sha256.Sum256(text)) != d {
		err = ErrDamaged
	}
	if err != nil {
		return nil, fmt.Errorf("read watermarks %s: %w", d, err)
	}
	return text, nil
}

// Get returns a set. The error wraps fs.ErrNotExist if it isn't here, ErrDamaged if it can't
// be used.
func (f *Files) Get(d routing.Digest) (*Set, error) {
	text, err := f.Bytes(d)
	if err != nil {
		return nil, err
	}
	s, err := decode(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read watermarks %s: %w", d, err)
	}
	return s, nil
}

// Remove removes a set, if it is here.
func (f *Files) Remove(d routing.Digest) error {
	if err := f.on.Remove(name(d)); err != nil {
		return fmt.Errorf("remove watermarks %s: %w", d, err)
	}
	return nil
}

// All returns what is here, and since when.
func (f *Files) All() (map[routing.Digest]time.Time, error) {
	names, err := f.on.Names()
	if err != nil {
		return nil, fmt.Errorf("list the watermarks: %w", err)
	}
	all := make(map[routing.Digest]time.Time)
	for _, n := range names {
		d, err := routing.ParseDigest(strings.TrimSuffix(n, suffix))
		if err != nil || !strings.HasSuffix(n, suffix) {
			continue
		}
		info, err := os.Stat(filepath.Join(f.on.Path(), n))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("look at watermarks %s: %w", d, err)
		}
		all[d] = info.ModTime()
	}
	return all, nil
}
