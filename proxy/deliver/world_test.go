package deliver

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/internal/alarm"
	"mailcutover/internal/platformtest"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/node"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/relay"
	"mailcutover/routing"
	"mailcutover/spool"
	"mailcutover/spool/dsn"
	"mailcutover/spool/queue"
)

// mailboxes is how many the agency has: more than a platform has connections.
const mailboxes = 100

// world is a spool with everything that takes its mail to platforms.
type world struct {
	testing.TB
	dir    string
	store  *spool.Store
	ledger *ledger.Ledger
	gate   *node.Gate
	sender *Sender
	queue  *queue.Queue
	alarms *alarm.Set
	pools  []*relay.Pool
	end    func()

	mu     sync.Mutex
	state  *routing.State
	lapsed bool
}

func (w *world) State() *routing.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

func (w *world) Fresh() (time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now(), !w.lapsed
}

// endpoint is a platform of the world.
type endpoint struct {
	id          routing.PlatformID
	addr        string
	lmtp        bool
	connections int
	nets        []netip.Prefix
}

// newWorld makes a world in a directory, with an agency whose mailboxes are on exchange.
func newWorld(t testing.TB, dir string, limit time.Duration, retry queue.Retry, endpoints ...endpoint) *world {
	t.Helper()
	w := &world{TB: t, dir: dir, alarms: alarm.NewSet(nil)}
	w.state = state(t)
	w.gate = node.NewGate(w, node.Lease{Settled: time.Hour, Armed: time.Hour}, "")
	w.gate.Update(routing.NewState(routing.Position{}), w.state)
	var err error
	if w.store, err = spool.Open(spool.Options{Dir: dir + "/spool", Node: "mx1", Alarms: w.alarms}); err != nil {
		t.Fatal(err)
	}
	if w.ledger, err = ledger.Open(ledger.Options{Dir: dir + "/ledger", Boot: "one"}); err != nil {
		t.Fatal(err)
	}
	var platforms []relay.Platform
	for _, e := range endpoints {
		ep := relay.Endpoint{
			Platform: e.id, Origin: mail.OriginOutside, Protocol: relay.ProtocolSMTP, Hosts: []string{e.addr}, Helo: "mx1.example",
			TLS: dial.TLS{Policy: dial.TLSNone}, Limits: relay.Limits{Connections: e.connections, Backoff: 10 * time.Millisecond, BackoffMax: 100 * time.Millisecond},
			Timeouts: relay.Timeouts{Dot: time.Minute},
		}
		if e.lmtp {
			ep.Protocol = relay.ProtocolLMTP
		}
		pool, err := relay.NewPool(ep, relay.Options{})
		if err != nil {
			t.Fatal(err)
		}
		w.pools = append(w.pools, pool)
		platforms = append(platforms, relay.Platform{ID: e.id, ConnectionLimit: limit, Outside: pool, Inside: pool, Nets: e.nets})
	}
	w.sender = New(Options{Gate: w.gate, Ledger: w.ledger, Platforms: platforms, Alarms: w.alarms, Logger: slog.New(slog.DiscardHandler)})
	doubts := make(map[mail.TransactionID]time.Time)
	for _, i := range w.ledger.InDoubt() {
		doubts[i.Transaction] = time.Now().Add(limit)
	}
	w.queue, err = queue.New(queue.Options{
		Store: queue.FromSpool(w.store), Router: w.gate, Sender: w.sender, Alarms: w.alarms, Doubts: doubts, Retry: retry,
		Notices: queue.Notices{Platform: "relay", Settings: dsn.Settings{Host: "mx1.example"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// run runs the queue until stop.
func (w *world) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.queue.Run(ctx) }()
	w.end = func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
		w.end = nil
	}
}

// close ends everything.
func (w *world) close() {
	w.Helper()
	if w.end != nil {
		w.end()
	}
	for _, p := range w.pools {
		p.Close()
	}
	if err := w.store.Close(); err != nil {
		w.Error(err)
	}
	if err := w.ledger.Close(); err != nil {
		w.Error(err)
	}
}

func address(n int) routing.Address { return routing.Address(fmt.Sprintf("m%d@health.example", n)) }
func mailbox(n int) routing.MailboxID {
	return routing.MailboxID{0: byte(n + 1), 7: 0x40, 1: byte(n >> 8)}
}

// state is a table with the agency health, settled on exchange.
func state(t testing.TB) *routing.State {
	t.Helper()
	rec, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	var rows []routing.Row
	for n := range mailboxes {
		rows = append(rows, routing.Row{
			Mailbox: mailbox(n), Kind: routing.KindUser, Addresses: []routing.Address{address(n)},
			Target: routing.Place{Address: routing.Address(fmt.Sprintf("m%d@ox.internal", n))},
		})
	}
	m, err := routing.NewMapping("health", rows)
	if err != nil {
		t.Fatal(err)
	}
	rec.Mapping = m.Digest()
	s, err := routing.NewState(routing.Position{}).Apply(routing.Update{
		Position: routing.Position{Incarnation: "test", Revision: 1}, Agencies: []routing.Agency{rec},
		Mappings: []*routing.Mapping{m}, Domains: []routing.Domain{{Name: "health.example"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// change changes the agency's record, and tells gate and queue.
func (w *world) change(f func(*routing.Agency)) {
	w.Helper()
	old := w.State()
	rec, _ := old.Agency("health")
	f(&rec)
	rec.Epoch = rec.Epoch.Next()
	now, err := old.Apply(routing.Update{Agencies: []routing.Agency{rec}})
	if err != nil {
		w.Fatal(err)
	}
	w.mu.Lock()
	w.state = now
	w.mu.Unlock()
	w.gate.Update(old, now)
	w.queue.Update(old, now)
}

// put puts a message for mailboxes into the spool.
func (w *world) put(s spool.State, content string, boxes ...int) mail.TransactionID {
	w.Helper()
	from, err := mail.ParsePath("Sender@out.example", false)
	if err != nil {
		w.Fatal(err)
	}
	env := spool.Envelope{
		Transaction: mail.NewTransactionID(), Time: time.Now(), From: from, MessageID: "<x@out.example>",
		Client: mail.Client{Origin: mail.OriginOutside, Peer: netip.MustParseAddrPort("192.0.2.7:25"), Source: netip.MustParseAddrPort("192.0.2.7:25"), With: "ESMTP"},
	}
	in, err := w.store.Begin(env)
	if err != nil {
		w.Fatal(err)
	}
	defer in.Discard()
	if _, err := io.WriteString(in, content); err != nil {
		w.Fatal(err)
	}
	var rcpts []spool.Recipient
	for _, n := range boxes {
		rcpts = append(rcpts, spool.Recipient{Address: address(n), Agency: "health", Mailbox: mailbox(n), State: s})
	}
	if err := in.Commit(w.Context(), rcpts); err != nil {
		w.Fatal(err)
	}
	w.queue.Added(env.Transaction)
	return env.Transaction
}

// wait waits for a condition.
func (w *world) wait(what string, done func() bool) {
	w.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("not in time: %s; alarms %v", what, w.alarms.List())
		}
	}
}

// empty reports whether the spool has nothing any more.
func (w *world) empty() bool {
	c, _ := w.store.Counts()
	return c.Messages == 0
}

// records returns what the ledger has.
func (w *world) records() (all []ledger.Record) {
	w.Helper()
	for r, err := range w.ledger.Find(w.Context(), ledger.Query{}) {
		if err != nil {
			w.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func (w *world) alarm(prefix string) bool {
	for _, a := range w.alarms.List() {
		if strings.HasPrefix(a.Key, prefix) {
			return true
		}
	}
	return false
}

// start starts a platform for a test.
func start(t testing.TB, o platformtest.Options) *platformtest.Platform {
	t.Helper()
	p, err := platformtest.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}
