package replica

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/routing"
)

// A marks file has a line for each change that was taken since the records' file was
// written, in the form of that file's lines. Its name has a number; the records' file says
// from which number on they follow it. A file is never opened again for writing: a new
// process, and whoever failed to write, begins the next.
const (
	marksPrefix = "marks."

	// compactAfter is how many bytes of marks there may be before the records are written
	// anew. At a start all of them are read.
	compactAfter = 1 << 20
)

// ErrMarks is wrapped by the error of a State that isn't taken because what it knows can't
// be made durable (docs/architecture/switch.md, node rule 1).
var ErrMarks = errors.New("marks can't be written")

// Marks are what this replica knows for good: they are on the disk, where it has one, and
// whatever State has returned is not newer.
type Marks struct {
	Incarnation routing.Incarnation

	// Term and Revision are the highest position that was seen, by term first. A table
	// that went back stands below it until it is in a later term.
	Term     uint32
	Revision routing.Revision

	// Began is when Term began, by the lineage of the State that was there; zero: it isn't
	// known.
	Began time.Time

	// Above are records that the table's don't follow: see [routing.State.Seen].
	Above []routing.Agency

	// LostNames says that names were seen in a change that the table lost, and that the
	// table doesn't say so yet.
	LostNames bool
}

// mark is one change in a marks file.
type mark struct {
	Position   routing.Position    `json:"position"`
	Agencies   []routing.Agency    `json:"agencies,omitempty"`
	Domains    []routing.Domain    `json:"domains,omitempty"`
	Fixed      []routing.Fixed     `json:"fixed,omitempty"`
	Members    []routing.Member    `json:"members,omitempty"`
	Freezes    []routing.Freeze    `json:"freezes,omitempty"`
	Operations []routing.Operation `json:"operations,omitempty"`
	Documents  []routing.Document  `json:"documents,omitempty"`
	Above      []routing.Agency    `json:"above,omitempty"`
}

// journal is the marks file that is being written. It is used under disk.mu.
type journal struct {
	disk   durable.Disk
	dir    string
	number uint64       // of the file, or of the next one if there is none
	file   durable.File // nil: none yet
	size   int64        // bytes in this file, and in those before that the records don't have
	broken bool         // the last write failed: the records have to be written before more is taken
}

func marksFile(number uint64) string { return marksPrefix + strconv.FormatUint(number, 10) }

// marksNumber returns the number in a marks file's name.
func marksNumber(name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, marksPrefix)
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, ok && err == nil && marksFile(n) == name
}

// add makes a change durable.
func (j *journal) add(u *routing.Update) error {
	text, err := json.Marshal(mark{
		Position: u.Position, Agencies: u.Agencies, Domains: u.Domains, Fixed: u.Fixed,
		Members: u.Members, Freezes: u.Freezes, Operations: u.Operations, Documents: u.Documents, Above: u.Above,
	})
	if err != nil {
		return err
	}
	line := appendLine(nil, "change", text)
	if j.file == nil {
		path := filepath.Join(j.dir, marksFile(j.number))
		file, err := j.disk.Create(path)
		if err != nil {
			return err
		}
		j.file = file
		if err := j.disk.SyncDir(j.dir); err != nil {
			return err
		}
	}
	if _, err := j.file.Write(line); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.size += int64(len(line))
	return nil
}

// next ends the file; what comes is written to the one that it names.
func (j *journal) next() (number uint64) {
	if j.file != nil {
		_ = j.file.Close() // all of it is synced, or is not relied upon
		j.file = nil
		j.number++
	}
	return j.number
}

// appendLine appends a line of the records' file or of a marks file.
func appendLine(b []byte, kind string, record []byte) []byte {
	text := append([]byte(kind+" "), record...)
	return fmt.Appendf(b, "%08x %s\n", crc32.Checksum(text, castagnoli), text)
}

// cutLine checks a line, with its end, and returns what it has.
func cutLine(line []byte) (kind string, record []byte, err error) {
	var sum uint32
	if len(line) < 10 || line[8] != ' ' || line[len(line)-1] != '\n' {
		return "", nil, errors.New("malformed")
	}
	if _, err := fmt.Sscanf(string(line[:8]), "%08x", &sum); err != nil {
		return "", nil, errors.New("malformed")
	}
	text := line[9 : len(line)-1]
	if crc32.Checksum(text, castagnoli) != sum {
		return "", nil, errors.New("wrong checksum")
	}
	before, after, _ := bytes.Cut(text, []byte(" "))
	return string(before), after, nil
}

// mark makes durable what next knows, which is the State after u: nobody acts on it, or
// tells it on, before that.
func (d *disk) mark(u *routing.Update, next *routing.State, high Marks) error {
	if u.Whole {
		if d.knows(next) {
			return nil
		}
		d.writing.Lock()
		defer d.writing.Unlock()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	j := &d.journal
	if u.Whole || j.broken {
		if !u.Whole {
			return fmt.Errorf("%w: the records have to be written first", ErrMarks)
		}
		number := j.next()
		if err := d.writeRecords(next, high, number); err != nil {
			j.broken = true
			return fmt.Errorf("%w: %w", ErrMarks, err)
		}
		j.size, j.broken = 0, false
		d.marked, d.high, d.obsolete = next, high, number
		return nil
	}
	if err := j.add(u); err != nil {
		j.broken = true
		j.next()
		return fmt.Errorf("%w: %w", ErrMarks, err)
	}
	d.marked, d.high = next, high
	return nil
}

// knows reports whether a State that was read as a whole is what is on the disk already.
func (d *disk) knows(s *routing.State) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.marked
	if d.journal.broken || was == nil || was.Position() != s.Position() || was.LostNames() != s.LostNames() || !was.Lineage().Equal(s.Lineage()) || !slices.Equal(was.Agencies(), s.Agencies()) {
		return false
	}
	regressed := s.Regressed()
	return slices.Equal(was.Regressed(), regressed) && !slices.ContainsFunc(regressed, func(id routing.AgencyID) bool {
		a, _ := was.Seen(id)
		b, _ := s.Seen(id)
		return a != b
	})
}

// compact writes the records anew if there are at least so many bytes of marks, and removes
// the marks files that nobody needs.
func (d *disk) compact(least int64) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.mu.Lock()
	s, high, number := d.marked, d.high, d.journal.number
	due := d.journal.size >= least && d.journal.size > 0 && !d.journal.broken
	if due {
		number = d.journal.next()
	}
	size := d.journal.size
	d.mu.Unlock()
	if due {
		// What is taken meanwhile goes into the file of that number.
		if err := d.writeRecords(s, high, number); err != nil {
			return err
		}
		d.mu.Lock()
		d.obsolete = number
		d.journal.size -= size
		d.mu.Unlock()
	}
	d.mu.Lock()
	obsolete := d.obsolete
	d.mu.Unlock()
	names, err := d.folder.Names()
	if err != nil {
		return fmt.Errorf("list %s: %w", d.folder.Path(), err)
	}
	var old []string
	for _, name := range names {
		if n, ok := marksNumber(name); ok && n < obsolete {
			old = append(old, name)
		}
	}
	return d.folder.Remove(old...)
}

// readMarks applies what the marks files from this number on say to the State of the
// records' file, both without mappings.
func (d *disk) readMarks(s *routing.State, from uint64) (*routing.State, error) {
	names, err := d.folder.Names()
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", d.folder.Path(), err)
	}
	var numbers []uint64
	for _, name := range names {
		if n, ok := marksNumber(name); ok {
			d.journal.number = max(d.journal.number, n+1)
			if n >= from {
				numbers = append(numbers, n)
			}
		}
	}
	d.journal.number = max(d.journal.number, from)
	d.obsolete = from
	slices.Sort(numbers)
	for _, n := range numbers {
		if s, err = d.readMarksFile(s, marksFile(n)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// readMarksFile applies one file. Its last line may be torn: nobody acted on it.
func (d *disk) readMarksFile(s *routing.State, name string) (*routing.State, error) {
	f, err := d.folder.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	text, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	d.journal.size += int64(len(text))
	for len(text) > 0 {
		end := bytes.IndexByte(text, '\n') + 1
		if end == 0 {
			break
		}
		next, lineErr := d.applyMark(s, text[:end])
		if lineErr != nil {
			if end == len(text) {
				d.log.Warn("the last of the marks isn't whole; nobody acted on it, unless the disk is damaged", "file", name, "revision", s.Position().Revision, "error", lineErr)
				break
			}
			to, asideErr := d.folder.SetAside(name, time.Now())
			d.log.Error("marks can't be used from here on; their file is set aside", "file", to, "revision", s.Position().Revision, "error", lineErr)
			return s, asideErr
		}
		s, text = next, text[end:]
	}
	return s, nil
}

func (d *disk) applyMark(s *routing.State, line []byte) (*routing.State, error) {
	kind, record, err := cutLine(line)
	if err != nil {
		return nil, err
	}
	var m mark
	if err := json.Unmarshal(record, &m); err != nil || kind != "change" {
		return nil, errors.Join(fmt.Errorf("kind %q", kind), err)
	}
	if ours := s.Position(); m.Position.Incarnation != ours.Incarnation || m.Position.Revision != ours.Revision+1 {
		return nil, fmt.Errorf("revision %d of table %s follows %d of %s", m.Position.Revision, m.Position.Incarnation, ours.Revision, ours.Incarnation)
	}
	u := routing.Update{
		Position: m.Position, Agencies: m.Agencies, Domains: m.Domains, Fixed: m.Fixed,
		Members: m.Members, Freezes: m.Freezes, Operations: m.Operations, Documents: m.Documents, Above: m.Above,
	}
	if err := checkRecords(&u); err != nil {
		return nil, err
	}
	return s.Apply(u)
}

// setAsideMarks keeps marks files that have no records to follow for a human.
func (d *disk) setAsideMarks() error {
	names, err := d.folder.Names()
	if err != nil {
		return fmt.Errorf("list %s: %w", d.folder.Path(), err)
	}
	for _, name := range names {
		if n, ok := marksNumber(name); ok {
			d.journal.number = max(d.journal.number, n+1)
			if _, err := d.folder.SetAside(name, time.Now()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
