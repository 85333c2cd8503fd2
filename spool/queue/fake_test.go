package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// memory is a Store that keeps everything in memory.
type memory struct {
	mu       sync.Mutex
	seq      uint64
	messages map[mail.TransactionID]*spool.Message
	content  map[mail.TransactionID][]byte
	order    []mail.TransactionID
	history  []spool.Outcome
	putErr   error
	setErr   error
	owners   map[routing.Address]routing.MailboxID // that got an address after the acceptance
	moves    atomic.Uint64

	openErr error
}

func newMemory() *memory {
	return &memory{messages: make(map[mail.TransactionID]*spool.Message), content: make(map[mail.TransactionID][]byte)}
}

func (s *memory) Each(f spool.Filter, yield func(spool.Entry) bool) {
	s.mu.Lock()
	var all []spool.Entry
	order := s.order[min(f.After, uint64(len(s.order))):] // sequences begin at 1
	if f.Transaction != "" {
		order = []mail.TransactionID{f.Transaction}
	}
	for _, id := range order {
		m := s.messages[id]
		if m == nil {
			continue
		}
		for i := range m.Recipients {
			r := &m.Recipients[i]
			if r.State.Final() || f.State != spool.StateUnknown && r.State != f.State || f.Agency != "" && r.Agency != f.Agency || f.Key != "" && s.key(r) != f.Key {
				continue
			}
			all = append(all, spool.Entry{Transaction: id, Recipient: i, Sequence: m.Sequence, Agency: r.Agency, Key: s.key(r), State: r.State, Time: m.Time, Size: m.Size})
		}
	}
	s.mu.Unlock()
	for _, e := range all {
		if !yield(e) {
			return
		}
	}
}

func (s *memory) Get(id mail.TransactionID) (*spool.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.messages[id]
	if m == nil || !slices.ContainsFunc(m.Recipients, func(r spool.Recipient) bool { return !r.State.Final() }) {
		return nil, spool.ErrUnknown
	}
	c := *m
	c.Recipients = slices.Clone(m.Recipients)
	for i := range c.Recipients {
		c.Recipients[i].Mailbox = s.key(&c.Recipients[i]).Mailbox()
	}
	return &c, nil
}

// key returns a recipient's key as it is now. s.mu is held.
func (s *memory) key(r *spool.Recipient) spool.Key {
	if owner, ok := s.owners[r.Address]; ok {
		return spool.KeyOf(owner, r.Address)
	}
	return r.Key()
}

// give gives address n to a mailbox.
func (s *memory) give(n int, to routing.MailboxID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owners == nil {
		s.owners = make(map[routing.Address]routing.MailboxID)
	}
	s.owners[address(n)] = to
	s.moves.Add(1)
}

// owner returns the mailbox that has address n.
func (s *memory) owner(n int) routing.MailboxID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if owner, ok := s.owners[address(n)]; ok {
		return owner
	}
	return box1(n)
}

// before returns the sequences of held mail of a mailbox that are below that of a recipient, if
// that is held too.
func (s *memory) before(id mail.TransactionID, rcpt int, mailbox routing.MailboxID) (all []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seq := s.messages[id].Sequence
	if s.messages[id].Recipients[rcpt].State != spool.StateHeld {
		return nil
	}
	for _, m := range s.messages {
		for i := range m.Recipients {
			if r := &m.Recipients[i]; m.Sequence < seq && r.State == spool.StateHeld && s.key(r) == spool.KeyOf(mailbox, "") {
				all = append(all, m.Sequence)
			}
		}
	}
	return all
}

func (s *memory) Moves() uint64 { return s.moves.Load() }

type memoryBody struct{ io.Reader }

func (memoryBody) Verify() error { return nil }
func (memoryBody) Close() error  { return nil }

func (s *memory) Open(id mail.TransactionID) (Body, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.openErr != nil {
		return nil, s.openErr
	}
	return memoryBody{strings.NewReader(string(s.content[id]))}, nil
}

func (s *memory) Set(changes ...spool.Outcome) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		if m := s.messages[c.Transaction]; m == nil || m.Recipients[c.Recipient].State.Final() {
			return spool.ErrUnknown
		}
	}
	for _, c := range changes {
		r := &s.messages[c.Transaction].Recipients[c.Recipient]
		r.State, r.Reason, r.Last = c.State, c.Reason, c.Result
	}
	s.history = append(s.history, changes...)
	return s.setErr
}

func (s *memory) Written(f func()) { f() }

func (s *memory) Put(_ context.Context, env spool.Envelope, rcpts []spool.Recipient, content []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.putErr != nil {
		return s.putErr
	}
	s.seq++
	s.messages[env.Transaction] = &spool.Message{Envelope: env, Sequence: s.seq, Size: int64(len(content)), Recipients: rcpts}
	s.content[env.Transaction] = content
	s.order = append(s.order, env.Transaction)
	return nil
}

func (s *memory) Held(k spool.Key) bool {
	found := false
	s.Each(spool.Filter{Key: k, State: spool.StateHeld}, func(spool.Entry) bool { found = true; return false })
	return found
}

func (s *memory) Counts() (spool.Counts, map[routing.AgencyID]spool.Counts) {
	var all spool.Counts
	agencies := make(map[routing.AgencyID]spool.Counts)
	s.Each(spool.Filter{}, func(e spool.Entry) bool {
		all.Recipients[e.State]++
		c := agencies[e.Agency]
		c.Recipients[e.State]++
		agencies[e.Agency] = c
		return true
	})
	return all, agencies
}

// state returns the state of a recipient, final ones too.
func (s *memory) state(id mail.TransactionID, rcpt int) spool.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.messages[id].Recipients[rcpt].State
}

// text returns a message's content.
func (s *memory) text(id mail.TransactionID) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.content[id])
}

// notices returns the notices that were put, in order.
func (s *memory) notices() (all []*spool.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.order {
		if s.messages[id].Client.Listener == noticeListener {
			all = append(all, s.messages[id])
		}
	}
	return all
}

// world is a queue with all that it asks.
type world struct {
	*testing.T
	store *memory
	q     *Queue

	mu        sync.Mutex
	decisions map[routing.Address]routing.Decision
	epoch     uint32 // of what opens next
	behave    func(d *Delivery, r *Recipient) Result
	took      time.Duration // of a delivery
	sent      []sent
	now, peak int
	conns     int
	waited    map[mail.TransactionID]bool // put as waiting mail
	alarms    map[string]string

	stop func()
}

// sent is what a platform took or refused.
type sent struct {
	at       time.Time
	platform routing.PlatformID
	id       mail.TransactionID
	seq      uint64
	address  routing.Address
	status   Status
	together int
}

func (w *world) Address(a routing.Address) routing.Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.decisions[a]
}

func (w *world) Connections(routing.PlatformID) int { return w.conns }

func (w *world) Raise(key, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alarms[key] = text
}

func (w *world) Clear(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, on := w.alarms[key]
	delete(w.alarms, key)
	return on
}

func (w *world) Send(ctx context.Context, d *Delivery) []Result {
	w.mu.Lock()
	w.now++
	w.peak = max(w.peak, w.now)
	took := w.took
	w.mu.Unlock()
	if took > 0 {
		time.Sleep(took)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now--
	results := make([]Result, len(d.Recipients))
	for i := range d.Recipients {
		r := &d.Recipients[i]
		results[i] = Result{Status: Delivered, Reply: mail.NewReply(250, 2, 0, 0, "ok")}
		if w.behave != nil {
			if got := w.behave(d, r); got.Status != StatusUnknown {
				results[i] = got
			}
		}
		w.sent = append(w.sent, sent{time.Now(), d.Platform, d.Message.Transaction, d.Message.Sequence, d.Message.Recipients[r.Index].Address, results[i].Status, len(d.Recipients)})
	}
	return results
}

// newWorld makes a world in which nothing is known; options may change what New gets.
func newWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	w := &world{T: t, store: newMemory(), decisions: make(map[routing.Address]routing.Decision), conns: 4, alarms: make(map[string]string), waited: make(map[mail.TransactionID]bool), took: time.Millisecond}
	o := Options{
		Store: w.store, Router: w, Sender: w, Alarms: w,
		Retry:   Retry{Jitter: -1},
		Notices: Notices{Platform: "relay"},
	}
	o.Notices.Host = "mx.example"
	if change != nil {
		change(&o)
	}
	q, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	w.q = q
	return w
}

// run starts the queue; stop ends it.
func (w *world) run() {
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- w.q.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	}
}

func box1(n int) routing.MailboxID { return routing.MailboxID{15: byte(n), 14: byte(n >> 8), 0: 1} }

func address(n int) routing.Address { return routing.Address(fmt.Sprintf("m%d@health.example", n)) }

// open makes mailbox n open on a platform.
func (w *world) open(platform routing.PlatformID, agency routing.AgencyID, boxes ...int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range boxes {
		w.decisions[address(n)] = routing.Decision{Reason: routing.ReasonOpen, Agency: agency, Mailbox: w.store.owner(n), Platform: platform, Address: address(n), Epoch: routing.Epoch{Term: 1, Number: w.epoch}}
	}
}

// shut closes mailboxes.
func (w *world) shut(agency routing.AgencyID, boxes ...int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epoch++
	for _, n := range boxes {
		w.decisions[address(n)] = routing.Decision{Reason: routing.ReasonInPhase, Agency: agency, Mailbox: w.store.owner(n)}
	}
}

// put puts a message for mailboxes into the store.
func (w *world) put(state spool.State, from string, boxes ...int) mail.TransactionID {
	return w.putWith(state, from, gosmtp.RcptOptions{}, boxes...)
}

func (w *world) putWith(state spool.State, from string, o gosmtp.RcptOptions, boxes ...int) mail.TransactionID {
	w.Helper()
	p, err := mail.ParsePath(from, true)
	if err != nil {
		w.Fatal(err)
	}
	env := spool.Envelope{Transaction: mail.NewTransactionID(), Time: time.Now(), From: p, MessageID: "<x@out.example>"}
	var rcpts []spool.Recipient
	for _, n := range boxes {
		rcpts = append(rcpts, spool.Recipient{Address: address(n), Agency: "health", Mailbox: box1(n), State: state, Options: o})
	}
	if err := w.store.Put(w.Context(), env, rcpts, []byte("Subject: x\r\n\r\nbody\r\n")); err != nil {
		w.Fatal(err)
	}
	w.waited[env.Transaction] = state == spool.StateWaiting
	return env.Transaction
}

// taken returns what platforms took, or all attempts.
func (w *world) taken(all bool) []sent {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.sent), func(s sent) bool { return !all && s.status != Delivered })
}

// inOrder fails unless each mailbox got its messages in order of acceptance, but for those
// that waited.
func (w *world) inOrder() {
	w.Helper()
	last := make(map[routing.Address]uint64)
	for _, s := range w.taken(false) {
		if w.waited[s.id] {
			continue
		}
		if cmp.Compare(s.seq, last[s.address]) < 0 {
			w.Errorf("%s: %d came after %d", s.address, s.seq, last[s.address])
		}
		last[s.address] = s.seq
	}
}

// empty reports whether the store has no mail any more that isn't final.
func (s *memory) empty() bool {
	empty := true
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range slices.Backward(s.order) {
		empty = !slices.ContainsFunc(s.messages[id].Recipients, func(r spool.Recipient) bool { return !r.State.Final() })
		if !empty {
			break
		}
	}
	return empty
}

// alarm returns the text of an alarm, empty if it wasn't raised.
func (w *world) alarm(key string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.alarms[key]
}

// settle lets time pass until done, and fails if it isn't after so long.
func (w *world) settle(limit time.Duration, what string, done func() bool) {
	w.Helper()
	for end := time.Now().Add(limit); !done(); time.Sleep(20 * time.Millisecond) {
		synctest.Wait()
		if time.Now().After(end) {
			w.Fatalf("not after %s: %s", limit, what)
		}
	}
}

var errDown = errors.New("connection refused")
