package replica

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/routing"
)

// The records' file is text, a line for each record: the CRC-32C of the rest in eight
// hexadecimal digits, a blank, a word for the kind, a blank, and the record in JSON. The
// first line is the header; the last is "end" with the SHA-256 of all lines before.
const (
	recordsFile   = "records"
	mappingPrefix = "mapping."
	diskFormat    = 2
	oldDiskFormat = 1 // without term, nodes, freezes, operations and documents
)

var errBadCopy = errors.New("disk copy can't be used")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type header struct {
	Format      int                 `json:"format"`
	Incarnation routing.Incarnation `json:"incarnation"`
	Revision    routing.Revision    `json:"revision"`
	Mapped      routing.Revision    `json:"mapped"`
	Term        uint32              `json:"term"`
	Records     int                 `json:"records"`
	Marks       uint64              `json:"marks"` // number of the first marks file that follows

	// The highest position that was seen, which a table that went back is below.
	HighTerm     uint32           `json:"high_term"`
	HighRevision routing.Revision `json:"high_revision"`
	HighBegan    time.Time        `json:"high_began,omitzero"`

	Lineage routing.Lineage `json:"lineage,omitempty"`

	LostNames bool `json:"lost_names,omitempty"` // names were seen that the table lost
}

// disk is the copy on disk: the records, the marks that follow them, and the mappings.
type disk struct {
	folder *durable.Folder
	log    *slog.Logger
	dirty  chan struct{}   // holds one token while mappings or records may have to be written
	files  map[string]bool // the mappings' files; of one goroutine at a time
	most   int64           // bytes of marks after which the records are written anew

	writing sync.Mutex // held while the records' file is written; before mu

	mu       sync.Mutex
	journal  journal
	marked   *routing.State // the newest whose marks are written
	high     Marks          // of marked; Above isn't set
	obsolete uint64         // marks files below this number are not needed
}

func openDisk(fs durable.Disk, dir string, log *slog.Logger) (*disk, error) {
	folder, err := durable.Open(fs, dir)
	if err != nil {
		return nil, err
	}
	if fs == nil {
		fs = durable.OS{}
	}
	d := &disk{folder: folder, log: log, dirty: make(chan struct{}, 1), files: map[string]bool{}, most: compactAfter, journal: journal{disk: fs, dir: dir, number: 1}}
	names, err := folder.Names()
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, mappingPrefix) {
			d.files[name] = true
		}
	}
	return d, nil
}

func (d *disk) wake() {
	select {
	case d.dirty <- struct{}{}:
	default:
	}
}

func mappingFile(id routing.AgencyID, digest routing.Digest) string {
	return mappingPrefix + string(id) + "." + digest.String()
}

// load reads the copy. One that can't be used is set aside and an empty State returned.
func (d *disk) load() (*routing.State, Marks, error) {
	s, high, err := d.read()
	switch {
	case err == nil:
		d.marked, d.high = s, high
		return s, high, nil
	case errors.Is(err, fs.ErrNotExist):
	case !errors.Is(err, errBadCopy):
		return nil, Marks{}, err
	default:
		name, asideErr := d.folder.SetAside(recordsFile, time.Now())
		if asideErr != nil {
			return nil, Marks{}, asideErr
		}
		d.log.Error("disk copy of the table can't be used; it is set aside and the table is loaded again", "file", name, "error", err)
	}
	return routing.NewState(routing.Position{}), Marks{}, d.setAsideMarks()
}

func (d *disk) read() (*routing.State, Marks, error) {
	f, err := d.folder.Open(recordsFile)
	if err != nil {
		return nil, Marks{}, fmt.Errorf("open the disk copy: %w", err)
	}
	text, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, Marks{}, fmt.Errorf("read the disk copy: %w", err)
	}
	head, u, seen, err := parseRecords(text)
	if err != nil {
		return nil, Marks{}, fmt.Errorf("%w: %w", errBadCopy, err)
	}
	// The records that were seen go first, so that those in force are found not to
	// follow them.
	s, err := routing.NewState(routing.Position{}).Apply(routing.Update{Agencies: seen})
	if err == nil {
		u.LostNames, u.Lineage = head.LostNames, head.Lineage
		s, err = s.Apply(u)
	}
	if err != nil {
		return nil, Marks{}, fmt.Errorf("%w: %w", errBadCopy, err)
	}
	if s, err = d.readMarks(s, head.Marks); err != nil {
		return nil, Marks{}, err
	}
	agencies := s.Agencies()
	mappings, err := d.readMappings(agencies)
	if err != nil {
		return nil, Marks{}, err
	}
	s, err = s.Apply(routing.Update{Agencies: agencies, Mappings: mappings})
	if err != nil {
		return nil, Marks{}, fmt.Errorf("%w: %w", errBadCopy, err)
	}
	high := Marks{Incarnation: head.Incarnation, Term: head.HighTerm, Revision: head.HighRevision, Began: head.HighBegan}
	return s, high.upTo(s), nil
}

// readMappings reads the mappings' files. One that is not there or can't be used is left
// out: it is loaded from the table.
func (d *disk) readMappings(agencies []routing.Agency) ([]*routing.Mapping, error) {
	var (
		mu    sync.Mutex
		got   []*routing.Mapping
		fatal error
	)
	wanted := make(chan routing.Agency)
	var readers sync.WaitGroup
	for range parallelLoads {
		readers.Go(func() {
			buf := make([]byte, 64<<10)
			for a := range wanted {
				m, err := d.readMapping(a, buf)
				mu.Lock()
				if m != nil {
					got = append(got, m)
				}
				fatal = errors.Join(fatal, err)
				mu.Unlock()
			}
		})
	}
	for _, a := range agencies {
		if !a.Mapping.IsZero() && d.files[mappingFile(a.ID, a.Mapping)] {
			wanted <- a
		}
	}
	close(wanted)
	readers.Wait()
	for _, a := range agencies {
		// What could not be used was set aside.
		if name := mappingFile(a.ID, a.Mapping); d.files[name] && !slices.ContainsFunc(got, func(m *routing.Mapping) bool { return m.Agency() == a.ID }) {
			delete(d.files, name)
		}
	}
	return got, fatal
}

func (d *disk) readMapping(a routing.Agency, buf []byte) (*routing.Mapping, error) {
	name := mappingFile(a.ID, a.Mapping)
	f, err := d.folder.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read the disk copy: %w", err)
	}
	size := 0
	if s, ok := f.(interface{ Stat() (fs.FileInfo, error) }); ok {
		if info, err := s.Stat(); err == nil {
			size = int(info.Size())
		}
	}
	m, err := routing.ReadMapping(a.ID, a.Mapping, size, chunks(f, buf))
	if closeErr := f.Close(); err == nil && closeErr != nil {
		return nil, fmt.Errorf("read %s: %w", name, closeErr)
	}
	if errors.Is(err, routing.ErrBadMapping) {
		to, asideErr := d.folder.SetAside(name, time.Now())
		d.log.Error("mapping's file can't be used; it is set aside and loaded from the table", "agency", a.ID, "file", to, "error", err)
		return nil, asideErr
	}
	if err != nil {
		return nil, fmt.Errorf("read the disk copy: %w", err)
	}
	return m, nil
}

// chunks reads r through buf.
func chunks(r io.Reader, buf []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for {
			n, err := r.Read(buf)
			if n > 0 && !yield(buf[:n], nil) || err == io.EOF {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// writeDisk writes mappings, and records where there are many marks, whenever there is a
// new State, until dirty is closed. What comes while it writes is written together.
func (r *Replica) writeDisk(dirty <-chan struct{}) {
	for range dirty {
		r.writeCopy(r.disk.most)
	}
	r.writeCopy(1) // so that the next start has few files to read
}

func (r *Replica) writeCopy(least int64) {
	s := r.State()
	err := r.disk.writeMappings(s)
	if err == nil {
		err = r.disk.compact(least)
	}
	r.mu.Lock()
	repeated := r.status.DiskErr != nil
	r.status.DiskErr = err
	if err == nil {
		r.status.OnDisk = s.Position()
	}
	r.mu.Unlock()
	if err != nil && !repeated {
		r.log.Error("disk copy of the table is not whole; mappings may have to be loaded again at the next start", "revision", s.Position().Revision, "error", err)
	}
}

// writeMappings writes the mappings that are new, then removes those that no record names
// any more.
func (d *disk) writeMappings(s *routing.State) error {
	agencies := s.Agencies()
	named := make(map[string]bool, len(agencies))
	for _, a := range agencies {
		if a.Mapping.IsZero() {
			continue
		}
		name := mappingFile(a.ID, a.Mapping)
		named[name] = true
		m := s.Mapping(a.ID)
		if d.files[name] || m == nil {
			continue
		}
		if err := d.folder.Write(name, func(w io.Writer) error { _, err := m.WriteTo(w); return err }); err != nil {
			return err
		}
		d.files[name] = true
	}
	var old []string
	for name := range d.files {
		if !named[name] {
			old = append(old, name)
			delete(d.files, name)
		}
	}
	return d.folder.Remove(old...)
}

// writeRecords writes all records; marks files from this number on follow them. d.writing
// is held.
func (d *disk) writeRecords(s *routing.State, high Marks, number uint64) error {
	return d.folder.Write(recordsFile, func(w io.Writer) error { return formatRecords(w, s, high, number) })
}

func formatRecords(w io.Writer, s *routing.State, high Marks, number uint64) error {
	pos := s.Position()
	digest := sha256.New()
	b := bufio.NewWriterSize(io.MultiWriter(w, digest), 64<<10)
	var failure error
	line := func(kind string, record any) {
		text, err := json.Marshal(record)
		failure = errors.Join(failure, err)
		_, _ = b.Write(appendLine(nil, kind, text)) // Flush tells
	}
	agencies, domains, fixed, regressed := s.Agencies(), append(s.Domains(), s.LostDomains()...), slices.Collect(s.FixedAddresses()), s.Regressed()
	members, freezes, operations, documents := s.Members(), s.Freezes(), s.Operations(), s.Documents("")
	all := len(agencies) + len(domains) + len(fixed) + len(regressed) + len(members) + len(freezes) + len(operations) + len(documents)
	line("copy", header{
		Format: diskFormat, Incarnation: pos.Incarnation, Revision: pos.Revision, Mapped: pos.Mapped, Term: pos.Term,
		Records: all, Marks: number, HighTerm: high.Term, HighRevision: high.Revision, HighBegan: high.Began,
		Lineage: s.Lineage(), LostNames: s.LostNames(),
	})
	for _, a := range agencies {
		line("agency", a)
	}
	for _, id := range regressed {
		seen, _ := s.Seen(id)
		line("seen", seen)
	}
	for _, d := range domains {
		line("domain", d)
	}
	for _, f := range fixed {
		line("fixed", f)
	}
	for _, m := range members {
		line("member", m)
	}
	for _, f := range freezes {
		line("freeze", f)
	}
	for _, o := range operations {
		line("operation", o)
	}
	for _, d := range documents {
		line("document", d)
	}
	if err := errors.Join(failure, b.Flush()); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "end %x\n", digest.Sum(nil))
	return err
}

func parseRecords(text []byte) (head header, u routing.Update, seen []routing.Agency, err error) {
	end := bytes.LastIndex(text, []byte("\nend ")) + 1
	if want := fmt.Sprintf("end %x\n", sha256.Sum256(text[:end])); string(text[end:]) != want {
		return head, u, nil, errors.New("its end is missing, or its digest is wrong")
	}
	n := -1
	for line := range bytes.Lines(text[:end]) {
		kind, value, err := cutLine(line)
		if err == nil && n < 0 != (kind == "copy") {
			err = fmt.Errorf("kind %q", kind)
		}
		if err == nil {
			switch kind {
			case "copy":
				err = json.Unmarshal(value, &head)
			case "agency":
				u.Agencies, err = appendRecord(u.Agencies, value)
			case "seen":
				seen, err = appendRecord(seen, value)
			case "domain":
				u.Domains, err = appendRecord(u.Domains, value)
			case "fixed":
				u.Fixed, err = appendRecord(u.Fixed, value)
			case "member":
				u.Members, err = appendRecord(u.Members, value)
			case "freeze":
				u.Freezes, err = appendRecord(u.Freezes, value)
			case "operation":
				u.Operations, err = appendRecord(u.Operations, value)
			case "document":
				u.Documents, err = appendRecord(u.Documents, value)
			default:
				err = fmt.Errorf("kind %q", kind)
			}
		}
		if err != nil {
			return head, u, nil, fmt.Errorf("record %d: %w", n, err)
		}
		n++
	}
	u.Position = routing.Position{Incarnation: head.Incarnation, Revision: head.Revision, Mapped: head.Mapped, Term: head.Term}
	switch {
	case head.Format != diskFormat && head.Format != oldDiskFormat:
		return head, u, nil, fmt.Errorf("format %d, want %d", head.Format, diskFormat)
	case n != head.Records:
		return head, u, nil, fmt.Errorf("%d records, want %d", n, head.Records)
	case head.Incarnation == "":
		return head, u, nil, errors.New("no incarnation")
	}
	return head, u, seen, checkRecords(&u)
}

func appendRecord[T any](to []T, value []byte) ([]T, error) {
	var record T
	err := json.Unmarshal(value, &record)
	return append(to, record), err
}
