package sim

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/internal/alarm"
	"mailcutover/internal/durable"
	"mailcutover/internal/durable/memdisk"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/node"
	"mailcutover/proxy/deliver"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/relay"
	"mailcutover/proxy/smtp"
	"mailcutover/proxy/transfer"
	"mailcutover/rollback/control"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/redistable"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
	"mailcutover/spool"
	"mailcutover/spool/dsn"
	"mailcutover/spool/queue"
)

// leases are the same on all nodes of all runs: short, so that a run doesn't take long.
var leases = node.Lease{Armed: 2 * time.Second, Settled: 6 * time.Second, Margin: 300 * time.Millisecond}

// renewEvery is how often nodes renew: a lease stands three renewals that are lost.
const renewEvery = 500 * time.Millisecond

// connectionLimit is that of both platforms.
const connectionLimit = 4 * time.Second

// machine is where a node runs, through all its lives.
type machine struct {
	*host
	run     *Run
	id      routing.NodeID
	disk    *memdisk.Disk
	boots   int
	jump    atomic.Int64 // nanoseconds that the wall clock is ahead
	stopped atomic.Int64 // nanoseconds that the monotonic clock lacks

	front     *link // senders
	redis     *link
	platforms map[string]*link
	view      int // index of the server that the node takes for the primary

	sick bool // its disk is, or was in this life
	twin bool // a second process of a node's name, on a disk of its own

	listener *listener // nil: nobody listens
	life     *life     // nil: it doesn't run
	ends     sync.WaitGroup
}

// life is one process of a node: the parts of the production node, put together as the
// daemon does.
type life struct {
	m      *machine
	host   *host
	ctx    context.Context
	cancel context.CancelFunc
	parts  sync.WaitGroup
	log    *slog.Logger
	alarms *alarm.Set
	began  time.Time

	orderly atomic.Bool // it ends, and isn't killed

	table   *redistable.Table
	replica *replica.Replica
	keeper  *node.Keeper
	gate    *node.Gate
	spool   *spool.Store
	ledger  *ledger.Ledger
	queue   *queue.Queue
	pools   []*relay.Pool
	runner  *operation.Runner
	control *control.Control
	ready   chan struct{} // closed when runner has recovered
}

// monotonic is the clock that counts leases. Where clocks don't run while a machine is
// stopped, it lacks that time.
func (m *machine) monotonic() time.Time {
	return time.Now().Add(-time.Duration(m.stopped.Load()))
}

func (m *machine) wall() time.Time { return time.Now().Add(time.Duration(m.jump.Load())) }

// start begins a life in a goroutine of its own. mu is held.
func (m *machine) start() {
	if m.run.over || m.twin && m.run.quiet {
		return
	}
	h := &host{w: m.w, name: m.name, addr: m.addr, halted: m.disk.Crashed}
	m.host = h
	l := &life{m: m, host: h, began: time.Now(), alarms: alarm.NewSet(nil), ready: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.log = slog.New(&notes{run: m.run, node: m.name})
	m.life = l
	m.w.note("%s starts", m.name)
	disk := m.disk
	m.ends.Go(func() {
		if err := l.serve(disk); err != nil {
			m.w.mu.Lock()
			switch {
			case h.dead, disk.Crashed(): // watchDisk notices
			case m.sick:
				m.w.note("%s doesn't start: %v", m.name, err)
				m.kill(memdisk.LoseNothing)
				m.run.restart(m)
			default:
				m.w.violated("start", "%s: %v", m.name, err)
			}
			m.w.mu.Unlock()
		}
	})
}

// kill ends the process at this moment. loss says what of its disk is gone. mu is held.
func (m *machine) kill(loss memdisk.Loss) {
	l := m.life
	if l == nil {
		return
	}
	m.w.note("%s is killed: %s", m.name, loss)
	m.disk.Crash()
	m.disk = m.disk.Restart(loss)
	if loss != memdisk.LoseNothing {
		m.boots++
	}
	m.host.kill(func(c *conn) fate {
		if _, is := c.peer.(*leg); is {
			return fate{lost: true} // its reset is as quick as they are
		}
		switch r := m.w.rng.IntN(4); {
		case r < 2:
			return fate{lost: true}
		case r == 2:
			return fate{late: m.w.evenly(0, connectionLimit)}
		}
		return fate{}
	})
	if m.listener != nil {
		m.listener.Close()
		m.listener = nil
	}
	m.life = nil
	l.cancel()
}

func (l *life) serve(disk *memdisk.Disk) error {
	defer l.cancel()
	err := l.open(disk)
	if err == nil {
		<-l.ctx.Done()
		if l.orderly.Load() {
			l.leave()
		}
	}
	return l.end(err)
}

// stop ends the process as an operator does. mu is held.
func (m *machine) stop() {
	l := m.life
	if l == nil || m.listener == nil || l.orderly.Swap(true) {
		return
	}
	m.w.note("%s stops", m.name)
	m.listener.Close()
	m.listener = nil
	l.cancel()
}

// leave gives the lease up once nothing decides any more, and begins the next process.
func (l *life) leave() {
	l.runner.Halt()
	l.parts.Wait()
	l.runner.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := l.keeper.Surrender(ctx)
	m := l.m
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if m.life != l {
		return // it was killed meanwhile
	}
	m.w.note("%s has stopped: %v", m.name, err)
	if err == nil {
		m.run.done["lease given up"]++
	}
	m.host.kill(func(*conn) fate { return fate{} })
	m.life = nil
	m.run.restart(m)
}

// end waits for all parts. Nothing of it reaches the world: the process is dead.
func (l *life) end(err error) error {
	l.cancel()
	if l.runner != nil {
		l.runner.Halt()
	}
	l.parts.Wait()
	if l.runner != nil {
		l.runner.Stop()
	}
	for _, p := range l.pools {
		p.Close()
	}
	if l.spool != nil {
		_ = l.spool.Close()
	}
	if l.ledger != nil {
		_ = l.ledger.Close()
	}
	if l.keeper != nil {
		_ = l.keeper.Close()
	}
	if l.table != nil {
		_ = l.table.Close()
	}
	return err
}

func (l *life) part(f func(context.Context) error) {
	l.parts.Go(func() { _ = f(l.ctx) })
}

func (l *life) open(disk *memdisk.Disk) (err error) {
	m := l.m
	l.table, err = redistable.Open(l.ctx, m.run.tableOptions(l.host, m.redis, func() int { return m.view }))
	if err != nil {
		return err
	}
	boot := fmt.Sprintf("boot-%d", m.boots)
	l.ledger, err = ledger.Open(ledger.Options{Disk: disk, Dir: "/data/ledger", Boot: boot, DoubtFor: connectionLimit, Logger: l.log, Now: m.wall, SegmentBytes: 256 << 10})
	if err != nil {
		return err
	}
	l.spool, err = spool.Open(spool.Options{Disk: disk, Dir: "/data/spool", Node: string(m.id), Alarms: l.alarms, Logger: l.log, Now: m.wall, SegmentBytes: 256 << 10})
	if err != nil {
		return err
	}
	l.replica, err = replica.Open(replica.Options{
		Table: l.table, Dir: "/data/replica", Disk: disk, Logger: l.log,
		OnSeen: func(old, next *routing.State) { l.gate.Update(old, next) },
		OnUpdate: func(old, now *routing.State) {
			l.gate.Update(old, now)
			m.run.oracle.published(m.name, now)
			if q := l.queue; q != nil {
				q.Update(old, now)
			}
		},
	})
	if err != nil {
		return err
	}
	l.keeper, err = node.OpenKeeper(node.KeeperOptions{
		Table: l.table, Replica: l.replica, Node: m.id, Build: "sim", Lease: leases, Renew: renewEvery,
		Dir: "/data/node", Disk: disk, Counts: l.counts, Logger: l.log, Now: m.monotonic,
		ClockRuns: m.run.clocksRun, Limit: connectionLimit,
	})
	if err != nil {
		return err
	}
	l.gate = node.NewGate(l.replica, l.keeper, "")
	l.keeper.Attach(l.gate)
	doubts := l.remember()
	platforms, err := l.openPlatforms()
	if err != nil {
		return err
	}
	book := &intents{Ledger: l.ledger, run: m.run, node: m.name}
	sender := deliver.New(deliver.Options{Gate: l.gate, Ledger: book, Platforms: platforms, Alarms: l.alarms, Logger: l.log})
	l.queue, err = queue.New(queue.Options{
		Store: store{queue.FromSpool(l.spool), book}, Router: l.gate, Sender: sender, Alarms: l.alarms, Logger: l.log, Doubts: doubts,
		Retry:   queue.Retry{First: 500 * time.Millisecond, Max: 2 * time.Second, Life: 24 * time.Hour, Patience: time.Hour},
		Notices: queue.Notices{Settings: dsn.Settings{Host: m.name + ".example"}},
	})
	if err != nil {
		return err
	}
	journal, err := durable.Open(disk, "/data/operations")
	if err != nil {
		return err
	}
	_, instance := l.keeper.Node()
	l.runner = operation.New(operation.Options{
		Hooks: hooks{m.run, l},
		Node:  m.id, Instance: instance, Table: l.table, Replica: l.replica, Folder: journal, Alarms: l.alarms, Logger: l.log,
		Leases: operation.Leases{Short: leases.Armed, Long: leases.Settled, Margin: leases.Margin},
		Limit:  func(routing.PlatformID) time.Duration { return connectionLimit },
		Logins: func(routing.PlatformID) (time.Duration, bool) { return connectionLimit, true },
	})
	l.control = control.New(control.Options{Table: l.table, Replica: l.replica, Logger: l.log, Longest: leases.Settled})
	l.part(l.replica.Run)
	l.part(l.keeper.Run)
	l.part(l.queue.Run)
	l.part(l.tend)
	return l.listen(transfer.New(transfer.Options{
		Gate: l.gate, Platforms: platforms, Spool: l.spool, Added: l.added, Ledger: book,
		Node: string(m.id) + ".example", Installation: "sim", HopLimit: 50, OwnLimit: 5,
		Answers: l.ctx, Alarms: l.alarms, Observer: nobody{}, Logger: l.log, Names: elsewhere{},
	}))
}

func (l *life) counts() []table.Count {
	_, agencies := l.spool.Counts()
	var list []table.Count
	for _, a := range l.m.run.agencies {
		if c := agencies[a.id]; c.Messages > 0 {
			list = append(list, table.Count{Agency: a.id, Held: c.Of(spool.StateHeld), Waiting: c.Of(spool.StateWaiting)})
		}
	}
	return list
}

// added tells queue and oracle of what the spool took.
func (l *life) added(id mail.TransactionID, first int) {
	l.spool.Each(spool.Filter{Transaction: id}, func(e spool.Entry) bool {
		l.m.run.oracle.spooled(l.m.name, &e)
		return true
	})
	l.queue.AddedFrom(id, first)
}

// remember tells the gate what the process before left under way.
func (l *life) remember() map[mail.TransactionID]time.Time {
	until := l.began.Add(connectionLimit)
	doubts := make(map[mail.TransactionID]time.Time)
	for _, i := range l.ledger.InDoubt() {
		doubts[i.Transaction] = until
		for _, r := range i.Recipients {
			l.gate.Remember(r.Agency, r.Epoch, until)
		}
		l.m.run.oracle.doubt(string(i.Transaction), "found at the start")
	}
	if _, unknown := l.ledger.Unknown(); unknown {
		l.gate.RememberAny(until)
		l.m.run.oracle.unknown(l.m.name)
	}
	return doubts
}

func (l *life) openPlatforms() ([]relay.Platform, error) {
	var list []relay.Platform
	for _, p := range l.m.run.platforms {
		way := l.m.platforms[p.name]
		pool, err := relay.NewPool(relay.Endpoint{
			Platform: routing.PlatformID(p.name), Origin: mail.OriginOutside, Protocol: relay.ProtocolSMTP,
			Hosts: []string{"127.0.0.1:25"}, Helo: l.m.name + ".example", TLS: dial.TLS{Policy: dial.TLSNone},
			Limits:   relay.Limits{Connections: 4, PlatformLimit: connectionLimit, Backoff: 200 * time.Millisecond, BackoffMax: time.Second, QueueWait: 3 * time.Second},
			Timeouts: relay.Timeouts{Dial: time.Second, Greeting: 2 * time.Second, Command: 2 * time.Second, Mail: 2 * time.Second, Rcpt: 2 * time.Second, Data: 2 * time.Second, Dot: 3 * time.Second, Block: 2 * time.Second},
		}, relay.Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return l.m.w.dial(ctx, l.host, way, p.name, netip.MustParseAddrPort("127.0.0.1:25"), p.open)
		}, Logger: l.log})
		if err != nil {
			return nil, err
		}
		l.pools = append(l.pools, pool)
		list = append(list, relay.Platform{ID: routing.PlatformID(p.name), ConnectionLimit: connectionLimit, Outside: pool, Inside: pool})
	}
	return list, nil
}

func (l *life) listen(backend smtp.Backend) error {
	o := smtp.DefaultOptions()
	o.ID, o.Hostname, o.Logger = "mx", l.m.name+".example", l.log
	server, err := smtp.NewServer(o, backend)
	if err != nil {
		return err
	}
	socket := newListener(l.m.w, l.host)
	l.m.w.mu.Lock()
	if l.host.dead {
		socket.Close()
	} else {
		l.m.listener = socket
	}
	l.m.w.mu.Unlock()
	l.part(func(ctx context.Context) error { return server.Serve(ctx, socket) })
	return nil
}

// tend settles what operations left, as the daemon does.
func (l *life) tend(ctx context.Context) error {
	for {
		pos, err := l.table.Position(ctx)
		if err == nil {
			wait, cancel := context.WithTimeout(ctx, 10*time.Second)
			err = l.replica.Wait(wait, pos)
			cancel()
		}
		if err == nil {
			break
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	_ = l.runner.Recover(ctx)
	close(l.ready)
	tender := l.control.Tender(0)
	for {
		select {
		case <-time.After(2 * time.Second):
			_ = l.runner.Tend(ctx)
			_ = tender.Tend(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// nobody counts nothing.
type nobody struct{}

func (nobody) Decided(routing.Reason)                         {}
func (nobody) Delivered(routing.PlatformID, mail.Origin, int) {}
func (nobody) Spooled(spool.State)                            {}
func (nobody) InDoubt(routing.PlatformID)                     {}
