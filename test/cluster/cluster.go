package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/platformtest"
	"mailcutover/mail"
	"mailcutover/test/peers"
)

// The platforms.
const (
	Exchange = "exchange"
	OX       = "ox"
)

// Options say what a cluster consists of.
type Options struct {
	Program  string // file of mailcutover; see Build
	Nodes    int    // 0: 3
	Replicas int    // of Redis, with three Sentinels; 0: one server, without Sentinels
	Direct   bool   // no wires between nodes and peers
	Logins   bool   // clients log in, too: the platforms take IMAP and submission
	LMTP     bool   // the nodes take mail by LMTP, too
	// LoginAgencies are those whose first four mailboxes clients may log in to; nil: health, roads
	// and parks.
	LoginAgencies []string

	// Lengths of the leases, and after how long the platforms end any connection. 0: 10 s,
	// 3 s, 500 ms, 2 s.
	Settled, Armed, Margin, Limit time.Duration

	// Unsynced leaves it to the kernel when Redis' log comes to its disk. A kill loses nothing of
	// it, and nobody cuts the power; a disk that is busy for seconds is none of a test's matter.
	Unsynced bool

	// Platform says how the platforms differ from recording ones.
	Platform platformtest.Options
	// Platforms are addresses of other platforms in their place, which then record nothing;
	// nil: there are none.
	Platforms map[string]string
	// Mailboxes are Dovecots in their place, whose mailboxes the nodes read over IMAP; they take
	// mail by LMTP and record nothing. The nodes can ask each other. nil: there are none.
	Mailboxes map[string]*peers.Dovecot

	// Peers have the nodes ask each other, as with Mailboxes.
	Peers bool

	// Ground is where it all is; nil: at 127.0.0.1.
	Ground *Ground
	// TwoPeople has one person propose each operation and another one approve it.
	TwoPeople bool

	More string // further lines of the nodes' configuration
}

// Cluster is several nodes and what they need.
type Cluster struct {
	Nodes     []*Node
	Servers   []*peers.Redis // the first was the primary at the beginning
	Sentinels []*peers.Sentinel
	Platforms map[string]*platformtest.Platform
	Inboxes   map[string]*Inbox                 // with Logins: where clients read
	Outboxes  map[string]*platformtest.Platform // with Logins: where they submit

	o         Options
	addresses map[string]string // of the platforms
	began     time.Time
	apiCA     *authority // of the nodes' APIs; nil: they speak plain text

	mu       sync.Mutex
	agencies map[string]Agency
	at       map[string]string // platform of each agency
	switches []Switch
	faults   []*Fault
	loads    []*Load
	clients  []*Clients
	relayed  map[int]int
}

// Start starts a cluster. It ends with the test.
func Start(t peers.TB, o Options) *Cluster {
	t.Helper()
	peers.Need(t, "redis")
	for value, fallback := range map[*time.Duration]time.Duration{
		&o.Settled: 10 * time.Second, &o.Armed: 3 * time.Second, &o.Margin: 500 * time.Millisecond, &o.Limit: 2 * time.Second,
	} {
		if *value == 0 {
			*value = fallback
		}
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	c := &Cluster{o: o, began: time.Now(), agencies: make(map[string]Agency), at: make(map[string]string), addresses: o.Platforms}
	if o.Mailboxes != nil {
		c.addresses = make(map[string]string)
		for id, d := range o.Mailboxes {
			c.addresses[id] = d.LMTP
		}
	}
	if c.addresses == nil {
		c.startPlatforms(t)
	}
	if o.Ground != nil {
		c.o.Direct = true
		if o.Mailboxes != nil || o.Peers {
			c.apiCA = newAuthority(t)
		}
	}
	settings := map[string]string{}
	if o.Unsynced {
		settings["appendfsync"] = "no"
	}
	if o.Replicas > 0 {
		settings["repl-diskless-sync-delay"] = "0" // a replica is there at once
		settings["min-replicas-to-write"], settings["min-replicas-max-lag"] = "1", "2"
	}
	primary := peers.StartRedis(t, peers.RedisOptions{Settings: settings, Host: o.Ground.server(0)})
	c.Servers = append(c.Servers, primary)
	for i := range o.Replicas {
		c.Servers = append(c.Servers, peers.StartReplica(t, primary, peers.RedisOptions{Settings: settings, Host: o.Ground.server(i + 1)}))
	}
	if o.Replicas > 0 {
		c.Sentinels = peers.StartSentinels(t, 3, primary, "", o.Ground.sentinels()...)
		c.acquainted(t)
	}
	for i := range o.Nodes {
		c.Nodes = append(c.Nodes, c.prepare(t, i))
	}
	// The first one makes the table its own; the others find it.
	for _, n := range c.Nodes {
		c.run(t, n)
	}
	return c
}

func (c *Cluster) startPlatforms(t peers.TB) {
	c.Platforms, c.addresses = make(map[string]*platformtest.Platform), make(map[string]string)
	for _, id := range []string{Exchange, OX} {
		o := c.o.Platform
		o.Lifetime = c.o.Limit // later, nothing arrives
		o.Listen = c.o.Ground.listen(id)
		p, err := platformtest.Start(o)
		if err != nil {
			t.Fatalf("platform %s: %v", id, err)
		}
		t.Cleanup(p.Close)
		c.Platforms[id], c.addresses[id] = p, p.Addr()
		if c.o.Logins {
			c.startLogins(t, id)
		}
	}
}

// startLogins starts what a platform takes logins with. Clients connect to it without wires:
// what is cut off or delayed there, no recording could tell from what came too late.
func (c *Cluster) startLogins(t peers.TB, id string) {
	if c.Inboxes == nil {
		c.Inboxes, c.Outboxes = make(map[string]*Inbox), make(map[string]*platformtest.Platform)
	}
	secure, err := c.o.Ground.tls()
	if err != nil {
		t.Fatalf("certificate of platform %s: %v", id, err)
	}
	in, err := StartInbox(id, InboxOptions{Listen: c.o.Ground.listen(id), TLS: secure, Lifetime: c.o.Limit})
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(in.Close)
	users := make(map[string]string)
	for _, agency := range c.o.loginAgencies() {
		for _, login := range Mailboxes(agency, 4) {
			users[login] = "secret"
		}
	}
	out, err := platformtest.Start(platformtest.Options{
		Extensions: append([]string{"AUTH PLAIN LOGIN"}, platformtest.DefaultExtensions...), Users: users, Lifetime: c.o.Limit,
		Listen: c.o.Ground.listen(id), TLS: secure, ImplicitTLS: secure != nil,
	})
	if err != nil {
		t.Fatalf("submission of platform %s: %v", id, err)
	}
	t.Cleanup(out.Close)
	c.Inboxes[id], c.Outboxes[id] = in, out
}

// loginAgencies are those whose mailboxes clients may log in to.
func (o *Options) loginAgencies() []string {
	if o.LoginAgencies == nil {
		return []string{"health", "roads", "parks"}
	}
	return o.LoginAgencies
}

// LogIn lets mail programs begin: at each node for each of these mailboxes.
func (c *Cluster) LogIn(ctx context.Context, groups ...[]string) *Clients {
	var all []Programs
	for _, n := range c.Nodes {
		for _, logins := range groups {
			all = append(all, Programs{Node: n.Index, IMAP: n.IMAP, Submission: n.Submission, Logins: logins, Stay: c.o.Limit / 2})
		}
	}
	l := StartClients(ctx, all...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clients = append(c.clients, l)
	return l
}

// Program is the file of mailcutover.
func (c *Cluster) Program() string { return c.o.Program }

// AddAgency adds an agency that is on Exchange and moves to OX, with mailboxes box1 to boxN
// at its id's domain, and waits until all nodes know it.
func (c *Cluster) AddAgency(t peers.TB, id string, mailboxes int) {
	t.Helper()
	ctx := t.Context()
	api := c.Nodes[0].API
	if _, err := api.AddAgency(ctx, admin.NewAgency{ID: id, Source: Exchange, Target: OX, Domains: []string{id + ".example"}, Reason: "test"}); err != nil {
		t.Fatalf("add agency %s: %v", id, err)
	}
	var list strings.Builder
	list.WriteString("address;directory_id;agency;kind;aliases;logins;source_address;source_login;target_address;target_login;platform\n")
	for i := range mailboxes {
		fmt.Fprintf(&list, "%s;%s;%s;user;;;;;;;\n", Mailbox(id, i+1), MailboxID(id, i+1), id)
	}
	if _, err := api.Import(ctx, strings.NewReader(list.String()), "test", false); err != nil {
		t.Fatalf("import agency %s: %v", id, err)
	}
	for _, n := range c.Nodes {
		Until(t, "agency "+id+" known to "+n.Name, func() bool {
			r, err := n.API.Route(ctx, "address", Mailbox(id, mailboxes))
			return err == nil && r.Deliver
		})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.agencies[id] = Agency{Domain: id + ".example", Home: Exchange}
	c.at[id] = Exchange
}

// Mailbox is the address of an agency's mailbox i, from 1.
func Mailbox(agency string, i int) string { return fmt.Sprintf("box%d@%s.example", i, agency) }

// Mailboxes are the addresses of an agency's first mailboxes.
func Mailboxes(agency string, n int) (all []string) {
	for i := range n {
		all = append(all, Mailbox(agency, i+1))
	}
	return all
}

// MailboxID is the directory id of an agency's mailbox i, from 1.
func MailboxID(agency string, i int) string {
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", fold(agency), i)
}

// fold makes a number of a name.
func fold(name string) (sum uint32) {
	for _, b := range []byte(name) {
		sum = sum*31 + uint32(b)
	}
	return sum
}

// Where returns the platform on which an agency is.
func (c *Cluster) Where(agency string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at[agency]
}

// Other is the other platform.
func Other(platform string) string {
	if platform == Exchange {
		return OX
	}
	return Exchange
}

// Arm makes an agency ready to be switched.
func (c *Cluster) Arm(ctx context.Context, n *Node, id string) error {
	a, err := n.API.Agency(ctx, id)
	if err == nil && a.Tightness != "armed" {
		_, err = n.API.Arm(ctx, id, a.Epoch, "test")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, ok := c.agencies[id]; ok {
		a.Armed = true
		c.agencies[id] = a
	}
	return err
}

// Load lets senders begin: one at each node for each group of recipients.
func (c *Cluster) Load(ctx context.Context, pace time.Duration, groups ...[]string) *Load {
	var all []Senders
	for _, n := range c.Nodes {
		for _, rcpts := range groups {
			all = append(all, Senders{Node: n.Index, Addr: n.SMTP, Rcpts: rcpts, Pace: pace})
		}
	}
	return c.Send(ctx, all...)
}

// Send lets these senders begin. End judges what becomes of their messages, too.
func (c *Cluster) Send(ctx context.Context, all ...Senders) *Load {
	l := StartLoad(ctx, all...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loads = append(c.loads, l)
	return l
}

// Trouble notes that something is being done to a node (-1: all) for which it may put mail
// of an agency off (empty: of any), until end is called.
func (c *Cluster) Trouble(name string, node int, agency string) (end func()) {
	f := &Fault{Name: name, Node: node, Agency: agency, From: time.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, f)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		f.To = time.Now()
	}
}

// Relayed notes that a relay may have sent a message more than once.
func (c *Cluster) Relayed(id int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.relayed == nil {
		c.relayed = make(map[int]int)
	}
	c.relayed[id]++
}

// Down reports whether something is being done to a node alone.
func (c *Cluster) Down(node int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.faults, func(f *Fault) bool { return f.Node == node && f.To.IsZero() })
}

// Freeze stops a node with SIGSTOP. The returned function lets it go on, and returns when
// it may decide again.
func (c *Cluster) Freeze(t peers.TB, n *Node) (thaw func()) {
	t.Helper()
	end := c.Trouble("stopped", n.Index, "")
	if err := n.Pause(); err != nil {
		t.Fatalf("%v", err)
	}
	return func() {
		t.Helper()
		if err := n.Resume(); err != nil {
			t.Fatalf("%v", err)
		}
		c.Serves(t, n)
		end()
	}
}

// Crash kills a node with SIGKILL. The returned function starts it again, and returns when
// it may decide.
func (c *Cluster) Crash(t peers.TB, n *Node) (restart func()) {
	t.Helper()
	end := c.Trouble("killed", n.Index, "")
	n.Kill()
	return func() {
		t.Helper()
		if err := n.Start(t.Context()); err != nil {
			t.Fatalf("%v", err)
		}
		c.Serves(t, n)
		end()
	}
}

// Serves waits until a node may decide for all agencies again: /readyz, and its own route
// of an armed one.
func (c *Cluster) Serves(t peers.TB, n *Node) {
	t.Helper()
	Until(t, n.Name+" to serve", func() bool { return c.Serving(t.Context(), n) })
}

// Serving reports whether a node may decide for all agencies.
func (c *Cluster) Serving(ctx context.Context, n *Node) bool {
	if n.Ready(ctx) != nil {
		return false
	}
	c.mu.Lock()
	ids := make([]string, 0, len(c.agencies))
	for id := range c.agencies {
		ids = append(ids, id)
	}
	c.mu.Unlock()
	for _, id := range ids {
		a, err := n.API.Agency(ctx, id)
		if err != nil {
			return false
		}
		if r, err := n.API.Route(ctx, "address", Mailbox(id, 1)); err != nil || a.Open && !r.Deliver {
			return false
		}
	}
	return true
}

// patience is how long is waited for what must come, on a busy machine.
const patience = 90 * time.Second

// Until waits until done says so.
func Until(t peers.TB, what string, done func() bool) {
	t.Helper()
	peers.WaitFor(t, patience, what, done)
}

// Arrivals returns what the platforms have taken.
func (c *Cluster) Arrivals() (all []Arrival, err error) {
	for name, p := range c.Platforms {
		for _, tx := range p.Stored() {
			found := receivedLine.FindSubmatch(tx.Raw)
			if found == nil {
				return nil, fmt.Errorf("%s has a message without a node's line: %.200q", name, tx.Raw)
			}
			for _, rcpt := range tx.Accepted() {
				all = append(all, Arrival{Platform: name, ID: idOf(tx.Raw), Rcpt: rcpt, Transaction: mail.TransactionID(found[1]), At: tx.Ended, Null: tx.From == ""})
			}
		}
	}
	return all, nil
}

// End is Record, judged.
func (c *Cluster) End(t peers.TB) *Verdict {
	t.Helper()
	return Check(c.Record(t))
}

// Taken are the messages that were answered 250; after Quiet.
func (c *Cluster) Taken() (all []Sent) {
	for _, l := range c.loads {
		for _, s := range l.Sent() {
			if _, taken := s.taken(); taken {
				all = append(all, s)
			}
		}
	}
	return all
}

// Drain is Quiet, and waits until all that was answered 250 has arrived and nothing is held.
func (c *Cluster) Drain(t peers.TB) {
	t.Helper()
	c.Quiet(t)
	for _, n := range c.Nodes {
		Until(t, "the spool of "+n.Name+" to be empty", func() bool {
			held, err := n.Held(t.Context())
			return err == nil && held == 0
		})
	}
}

// Quiet ends the loads. What was sent is in Record.
func (c *Cluster) Quiet(t peers.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, l := range c.clients {
		l.Stop()
	}
	for _, l := range c.loads {
		if err := l.Stop(ctx); err != nil {
			t.Fatalf("%v", err)
		}
	}
}

// Record is Drain; then it stops the nodes and returns what was seen.
func (c *Cluster) Record(t peers.TB) *Record {
	t.Helper()
	c.Drain(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r := &Record{Agencies: c.agencies, Switches: c.switches, Doubts: make(map[mail.TransactionID]int), Waited: make(map[mail.TransactionID]bool), Routes: make(map[Route]bool)}
	r.Lifetime, r.Relayed = c.o.Limit, c.relayed
	for _, l := range c.clients {
		r.Sessions, r.Submitted = append(r.Sessions, l.Sessions()...), append(r.Submitted, l.Submitted()...)
	}
	for _, l := range c.loads {
		r.Sent = append(r.Sent, l.Sent()...)
	}
	var graceful sync.WaitGroup
	for _, n := range c.Nodes {
		graceful.Go(n.Stop)
	}
	graceful.Wait()
	for _, n := range c.Nodes {
		if err := n.readLedger(ctx, r); err != nil {
			t.Fatalf("ledger of %s: %v", n.Name, err)
		}
		left, err := n.left()
		if err != nil || len(left) > 0 {
			t.Fatalf("left in the spool of %s: %v, %v", n.Name, left, err)
		}
	}
	var err error
	if r.Arrived, err = c.Arrivals(); err != nil {
		t.Fatalf("%v", err)
	}
	for name, p := range c.Inboxes {
		r.Visits = append(r.Visits, p.Visits()...)
		for _, tx := range c.Outboxes[name].Stored() {
			r.Handed = append(r.Handed, Handed{Platform: name, ID: idOf(tx.Raw), Login: tx.User, At: tx.Ended})
		}
	}
	sortVisits(r.Visits)
	for _, f := range c.faults {
		r.Faults = append(r.Faults, *f)
	}
	slices.SortFunc(r.Switches, func(a, b Switch) int { return a.Asked.Compare(b.Asked) })
	return r
}
