package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/admin"
	"mailcutover/admin/peer"
	"mailcutover/admin/signon"
	"mailcutover/audit/checkpoint"
	"mailcutover/internal/alarm"
	"mailcutover/internal/config"
	"mailcutover/internal/durable"
	"mailcutover/internal/metrics"
	"mailcutover/ledger"
	"mailcutover/ledger/retained"
	"mailcutover/node"
	"mailcutover/proxy/deliver"
	"mailcutover/proxy/listen"
	"mailcutover/proxy/login"
	"mailcutover/proxy/smtp"
	"mailcutover/proxy/transfer"
	"mailcutover/rollback/control"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/localtable"
	"mailcutover/routing/redistable"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
	"mailcutover/spool"
	"mailcutover/spool/queue"
)

// firstContact is how long Start waits for the table, so that a node whose table is at
// hand serves from its first second on. A table that can't be reached doesn't keep the
// node from starting: it answers 451 until it can.
const firstContact = 3 * time.Second

// probeTimeout bounds the first look at the platforms.
const probeTimeout = 5 * time.Second

// Options are what a node needs besides its configuration.
type Options struct {
	Logger  *slog.Logger
	Level   *slog.LevelVar // of Logger, changed by a reload; nil: it isn't
	Environ []string       // for a reload, as os.Environ returns it
	Version admin.Version
}

// Daemon is one running node.
type Daemon struct {
	logger  *slog.Logger
	level   *slog.LevelVar
	environ []string
	version admin.Version

	table    table.Table
	replica  *replica.Replica
	keeper   *node.Keeper
	gate     *node.Gate
	transfer *transfer.Transfer
	ledger   *ledger.Ledger
	retained *retained.Store // nil: no copies are kept
	spool    *spool.Store
	owning   *routing.State // that the spool keeps its mail by
	watch    spoolWatch
	sender   *deliver.Sender
	queue    atomic.Pointer[queue.Queue] // nil until it is made
	began    time.Time
	runner   *operation.Runner
	control  *control.Control
	alarms   *alarm.Set
	metrics  *metrics.Metrics
	admin    *adminServer

	listeners    []*listener
	certificates map[string]*certificate // by listener id; and those of the admin API and of autoconfiguration

	loginProxy     *login.Proxy  // nil: no logins go through this node
	quota          *listen.Quota // of descriptors for the listeners' connections; nil: no limit is known
	loginListeners []*loginListener
	loginWays      atomic.Pointer[loginWays]
	autoconfig     *autoconfigServer // nil: none
	page           *pageServer       // nil: none
	issuer         *signon.Issuer    // nil: none
	returns        returns
	verification   verification
	canaries       trying
	waves          waves
	notices        notices
	signing        atomic.Pointer[checkpoint.Key] // nil: the audit log isn't signed
	peers          *peer.Group
	peerRoots      atomic.Pointer[x509.CertPool] // of admin.peer.ca_file; nil: the system's

	reloading sync.Mutex
	config    atomic.Pointer[config.Config]
	platforms atomic.Pointer[platforms]
	names     names
	identity  atomic.Pointer[identity] // nil: no directories

	ctx     context.Context // of the node's own work, ends at the end of Shutdown
	cancel  context.CancelFunc
	answers context.Context // of the wait for platforms' answers, ends with the grace of a Shutdown
	giveUp  context.CancelFunc
	parts   sync.WaitGroup
	failed  chan error // first failure of a part

	// The copy of the table and the lease outlast everything that decides.
	holds   context.Context
	letGo   context.CancelFunc
	holding sync.WaitGroup
}

// listener is one listener and the socket it serves.
type listener struct {
	id     string
	server *smtp.Server
	socket net.Listener
}

// Start starts a node. cfg must have been checked by config.Load, or be as good.
func Start(ctx context.Context, cfg *config.Config, o Options) (*Daemon, error) {
	d := &Daemon{
		logger: o.Logger, level: o.Level, environ: o.Environ, version: o.Version,
		certificates: make(map[string]*certificate),
		failed:       make(chan error, 1), began: time.Now(),
	}
	d.alarms = alarm.NewSet(o.Logger)
	d.config.Store(cfg)
	d.ctx, d.cancel = context.WithCancel(context.WithoutCancel(ctx))
	d.answers, d.giveUp = context.WithCancel(context.WithoutCancel(ctx))
	d.holds, d.letGo = context.WithCancel(context.WithoutCancel(ctx))
	if err := d.start(ctx, cfg); err != nil {
		d.stop(context.Background())
		return nil, err
	}
	d.logger.Info("node serves", "node", cfg.Node, "version", o.Version.Version, "approval", cfg.Approval, "lab", cfg.Lab, "admin", d.AdminAddr().String())
	return d, nil
}

func (d *Daemon) start(ctx context.Context, cfg *config.Config) error {
	// Durably: after a power cut nobody looks for the mail in a directory that isn't there.
	if _, err := durable.Open(nil, cfg.Data); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	if err := d.openTable(ctx, cfg); err != nil {
		return err
	}
	if err := d.openSpool(cfg); err != nil {
		return err
	}
	if err := d.followTable(ctx, cfg); err != nil {
		return err
	}
	if err := d.openRetained(cfg); err != nil {
		return err
	}
	doubts := d.rememberDoubts(cfg) // before the keeper tells what is drained
	d.keepLease(ctx)
	d.parts.Go(d.watchTable)
	recovered, err := d.startOperations(cfg)
	if err != nil {
		return err
	}

	p, err := d.openPlatforms(cfg, nil)
	if err != nil {
		return err
	}
	d.platforms.Store(p)
	// What the platforms announce decides what we announce; one that doesn't answer
	// now is asked by the first message for it.
	if err := p.probe(ctx, probeTimeout); err != nil {
		d.logger.Warn("platform not ready", "error", err)
	}
	d.watchPlatforms(p)
	d.sender = deliver.New(d.senderOptions(p))
	if err := d.startQueue(cfg, doubts); err != nil {
		return err
	}
	settings, err := d.transferOptions(cfg, p)
	if err != nil {
		return err
	}
	d.transfer = transfer.New(settings)
	d.openQuota(cfg)
	for i := range cfg.Listeners {
		if err := d.listen(cfg, &cfg.Listeners[i]); err != nil {
			return err
		}
	}
	if err := d.startLogins(ctx, cfg); err != nil {
		return err
	}
	d.serveLogins()
	for _, l := range d.listeners {
		d.part("listener "+l.id, func() error {
			if err := l.server.Serve(d.ctx, l.socket); !errors.Is(err, smtp.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	select { // so that a node whose table is at hand takes operations from its first second on
	case <-recovered:
	case <-time.After(firstContact):
	}
	if err := d.startNotices(cfg); err != nil {
		return err
	}
	if err := d.startAdmin(cfg); err != nil {
		return err
	}
	d.startReturns()
	d.startVerification()
	d.startCanaries()
	d.startWaves()
	if err := d.startIdentity(cfg); err != nil {
		return err
	}
	if err := d.startPage(cfg); err != nil {
		return err
	}
	d.keeper.SetAddress(d.peerAddress(cfg))
	return nil
}

// part runs f as a part of the node; its failure ends the node.
func (d *Daemon) part(name string, f func() error) {
	d.parts.Go(func() {
		if err := f(); err != nil && d.ctx.Err() == nil {
			d.fail(name, err)
		}
	})
}

// fail ends the node.
func (d *Daemon) fail(name string, err error) {
	select {
	case d.failed <- fmt.Errorf("%s: %w", name, err):
	default:
	}
}

func (d *Daemon) openTable(ctx context.Context, cfg *config.Config) error {
	if cfg.Table.Redis == nil {
		t, err := localtable.Open(filepath.Join(cfg.Data, "table.db"), localtable.Options{})
		if err != nil {
			return err
		}
		d.table = t
		return nil
	}
	r := cfg.Table.Redis
	t, err := redistable.Open(ctx, redistable.Options{
		URL: r.URL, Username: r.Username, Password: r.Password.Reveal(),
		TLS: redistable.TLS{CAFile: r.TLS.CAFile, ServerName: r.TLS.ServerName, CertFile: r.TLS.CertFile, KeyFile: r.TLS.KeyFile},
		Sentinel: redistable.Sentinel{
			Master: r.Sentinel.Master, Addresses: r.Sentinel.Addresses,
			Username: r.Sentinel.Username, Password: r.Sentinel.Password.Reveal(),
		},
		Replicas: r.Replicas, AllowPlaintext: r.AllowPlaintext, AllowNoPassword: r.AllowNoPassword,
		Timeout: r.Timeout, Logger: d.logger,
	})
	if err != nil {
		return err
	}
	d.table = t
	return nil
}

func (d *Daemon) transferOptions(cfg *config.Config, p *platforms) (transfer.Options, error) {
	master, err := postmaster(cfg)
	return transfer.Options{
		Gate: d.gate, Platforms: p.list, Postmaster: master, Names: directoryNames{d},
		Answers: d.answers,
		Spool:   d.spool, Added: d.queue.Load().AddedFrom, PutOff: putOff(cfg), Ledger: d.ledger, Retained: d.retainer(),
		Node: cfg.Node, Installation: cfg.Installation,
		HopLimit: cfg.Routing.HopLimit, OwnLimit: cfg.Routing.OwnLimit,
		Alarms: d.alarms, Observer: d.metrics.Transfer(), Logger: d.logger,
	}, err
}

// listen opens a listener's socket; it is served once all are open.
func (d *Daemon) listen(cfg *config.Config, l *config.Listener) error {
	o := listenerOptions(cfg, l)
	o.Logger = d.logger
	o.Observer = d.metrics.Listener(l.ID)
	o.Resting = d.gate.Resting
	o.Quota = d.quota
	o.AnnounceSize = func() int64 { size, _, _ := d.platforms.Load().announced(); return size }
	o.Announce8Bit = func() bool { _, yes, _ := d.platforms.Load().announced(); return yes }
	o.AnnounceUTF8 = func() bool { _, _, yes := d.platforms.Load().announced(); return yes }
	if l.TLS.Mode == config.ListenerTLSStartTLS || l.TLS.Mode == config.ListenerTLSImplicit {
		cert := new(certificate)
		if err := cert.load(l.TLS.CertFile, l.TLS.KeyFile); err != nil {
			return fmt.Errorf("listener %s: %w", l.ID, err)
		}
		d.certificates[l.ID] = cert
		o.TLSConfig = func() *tls.Config { return cert.config.Load() }
	}
	server, err := smtp.NewServer(o, d.transfer)
	if err != nil {
		return err
	}
	socket, err := listen.Listen(l.Address)
	if err != nil {
		return fmt.Errorf("listener %s: %w", l.ID, err)
	}
	d.listeners = append(d.listeners, &listener{id: l.ID, server: server, socket: socket})
	d.logger.Info("listening", "listener", l.ID, "protocol", l.Protocol, "address", socket.Addr().String(), "origin", l.Origin)
	return nil
}

// Addr returns the address of a listener, or nil if there is none of this id.
func (d *Daemon) Addr(id string) net.Addr {
	for _, l := range d.listeners {
		if l.id == id {
			return l.socket.Addr()
		}
	}
	for _, l := range d.loginListeners {
		if l.id == id {
			return l.socket.Addr()
		}
	}
	return nil
}

// Failed tells when a part of the node failed, and why; the node still has to be shut
// down. Nothing comes from it while all is well.
func (d *Daemon) Failed() <-chan error { return d.failed }

// Shutdown ends the node. At once, listeners take no new mail and the API no new
// operation; what is under way may end until ctx ends, operations until two thirds of that time
// have passed. Then they are aborted, if they are not committed, and at last transactions
// are cut. It returns when nothing of the node runs any more.
func (d *Daemon) Shutdown(ctx context.Context) error {
	d.logger.Info("node stops")
	return d.stop(ctx)
}

// stop ends what start began, also half-way.
func (d *Daemon) stop(ctx context.Context) error {
	// What still waits for a platform's answer when the grace is over is in doubt; the
	// ledger names it at the next start.
	defer context.AfterFunc(ctx, d.giveUp)()
	d.endWaves()
	var draining sync.WaitGroup
	drained := make([]error, len(d.listeners)+3)
	draining.Go(func() { drained[len(d.listeners)] = d.stopOperations(ctx) })
	draining.Go(func() { drained[len(d.listeners)+1] = d.stopLogins(ctx) })
	draining.Go(func() { drained[len(d.listeners)+2] = d.stopPage(ctx) })
	for i, l := range d.listeners {
		draining.Go(func() {
			drained[i] = l.server.Shutdown(ctx)
			_ = l.socket.Close() // closed already where the server got to serve it
		})
	}
	draining.Wait()
	d.cancel()
	errs := drained
	d.stopWaves()
	d.stopCanaries()
	d.stopVerification()
	d.stopReturns()
	d.stopIdentity()
	d.parts.Wait()
	d.giveUp()
	errs = append(errs, d.closeNotices())
	if d.loginProxy != nil {
		d.loginProxy.Close()
	}
	if d.peers != nil {
		d.peers.Close()
	}
	errs = append(errs, d.stopKeeping())
	if p := d.platforms.Load(); p != nil {
		p.closeExcept(nil)
	}
	if d.spool != nil {
		errs = append(errs, d.spool.Close())
	}
	if d.retained != nil {
		errs = append(errs, d.retained.Close())
	}
	if d.ledger != nil {
		errs = append(errs, d.ledger.Close())
	}
	if d.table != nil {
		errs = append(errs, d.table.Close())
	}
	return errors.Join(errs...)
}
