package spool

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"mailcutover/internal/durable"
	"mailcutover/internal/durable/memdisk"
	"mailcutover/internal/seal"
	"mailcutover/mail"
	"mailcutover/routing"
)

// world is a store whose committer is driven by hand, and what must be true of it.
type world struct {
	t       testing.TB
	disk    *memdisk.Disk
	wrap    func(durable.Disk) durable.Disk // nil: as it is
	s       *Store
	all     []*tracked
	coming  []*flight // begun, not committed
	pinned  []*flight // committed, not discarded
	rng     *rand.Rand
	inMove  func() // done once in the middle of the next compaction
	inSync  func() // done once in the middle of the next fsync of the journal
	options Options
	keys    []*seal.Keys // of each start in turn, and then the last; empty: nothing is sealed
	starts  int

	mend       func(error) error // what the operator does about an error; nil: nothing
	compacting bool              // a segment is being compacted
	removed    bool              // and its file was removed
}

// tracked is a message as the test knows it.
type tracked struct {
	id    mail.TransactionID
	body  string
	given []Recipient
	tried bool // Commit was called
	acked bool // and returned nil
	adds  int  // of given, tried by an Add and not acknowledged
	// For each recipient the states it had, the first is the one at acceptance. What is
	// before safe can't come back.
	states [][]State
	safe   []int
	kill   []int // as safe, for a kill: Set returned nil
}

type flight struct {
	in *Incoming
	m  *tracked
}

func newWorld(t testing.TB, seed uint64, wrap func(durable.Disk) durable.Disk) *world {
	w := &world{t: t, disk: memdisk.New(), wrap: wrap, rng: rand.New(rand.NewPCG(seed, 1))}
	w.options = Options{Dir: "/spool", Node: "node1", SegmentBytes: 3000, InlineBytes: 300, manual: true}
	return w
}

// open opens the store; an error is one of the crash.
func (w *world) open() error {
	if n := len(w.keys); n > 0 {
		w.options.Keys = w.keys[min(w.starts, n-1)]
		w.starts++
	}
	o := w.options
	o.Disk = &syncing{Disk: w.disk, w: w}
	if w.wrap != nil {
		o.Disk = w.wrap(o.Disk)
	}
	o.before = func(j *job) {
		if f := w.inMove; f != nil && j.kind == jobMove {
			w.inMove = nil
			f()
		}
	}
	s, err := Open(o)
	if err != nil {
		return err
	}
	w.s = s
	w.durable() // all that Open found is on the disk
	return nil
}

// syncing lets the test do something while an fsync of the journal is under way.
type syncing struct {
	durable.Disk
	w *world
}

func (d *syncing) Create(path string) (durable.File, error) {
	f, err := d.Disk.Create(path)
	if err == nil && strings.Contains(path, journalDir) {
		f = &syncingFile{f, d.w}
	}
	return f, err
}

func (d *syncing) Remove(path string) error {
	d.w.removed = d.w.removed || d.w.compacting && strings.Contains(path, journalDir)
	return d.Disk.Remove(path)
}

type syncingFile struct {
	durable.File
	w *world
}

func (f *syncingFile) Sync() error {
	err := f.File.Sync()
	if do := f.w.inSync; do != nil && err == nil && f.w.s != nil && f.w.s.write.TryLock() {
		f.w.s.write.Unlock() // not the fsync of a segment that ends, which outcomes wait for
		f.w.inSync = nil
		do() // behind what was fsynced, though the store knows it only later
	}
	return err
}

// durable notes that all Sets so far are on the disk.
func (w *world) durable() {
	for _, m := range w.all {
		for i := range m.states {
			m.safe[i] = len(m.states[i]) - 1
		}
	}
}

// written returns what makes durable all Sets up to now, but none after.
func (w *world) written() func() {
	type mark struct {
		m *tracked
		n []int
	}
	var marks []mark
	for _, m := range w.all {
		n := make([]int, len(m.states))
		for i := range n {
			n[i] = len(m.states[i]) - 1
		}
		marks = append(marks, mark{m, n})
	}
	return func() {
		for _, k := range marks {
			for i, n := range k.n {
				k.m.safe[i] = max(k.m.safe[i], n)
			}
		}
	}
}

func (w *world) recipients(n int) []Recipient {
	list := make([]Recipient, n)
	for i := range list {
		list[i] = rcpt(fmt.Sprint("r", w.rng.IntN(4)), routing.AgencyID(fmt.Sprint("a", w.rng.IntN(2))), StateHeld)
		if w.rng.IntN(3) == 0 {
			list[i].State = StateWaiting
		}
	}
	return list
}

func (m *tracked) give(rcpts []Recipient) {
	for _, r := range rcpts {
		m.given = append(m.given, r)
		m.states = append(m.states, []State{r.State})
		m.safe, m.kill = append(m.safe, 0), append(m.kill, 0)
	}
}

// begin begins a message and writes its body in pieces.
func (w *world) begin(size int) error {
	env := envelope(w.t)
	in, err := w.s.Begin(env)
	if err != nil {
		return err
	}
	m := &tracked{id: env.Transaction, body: strings.Repeat(string(env.Transaction)+"\r\n", size/28+1)[:size]}
	w.all = append(w.all, m)
	w.coming = append(w.coming, &flight{in, m})
	for i := 0; i < size; i += 1000 {
		if _, err := in.Write([]byte(m.body[i:min(i+1000, size)])); err != nil {
			return err
		}
	}
	return nil
}

// commit commits all that is coming as one group.
func (w *world) commit() error {
	var jobs []*job
	var flights []*flight
	var failed error
	for _, f := range w.coming {
		rcpts := w.recipients(1 + w.rng.IntN(3))
		f.m.give(rcpts)
		f.m.tried = true
		j, err := f.in.stage(w.t.Context(), rcpts)
		if err != nil {
			failed = err
			continue
		}
		jobs, flights = append(jobs, j), append(flights, f)
	}
	w.coming = nil
	if len(jobs) == 0 {
		return failed
	}
	safe := w.written()
	w.s.group(jobs)
	for i, j := range jobs {
		if err := <-j.done; err != nil {
			failed = err
			continue
		}
		flights[i].m.acked = true
		w.pinned = append(w.pinned, flights[i])
	}
	if failed == nil {
		safe()
	}
	return failed
}

func (w *world) discard() {
	for _, f := range w.coming {
		f.in.Discard()
	}
	for _, f := range w.pinned {
		f.in.Discard()
	}
	w.coming, w.pinned = nil, nil
}

// add adds recipients to a pinned message.
func (w *world) add() error {
	if len(w.pinned) == 0 {
		return nil
	}
	f := w.pinned[w.rng.IntN(len(w.pinned))]
	rcpts := w.recipients(1 + w.rng.IntN(2))
	safe := w.written()
	f.m.adds = len(rcpts)
	f.m.give(rcpts)
	if err := f.in.Add(w.t.Context(), rcpts); err != nil {
		return err
	}
	f.m.adds = 0
	safe()
	return nil
}

// set gives a recipient of an acknowledged message another state.
func (w *world) set() error {
	type one struct {
		m *tracked
		i int
	}
	var can []one
	for _, m := range w.all {
		for i := range m.given {
			if s := m.states[i]; m.acked && i < len(m.given)-m.adds && !s[len(s)-1].Final() {
				can = append(can, one{m, i})
			}
		}
	}
	if len(can) == 0 {
		return nil
	}
	o := can[w.rng.IntN(len(can))]
	to := []State{StateDelivered, StateDelivered, StateDelivered, StateWaiting, StateWaiting, StateFailed, StateDropped}[w.rng.IntN(7)]
	was := len(o.m.states[o.i])
	o.m.states[o.i] = append(o.m.states[o.i], to)
	err := w.s.Set(Outcome{Transaction: o.m.id, Recipient: o.i, State: to, Reason: "because"})
	if err == nil {
		o.m.kill[o.i] = was
	}
	return err
}

func (w *world) flush() error {
	safe := w.written()
	if err := w.s.flush(); err != nil {
		return err
	}
	safe()
	return nil
}

// some returns a segment that may be compacted, whether it is worth it or not; 0 if
// there is none.
func (w *world) some(s *Store) uint32 {
	var all []uint32
	for n := range s.segments {
		if n != s.w.number && n != s.last {
			all = append(all, n)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[w.rng.IntN(len(all))]
}

// compact compacts at most n segments.
func (w *world) compact(n int) error {
	for ; n > 0; n-- {
		k := w.some(w.s)
		if k == 0 {
			return nil
		}
		w.compacting, w.removed = true, false
		err := w.s.compactSegment(k)
		w.compacting = false
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *world) restart() error {
	w.discard()
	if err := w.s.Close(); err != nil {
		return err
	}
	w.durable()
	return w.open()
}

// play plays steps drawn from the seed, until one fails.
func (w *world) play(steps int) error {
	if err := w.open(); err != nil {
		return err
	}
	for range steps {
		var err error
		switch w.rng.IntN(14) {
		case 0, 1:
			err = w.begin(w.rng.IntN(250))
		case 2:
			err = w.begin(301 + w.rng.IntN(1500))
		case 3, 4:
			if err = w.begin(w.rng.IntN(200)); err == nil {
				err = w.commit()
			}
		case 5:
			err = w.commit()
		case 6:
			err = w.add()
		case 7, 8, 9:
			err = w.set()
		case 10:
			w.discard()
		case 11:
			err = w.flush()
		case 12:
			switch w.rng.IntN(3) {
			case 0:
				w.inMove = func() { w.set() }
			case 1:
				w.inMove = func() { w.add() }
			default:
				w.inSync = func() { w.set() }
			}
			err = w.compact(2)
		case 13:
			if w.rng.IntN(2) == 0 {
				err = w.restart()
			}
		}
		if err != nil && w.mend != nil {
			err = w.mend(err)
		}
		if err != nil {
			return err
		}
	}
	w.discard()
	err := w.restart()
	if err != nil && w.mend != nil {
		err = w.mend(err)
	}
	return err
}

// check opens what a crash left and returns what is wrong with it.
func (w *world) check(disk *memdisk.Disk, loss memdisk.Loss) (wrong []string) {
	o := w.options
	o.Disk = disk
	if n := len(w.keys); n > 0 {
		o.Keys = w.keys[n-1]
	}
	s, err := Open(o)
	if err != nil {
		return []string{fmt.Sprintf("open: %v", err)}
	}
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	found := map[mail.TransactionID][]Entry{}
	var order []mail.TransactionID
	s.Each(Filter{}, func(e Entry) bool {
		if found[e.Transaction] == nil {
			order = append(order, e.Transaction)
		}
		found[e.Transaction] = append(found[e.Transaction], e)
		return true
	})
	var last uint64
	for _, id := range order {
		if seq := found[id][0].Sequence; seq <= last {
			say("message %s is out of order", id)
		} else {
			last = seq
		}
	}
	files := 0
	for _, m := range w.all {
		entries := found[m.id]
		delete(found, m.id)
		if !m.acked {
			if entries != nil && !m.tried {
				say("message %s is there, though nobody committed it", m.id)
			}
			if entries != nil && m.tried {
				w.checkBody(s, m, entries, say)
			}
			continue
		}
		for i := range m.states {
			var now *Entry
			for k := range entries {
				if entries[k].Recipient == i {
					now = &entries[k]
				}
			}
			can := m.states[i][m.safe[i]:]
			if loss == memdisk.LoseNothing {
				can = m.states[i][max(m.safe[i], m.kill[i]):]
			}
			unsure := i >= len(m.given)-m.adds
			switch {
			case now == nil && !unsure && !slices.ContainsFunc(can, State.Final):
				say("message %s recipient %d is lost; it was %v", m.id, i, can)
			case now != nil && !slices.Contains(can, now.State):
				say("message %s recipient %d is %s; it was %v", m.id, i, now.State, can)
			}
		}
		if entries != nil {
			w.checkBody(s, m, entries, say)
		}
	}
	for id := range found {
		say("message %s is unknown", id)
	}
	if err := s.flush(); err != nil {
		say("flush: %v", err)
	}
	for path := range disk.Files() {
		if strings.Contains(path, "/"+bodiesDir+"/") {
			files++
		}
	}
	s.mu.Lock()
	s.x.messages.each(func(row uint32) {
		if s.x.rows.at(row).body == bodyInFile {
			files--
		}
	})
	s.mu.Unlock()
	if files != 0 {
		say("%d files of bodies that nobody needs", files)
	}
	for k := s.worth(); k != 0; k = s.worth() {
		if err := s.compactSegment(k); err != nil {
			say("compact: %v", err)
			break
		}
	}
	if err := s.Close(); err != nil {
		say("close: %v", err)
	}
	before := summary(s)
	if s, err = Open(o); err != nil {
		return append(wrong, fmt.Sprintf("open again: %v", err))
	}
	if after := summary(s); !slices.Equal(before, after) {
		say("a second start finds %q, the first %q", after, before)
	}
	s.Close()
	return wrong
}

// checkBody wants a message whole: its body, and the recipients that it was given.
func (w *world) checkBody(s *Store, m *tracked, entries []Entry, say func(string, ...any)) {
	if entries[0].State == StateQuarantined && !m.acked {
		return // a hole in what was never acknowledged: seen, and delivered to nobody
	}
	text, err := readBody(w.t, s, m.id)
	if err != nil || text != m.body {
		say("message %s has a body of %d bytes, want %d: %v", m.id, len(text), len(m.body), err)
	}
	msg, err := s.Get(m.id)
	if err != nil {
		say("get message %s: %v", m.id, err)
		return
	}
	if n := len(msg.Recipients); n != len(m.given) && n != len(m.given)-m.adds {
		say("message %s has %d recipients, want %d", m.id, n, len(m.given))
		return
	}
	for i := range msg.Recipients {
		if msg.Recipients[i].Address != m.given[i].Address {
			say("message %s recipient %d is %s", m.id, i, msg.Recipients[i].Address)
		}
	}
}

func summary(s *Store) (list []string) {
	s.Each(Filter{}, func(e Entry) bool {
		list = append(list, fmt.Sprintf("%d %s %d %s", e.Sequence, e.Transaction, e.Recipient, e.State))
		return true
	})
	return list
}
