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
	diskFormat    = 1
)

var errBadCopy = errors.New("disk copy can't be used")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type header struct {
	Format      int                 `json:"format"`
	Incarnation routing.Incarnation `json:"incarnation"`
	Revision    routing.Revision    `json:"revision"`
	Mapped      routing.Revision    `json:"mapped"`
	Records     int                 `json:"records"`
}

// disk is the copy on disk. Its methods but wake are called by one goroutine at a time.
type disk struct {
	folder *durable.Folder
	log    *slog.Logger
	dirty  chan struct{} // holds one token while State is newer than the file
	files  map[string]bool
}

func openDisk(fs durable.Disk, dir string, log *slog.Logger) (*disk, error) {
	folder, err := durable.Open(fs, dir)
	if err != nil {
		return nil, err
	}
	d := &disk{folder: folder, log: log, dirty: make(chan struct{}, 1), files: map[string]bool{}}
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
func (d *disk) load() (*routing.State, error) {
	s, err := d.read()
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, fs.ErrNotExist):
		return routing.NewState(routing.Position{}), nil
	case !errors.Is(err, errBadCopy):
		return nil, err
	}
	name, asideErr := d.folder.SetAside(recordsFile, time.Now())
	if asideErr != nil {
		return nil, asideErr
	}
	d.log.Error("disk copy of the table can't be used; it is set aside and the table is loaded again", "file", name, "error", err)
	return routing.NewState(routing.Position{}), nil
}

func (d *disk) read() (*routing.State, error) {
	f, err := d.folder.Open(recordsFile)
	if err != nil {
		return nil, fmt.Errorf("open the disk copy: %w", err)
	}
	text, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read the disk copy: %w", err)
	}
	u, seen, err := parseRecords(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadCopy, err)
	}
	if u.Mappings, err = d.readMappings(u.Agencies); err != nil {
		return nil, err
	}
	// The records that were seen go first, so that those in force are found not to
	// follow them.
	s, err := routing.NewState(routing.Position{}).Apply(routing.Update{Agencies: seen})
	if err == nil {
		s, err = s.Apply(u)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadCopy, err)
	}
	return s, nil
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

// writeDisk writes the newest State whenever there is one, until dirty is closed. What
// comes while it writes is written together.
func (r *Replica) writeDisk(dirty <-chan struct{}) {
	for range dirty {
		s := r.State()
		err := r.disk.write(s)
		r.mu.Lock()
		repeated := r.status.DiskErr != nil
		r.status.DiskErr = err
		if err == nil {
			r.status.OnDisk = s.Position()
		}
		r.mu.Unlock()
		if err != nil && !repeated {
			r.log.Error("disk copy of the table is not written; it stays at an older revision", "revision", s.Position().Revision, "error", err)
		}
	}
}

// write writes the mappings that are new, then the records that name them, then removes
// the mappings that no record names any more.
func (d *disk) write(s *routing.State) error {
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
	if err := d.folder.Write(recordsFile, func(w io.Writer) error { return writeRecords(w, s) }); err != nil {
		return err
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

func writeRecords(w io.Writer, s *routing.State) error {
	pos := s.Position()
	digest := sha256.New()
	b := bufio.NewWriterSize(io.MultiWriter(w, digest), 64<<10)
	var failure error
	line := func(kind string, record any) {
		text, err := json.Marshal(record)
		failure = errors.Join(failure, err)
		text = append([]byte(kind+" "), text...)
		fmt.Fprintf(b, "%08x %s\n", crc32.Checksum(text, castagnoli), text)
	}
	agencies, domains, fixed, regressed := s.Agencies(), s.Domains(), slices.Collect(s.FixedAddresses()), s.Regressed()
	line("copy", header{diskFormat, pos.Incarnation, pos.Revision, pos.Mapped, len(agencies) + len(domains) + len(fixed) + len(regressed)})
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
	if err := errors.Join(failure, b.Flush()); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "end %x\n", digest.Sum(nil))
	return err
}

func parseRecords(text []byte) (u routing.Update, seen []routing.Agency, err error) {
	end := bytes.LastIndex(text, []byte("\nend ")) + 1
	if want := fmt.Sprintf("end %x\n", sha256.Sum256(text[:end])); string(text[end:]) != want {
		return u, nil, errors.New("its end is missing, or its digest is wrong")
	}
	var head header
	n := -1
	for line := range bytes.Lines(text[:end]) {
		var sum uint32
		if _, err := fmt.Sscanf(string(line[:min(8, len(line))]), "%08x", &sum); err != nil || len(line) < 10 || line[8] != ' ' {
			return u, nil, fmt.Errorf("record %d: malformed", n)
		}
		record := line[9 : len(line)-1]
		if crc32.Checksum(record, castagnoli) != sum {
			return u, nil, fmt.Errorf("record %d: wrong checksum", n)
		}
		kind, value, _ := bytes.Cut(record, []byte(" "))
		if n < 0 != (string(kind) == "copy") {
			return u, nil, fmt.Errorf("record %d: kind %q", n, kind)
		}
		switch string(kind) {
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
		default:
			err = fmt.Errorf("kind %q", kind)
		}
		if err != nil {
			return u, nil, fmt.Errorf("record %d: %w", n, err)
		}
		n++
	}
	u.Position = routing.Position{Incarnation: head.Incarnation, Revision: head.Revision, Mapped: head.Mapped}
	switch {
	case head.Format != diskFormat:
		return u, nil, fmt.Errorf("format %d, want %d", head.Format, diskFormat)
	case n != head.Records:
		return u, nil, fmt.Errorf("%d records, want %d", n, head.Records)
	case head.Incarnation == "":
		return u, nil, errors.New("no incarnation")
	}
	return u, seen, checkRecords(&u)
}

func appendRecord[T any](to []T, value []byte) ([]T, error) {
	var record T
	err := json.Unmarshal(value, &record)
	return append(to, record), err
}
