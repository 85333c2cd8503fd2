package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"mailcutover/admin"
	"mailcutover/admin/peer"
	"mailcutover/internal/config"
	"mailcutover/proxy/listen"
	"mailcutover/rollback/mailstore"
	"mailcutover/routing"
)

// adminServer is the API and its socket.
type adminServer struct {
	server *admin.Server
	socket net.Listener
}

// adminCertificate is the key of the API's certificate among the listeners' ones; no
// listener can have it as its id.
const adminCertificate = "admin api"

// listenAdmin returns the socket of the API; clients is what the certificates of its callers
// are checked against, nil: none are asked for.
func (d *Daemon) listenAdmin(cfg *config.Config, clients *x509.CertPool) (net.Listener, error) {
	socket, err := net.Listen("tcp", cfg.Admin.Address)
	if err != nil {
		return nil, fmt.Errorf("admin API: %w", err)
	}
	socket = boundAPI(socket)
	t := cfg.Admin.TLS
	if t.CertFile == "" {
		return socket, nil
	}
	cert := new(certificate)
	if err := cert.load(t.CertFile, t.KeyFile); err != nil {
		_ = socket.Close()
		return nil, fmt.Errorf("admin API: %w", err)
	}
	d.certificates[adminCertificate] = cert
	strict := listen.NewTLS(func() *tls.Config { return cert.config.Load() })
	return tls.NewListener(socket, &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			now := strict.Config()
			if clients != nil {
				now = now.Clone()
				now.ClientAuth, now.ClientCAs = tls.VerifyClientCertIfGiven, clients
			}
			return now, nil
		},
	}), nil
}

// startAdmin serves the API.
func (d *Daemon) startAdmin(cfg *config.Config) error {
	var o admin.Options
	clients, err := d.clientCertificates(cfg, &o)
	if err != nil {
		return err
	}
	if err := d.openIssuer(cfg, &o); err != nil {
		return err
	}
	socket, err := d.listenAdmin(cfg, clients)
	if err != nil {
		return err
	}
	roots, err := peerRoots(cfg)
	if err != nil {
		_ = socket.Close()
		return err
	}
	d.peerRoots.Store(roots)
	adopter := &adopter{Daemon: d}
	interrupted := adopter.interrupted() // before the API can begin others
	o = admin.Options{
		Bearer: o.Bearer, Certificate: o.Certificate,
		Table: d.table, Replica: d.replica, Gate: d.gate, Runner: d.runner, Alarms: d.alarms,
		Platforms: d.platformHealth, Tokens: d.tokens,
		Config:  func(changed bool) string { return config.Show(d.config.Load(), changed) },
		Reload:  d.Reload,
		Metrics: d.metrics.Handler(),

		Spool: d.spool, Queue: d.queue.Load(), Ledger: d.ledger, SpoolDirectory: filepath.Join(cfg.Data, "spool"),
		AdoptSpool: adopter.adopt, Adoptions: adopter.list, Troubles: d.watch.list,

		Postmaster: d.postmaster, Answer: d.transfer.Answer, Desk: d.desk, Imports: cfg.Lab,
		Separator: cfg.Routing.Separator, Approval: string(cfg.Approval), Lab: cfg.Lab,
		Version: d.version, Logger: d.logger,
	}
	if d.retained != nil {
		o.Retained = d.retained
	}
	d.peers = peer.New(peer.Options{Settings: d.peerSettings})
	o.Recall, o.Verify, o.Plan, o.Mailboxes = d.returns.desk, d.verification.desk, d.waves.desk, d.mailboxes
	o.Notices = d.notices.desk
	o.Peers, o.PeerSecret = d.peers, func() string { return d.config.Load().Admin.Peer.Secret.Reveal() }
	if d.loginProxy != nil {
		o.Sessions, o.Login = loginSessions{d.loginProxy}, d.loginProxy.Decide
	}
	if err := d.openPeople(cfg, &o); err != nil {
		_ = socket.Close()
		return err
	}
	server := admin.New(o)
	d.parts.Go(func() { adopter.goOn(interrupted) })
	d.admin = &adminServer{server: server, socket: socket}
	d.part("admin API", func() error { return server.Serve(socket) })
	return nil
}

// peerAddress returns the host:port by which other nodes reach the API.
func (d *Daemon) peerAddress(cfg *config.Config) string {
	if a := cfg.Admin.Peer.Address; a != "" {
		return a
	}
	addr := d.AdminAddr().String()
	host, port, err := net.SplitHostPort(addr)
	if ip, parsed := netip.ParseAddr(host); err == nil && parsed == nil && ip.IsUnspecified() {
		return net.JoinHostPort(cfg.Node, port)
	}
	return addr
}

// peerRoots returns what the other nodes' certificates are checked against; nil: the system's.
func peerRoots(cfg *config.Config) (*x509.CertPool, error) {
	if cfg.Admin.Peer.CAFile == "" {
		return nil, nil
	}
	pool, err := certificates(cfg.Admin.Peer.CAFile)
	if err != nil {
		return nil, fmt.Errorf("admin.peer.ca_file: %w", err)
	}
	return pool, nil
}

// peerSettings returns how the other nodes are called now.
func (d *Daemon) peerSettings() peer.Settings {
	a := &d.config.Load().Admin
	return peer.Settings{Secret: a.Peer.Secret.Reveal(), TLS: a.TLS.CertFile != "", Roots: d.peerRoots.Load()}
}

// AdminAddr returns the address of the API.
func (d *Daemon) AdminAddr() net.Addr { return d.admin.socket.Addr() }

// tokens returns those of the configuration in force.
func (d *Daemon) tokens() []admin.Token {
	var tokens []admin.Token
	for _, t := range d.config.Load().Admin.Tokens {
		one := admin.Token{Name: t.Name, Person: t.Person, SHA256: t.SHA256, Agencies: t.Agencies}
		for _, role := range t.Roles {
			one.Roles = append(one.Roles, admin.Role(role))
		}
		tokens = append(tokens, one)
	}
	return tokens
}

// platformHealth says of each platform what its endpoints' last connections and probes showed.
func (d *Daemon) platformHealth() []admin.Platform {
	var list []admin.Platform
	ways := d.platforms.Load()
	for _, p := range ways.list {
		view := admin.Platform{ID: string(p.ID), Ready: true}
		if err := errors.Join(ways.ready(p.ID), d.loginWays.Load().ready(p.ID)); err != nil {
			view.Ready, view.Error = false, err.Error()
		}
		list = append(list, view)
	}
	return list
}

// Reload reads the configuration file again and takes it over, all of it or nothing.
func (d *Daemon) Reload(context.Context) (admin.Reloaded, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	old := d.config.Load()
	if old.Path == "" {
		return admin.Reloaded{}, errors.New("reload: this node was not started from a configuration file")
	}
	next, err := config.Load(old.Path, d.environ)
	if err != nil {
		return admin.Reloaded{}, fmt.Errorf("reload: %w", err)
	}
	var out admin.Reloaded
	var fixed []error
	for _, c := range config.Diff(old, next) {
		out.Changed = append(out.Changed, c.String())
		if c.Restart {
			fixed = append(fixed, errors.New(c.String()))
		}
	}
	if len(fixed) > 0 {
		return admin.Reloaded{}, fmt.Errorf("reload: nothing was taken over: %w", errors.Join(fixed...))
	}
	for _, w := range next.Warnings {
		out.Warnings = append(out.Warnings, w.String())
	}
	if err := d.takeOver(next); err != nil {
		return admin.Reloaded{}, fmt.Errorf("reload: nothing was taken over: %w", err)
	}
	d.logger.Info("configuration reloaded", "changed", out.Changed)
	return out, nil
}

// takeOver makes all that can fail first, and then puts it into force.
func (d *Daemon) takeOver(next *config.Config) error {
	fresh := make(map[string]*certificate)
	read := func(key, certFile, keyFile string) error {
		if d.certificates[key] == nil {
			return nil
		}
		fresh[key] = new(certificate)
		return fresh[key].load(certFile, keyFile)
	}
	for i := range next.Listeners {
		l := &next.Listeners[i]
		if err := read(l.ID, l.TLS.CertFile, l.TLS.KeyFile); err != nil {
			return fmt.Errorf("listener %s: %w", l.ID, err)
		}
	}
	for i := range next.Logins.Listeners {
		l := &next.Logins.Listeners[i]
		if err := read(l.ID, l.TLS.CertFile, l.TLS.KeyFile); err != nil {
			return fmt.Errorf("listener %s: %w", l.ID, err)
		}
	}
	if a := next.Logins.Autoconfig; a.Address != "" {
		if err := read(autoconfigCertificate, a.CertFile, a.KeyFile); err != nil {
			return fmt.Errorf("autoconfiguration: %w", err)
		}
	}
	if err := read(adminCertificate, next.Admin.TLS.CertFile, next.Admin.TLS.KeyFile); err != nil {
		return fmt.Errorf("admin API: %w", err)
	}
	if err := read(pageCertificate, next.Page.TLS.CertFile, next.Page.TLS.KeyFile); err != nil {
		return fmt.Errorf("web page: %w", err)
	}
	roots, err := peerRoots(next)
	if err != nil {
		return err
	}
	signing, err := signingKey(next)
	if err != nil {
		return err
	}
	var directories *identity
	if !sameIdentity(d.config.Load(), next) {
		if directories, err = d.openIdentity(next); err != nil {
			return err
		}
	}
	var stores map[routing.PlatformID]mailstore.Store
	if !sameReturns(d.config.Load(), next) {
		if stores, err = openMailboxes(next, d); err != nil {
			return err
		}
	}
	old := d.platforms.Load()
	pools, err := d.openPlatforms(next, old)
	if err != nil {
		return err
	}
	settings, err := d.transferOptions(next, pools)
	if err != nil {
		pools.closeExcept(old)
		return err
	}
	told, err := d.openNotices(next)
	if err != nil {
		pools.closeExcept(old)
		return err
	}
	if err := d.takeOverLogins(next); err != nil { // the last that can fail, and whole or not at all
		pools.closeExcept(old)
		told.end()
		return err
	}
	d.peerRoots.Store(roots)
	d.signing.Store(signing)
	for key, cert := range fresh {
		d.certificates[key].config.Store(cert.config.Load())
	}
	d.sender.Configure(d.senderOptions(pools))
	d.transfer.Configure(settings)
	d.platforms.Store(pools)
	d.takeOverIdentity(d.config.Load(), next, directories)
	d.config.Store(next)
	d.takeOverReturns(stores)
	d.takeOverNotices(told)
	d.watchNames(d.replica.State())
	if d.level != nil {
		d.level.Set(next.Log.Level.Slog())
	}
	d.replacePlatforms(old, pools, longestPause(next))
	return nil
}
