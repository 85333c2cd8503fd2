package verify

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
)

// Agency is one whose mailboxes are compared.
type Agency struct {
	ID     routing.AgencyID
	Source mailstore.Store // of its source platform
	Target mailstore.Store // of its target platform
	Rows   func() iter.Seq[routing.Row]

	// Since is when its last cutover began; zero: it wasn't cut over, so that nothing on the
	// target can be new.
	Since time.Time
	// Mark returns what a mailbox's target side was before that; nil where it isn't known.
	Mark func(routing.MailboxID) *watermark.Mailbox

	// Others says that its mailboxes aren't compared: of those that suspects name, the source
	// side is read, to find whose the content of the compared ones is.
	Others bool
}

// Options say what a [Run] does. Agencies, Names and Folder are required.
type Options struct {
	Agencies []Agency
	Names    Names
	Folder   string // scratch files go into a new folder in it, and with it at the end

	Sample int    // mailboxes of each agency; 0: all
	Draw   uint64 // which ones: another draw, other mailboxes

	// Only, if not empty, are the mailboxes to compare instead: to look again at findings.
	// Owners are further ones whose source side is read.
	Only, Owners []routing.MailboxID

	Workers int // mailboxes at once; 0: 8

	// Delivered reports whether the ledger has a transaction as delivered to a mailbox's
	// target side; nil: it isn't known. It is called from several goroutines.
	Delivered func(ctx context.Context, agency routing.AgencyID, mailbox routing.MailboxID, id mail.TransactionID) bool

	Each     func(*Comparison) // called with each mailbox's result, one at a time; may be nil
	Messages func(Message)     // called with each message of a finding that has an owner, one at a time; may be nil
	Progress func(Progress)    // called now and then, one at a time; may be nil
	Now      func() time.Time  // nil: time.Now
	Logger   *slog.Logger      // nil: nothing is logged
}

// Progress is how far a run has come.
type Progress struct {
	Mailboxes int   `json:"mailboxes"` // to compare
	Done      int   `json:"done"`      // compared, or found unreadable
	Messages  int64 `json:"messages"`  // looked at, on both sides
}

// Report is what a run found.
type Report struct {
	Began, Ended time.Time
	Mailboxes    int                 // of the agencies
	Compared     int                 // of which both sides were read to the end
	Failed       int                 // that couldn't be read
	Differ       int                 // of which something differs, besides what is new
	Owners       int                 // of which only the source was read, to find whose the content is
	Unread       []routing.MailboxID // whose source side was wanted and couldn't be read to the end
	Counts       Counts
	Findings     []Finding // by agency and address, the surest first
}

// ErrPlatform is wrapped by Run's error if a platform can't be read at all.
var ErrPlatform = errors.New("the platform's mailboxes can't be read")

// run is one run.
type run struct {
	o      Options
	book   *book
	folder string

	standings, suspects, evidences *shuffle

	asked atomic.Int64 // transactions for which the ledger was asked

	mu       sync.Mutex
	report   Report
	progress Progress
	wanted   map[uint32]int // mailboxes of which suspects speak, and how often
	worst    []Finding      // of single mailboxes: what is missing, or clashes
}

// Run compares mailboxes, and says what it found. It ends with an error if ctx ends, if a
// platform can't be read (ErrPlatform), or if the disk fails; then there is no report. That
// single mailboxes can't be read is in the report.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Workers <= 0 {
		o.Workers = 8
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	folder, err := os.MkdirTemp(o.Folder, "verify-")
	if err != nil {
		return nil, fmt.Errorf("compare mailboxes: %w", err)
	}
	defer os.RemoveAll(folder)
	r := &run{o: o, book: newBook(), folder: folder, wanted: make(map[uint32]int)}
	defer r.close()
	r.report.Began = o.Now()
	if err := r.all(ctx); err != nil {
		return nil, fmt.Errorf("compare mailboxes: %w", err)
	}
	r.report.Ended = o.Now()
	return &r.report, nil
}

// close closes what files are still open.
func (r *run) close() {
	for _, s := range []*shuffle{r.standings, r.suspects, r.evidences} {
		if s != nil {
			_ = s.close() // on the way out, after an error
		}
	}
}

// all goes through the run's steps.
func (r *run) all(ctx context.Context) (err error) {
	for _, kind := range []struct {
		to   **shuffle
		name string
		size int
	}{{&r.standings, "source", standingSize}, {&r.suspects, "suspects", suspectSize}, {&r.evidences, "evidence", evidenceSize}} {
		if *kind.to, err = newShuffle(r.folder, kind.name, kind.size); err != nil {
			return err
		}
	}
	jobs, owners := r.jobs()
	r.progress.Mailboxes = len(jobs)
	if err := r.each(ctx, jobs, r.one); err != nil {
		return err
	}
	if err := r.each(ctx, append(owners, r.named()...), r.owner); err != nil {
		return err
	}
	if err := errors.Join(r.standings.close(), r.suspects.close()); err != nil {
		return err
	}
	if err := r.join(ctx); err != nil {
		return err
	}
	if err := r.evidences.close(); err != nil {
		return err
	}
	return r.judge(ctx)
}

// job is one mailbox to read.
type job struct {
	agency *Agency
	row    routing.Row
}

// jobs returns the mailboxes to compare, and those whose source is to be read.
func (r *run) jobs() (jobs, owners []job) {
	for i := range r.o.Agencies {
		a := &r.o.Agencies[i]
		pick := newSample(r.o.Sample, r.o.Draw)
		for row := range a.Rows() {
			if !a.Others {
				r.report.Mailboxes++
			}
			switch {
			case a.Others && len(r.o.Only) == 0:
			case len(r.o.Only) == 0:
				pick.offer(job{a, row})
			case slices.Contains(r.o.Only, row.Mailbox):
				jobs = append(jobs, job{a, row})
			case slices.Contains(r.o.Owners, row.Mailbox):
				owners = append(owners, job{a, row})
			}
		}
		jobs = append(jobs, pick.picked()...)
	}
	return jobs, owners
}

// Bounds for what is read besides the mailboxes that are compared: of a mailbox that minNamed suspects name, the
// source is read too, of at most maxOwners mailboxes, the most often named first.
const (
	minNamed  = 2
	maxOwners = 2000
)

// named returns mailboxes that weren't compared and that suspects name.
func (r *run) named() []job {
	type count struct {
		i uint32
		n int
	}
	var counts []count
	for i, n := range r.wanted {
		if n >= minNamed && !r.book.at(i).read {
			counts = append(counts, count{i, n})
		}
	}
	slices.SortFunc(counts, func(a, b count) int {
		x, y := r.book.at(a.i).id, r.book.at(b.i).id
		return cmp.Or(b.n-a.n, bytes.Compare(x[:], y[:]))
	})
	if len(counts) > maxOwners {
		counts = counts[:maxOwners]
	}
	wanted := make(map[routing.MailboxID]bool, len(counts))
	for _, c := range counts {
		wanted[r.book.at(c.i).id] = true
	}
	var owners []job
	for i := range r.o.Agencies {
		a := &r.o.Agencies[i]
		for row := range a.Rows() {
			if wanted[row.Mailbox] {
				owners = append(owners, job{a, row})
			}
		}
	}
	return owners
}

// each does jobs with the run's workers, until ctx ends or a platform fails.
func (r *run) each(ctx context.Context, jobs []job, do func(context.Context, job) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan job)
	var workers sync.WaitGroup
	for range min(r.o.Workers, len(jobs)) {
		workers.Go(func() {
			for j := range next {
				if err := do(ctx, j); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, j := range jobs {
		select {
		case next <- j:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return nil
}

func (r *run) comparing(j job) *comparing {
	return &comparing{
		run: r, agency: j.agency, row: j.row, index: r.book.index(j.row.Mailbox, j.agency.ID),
		numbers: make(map[string]uint32), uids: make(map[uint32][]identified), began: r.o.Now(),
	}
}

// one compares a mailbox. Its error ends the run.
func (r *run) one(ctx context.Context, j job) error {
	c := r.comparing(j)
	err := c.compare(ctx)
	out := Comparison{Mailbox: j.row.Mailbox, Agency: j.agency.ID, Address: primary(&j.row), Folders: c.folders}
	for i := range c.folders {
		out.Counts.Add(&c.folders[i].Counts)
	}
	if err != nil {
		if err := ends(ctx, err); err != nil {
			return err
		}
		out.Error, out.Folders = err.Error(), nil
		r.o.Logger.Warn("mailbox not compared", "agency", j.agency.ID, "rcpt", out.Address, "error", err)
	} else {
		r.book.note(c.index, func(b *boxed) { b.read, b.compared, b.holds = true, true, int(out.Counts.Target) })
	}
	r.done(c, &out)
	return nil
}

// owner reads a mailbox's source side alone.
func (r *run) owner(ctx context.Context, j job) error {
	c := r.comparing(j)
	if r.book.at(c.index).read {
		return nil
	}
	_, err := c.readSource(ctx)
	if err == nil {
		err = c.standings()
	}
	if err == nil {
		r.book.note(c.index, func(b *boxed) { b.read = true })
		r.mu.Lock()
		r.report.Owners++
		r.mu.Unlock()
		return nil
	}
	if err := ends(ctx, err); err != nil {
		return err
	}
	r.mu.Lock()
	r.report.Unread = append(r.report.Unread, j.row.Mailbox)
	r.mu.Unlock()
	r.o.Logger.Warn("mailbox not read", "agency", j.agency.ID, "rcpt", primary(&j.row), "error", err)
	return nil
}

// ends returns the error that ends the run if err is about more than one mailbox; else nil.
func ends(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case mailstore.Platform(err):
		return fmt.Errorf("%w: %w", ErrPlatform, err)
	case errors.Is(err, errScratch):
		return err
	}
	return nil
}

// errScratch is wrapped by errors of the run's own files.
var errScratch = errors.New("scratch file")

// done counts a mailbox's result.
func (r *run) done(c *comparing, out *Comparison) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Done++
	r.progress.Messages += out.Counts.Source + out.Counts.Target
	if out.Error != "" {
		r.report.Failed++
		r.report.Unread = append(r.report.Unread, out.Mailbox)
	} else {
		r.report.Compared++
		r.report.Counts.Add(&out.Counts)
		if !out.Counts.Same() {
			r.report.Differ++
		}
		r.alone(c, out)
	}
	if r.o.Each != nil {
		r.o.Each(out)
	}
	if r.o.Progress != nil {
		r.o.Progress(r.progress)
	}
}

// stand hands on which keys stand on a mailbox's source side; entries are sorted by key.
func (r *run) stand(index uint32, entries []entry) error {
	var buf [standingSize]byte
	for i := range entries {
		if i > 0 && entries[i].key == entries[i-1].key {
			continue
		}
		s := standing{key: entries[i].key, mailbox: index}
		if err := r.standings.add(partOf(s.key[:]), s.put(buf[:0])); err != nil {
			return fmt.Errorf("%w: %w", errScratch, err)
		}
	}
	return nil
}

// suspect hands on a message that nothing explains yet.
func (r *run) suspect(s *suspect) error {
	if s.marks&markMany == 0 {
		r.mu.Lock()
		for _, i := range s.named {
			if i != none {
				r.wanted[i]++
			}
		}
		r.mu.Unlock()
	}
	var buf [suspectSize]byte
	if err := r.suspects.add(partOf(s.key[:]), s.put(buf[:0])); err != nil {
		return fmt.Errorf("%w: %w", errScratch, err)
	}
	return nil
}

// partOf returns the partition of a key; of anything evenly spread.
func partOf(key []byte) int { return int(binary.LittleEndian.Uint16(key)) % partitions }

func primary(row *routing.Row) routing.Address {
	if len(row.Addresses) == 0 {
		return ""
	}
	return row.Addresses[0]
}

// accepted returns when a transaction was accepted: its id is a UUIDv7 (RFC 9562 section
// 5.7), whose first 48 bits are milliseconds since 1970.
func accepted(id mail.TransactionID) (time.Time, bool) {
	b, err := id.Bytes()
	if err != nil || b[6]>>4 != 7 {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b[:8]) >> 16)), true
}
