package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"mailcutover/rollback/verify"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
)

// unknownSince is how far back mail counts as new on the target of an agency that is there
// while nobody knows since when.
const unknownSince = 30 * 24 * time.Hour

// comparing is the work of one order.
type comparing struct {
	d    *Desk
	o    *order
	mu   sync.Mutex
	at   verify.Progress
	done map[routing.AgencyID]*Outcome
	seen map[routing.MailboxID]bool // compared to the end

	mailboxes, messages *details
}

// Progress returns how far a comparison is that runs on this node; false: it doesn't.
func (d *Desk) Progress(run string) (verify.Progress, bool) {
	d.mu.Lock()
	c := d.working
	d.mu.Unlock()
	if c == nil || c.o.run != run {
		return verify.Progress{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at, true
}

// compare does an order, and stores what came of it. ctx ends with the order, node with this
// node.
func (c *comparing) compare(ctx, node context.Context) {
	o := c.o
	log := c.d.o.Logger.With("run", o.run)
	log.Info("mailboxes are compared", "agency", o.Agencies, "mode", o.Mode, "reason", o.Reason)
	beats, stop := context.WithCancel(ctx)
	var beating sync.WaitGroup
	beating.Go(func() { c.beat(beats) })
	report, err := c.run(ctx)
	stop()
	beating.Wait()
	if err != nil {
		if node.Err() != nil {
			return // its next life goes on, or another node once this one is silent
		}
		c.d.failures.Add(1)
		log.Warn("mailboxes were not compared", "agency", o.Agencies, "error", err)
		if err := c.failed(node, err); err != nil {
			log.Warn("the end of a comparison is not stored", "error", err)
		}
		return
	}
	c.d.runs.Add(1)
	for {
		err = c.store(node, report)
		if err == nil || node.Err() != nil {
			break
		}
		log.Warn("what a comparison found is not stored yet", "error", err)
		select {
		case <-time.After(retryPause):
		case <-node.Done():
		}
	}
	log.Info("mailboxes were compared", "agency", o.Agencies, "mailboxes", report.Compared, "failed", report.Failed, "findings", len(report.Findings), "seconds", report.Ended.Sub(report.Began).Seconds())
}

// run compares.
func (c *comparing) run(ctx context.Context) (*verify.Report, error) {
	d, s := c.d, c.d.o.Replica.State()
	set := d.o.Settings()
	o := verify.Options{
		Names: names{s}, Folder: d.o.Dir, Workers: set.Workers, Draw: rand.Uint64(), Delivered: d.o.Delivered, Now: d.o.Now, Logger: d.o.Logger,
		Each: c.each, Progress: c.progress,
	}
	if c.o.Mode == Sample {
		o.Sample = max(1, c.o.Sample)
	}
	for _, a := range s.Agencies() {
		one, err := c.agency(ctx, s, &a, set)
		if err != nil {
			return nil, err
		}
		if one == nil {
			continue
		}
		if !one.Others && c.o.Mode == Again {
			all, err := Findings(s, a.ID)
			if err != nil {
				return nil, err
			}
			only, owners := again(all)
			o.Only, o.Owners = append(o.Only, only...), append(o.Owners, owners...)
		}
		o.Agencies = append(o.Agencies, *one)
	}
	if c.o.Mode == Again && len(o.Only) == 0 {
		return &verify.Report{Began: c.o.began, Ended: d.o.Now()}, nil // somebody took his word back
	}
	var err error
	if c.mailboxes, err = newDetails(d.o.Dir, c.o.run, "mailboxes"); err != nil {
		return nil, err
	}
	defer c.mailboxes.drop()
	if c.messages, err = newDetails(d.o.Dir, c.o.run, "messages"); err != nil {
		return nil, err
	}
	defer c.messages.drop()
	o.Messages = func(m verify.Message) { c.messages.add(m) }
	report, err := verify.Run(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.mailboxes.keep(), c.messages.keep()); err != nil {
		return nil, err
	}
	return report, nil
}

// agency returns how an agency's mailboxes are read; nil: they can't be.
func (c *comparing) agency(ctx context.Context, s *routing.State, a *routing.Agency, set Settings) (*verify.Agency, error) {
	wanted := slices.Contains(c.o.Agencies, a.ID)
	m := s.Mapping(a.ID)
	source, target := set.Mailboxes(a.Source), set.Mailboxes(a.Target)
	if m == nil || source == nil || target == nil {
		if wanted {
			return nil, fmt.Errorf("compare mailboxes of agency %s: %w", a.ID, ErrUnreadable)
		}
		return nil, nil
	}
	one := &verify.Agency{ID: a.ID, Source: source, Target: target, Rows: func() iter.Seq[routing.Row] { return m.Rows() }, Others: !wanted}
	if !wanted {
		return one, nil
	}
	out := &Outcome{
		Run: c.o.run, Node: c.d.o.Node, Mode: c.o.Mode, Cause: c.o.cause, Who: c.o.Who, Operation: c.d.o.Cutover(s, a.ID), Phase: a.Phase,
		Began: c.o.began, Mailboxes: m.Len(), Found: make(map[string]int),
	}
	c.done[a.ID] = out
	if a.Platform() != a.Target {
		return one, nil // nothing is new on the target
	}
	before := c.d.o.Before(ctx, a.ID)
	one.Since = before.Since
	if one.Since.IsZero() {
		one.Since = c.o.began.Add(-unknownSince)
		out.Notes = append(out.Notes, fmt.Sprintf("when it was cut over isn't known: what arrived since %s counts as new", one.Since.Format(time.RFC3339)))
	}
	if before.Marks == nil || before.Marks.On(a.Target) == nil {
		out.Notes = append(out.Notes, "there are no watermarks of the target: what its users copied there since isn't told from what the mover brought")
	} else {
		one.Mark = func(id routing.MailboxID) *watermark.Mailbox { return before.Marks.Mailbox(a.Target, id) }
	}
	return one, nil
}

// each notes a mailbox's result.
func (c *comparing) each(m *verify.Comparison) {
	if c.mailboxes != nil {
		c.mailboxes.add(m)
	}
	out := c.done[m.Agency]
	if out == nil {
		return
	}
	if m.Error != "" {
		c.d.unreadable.Add(1)
		out.Failed++
		return
	}
	c.d.compared.Add(1)
	out.Compared++
	if !m.Counts.Same() {
		out.Differ++
	}
	out.Counts.Add(&m.Counts)
	c.seen[m.Mailbox] = true
}

// progress notes how far the run has come.
func (c *comparing) progress(p verify.Progress) {
	c.mu.Lock()
	c.at = p
	c.mu.Unlock()
}

// beat tells the table, now and then, that the comparison goes on.
func (c *comparing) beat(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		at := c.at
		c.mu.Unlock()
		err := c.records(ctx, "mailboxes are being compared", func(r *Record) bool {
			r.Running.Beat, r.Running.Progress = c.d.o.Now().UTC(), at
			return true
		})
		if err != nil && ctx.Err() == nil {
			c.d.o.Logger.Warn("how far a comparison is isn't stored", "error", err)
		}
	}
}

// records changes the records of the run's agencies, as far as they are this run's.
func (c *comparing) records(ctx context.Context, what string, change func(*Record) bool) error {
	return c.d.store(ctx, what, func(s *routing.State) ([]routing.Document, error) {
		var docs []routing.Document
		for _, id := range c.o.Agencies {
			r, err := RecordOf(s, id)
			if err != nil {
				return nil, err
			}
			if r.Running == nil || r.Running.Run != c.o.run || !change(&r) {
				continue
			}
			doc, err := r.document()
			if err != nil {
				return nil, err
			}
			docs = append(docs, doc)
		}
		return docs, nil
	})
}

// failed stores that the run didn't come to its end.
func (c *comparing) failed(ctx context.Context, cause error) error {
	return c.records(ctx, "mailboxes were not compared", func(r *Record) bool {
		t := &Trouble{Run: c.o.run, Node: c.d.o.Node, Mode: c.o.Mode, Time: c.d.o.Now().UTC(), Error: cause.Error(), Tries: 1}
		if errors.Is(cause, context.Canceled) {
			t.Error, t.Tries = "it was stopped", triesMost // nothing goes on by itself
		} else if r.Trouble != nil {
			t.Tries += r.Trouble.Tries
		}
		r.Trouble, r.Running = t, nil
		return true
	})
}

// store stores what the run found.
func (c *comparing) store(ctx context.Context, report *verify.Report) error {
	set := c.d.o.Settings()
	for id, out := range c.done {
		out.Ended = c.d.o.Now().UTC()
		clear(out.Found)
		var own []verify.Finding
		for _, f := range report.Findings {
			if f.Agency == id {
				own = append(own, f)
				out.Found[string(f.Kind)]++
			}
		}
		err := c.d.store(ctx, "what comparing mailboxes found", func(s *routing.State) ([]routing.Document, error) {
			r, err := RecordOf(s, id)
			if err != nil {
				return nil, err
			}
			if r.Running == nil || r.Running.Run != c.o.run {
				return nil, nil // stored, or another run has taken over
			}
			was, err := Findings(s, id)
			if err != nil {
				return nil, err
			}
			now, fresh := merge(was, &looked{run: c.o.run, at: out.Ended, findings: own, gone: func(t *Tracked) bool {
				// A sample doesn't read every owner, and would miss what is only rare.
				return c.seen[t.Mailbox] && !slices.Contains(report.Unread, t.Owner) && (c.o.Mode == Full || c.o.Mode == Again && t.State == Removed)
			}})
			docs, n, left, err := pages(s, id, now)
			if err != nil {
				return nil, err
			}
			c.conclude(&r, out, fresh, set)
			r.Pages, r.Left = n, left
			doc, err := r.document()
			if err != nil {
				return nil, err
			}
			return append(docs, doc), nil
		})
		if err != nil {
			return err
		}
	}
	c.d.sweepDetails()
	return nil
}

// conclude notes in an agency's record that the run is done, and what follows.
func (c *comparing) conclude(r *Record, out *Outcome, fresh int, set Settings) {
	r.Running, r.Trouble = nil, nil
	crossed := out.Found[string(verify.Crossed)]+out.Found[string(verify.Foreign)] > 0
	switch c.o.Mode {
	case Full:
		r.Last, r.Full, r.Widen = out, out, false
	case Sample:
		r.Last = out
		r.Widen = crossed
	}
	if crossed && fresh > 0 && c.o.Mode != Again && set.React == ReactLock && out.Phase == routing.PhaseTarget {
		r.Lock = true
	}
}

// details are lines of JSON in a file of this node, for people who want to see each mailbox
// or message. They are not fsynced: who lost them compares again.
type details struct {
	path string
	file *os.File
	json *json.Encoder
	err  error
	kept bool
}

func detailsPath(dir, run, what string) string {
	return filepath.Join(dir, run+"."+what+".json")
}

func newDetails(dir, run, what string) (*details, error) {
	path := detailsPath(dir, run, what)
	f, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keep the details of a comparison: %w", err)
	}
	return &details{path: path, file: f, json: json.NewEncoder(f)}, nil
}

func (d *details) add(v any) { d.err = errors.Join(d.err, d.json.Encode(v)) }

// keep makes the file one that is shown.
func (d *details) keep() error {
	if err := errors.Join(d.err, d.file.Close(), os.Rename(d.path+".part", d.path)); err != nil {
		return fmt.Errorf("keep the details of a comparison: %w", err)
	}
	d.kept = true
	return nil
}

// drop removes the file if it wasn't kept.
func (d *details) drop() {
	if !d.kept {
		d.file.Close()
		os.Remove(d.path + ".part")
	}
}
