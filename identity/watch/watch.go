package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"mailcutover/identity/directory"
	"mailcutover/identity/model"
	"mailcutover/routing"
)

// Options are what a watch needs.
type Options struct {
	Source directory.Directory // whose word counts
	Target directory.Directory // nil: there is none
	Model  *model.Model

	Every time.Duration // between two readings; 0: only on demand
	// ProofAge is how old a reading may be for "nobody has this address"; 0 is an hour.
	ProofAge time.Duration
	// Rate is how many questions a second may be asked at RCPT; 0 is 20.
	Rate float64
	// AskTimeout is how long one of them may take; 0 is 2 s.
	AskTimeout time.Duration

	// Read is called after each reading that came to its end, by the watch's goroutine.
	Read func(ctx context.Context, source, target *View)
	// Failed is called after one that didn't.
	Failed func(err error)

	Logger *slog.Logger
	Now    func() time.Time // nil is time.Now
}

// Watch reads directories. Its methods are safe for concurrent use; [Watch.Run] is called
// once.
type Watch struct {
	o    Options
	log  *slog.Logger
	now  func() time.Time
	rate *rate.Limiter

	source, target atomic.Pointer[View]
	reading        atomic.Pointer[string] // name of the directory that is read now; nil: none
	objects        atomic.Int64           // of it, so far
	due            chan struct{}

	mu       sync.Mutex
	waiting  []chan error      // for the next reading to end
	failures map[string]uint64 // readings that didn't come to their end, by directory
}

// New returns a watch that has read nothing yet.
func New(o Options) (*Watch, error) {
	if o.Source == nil || o.Model == nil {
		return nil, errors.New("watch directories: want a source and a model")
	}
	if o.ProofAge == 0 {
		o.ProofAge = time.Hour
	}
	if o.Rate == 0 {
		o.Rate = 20
	}
	if o.AskTimeout == 0 {
		o.AskTimeout = 2 * time.Second
	}
	w := &Watch{o: o, log: o.Logger, now: o.Now, rate: rate.NewLimiter(rate.Limit(o.Rate), int(max(o.Rate, 1))), due: make(chan struct{}, 1), failures: make(map[string]uint64)}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	if w.now == nil {
		w.now = time.Now
	}
	return w, nil
}

// Views returns the last reading of each directory; nil where there is none.
func (w *Watch) Views() (source, target *View) { return w.source.Load(), w.target.Load() }

// Progress returns which directory is read now, how many of its objects were read so far, and
// how many it had in the reading before; 0: there was none. The name is empty if none is read.
func (w *Watch) Progress() (directory string, objects, before int) {
	name := w.reading.Load()
	if name == nil {
		return "", 0, 0
	}
	for _, v := range []*View{w.source.Load(), w.target.Load()} {
		if v != nil && v.Snapshot.Directory == *name {
			before = v.Snapshot.Objects
		}
	}
	return *name, int(w.objects.Load()), before
}

// Failures returns how often reading a directory didn't come to its end.
func (w *Watch) Failures(directory string) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failures[directory]
}

// Run reads at once, then on schedule and when it is asked to, until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	var tick <-chan time.Time
	if w.o.Every > 0 {
		t := time.NewTicker(w.o.Every)
		defer t.Stop()
		tick = t.C
	}
	for {
		w.mu.Lock()
		waiting := w.waiting
		w.waiting = nil
		select {
		case <-w.due: // what was asked for is this reading
		default:
		}
		w.mu.Unlock()
		err := w.read(ctx)
		for _, c := range waiting {
			c <- err
		}
		select {
		case <-tick:
		case <-w.due:
		case <-ctx.Done():
			return fmt.Errorf("watch directories: %w", ctx.Err())
		}
	}
}

// Refresh reads the directories now, and returns when a reading that began after the call has
// ended.
func (w *Watch) Refresh(ctx context.Context) error {
	c := make(chan error, 1)
	w.mu.Lock()
	w.waiting = append(w.waiting, c)
	select {
	case w.due <- struct{}{}:
	default: // is asked for already
	}
	w.mu.Unlock()
	select {
	case err := <-c:
		return err
	case <-ctx.Done():
		return fmt.Errorf("read directories: %w", ctx.Err())
	}
}

// read reads both directories and takes both over, or neither.
func (w *Watch) read(ctx context.Context) error {
	source, err := w.view(ctx, w.o.Source)
	if err == nil && source.Snapshot.Objects == 0 {
		w.mu.Lock()
		w.failures[source.Snapshot.Directory]++
		w.mu.Unlock()
		// Rights that were taken from our account, or a server that has just been installed, look like this.
		err = fmt.Errorf("read directory %s from %s: %w: it shows no object at all", source.Snapshot.Directory, source.Snapshot.Server, directory.ErrIncomplete)
	}
	var target *View
	if err == nil && w.o.Target != nil {
		target, err = w.view(ctx, w.o.Target)
	}
	if err != nil {
		w.log.Error("directories were not read", "error", err)
		if w.o.Failed != nil && ctx.Err() == nil {
			w.o.Failed(err)
		}
		return err
	}
	w.source.Store(source)
	w.target.Store(target)
	w.log.Info("directories read", "directory", source.Snapshot.Directory, "objects", source.Snapshot.Objects, "problems", len(source.Problems),
		"seconds", source.Snapshot.Ended.Sub(source.Snapshot.Began).Seconds())
	if w.o.Read != nil {
		w.o.Read(ctx, source, target)
	}
	return nil
}

func (w *Watch) view(ctx context.Context, d directory.Directory) (*View, error) {
	b := newBuilder(d.Name(), w.o.Model, w.now())
	name := d.Name()
	w.objects.Store(0)
	w.reading.Store(&name)
	defer w.reading.Store(nil)
	snapshot, err := d.Read(ctx, func(o *directory.Object) error {
		w.objects.Add(1)
		return b.add(o)
	})
	if err != nil {
		if ctx.Err() == nil {
			w.mu.Lock()
			w.failures[d.Name()]++
			w.mu.Unlock()
		}
		return nil, err
	}
	b.view.Snapshot = snapshot
	return b.view, nil
}

// ErrUnproven is wrapped by the error of [Watch.Absent] where nothing is proven.
var ErrUnproven = errors.New("it isn't proven that nobody has the address")

// Absent returns nil if it is certain that nobody has an address: the last whole reading of the
// source's directory is young enough and doesn't know it, and the directory, asked now,
// doesn't either (docs/architecture/promises.md, P5). Every other outcome is an error. It
// waits for AskTimeout at most.
func (w *Watch) Absent(ctx context.Context, a routing.Address) error {
	v := w.source.Load()
	switch {
	case v == nil:
		return fmt.Errorf("%w: %w", ErrUnproven, errNever)
	case !oneSpelling(a):
		return fmt.Errorf("%w: a directory may spell it in another way", ErrUnproven)
	case w.now().Sub(v.Snapshot.Began) > w.o.ProofAge:
		return fmt.Errorf("%w: %s was last read at %s", ErrUnproven, v.Snapshot.Directory, v.Snapshot.Began.Format(time.RFC3339))
	case v.Facts.Knows(a):
		return fmt.Errorf("%w: %s had it when it was read", ErrUnproven, v.Snapshot.Directory)
	case !w.rate.Allow():
		return fmt.Errorf("%w: too many questions at once", ErrUnproven)
	}
	ctx, cancel := context.WithTimeout(ctx, w.o.AskTimeout)
	defer cancel()
	found, err := w.o.Source.Find(ctx, directory.Query{Address: a})
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnproven, err)
	case len(found) > 0:
		return fmt.Errorf("%w: %s has it", ErrUnproven, w.o.Source.Name())
	}
	return nil
}

// oneSpelling reports whether an address has one form only. A domain can be written in Unicode
// or in A-labels (RFC 5890), and other letters than ASCII's as one character or as two: a
// directory that is asked for one form may have the other.
func oneSpelling(a routing.Address) bool {
	for i := range len(a) {
		if a[i] >= utf8.RuneSelf {
			return false
		}
	}
	return !strings.Contains(a.Domain(), "xn--")
}

// X500 returns the mailbox of an X.500 name, as the last reading has it.
func (w *Watch) X500(name string) (routing.MailboxID, bool) {
	v := w.source.Load()
	if v == nil {
		return routing.MailboxID{}, false
	}
	return v.X500(name)
}
