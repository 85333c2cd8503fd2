package spool

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"mailcutover/internal/durable"
)

const (
	idFile   = "id"
	lockFile = "lock"
	idMagic  = "mailcutover spool 1"
)

// Identity is what a spool's id file says.
type Identity struct {
	ID    string   // 32 hexadecimal digits; never changes
	Owner string   // node whose spool it is
	Past  []string // nodes whose spool it was, the first first
}

func (id *Identity) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nid %s\nowner %s\n", idMagic, id.ID, id.Owner)
	for _, p := range id.Past {
		fmt.Fprintf(&b, "past %s\n", p)
	}
	b.WriteString("end\n")
	return b.String()
}

func (id *Identity) spoolID() (s spoolID) {
	b, _ := hex.DecodeString(id.ID)
	copy(s[:], b)
	return s
}

func parseIdentity(text string) (id Identity, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 5 || lines[0] != idMagic || lines[len(lines)-2] != "end" || lines[len(lines)-1] != "" {
		return id, fmt.Errorf("%w: id file %q", ErrDamaged, cut(text, 80))
	}
	for _, line := range lines[1 : len(lines)-2] {
		word, value, _ := strings.Cut(line, " ")
		switch {
		case word == "id" && id.ID == "":
			id.ID = value
		case word == "owner" && id.Owner == "":
			id.Owner = value
		case word == "past":
			id.Past = append(id.Past, value)
		default:
			return id, fmt.Errorf("%w: line %q of the id file", ErrDamaged, cut(line, 80))
		}
	}
	if b, err := hex.DecodeString(id.ID); err != nil || len(b) != len(spoolID{}) || checkNode(id.Owner) != nil {
		return id, fmt.Errorf("%w: id file with id %q, owner %q", ErrDamaged, cut(id.ID, 80), cut(id.Owner, 80))
	}
	return id, nil
}

// checkNode refuses names that would not be one word of a line.
func checkNode(name string) error {
	if name == "" || len(name) > 255 || strings.ContainsAny(name, " \t\r\n\x00") {
		return fmt.Errorf("node name %q: want one word of at most 255 bytes", cut(name, 80))
	}
	return nil
}

func readIdentity(f *durable.Folder) (Identity, error) {
	r, err := f.Open(idFile)
	if err != nil {
		return Identity{}, err
	}
	b, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err = errors.Join(err, r.Close()); err != nil {
		return Identity{}, err
	}
	return parseIdentity(string(b))
}

func writeIdentity(f *durable.Folder, id Identity) error {
	return f.Write(idFile, func(w io.Writer) error {
		_, err := io.WriteString(w, id.text())
		return err
	})
}

// identify reads whose spool it is, or makes a new one this node's.
func (s *Store) identify(segments []uint32) error {
	id, err := readIdentity(s.folder)
	switch {
	case s.o.readOnly && err != nil:
		return err
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrDamaged):
		aside := ""
		if errors.Is(err, ErrDamaged) {
			var asideErr error
			if aside, asideErr = s.folder.SetAside(idFile, s.o.Now()); asideErr != nil {
				return asideErr
			}
		}
		fresh := uuid.New()
		id = Identity{ID: hex.EncodeToString(fresh[:]), Owner: s.o.Node}
		if found, ok := s.identityOfSegments(segments); ok {
			id.ID = hex.EncodeToString(found[:])
			s.problem(Problem{Path: s.path(idFile), What: "the id file is lost or damaged; the id is the one of the journal, the owner this node", Aside: aside})
		}
		if err := writeIdentity(s.folder, id); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	if id.Owner != s.o.Node {
		return fmt.Errorf("spool %s belongs to node %s, this is %s: %w", s.o.Dir, id.Owner, s.o.Node, ErrAdopted)
	}
	s.id = id.spoolID()
	return nil
}

// identityOfSegments returns the id that most segments have.
func (s *Store) identityOfSegments(segments []uint32) (best spoolID, ok bool) {
	votes := map[spoolID]int{}
	for _, n := range segments {
		file, err := s.disk.OpenAt(s.segmentPath(n))
		if err != nil {
			continue
		}
		b := make([]byte, headerBytes)
		_, err = file.ReadAt(b, 0)
		file.Close()
		if id, _, good := parseHeader(b); err == nil && good {
			if votes[id]++; votes[id] > votes[best] {
				best, ok = id, true
			}
		}
	}
	return best, ok
}

// checkOwner returns ErrAdopted if the spool isn't this node's any more. It looks at the
// id file each time, and reads it when it isn't the one that it read last: [Adopt] puts
// another file in its place, and never writes into it.
func (s *Store) checkOwner() error {
	s.mu.Lock()
	adopted, known := s.adopted, s.ownerStamp
	s.mu.Unlock()
	if !adopted {
		stamp, err := s.disk.Stamp(s.path(idFile))
		if err == nil && stamp == known {
			return nil
		}
		var id Identity
		if err == nil { // what is read is this file, or one that came after it
			id, err = readIdentity(s.folder)
		}
		if err != nil {
			return fmt.Errorf("spool %s: %w: whose it is can't be read: %w", s.o.Dir, ErrBroken, err)
		}
		s.mu.Lock()
		if id.Owner == s.o.Node && id.spoolID() == s.id {
			s.ownerStamp = stamp
			s.mu.Unlock()
			return nil
		}
		s.adopted = true
		s.mu.Unlock()
		s.raise("spool-adopted", "spool %s was adopted by node %s; this node takes and delivers nothing from it any more", s.o.Dir, id.Owner)
	}
	return fmt.Errorf("spool %s: %w", s.o.Dir, ErrAdopted)
}

// Owner returns what the id file of the spool in dir says.
func Owner(disk durable.Disk, dir string) (Identity, error) {
	f, err := openFolder(&disk, dir)
	if err != nil {
		return Identity{}, err
	}
	id, err := readIdentity(f)
	if err != nil {
		return Identity{}, fmt.Errorf("spool %s: %w", dir, err)
	}
	return id, nil
}

func openFolder(disk *durable.Disk, dir string) (*durable.Folder, error) {
	if *disk == nil {
		*disk = durable.OS{}
	}
	r, err := (*disk).Open(filepath.Join(dir, idFile)) // a folder would be made
	if err != nil {
		return nil, fmt.Errorf("spool %s: %w", dir, err)
	}
	if err := r.Close(); err != nil {
		return nil, err
	}
	return durable.Open(*disk, dir)
}

// Adopt makes the spool in dir the one of another node, if it is from's now: for a node
// that won't come back. A disk of nil is the machine's. It fails with ErrInUse if a
// process of this machine has the spool open, and with ErrAdopted if the owner is
// another than from. The old node finds it at its next start, Commit or Open.
func Adopt(disk durable.Disk, dir, from, to string) (Identity, error) {
	if err := checkNode(to); err != nil {
		return Identity{}, fmt.Errorf("adopt spool %s: %w", dir, err)
	}
	f, err := openFolder(&disk, dir)
	if err != nil {
		return Identity{}, fmt.Errorf("adopt: %w", err)
	}
	lock, err := lockDir(disk, dir)
	if err != nil {
		return Identity{}, fmt.Errorf("adopt spool %s: %w", dir, err)
	}
	id, err := readIdentity(f)
	switch {
	case err != nil:
	case id.Owner != from:
		err = fmt.Errorf("it belongs to %s, not to %s: %w", id.Owner, from, ErrAdopted)
	case from != to:
		id.Past, id.Owner = append(id.Past, from), to
		err = writeIdentity(f, id)
	}
	if lock != nil {
		err = errors.Join(err, lock.Close())
	}
	if err != nil {
		return Identity{}, fmt.Errorf("adopt spool %s: %w", dir, err)
	}
	return id, nil
}

// lockDir keeps other processes of this machine out, where the disk can do that.
func lockDir(disk durable.Disk, dir string) (io.Closer, error) {
	l, ok := disk.(interface {
		Lock(path string) (io.Closer, error)
	})
	if !ok {
		return nil, nil
	}
	c, err := l.Lock(filepath.Join(dir, lockFile))
	if errors.Is(err, durable.ErrLocked) {
		err = fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return c, err
}
