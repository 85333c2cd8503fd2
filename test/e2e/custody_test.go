package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/rollback/operation"
	"mailcutover/spool"
)

// correspondents send to a mailbox each: message after message, numbered, and each again
// and again until it is answered 250. So what a mailbox gets must be in order. To a
// mailbox keeper they send seldom.
type correspondents struct {
	addr string

	mu      sync.Mutex
	taken   map[delivery]bool // answered 250
	open    map[delivery]int  // dots that got no answer, how often
	answers map[string]int    // other answers, how often
	broken  int
	stop    bool
	running sync.WaitGroup
}

func correspond(ctx context.Context, addr string, rcpts ...string) *correspondents {
	c := &correspondents{addr: addr, taken: make(map[delivery]bool), open: make(map[delivery]int), answers: make(map[string]int)}
	for _, rcpt := range rcpts {
		c.running.Go(func() { c.write(ctx, rcpt) })
	}
	return c
}

// finish ends it, when all that was begun is taken.
func (c *correspondents) finish() {
	c.mu.Lock()
	c.stop = true
	c.mu.Unlock()
	c.running.Wait()
}

func (c *correspondents) write(ctx context.Context, rcpt string) {
	var w *wire
	for id := 1; ctx.Err() == nil; {
		d := delivery{id, rcpt}
		if w == nil {
			w = c.connect()
		}
		answer, dotted := "", false
		if w != nil {
			answer, dotted = w.try(d)
		}
		c.mu.Lock()
		stop := c.stop
		switch {
		case strings.HasPrefix(answer, "250 "):
			c.taken[d] = true
			id++
		case answer != "" && !strings.HasPrefix(answer, "421 "):
			c.answers[answer]++
		default:
			c.broken++
			if dotted && answer == "" {
				c.open[d]++
			}
			if w != nil {
				w.conn.Close()
				w = nil
			}
		}
		taken := c.taken[d]
		c.mu.Unlock()
		if stop && taken {
			break
		}
		if taken && strings.HasPrefix(rcpt, "keeper@") {
			time.Sleep(20 * pace)
		} else { // if it wasn't taken: as a relay does, only sooner
			time.Sleep(pace)
		}
	}
	if w != nil {
		w.conn.Close()
	}
}

func (c *correspondents) connect() *wire {
	w, err := dial(c.addr)
	if err != nil {
		return nil
	}
	if answer, err := w.ask("EHLO out.example"); err != nil || answer[0] != '2' {
		w.conn.Close()
		return nil
	}
	return w
}

// try sends a message once. It returns the answer that ended it, empty if the connection
// broke, and whether the dot was sent.
func (w *wire) try(d delivery) (answer string, dotted bool) {
	for _, command := range []string{"RSET", "MAIL FROM:<sender@out.example>", "RCPT TO:<" + d.rcpt + ">", "DATA"} {
		answer, err := w.ask(command)
		if err != nil {
			return "", false
		}
		if answer[0] > '3' {
			return answer, false
		}
	}
	answer, err := w.ask(withID(d.id) + ".")
	if err != nil {
		return "", true
	}
	return answer, true
}

// count returns how many messages were taken.
func (c *correspondents) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.taken)
}

// transactionLine has the transaction id of our Received line.
var transactionLine = regexp.MustCompile(`\(mailcutover mailcutover\) with \w+ id ([0-9A-Za-z-]+);`)

// arrival is a copy of a message at a platform.
type arrival struct {
	delivery
	platform    string
	transaction mail.TransactionID
	at          time.Time
}

// arrivals returns what the platforms have, in the order in which it came.
func arrivals(t testing.TB, platforms map[string]*platformtest.Platform) (all []arrival) {
	t.Helper()
	for name, p := range platforms {
		for _, tx := range p.Stored() {
			m := transactionLine.FindSubmatch(tx.Raw)
			if m == nil {
				t.Fatalf("%s: a message without our line: %.300q", name, tx.Raw)
			}
			for _, rcpt := range tx.Accepted() {
				all = append(all, arrival{delivery{idOf(tx.Body()), rcpt}, name, mail.TransactionID(m[1]), tx.Ended})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b arrival) int { return a.at.Compare(b.at) })
	return all
}

// doubts reads the ledger of a stopped node: which deliveries it can't say to have
// happened once, how often each.
//
// waited are the transactions that came into the spool without being held: their platform
// couldn't be reached, and other mail may overtake them.
func (n *node) doubts(t testing.TB) (named map[mail.TransactionID]int, waited map[mail.TransactionID]bool) {
	t.Helper()
	l, err := ledger.Open(ledger.Options{Dir: filepath.Join(n.dataDir(), "ledger"), Boot: ledger.BootID(filepath.Join(n.dataDir(), "ledger"))})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	named, waited = make(map[mail.TransactionID]int), make(map[mail.TransactionID]bool)
	for r, err := range l.Find(t.Context(), ledger.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.Recipients {
			switch a := r.Answer(i); a.Result {
			case ledger.ResultInDoubt, ledger.ResultNotAcknowledged, ledger.ResultPending:
				named[r.Transaction]++
			case ledger.ResultAccepted:
				if strings.HasPrefix(a.Text, spool.StateWaiting.String()) {
					waited[r.Transaction] = true
				}
			}
		}
	}
	return named, waited
}

// inSpool returns how many recipients are in each state in the spool of a stopped node.
func (n *node) inSpool(t testing.TB) map[string]int {
	t.Helper()
	s, err := spool.Open(spool.Options{Dir: filepath.Join(n.dataDir(), "spool"), Node: "node.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	states := make(map[string]int)
	s.Each(spool.Filter{}, func(e spool.Entry) bool {
		if !e.State.Final() {
			states[e.State.String()]++
		}
		return true
	})
	return states
}

// check compares what was answered with what arrived: each message that was answered 250
// is on a platform; a copy of the same transaction more is named by the ledger, and
// another transaction comes from a sender that got no 250 for the one before. Each mailbox
// got its messages in order, but for those that waited.
func (c *correspondents) check(t testing.TB, all []arrival, doubts map[mail.TransactionID]int, waited map[mail.TransactionID]bool) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	last := make(map[string]int)
	copies := make(map[delivery]map[mail.TransactionID]int)
	for _, a := range all {
		if copies[a.delivery] == nil {
			copies[a.delivery] = make(map[mail.TransactionID]int)
		}
		copies[a.delivery][a.transaction]++
		if waited[a.transaction] {
			continue
		}
		if a.id < last[a.rcpt] {
			t.Errorf("%s got %d after %d (%s)", a.rcpt, a.id, last[a.rcpt], a.transaction)
		}
		last[a.rcpt] = a.id
	}
	twice, again := 0, 0
	for d := range c.taken {
		if len(copies[d]) == 0 {
			t.Errorf("message %d for %s was answered 250 and is nowhere", d.id, d.rcpt)
		}
	}
	for d, transactions := range copies {
		if !c.taken[d] {
			t.Errorf("message %d for %s is there, but nobody saw a 250", d.id, d.rcpt)
		}
		excused := c.open[d]
		for id, n := range transactions {
			twice += n - 1
			if n > 1+doubts[id] {
				t.Errorf("message %d for %s arrived %d times as %s, which the ledger has in doubt %d times", d.id, d.rcpt, n, id, doubts[id])
			}
			if doubts[id] > 0 {
				excused++
			}
		}
		again += len(transactions) - 1
		if len(transactions) > 1+excused {
			t.Errorf("message %d for %s arrived as %v, its sender saw %d dots without answer", d.id, d.rcpt, transactions, c.open[d])
		}
	}
	for answer := range c.answers {
		if answer[0] != '4' {
			t.Errorf("answered %s", answer)
		}
	}
	t.Logf("%d messages taken, %d arrived twice by us, %d sent twice; %d in doubt; %d connections broke; put off: %v",
		len(c.taken), twice, again, len(doubts), c.broken, c.answers)
}

// kills is how often TestKilledWithHeldMail kills the node.
const kills = 20

// A kill -9 under load at any moment, while an agency is closed and opened by one switch
// after the other: what was answered 250 arrives, and in its order; more than once only
// what the ledger names.
func TestKilledWithHeldMail(t *testing.T) {
	t.Parallel()
	const limit = 400 * time.Millisecond
	slow := func(c platformtest.Command) platformtest.Reaction {
		switch {
		case c.Verb != platformtest.VerbDot:
			return platformtest.Reaction{}
		case c.Transaction.Accepted()[0] == "keeper@health.example": // the drain waits for it
			return platformtest.Reaction{Delay: 150 * time.Millisecond}
		default:
			return platformtest.Reaction{Delay: 2 * time.Millisecond}
		}
	}
	// The platforms end connections as their limit says: later, nothing arrives.
	exchange := startPlatform(t, platformtest.Options{Lifetime: limit, Script: slow})
	ox := startPlatform(t, platformtest.Options{Lifetime: limit, Script: slow, LMTP: true})
	platforms := map[string]*platformtest.Platform{"exchange": exchange, "ox": ox}
	const limits = "backoff: 20ms, backoff_max: 50ms, max_age: 100ms, connections: 8"
	n := startNode(t, setup{
		platforms: []platform{
			{id: "exchange", addr: exchange.Addr(), more: "connection_limit: 400ms", limits: limits},
			{id: "ox", addr: ox.Addr(), lmtp: true, more: "connection_limit: 400ms", limits: limits},
		},
		spool: "retry: {first: 1s, max: 2s}",
	})
	n.addAgency("health", "anna", "ben", "carl", "keeper")
	n.addAgency("roads", "dora")
	ctx, cancel := context.WithTimeout(t.Context(), 10*patience) // each wait below has a limit of its own
	defer cancel()
	c := correspond(ctx, n.smtp, "anna@health.example", "ben@health.example", "carl@health.example", "keeper@health.example", "dora@roads.example")
	var switches atomic.Int32
	var switching sync.WaitGroup
	switchCtx, stopSwitching := context.WithCancel(ctx)
	defer stopSwitching()
	switching.Go(func() {
		for switchCtx.Err() == nil {
			a, err := n.api.Agency(switchCtx, "health")
			if err == nil && a.Open {
				kind := operation.Cutover
				if a.Phase == "target" {
					kind = operation.Rollback
				}
				if op, err := n.switchAgency(switchCtx, kind, "health"); err == nil && op.Step == string(operation.StepDone) {
					switches.Add(1)
				}
			}
			time.Sleep(20 * time.Millisecond) // the node may be dead just now
		}
	})
	for range kills {
		before := c.count()
		waitFor(t, "mail to flow", func() bool { return c.count() > before })
		time.Sleep(rand.N(400 * time.Millisecond)) // any moment
		n.Kill()
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// Where kills came before the end of each switch, some come now.
	waitFor(t, "three switches", func() bool { return switches.Load() >= 3 })
	held := 0
	waitFor(t, "mail to be held", func() bool {
		held = strings.Count(n.Output(), `"spool":"held"`)
		return held >= 20
	})
	stopSwitching()
	switching.Wait()
	c.finish()
	n.settled(t, "health")
	var all []arrival
	waitFor(t, "all that was answered 250", func() bool {
		all = arrivals(t, platforms)
		there := make(map[delivery]bool)
		for _, a := range all {
			there[a.delivery] = true
		}
		return len(there) >= c.count()
	})
	waitFor(t, "what was in doubt to come again", func() bool { return n.metric(t, "mailcutover_spool_messages") == 0 })
	n.Stop()
	all = arrivals(t, platforms)
	doubts, waited := n.doubts(t)
	c.check(t, all, doubts, waited)
	if left := n.inSpool(t); len(left) != 0 {
		t.Errorf("left in the spool: %v", left)
	}
	t.Logf("%d kills, %d switches, %d messages held at least (in the log's last part)", kills, switches.Load(), held)
}

// metric returns a metric without labels.
func (n *node) metric(t testing.TB, name string) float64 {
	t.Helper()
	resp, err := http.Get(n.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var v float64
		if k, err := fmt.Sscanf(line, name+" %g", &v); err == nil && k == 1 {
			return v
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
