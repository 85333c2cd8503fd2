package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/routing"
	"mailcutover/routing/redistable"
	"mailcutover/routing/table"
	"mailcutover/spool"
	"mailcutover/test/sim/redismodel"
)

// Run is one seed's world: nodes, agencies, platforms, senders, a Redis with replicas, an
// operator, and faults.
type Run struct {
	*World
	Seed  uint64
	level slog.Level

	agencies  []*agency
	platforms []*platform
	machines  []*machine
	servers   []*redismodel.Server
	links     []*redismodel.Link // of the replicas
	chief     int                // server that was promoted last
	admin     *host
	adminLink *link
	senders   *sender
	oracle    *oracle
	boxes     map[spool.Key]string
	lostDisk  map[string]bool // nodes whose disk was lost with mail on it
	byHand    bool            // only people can open what is closed
	clocksRun bool            // nodes' clocks go on while their machines are stopped
	scene     *scene          // that is played; nil: all is drawn

	messages  int
	toSend    int
	ops       int // under way
	done      map[string]int
	acts      int  // of people, so far
	graves    int  // nodes that people bury
	attending bool // people are at work
	emptied   bool // the table is, and people haven't filled it yet
	lossy     bool // the table lost something that was acknowledged, perhaps
	hooked    bool // switches call hooks
	hookFails float64
	quiet     bool // no faults any more
	over      bool // nothing starts any more
	healedAt  time.Time
}

// agency is what a run knows of one.
type agency struct {
	id             routing.AgencyID
	source, target string
	addresses      []string
	newcomers      []*newcomer // that people enter meanwhile
	armed          bool
	version        int // of its list: how often it was changed
}

// place is an address on a platform, by the list of a version.
func (a *agency) place(rcpt, platform string, version int) string {
	switch {
	case platform == a.source:
		return rcpt
	case version == 0:
		return strings.Replace(rcpt, "@", "@"+platform+".", 1)
	}
	return strings.Replace(rcpt, "@", fmt.Sprintf("@%s%d.", platform, version), 1)
}

// canonical returns whose address on a platform this is, and by the list of which version.
func (r *Run) canonical(place string) (a *agency, address string, version int) {
	for _, a := range r.agencies {
		addresses := slices.Clone(a.addresses)
		for _, c := range a.newcomers {
			addresses = append(addresses, c.address)
		}
		for _, addr := range addresses {
			if place == addr {
				return a, addr, 0
			}
			for v := range a.version + 1 {
				if place == a.place(addr, a.target, v) {
					return a, addr, v
				}
			}
		}
	}
	return nil, "", 0
}

const (
	loadTime  = 9 * time.Second
	drainTime = 3 * time.Minute
)

// newRun draws the world of a seed.
func newRun(seed uint64, log io.Writer) *Run {
	r := emptyRun(seed, log)
	r.clocksRun = r.chance(0.7)
	for range 2 + r.rng.IntN(2) {
		a := r.addAgency(r.chance(0.6))
		for range 2 + r.rng.IntN(2) {
			a.addAddress()
		}
	}
	r.build(2 + r.rng.IntN(3))
	return r
}

func emptyRun(seed uint64, log io.Writer) *Run {
	return &Run{World: newWorld(seed, log), Seed: seed, boxes: map[spool.Key]string{}, lostDisk: map[string]bool{}, done: map[string]int{}}
}

func (r *Run) addAgency(armed bool) *agency {
	a := &agency{id: routing.AgencyID(fmt.Sprintf("agency%d", len(r.agencies)+1)), source: "exchange", target: "ox", armed: armed}
	r.agencies = append(r.agencies, a)
	return a
}

func (a *agency) addAddress() {
	a.addresses = append(a.addresses, fmt.Sprintf("m%d@%s.example", len(a.addresses), a.id))
}

// build makes the world around the agencies, with so many nodes.
func (r *Run) build(nodes int) {
	r.oracle = newOracle(r)
	for _, name := range []string{"exchange", "ox"} {
		r.platforms = append(r.platforms, &platform{w: r.World, name: name, limit: connectionLimit, takes: r.oracle.takes})
	}
	r.drawServers(3)
	r.adminLink = r.newLink()
	r.admin = &host{w: r.World, name: "admin", addr: netip.MustParseAddr("192.0.2.99")}
	for i := range nodes {
		r.addMachine(fmt.Sprintf("mx%d", i+1), routing.NodeID(fmt.Sprintf("mx%d", i+1)))
	}
	r.senders = &sender{w: r.World, addr: netip.MustParseAddr("198.51.100.7"), pick: r.anyNode, told: r.oracle.told, names: r.oracle.names, lost: r.oracle.lost}
}

// addMachine makes another machine, for a process of a node, which is not started yet.
func (r *Run) addMachine(name string, id routing.NodeID) *machine {
	addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(len(r.machines) + 1)})
	m := &machine{
		host: &host{w: r.World, name: name, addr: addr}, run: r, id: id,
		disk: newDisk(), front: r.newLink(), redis: r.newLink(), platforms: map[string]*link{},
	}
	for _, p := range r.platforms {
		m.platforms[p.name] = r.newLink()
	}
	r.machines = append(r.machines, m)
	return m
}

// newDisk returns an empty disk with the directory that an installation makes.
func newDisk() *memdisk.Disk {
	d := memdisk.New()
	if err := errors.Join(d.MakeDir("/data"), d.SyncDir("/")); err != nil {
		panic(err)
	}
	return d
}

func (r *Run) newLink() *link {
	return &link{least: 100 * time.Microsecond, most: 3 * time.Millisecond}
}

// anyNode returns a node that takes mail; nil: none.
func (r *Run) anyNode() *machine {
	var up []*machine
	for _, m := range r.machines {
		if m.listener != nil {
			up = append(up, m)
		}
	}
	if len(up) == 0 {
		return nil
	}
	return up[r.rng.IntN(len(up))]
}

func (r *Run) drawServers(n int) {
	for i := range n {
		name := fmt.Sprintf("redis%d", i)
		s := redismodel.New(redismodel.Options{
			Name: name, Now: time.Now, Token: r.hex, MinReplicas: n / 2, MaxLag: 2 * time.Second,
			After: func(d time.Duration, f func()) func() {
				e := r.after(d, "", f)
				return func() { e.off = true }
			},
		})
		s.OnWrite = func(args []string) { r.oracle.wrote(name, args) }
		r.servers = append(r.servers, s)
	}
	for _, s := range r.servers[1:] {
		r.attach(r.servers[0], s)
	}
}

func (r *Run) attach(from, to *redismodel.Server) {
	l := redismodel.Attach(from, to, func() time.Duration { return r.between(100*time.Microsecond, 3*time.Millisecond) })
	r.links = slices.DeleteFunc(r.links, func(old *redismodel.Link) bool { return old.To == to })
	r.links = append(r.links, l)
}

// tableOptions are those of a connection to the table from a host, which takes view() for
// the primary, as Sentinel tells it.
func (r *Run) tableOptions(h *host, l *link, view func() int) redistable.Options {
	return redistable.Options{
		URL: "redis://127.0.0.1:6379/0", AllowNoPassword: true, Replicas: len(r.servers) - 1, BulkTimeout: time.Second,
		Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return r.dial(ctx, h, l, "redis", netip.MustParseAddrPort("127.0.0.1:6379"), func() (peer, error) {
				s := r.servers[view()]
				if s.Down() {
					return nil, errRefused
				}
				return &toServer{server: s}, nil
			})
		},
	}
}

// toServer is the server's end of a connection.
type toServer struct {
	server  *redismodel.Server
	session *redismodel.Session
}

func (t *toServer) greet(c *conn) {
	t.session = t.server.Connect(func(b []byte) { c.answer(b, 0) }, func() { c.hangUp(true) })
}

func (t *toServer) receive(_ *conn, b []byte) { t.session.Feed(b) }

func (t *toServer) ended(*conn) { t.session.Close() }

// primary returns the index of the server that Sentinel takes for the primary.
func (r *Run) primary() int {
	for i, s := range r.servers {
		if s.Primary() && !s.Down() {
			return i
		}
	}
	return 0
}

// execute lets the run happen, and ends everything.
func (r *Run) execute() error {
	err := r.happen()
	r.mu.Lock()
	for _, m := range r.machines {
		m.kill(memdisk.LoseNothing)
	}
	r.over = true
	r.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		for _, m := range r.machines {
			m.ends.Wait()
		}
		close(ended)
	}()
	r.run(time.Minute, func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
	<-ended
	r.run(2*time.Second, nil) // a client's library may still be dialling
	return err
}

// happen is a run from the empty table to the last message.
func (r *Run) happen() error {
	setup := make(chan error, 1)
	go func() { setup <- r.fill() }()
	var err error
	filled := false
	r.run(10*time.Second, func() bool {
		select {
		case err = <-setup:
			filled = true
		default:
		}
		return filled
	})
	if !filled || err != nil {
		return fmt.Errorf("seed %d: fill the table: %v", r.Seed, err)
	}
	r.mu.Lock()
	for _, m := range r.machines {
		r.after(r.evenly(0, 200*time.Millisecond), "", m.start)
	}
	r.mu.Unlock()
	if !r.run(20*time.Second, r.serving) {
		return fmt.Errorf("seed %d: not all nodes serve: %s", r.Seed, r.why())
	}
	r.mu.Lock()
	r.note("all nodes serve")
	if r.scene == nil {
		r.plan()
	}
	r.mu.Unlock()
	if r.scene == nil {
		r.run(loadTime+2*time.Second, nil)
	} else {
		r.scene.play(&stage{r})
	}
	r.mu.Lock()
	r.heal()
	r.healedAt = time.Now()
	r.attend()
	r.mu.Unlock()
	limit := drainTime
	if r.byHand {
		limit = 20 * time.Second
	}
	drained := r.run(limit, func() bool { return r.toSend == 0 && r.senders.open == 0 && r.ops == 0 && r.empty() && r.open() })
	r.mu.Lock()
	r.note("end: drained %t", drained)
	if !drained && !r.byHand && !r.copyless() {
		r.violated("I20", "not drained %s after the last fault: %s", drainTime, r.why())
	}
	r.oracle.finish()
	r.oracle.survived()
	r.mu.Unlock()
	return nil
}

// serving reports whether all nodes may decide and take operations.
func (r *Run) serving() bool {
	for _, m := range r.machines {
		l := m.life
		if l == nil || m.listener == nil {
			return false
		}
		select {
		case <-l.ready:
		default:
			return false
		}
		if right := l.keeper.Right(time.Time{}); !right.Armed || !right.Settled {
			return false
		}
	}
	return true
}

// open reports whether all agencies are open on all nodes.
func (r *Run) open() bool {
	for _, m := range r.machines {
		if m.life == nil || m.life.replica == nil {
			return false
		}
		state := m.life.replica.State()
		if first := r.machines[0].life.replica; first == nil || state.Position() != first.State().Position() {
			return false
		}
		for _, a := range state.Agencies() {
			if _, lost := state.Seen(a.ID); lost || !a.Open() {
				return false
			}
		}
	}
	return true
}

// copyless reports whether the table and all copies of it are gone: people have to begin anew.
func (r *Run) copyless() bool {
	for _, m := range r.machines {
		if m.life == nil || m.life.replica == nil || m.life.replica.State().Position().Incarnation != "" {
			return false
		}
	}
	return r.emptied
}

// empty reports whether nothing lies in any spool.
func (r *Run) empty() bool {
	for _, m := range r.machines {
		if m.life == nil || m.life.spool == nil {
			return false
		}
		if all, _ := m.life.spool.Counts(); all.Messages > 0 {
			return false
		}
	}
	return true
}

// why says what is not as it should be.
func (r *Run) why() string {
	text := fmt.Sprintf("%d messages to be sent, %d with senders, %d operations", r.toSend, r.senders.open, r.ops)
	for _, m := range r.machines {
		if m.life == nil || m.life.keeper == nil {
			text += "; " + m.name + " doesn't run"
			continue
		}
		s := m.life.keeper.Status()
		text += fmt.Sprintf("; %s settled %t armed %t %s", m.name, s.Settled, s.Armed, s.Why)
		if s.Err != nil {
			text += " " + s.Err.Error()
		}
		if st := m.life.replica.Status(); !st.Open {
			text += " replica: " + st.Reason
		}
		if m.life.spool != nil {
			if all, _ := m.life.spool.Counts(); all.Messages > 0 {
				text += fmt.Sprintf(" %d messages in the spool", all.Messages)
			}
		}
		for _, a := range m.life.replica.State().Agencies() {
			if !a.Open() {
				text += fmt.Sprintf(" %s: phase %s published %t locked %t epoch %s", a.ID, a.Phase, a.Published, a.Locked, a.Epoch)
			}
		}
		for _, id := range m.life.replica.State().Regressed() {
			text += fmt.Sprintf(" %s regressed", id)
		}
	}
	return text
}

// fill puts the agencies into an empty table.
func (r *Run) fill() error {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	tb, err := redistable.Open(ctx, r.tableOptions(r.admin, r.adminLink, r.primary))
	if err != nil {
		return err
	}
	defer tb.Close()
	pos, err := tb.Init(ctx)
	if err != nil {
		return err
	}
	c := table.Change{ID: "fill", Incarnation: pos.Incarnation, Mapped: pos.Mapped, Term: pos.Term, Who: "sim", What: "fill", Reason: "sim"}
	for n, a := range r.agencies {
		rec, err := routing.NewAgency(a.id, routing.PlatformID(a.source), routing.PlatformID(a.target))
		if err != nil {
			return err
		}
		rec.Epoch.Term = pos.Term
		for i, addr := range a.addresses {
			key := spool.Recipient{Address: routing.Address(addr), Agency: a.id, Mailbox: mailbox(n, i)}
			r.boxes[key.Key()] = addr
		}
		m, err := r.mapping(n, a, 0)
		if err != nil {
			return err
		}
		if err := tb.PutMapping(ctx, m); err != nil {
			return err
		}
		rec.Mapping = m.Digest()
		if a.armed {
			rec = rec.Arm()
		}
		c.Agencies = append(c.Agencies, rec)
		c.Domains = append(c.Domains, routing.Domain{Name: string(a.id) + ".example", Complete: true})
	}
	if _, err := tb.Change(ctx, c); err != nil {
		return err
	}
	return tb.Confirm(ctx)
}

func mailbox(agency, n int) routing.MailboxID {
	return routing.MailboxID{0: byte(agency + 1), 1: byte(n + 1), 7: 0x40}
}

// mapping is a version of the n-th agency's list.
func (r *Run) mapping(n int, a *agency, version int) (*routing.Mapping, error) {
	var rows []routing.Row
	for i, addr := range a.addresses {
		rows = append(rows, routing.Row{Mailbox: mailbox(n, i), Kind: routing.KindUser, Addresses: []routing.Address{routing.Address(addr)},
			Target: routing.Place{Address: routing.Address(a.place(addr, a.target, version))}})
	}
	return routing.NewMapping(a.id, rows)
}

// writesTo brings a message for a newcomer, if he was told as entered. mu is held.
func (r *Run) writesTo(c *newcomer) {
	if !c.told || r.over {
		return
	}
	r.messages++
	r.senders.send(&message{id: fmt.Sprintf("s%d-%d", r.Seed, r.messages), rcpts: []string{c.address}})
}

// plan draws load, switches and faults.
func (r *Run) plan() {
	for range 25 + r.rng.IntN(25) {
		r.toSend++
		r.after(r.evenly(0, loadTime), "", func() {
			r.toSend--
			r.messages++
			m := &message{id: fmt.Sprintf("s%d-%d", r.Seed, r.messages)}
			for range 1 + r.rng.IntN(2) {
				a := r.agencies[r.rng.IntN(len(r.agencies))]
				if addr := a.addresses[r.rng.IntN(len(a.addresses))]; !slices.Contains(m.rcpts, addr) {
					m.rcpts = append(m.rcpts, addr)
				}
			}
			r.senders.send(m)
		})
	}
	for range 2 + r.rng.IntN(5) {
		ag := r.agencies[min(r.rng.IntN(len(r.agencies)+1), len(r.agencies)-1)]
		if r.chance(0.5) {
			ag = r.agencies[0]
		}
		box := r.rng.IntN(len(ag.addresses))
		last := r.between(time.Second, loadTime)
		r.after(r.evenly(0, loadTime-time.Second), "", func() { r.login(r.machine(), ag, box, time.Now().Add(last), r.chance(0.3)) })
	}
	at := time.Duration(0)
	ag := r.agencies[0]
	if !ag.armed {
		at = r.evenly(0, 2*time.Second)
		r.after(at, "", func() { r.perform(r.machine(), "arm", ag) })
	}
	for range 1 + r.rng.IntN(3) {
		at += r.evenly(100*time.Millisecond, 4*time.Second)
		emergency := r.chance(0.2)
		r.after(at, "", func() { r.operate(ag, emergency) })
	}
	if r.chance(0.25) {
		r.after(r.evenly(0, loadTime), "", func() { r.remap(r.machine()) })
	}
	names := rand.New(rand.NewPCG(r.Seed, 1)) // its own, so that seeds stay what they were
	if names.IntN(3) == 0 {
		r.toSend++
		ag := r.agencies[names.IntN(len(r.agencies))]
		r.after(time.Duration(names.Int64N(int64(loadTime))), "", func() {
			c := r.hires(r.machines[names.IntN(len(r.machines))], ag)
			for range 3 {
				r.after(time.Duration(names.Int64N(int64(4*time.Second))), "", func() { r.writesTo(c) })
			}
			r.toSend--
		})
	}
	if r.hooked = r.chance(0.3); r.hooked {
		r.hookFails = 0.4 * r.rng.Float64()
	}
	if r.chance(0.3) {
		what := acts[r.rng.IntN(len(acts))].what
		on := r.agencies[r.rng.IntN(len(r.agencies))]
		start := r.evenly(0, loadTime)
		r.after(start, "", func() { r.perform(r.machine(), what, on) })
		if what == "lock" {
			r.after(start+r.between(time.Second, 8*time.Second), "", func() { r.perform(r.machine(), "unlock", on) })
		}
	}
	for range 1 + r.rng.IntN(4) {
		f := faults[r.rng.IntN(len(faults))]
		r.after(r.evenly(0, loadTime), "", func() {
			if !r.quiet {
				f.do(r)
			}
		})
	}
}
