package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mailcutover/internal/durable"
)

// BadRecord is the first record with which a log is not the one that was written.
type BadRecord struct {
	Number uint64 // that it has, or that is missing
	Where  string // file and line, as far as there is one
	Why    string
}

func (b *BadRecord) Error() string {
	if b.Where == "" {
		return fmt.Sprintf("audit record %d: %s", b.Number, b.Why)
	}
	return fmt.Sprintf("audit record %d (%s): %s", b.Number, b.Where, b.Why)
}

// Report is what a verified log is.
type Report struct {
	Head  Head     // of its last record
	Heads int      // of those given, that were in it
	Notes []string // what is no damage, but worth knowing: torn tails
}

// Verify reads an exported log to its end. It returns a [*BadRecord] where a record was
// changed, removed, inserted or moved, and where one of these heads isn't in it: a head
// that it lacks means that the end was cut, another record at the head's number that the
// log was written anew from there or from an earlier record on. Up to there, the Report
// says what was good.
func Verify(r io.Reader, heads ...Head) (Report, error) {
	v := newVerifier(heads)
	in := bufio.NewReaderSize(r, 64<<10)
	for line := 1; ; line++ {
		text, err := readLine(in)
		if err == io.EOF && len(text) == 0 {
			break
		}
		where := "line " + strconv.Itoa(line)
		if err != nil && err != io.EOF && !errors.Is(err, errLong) {
			return v.report, fmt.Errorf("read the audit log at %s: %w", where, err)
		}
		if err != nil {
			return v.report, v.bad(where, endless(err))
		}
		if err := v.next(text, where, nil); err != nil {
			return v.report, err
		}
	}
	return v.report, v.end()
}

// VerifyDir is Verify for the folder of a [Log], which may be in use. each, unless nil, is
// called with every good record and its line as it stands in the file; its error ends it.
func VerifyDir(disk durable.Disk, dir string, each func(r *Record, line []byte) error, heads ...Head) (Report, error) {
	if disk == nil {
		disk = durable.OS{}
	}
	v := newVerifier(heads)
	segments, err := list(disk, dir)
	if err != nil {
		return v.report, err
	}
	for i, s := range segments {
		next := uint64(0)
		if i+1 < len(segments) {
			next = segments[i+1].first
		}
		if err := v.segment(disk, dir, s, next, each); err != nil {
			return v.report, err
		}
	}
	return v.report, v.end()
}

var errLong = errors.New("line too long")

// readLine returns a line with its end. At most maxLine bytes are kept in memory.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxLine {
			return line, errLong
		}
		if err != bufio.ErrBufferFull {
			return line, err
		}
	}
}

// endless says what is wrong with a line that readLine could not read to its end.
func endless(err error) string {
	if errors.Is(err, errLong) {
		return "its line is longer than that of any record"
	}
	return "its line has no end"
}

// verifier follows a chain from its first record.
type verifier struct {
	report Report
	heads  []Head // by number
	seen   int    // of heads, that have been compared
}

func newVerifier(heads []Head) *verifier {
	v := &verifier{}
	for _, h := range heads {
		if h.Number > 0 { // the chain of an empty log has no name yet
			v.heads = append(v.heads, h)
		}
	}
	slices.SortStableFunc(v.heads, func(a, b Head) int { return cmp.Compare(a.Number, b.Number) })
	return v
}

// bad is an error about the record that should come next.
func (v *verifier) bad(where, why string) *BadRecord {
	return &BadRecord{Number: v.report.Head.Number + 1, Where: where, Why: why}
}

// next takes one line with its end.
func (v *verifier) next(text []byte, where string, each func(*Record, []byte) error) error {
	r, h, err := decode(bytes.TrimSuffix(text, []byte("\n")))
	if err != nil {
		return v.bad(where, err.Error())
	}
	if why := v.follows(&r); why != "" {
		return v.bad(where, why)
	}
	v.report.Head = Head{Node: r.Node, Chain: r.Chain, Number: r.Number, Hash: h}
	for ; v.seen < len(v.heads) && v.heads[v.seen].Number <= r.Number; v.seen++ {
		switch want := v.heads[v.seen]; {
		case want.Chain != r.Chain || want.Node != r.Node:
			return &BadRecord{Number: 1, Why: fmt.Sprintf("the log is chain %s of node %s, the head %s is another's: the log was begun anew, or is not the one that the head is of", r.Chain, r.Node, want)}
		case want.Number == r.Number && want.Hash != h:
			return &BadRecord{Number: r.Number, Where: where, Why: fmt.Sprintf("the head %s is of another record: the log was written anew, from %s on", want, v.proven())}
		case want.Number == r.Number:
			v.report.Heads++
		}
	}
	if each != nil {
		return each(&r, text)
	}
	return nil
}

// proven says where a log that was written anew can have begun to differ.
func (v *verifier) proven() string {
	if v.seen > 0 {
		return fmt.Sprintf("some record after %d", v.heads[v.seen-1].Number)
	}
	return "here or some record before"
}

// follows says what keeps r from being the next record.
func (v *verifier) follows(r *Record) string {
	last := v.report.Head
	switch {
	case r.Number != last.Number+1:
		return fmt.Sprintf("record %d stands in its place", r.Number)
	case r.Previous != last.Hash:
		return "it doesn't follow the record before"
	case last.Number == 0 && (r.Chain == "" || r.Node == ""):
		return "it names no chain"
	case last.Number > 0 && (r.Chain != last.Chain || r.Node != last.Node):
		return fmt.Sprintf("it is of chain %s of node %s, those before of chain %s of node %s", r.Chain, r.Node, last.Chain, last.Node)
	}
	return ""
}

// end says what is missing behind the last record.
func (v *verifier) end() error {
	if v.seen < len(v.heads) {
		return v.bad("", fmt.Sprintf("it is missing: the log ends before it, and the head %s is of this or a later one", v.heads[v.seen]))
	}
	return nil
}

// segment takes the records of one file; next is the first number of the file behind it,
// 0 if there is none. The last line may be one whose write failed: then the file behind
// begins with its number.
func (v *verifier) segment(disk durable.Disk, dir string, s segment, next uint64, each func(*Record, []byte) error) error {
	file, err := disk.Open(filepath.Join(dir, s.name))
	if err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	defer file.Close()
	in := bufio.NewReaderSize(file, 64<<10)
	for line := 1; ; line++ {
		text, err := readLine(in)
		if err == io.EOF && len(text) == 0 {
			return nil
		}
		where := fmt.Sprintf("%s line %d", s.name, line)
		if err != nil && err != io.EOF && !errors.Is(err, errLong) {
			return fmt.Errorf("read the audit log at %s: %w", where, err)
		}
		due := v.report.Head.Number + 1
		_, last := in.Peek(1)
		switch torn := err != nil || bytes.IndexByte(text, 0) >= 0; {
		case last == nil: // more comes
		case next == due: // what stands here was never acknowledged
			v.report.Notes = append(v.report.Notes, fmt.Sprintf("%s: %d bytes of a failed write, which the next file replaces", where, len(text)))
			return nil
		case next == 0 && torn:
			v.report.Notes = append(v.report.Notes, fmt.Sprintf("%s: %d bytes of a torn record behind record %d", where, len(text), due-1))
			return nil
		}
		if err != nil {
			return v.bad(where, endless(err))
		}
		if err := v.next(text, where, each); err != nil {
			return err
		}
	}
}

// segment is one file of a log.
type segment struct {
	name    string
	first   uint64 // number of its first record
	attempt uint64 // to begin a file with that record; later ones replace earlier ones
}

const suffix = ".audit"

func segmentName(first, attempt uint64) string {
	return fmt.Sprintf("%012d-%03d%s", first, attempt, suffix)
}

// list returns the files of a log in their order. Files of other names are not its own.
func list(disk durable.Disk, dir string) ([]segment, error) {
	names, err := disk.Names(dir)
	if err != nil {
		return nil, fmt.Errorf("list the audit log: %w", err)
	}
	var all []segment
	for _, name := range names {
		base, ok := strings.CutSuffix(name, suffix)
		first, attempt, cut := strings.Cut(base, "-")
		if !ok || !cut {
			continue
		}
		f, err1 := strconv.ParseUint(first, 10, 64)
		a, err2 := strconv.ParseUint(attempt, 10, 64)
		if err1 != nil || err2 != nil || segmentName(f, a) != name {
			continue
		}
		all = append(all, segment{name: name, first: f, attempt: a})
	}
	slices.SortFunc(all, func(a, b segment) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.attempt, b.attempt))
	})
	return all, nil
}
