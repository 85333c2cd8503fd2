package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/durable"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// adoptPause is how long an adoption waits that our own spool has no room for.
const adoptPause = 5 * time.Second

// adopter takes over the spools of other nodes, each by a part of the node.
type adopter struct {
	*Daemon
	beginning sync.Mutex // one adoption begins at a time

	mu  sync.Mutex
	all []*adoption // since the start
}

// adoption is the taking over of one spool.
type adoption struct {
	store *spool.Store
	view  admin.Adoption // guarded by adopter.mu
}

// list returns how far they are, in the order of their beginning.
func (a *adopter) list() []admin.Adoption {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []admin.Adoption
	for _, x := range a.all {
		out = append(out, x.view)
	}
	return out
}

// under reports whether a directory is being taken over.
func (a *adopter) under(dir string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.all, func(x *adoption) bool { return x.view.Directory == dir && x.view.Ended == nil })
}

func (a *adopter) note(x *adoption, change func(v *admin.Adoption)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&x.view)
}

// adopt makes the spool in dir this node's, if it is from's now, and moves what lies
// in it into this node's own, which goes on after it returned. What was interrupted goes
// on with the same call, from being this node's name then too.
func (a *adopter) adopt(_ context.Context, dir, from string) (admin.Adoption, error) {
	a.beginning.Lock()
	defer a.beginning.Unlock()
	cfg := a.config.Load()
	own, err := filepath.Abs(filepath.Join(cfg.Data, "spool"))
	if err == nil && own == dir {
		err = errors.New("it is this node's own")
	}
	if err == nil && a.under(dir) {
		err = fmt.Errorf("%w: this node takes it over already", spool.ErrInUse)
	}
	if err == nil && strings.Contains(dir, "\n") {
		err = errors.New("a name with a line break isn't taken")
	}
	if err != nil {
		return admin.Adoption{}, fmt.Errorf("adopt spool %s: %w", dir, err)
	}
	id, err := spool.Owner(nil, dir)
	if err != nil {
		return admin.Adoption{}, fmt.Errorf("adopt: %w", err)
	}
	if id.Owner == cfg.Node && slices.Contains(id.Past, from) {
		from = cfg.Node // an adoption that was interrupted
	}
	keys, err := diskKeys(cfg) // those of the other node have to be among them, if its bodies are sealed
	if err != nil {
		return admin.Adoption{}, fmt.Errorf("adopt spool %s: %w", dir, err)
	}
	if id, err = spool.Adopt(nil, dir, from, cfg.Node); err != nil {
		return admin.Adoption{}, err
	}
	store, err := spool.Open(spool.Options{Dir: dir, Node: cfg.Node, Keys: keys, Alarms: otherSpool{a.Daemon, dir}, Logger: a.logger})
	if err != nil {
		return admin.Adoption{}, fmt.Errorf("the spool is this node's now, but can't be opened; adopt it again: %w", err)
	}
	all, _ := store.Counts()
	x := &adoption{store: store, view: admin.Adoption{Directory: dir, ID: id.ID, From: from, Began: time.Now(), Messages: all.Messages}}
	if len(id.Past) > 0 {
		x.view.From = id.Past[len(id.Past)-1]
	}
	a.mu.Lock()
	a.all = append(a.all, x)
	view := x.view
	a.mu.Unlock()
	if err := a.remember(); err != nil {
		a.logger.Error("after a restart this adoption has to be asked for again", "directory", dir, "error", err)
	}
	a.logger.Warn("spool adopted", "spool", id.ID, "directory", dir, "from", from, "messages", all.Messages)
	a.parts.Go(func() { a.moveSpool(x) })
	return view, nil
}

// otherSpool marks the alarms of a spool that is taken over.
type otherSpool struct {
	d   *Daemon
	dir string
}

func (o otherSpool) key(key string) string  { return key + "/" + o.dir }
func (o otherSpool) Raise(key, text string) { o.d.alarms.Raise(o.key(key), text) }
func (o otherSpool) Clear(key string) bool  { return o.d.alarms.Clear(o.key(key)) }

// moveSpool moves an adopted spool's messages into ours, in order, until all are or the
// node stops. An alarm stands until it is done.
func (a *adopter) moveSpool(x *adoption) {
	dir := x.view.Directory // never changes
	key := "spool-adoption/" + dir
	a.alarms.Raise(key, fmt.Sprintf("The mail of the adopted spool %s is on its way into this node's own. It goes on at the next start, if this node stops before that has ended.", dir))
	var last mail.TransactionID
	var err error
	m := mover{adopter: a, adoption: x, first: true}
	x.store.Each(spool.Filter{}, func(e spool.Entry) bool {
		if e.Transaction == last {
			return true
		}
		last = e.Transaction
		err = m.move(e.Transaction)
		return err == nil
	})
	err = errors.Join(err, x.store.Close())
	var done admin.Adoption
	a.note(x, func(v *admin.Adoption) {
		now := time.Now()
		v.Ended, v.Waiting = &now, ""
		if err != nil {
			v.Error = err.Error()
		}
		done = *v
	})
	if err := a.remember(); err != nil {
		a.logger.Error("the next start will look into an adopted spool in vain", "directory", dir, "error", err)
	}
	a.logger.Info("adoption of a spool ended", "directory", dir, "moved", done.Moved, "left", done.Left, "error", err)
	switch {
	case err != nil:
		a.alarms.Raise(key, fmt.Sprintf("Taking over the adopted spool %s ended early, with %d of %d messages; adopt it again: %v", dir, done.Moved, done.Messages, err))
	case done.Left > 0:
		a.alarms.Raise(key, fmt.Sprintf("Of the adopted spool %s %d messages are damaged and stay there, in quarantine.", dir, done.Left))
	default:
		a.alarms.Clear(key)
	}
}

// mover moves messages, one after the other.
type mover struct {
	*adopter
	*adoption
	first bool // none was moved yet: what comes may be what a kill interrupted
}

// move moves one message, and waits while our own spool has no room for it. An error ends
// the adoption.
func (a *mover) move(id mail.TransactionID) error {
	x := a.adoption
	for {
		err := a.copyMessage(x.store, id)
		switch {
		case errors.Is(err, spool.ErrDamaged):
			a.note(x, func(v *admin.Adoption) { v.Left++ })
			a.logger.Error("message of an adopted spool is damaged and stays there", "transaction", id, "error", err)
			return nil
		case errors.Is(err, spool.ErrFull), errors.Is(err, spool.ErrBroken):
			a.note(x, func(v *admin.Adoption) { v.Waiting = err.Error() })
		case err != nil:
			return fmt.Errorf("move message %s: %w", id, err)
		default:
			a.note(x, func(v *admin.Adoption) { v.Moved, v.Waiting = v.Moved+1, "" })
			a.first = false
			return nil
		}
		select {
		case <-time.After(adoptPause):
		case <-a.ctx.Done():
			return fmt.Errorf("the node stopped: %w", err)
		}
	}
}

// copyMessage makes a message of another spool durable in ours, and only then ends it
// there: between the two it is in both, never in none. A kill may come between the two, and
// then our queue may be faster than the adoption that goes on: what the ledger has as
// delivered isn't taken again (P7). What our queue gave up on meanwhile is: its sender is
// then told twice rather than never.
func (a *mover) copyMessage(from *spool.Store, id mail.TransactionID) error {
	if err := a.ctx.Err(); err != nil {
		return fmt.Errorf("the node stops: %w", err)
	}
	m, err := from.Get(id)
	if err != nil {
		return err
	}
	_, err = a.spool.Get(id)
	ours := err == nil
	if err != nil && !errors.Is(err, spool.ErrUnknown) {
		return err
	}
	var ended []spool.Outcome
	var rcpts []spool.Recipient
	var states []spool.Outcome // in ours: what an acceptance doesn't keep
	for i := range m.Recipients {
		r := m.Recipients[i]
		if r.State.Final() {
			continue
		}
		o := spool.Outcome{Transaction: id, Recipient: i, State: spool.StateDropped, Reason: "moved to the spool of node " + a.config.Load().Node}
		o.Time = time.Now()
		ended = append(ended, o)
		if !ours && a.first && a.delivered(id, r.Address) {
			continue
		}
		states = append(states, spool.Outcome{Transaction: id, Recipient: len(rcpts), State: r.State, Reason: r.Reason, Result: r.Last})
		rcpts = append(rcpts, r)
	}
	if len(ended) == 0 {
		return nil
	}
	if !ours && len(rcpts) > 0 {
		if err := a.takeIn(from, m, rcpts); err != nil {
			return err
		}
		if err := a.spool.Set(states...); err != nil {
			a.logger.Warn("what was tried for an adopted message isn't known any more", "transaction", id, "error", err)
		}
		a.queue.Load().Added(id)
	}
	return from.Set(ended...)
}

// delivered reports whether this node brought a message to a recipient. A part of the
// ledger that can't be read counts as if it had nothing of it: twice rather than never.
func (a *mover) delivered(id mail.TransactionID, rcpt routing.Address) bool {
	for r, err := range a.ledger.Find(a.ctx, ledger.Query{Transaction: id, Recipient: string(rcpt), Result: ledger.ResultDelivered}) {
		if err == nil {
			a.logger.Info("message of an adopted spool was delivered before a stop", "transaction", id, "platform", r.Platform)
			return true
		}
		a.logger.Warn("what was delivered of an adopted spool can't be read", "transaction", id, "error", err)
	}
	return false
}

// takeIn commits a message of another spool to ours.
func (a *adopter) takeIn(from *spool.Store, m *spool.Message, rcpts []spool.Recipient) error {
	body, err := from.Open(m.Transaction)
	if err != nil {
		return err
	}
	defer body.Close()
	in, err := a.spool.Begin(m.Envelope)
	if err != nil {
		return err
	}
	defer in.Discard()
	if _, err := io.Copy(in, body); err != nil {
		return err
	}
	if err := body.Verify(); err != nil {
		return err
	}
	in.SetMessageID(m.MessageID)
	return in.Commit(a.ctx, rcpts)
}

// adoptingFile lists, in the data directory, what is being taken over: a directory a line.
const adoptingFile = "adopting"

// remember writes down which adoptions the next start has to go on with.
func (a *adopter) remember() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	folder, err := durable.Open(nil, a.config.Load().Data)
	if err != nil {
		return fmt.Errorf("write down the adoptions: %w", err)
	}
	return folder.Write(adoptingFile, func(w io.Writer) error {
		for i, x := range a.all {
			again := slices.ContainsFunc(a.all[i+1:], func(o *adoption) bool { return o.view.Directory == x.view.Directory })
			if !again && (x.view.Ended == nil || x.view.Error != "") {
				if _, err := fmt.Fprintln(w, x.view.Directory); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// interrupted returns the directories of the adoptions that the last process of this node
// didn't end.
func (a *adopter) interrupted() (dirs []string) {
	text, err := os.ReadFile(filepath.Join(a.config.Load().Data, adoptingFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.logger.Error("adoptions that were interrupted are not known", "error", err)
	}
	for line := range strings.Lines(string(text)) {
		dirs = append(dirs, strings.TrimSuffix(line, "\n"))
	}
	return dirs
}

// goOn takes up interrupted adoptions. One that can't be is an alarm, and is tried again
// at the next start, unless a person asks for it before, once its disk is there.
func (a *adopter) goOn(dirs []string) {
	for _, dir := range dirs {
		_, err := a.adopt(a.ctx, dir, a.config.Load().Node)
		if err == nil || errors.Is(err, spool.ErrInUse) { // a person was faster
			continue
		}
		now := time.Now()
		a.mu.Lock()
		a.all = append(a.all, &adoption{view: admin.Adoption{Directory: dir, Began: now, Ended: &now, Error: err.Error()}})
		a.mu.Unlock()
		a.alarms.Raise("spool-adoption/"+dir, fmt.Sprintf("Taking over the adopted spool %s was interrupted and can't go on; adopt it again: %v", dir, err))
	}
	if len(dirs) > 0 {
		if err := a.remember(); err != nil {
			a.logger.Error("what adoptions were interrupted isn't written down", "error", err)
		}
	}
}
