package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"mailcutover/admin"
	"mailcutover/internal/autoconfig"
	"mailcutover/internal/config"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/listen"
	"mailcutover/proxy/login"
	"mailcutover/proxy/login/imap"
	"mailcutover/proxy/login/pop3"
	"mailcutover/proxy/login/sieve"
	"mailcutover/proxy/login/submission"
	"mailcutover/routing"
)

// dialogue is a protocol's dialogue, which can look how a platform is, too.
type dialogue interface {
	login.Dialogue
	Probe(*login.Leg) (login.Offers, error)
}

// dialogueOf returns the dialogue of a protocol; nil: there is none.
func dialogueOf(p config.LoginProtocol) dialogue {
	switch p {
	case config.LoginIMAP:
		return imap.Dialogue{}
	case config.LoginSubmission:
		return submission.Dialogue{}
	case config.LoginPOP3:
		return pop3.Dialogue{}
	case config.LoginSieve:
		return sieve.Dialogue{}
	default:
		return nil
	}
}

// loginListener is one listener for logins and the socket it serves.
type loginListener struct {
	id     string
	server *login.Server
	socket net.Listener
}

// startLogins makes the proxy for logins, and opens its listeners; they are served by
// serveLogins. Without listeners there is none.
func (d *Daemon) startLogins(ctx context.Context, cfg *config.Config) error {
	if len(cfg.Logins.Listeners) == 0 {
		return nil
	}
	o := loginOptions(cfg)
	o.Gate, o.Alarms, o.Observer, o.Logger, o.Verifier = d.gate, d.alarms, d.metrics.Logins(), d.logger, passwords{d}
	o.Quota = d.quota
	var err error
	if d.loginProxy, err = login.New(o); err != nil {
		return err
	}
	endpoints, ways, err := d.openLoginWays(cfg, nil)
	if err != nil {
		return err
	}
	if err := d.loginProxy.SetEndpoints(endpoints); err != nil {
		return err
	}
	d.loginWays.Store(ways)
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := ways.probe(ctx); err != nil {
		d.logger.Warn("platform not ready for logins", "error", err)
	}
	d.watchLogins(ways)
	for i := range cfg.Logins.Listeners {
		if err := d.listenLogins(&cfg.Logins.Listeners[i]); err != nil {
			return err
		}
	}
	return d.startAutoconfig(cfg)
}

// listenLogins opens a listener's socket.
func (d *Daemon) listenLogins(l *config.LoginListener) error {
	o := loginListenerOptions(l)
	o.Observer = d.metrics.LoginListener(l.ID)
	o.Offers = func() login.Offers { return d.loginWays.Load().offers(l.Protocol) }
	if l.TLS.Mode != config.ListenerTLSNone {
		cert := new(certificate)
		if err := cert.load(l.TLS.CertFile, l.TLS.KeyFile); err != nil {
			return fmt.Errorf("listener %s: %w", l.ID, err)
		}
		d.certificates[l.ID] = cert
		o.TLS = func() *tls.Config { return cert.config.Load() }
	}
	server, err := d.loginProxy.NewServer(o)
	if err != nil {
		return err
	}
	socket, err := listen.Listen(l.Address)
	if err != nil {
		return errors.Join(fmt.Errorf("listener %s: %w", l.ID, err), server.Shutdown(context.Background()))
	}
	d.loginListeners = append(d.loginListeners, &loginListener{id: l.ID, server: server, socket: socket})
	d.logger.Info("listening", "listener", l.ID, "protocol", l.Protocol, "address", socket.Addr().String())
	return nil
}

// serveLogins serves the listeners.
func (d *Daemon) serveLogins() {
	for _, l := range d.loginListeners {
		d.part("listener "+l.id, func() error {
			if err := l.server.Serve(d.ctx, l.socket); !errors.Is(err, login.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	if a := d.autoconfig; a != nil {
		d.part("autoconfiguration", func() error { return a.server.Serve(a.socket) })
	}
}

// stopLogins ends the listeners, each with its sessions; at ctx's end they are cut.
func (d *Daemon) stopLogins(ctx context.Context) error {
	errs := make([]error, len(d.loginListeners)+1)
	var ending sync.WaitGroup
	for i, l := range d.loginListeners {
		ending.Go(func() {
			errs[i] = l.server.Shutdown(ctx)
			_ = l.socket.Close() // closed already where the server got to serve it
		})
	}
	if a := d.autoconfig; a != nil {
		ending.Go(func() {
			errs[len(errs)-1] = a.server.Shutdown(ctx)
			_ = a.socket.Close()
		})
	}
	ending.Wait()
	return errors.Join(errs...)
}

// takeOverLogins puts the endpoints of a new configuration into force, or says why it can't;
// then nothing has changed.
func (d *Daemon) takeOverLogins(next *config.Config) error {
	if d.loginProxy == nil {
		return nil
	}
	old := d.loginWays.Load()
	endpoints, ways, err := d.openLoginWays(next, old)
	if err != nil {
		return err
	}
	if err := d.loginProxy.SetEndpoints(endpoints); err != nil {
		return err
	}
	d.loginWays.Store(ways)
	ways.replace(old, d)
	return nil
}

// loginOptions returns the settings in the terms of proxy/login, without what the daemon itself
// puts in.
func loginOptions(cfg *config.Config) login.Options {
	l := &cfg.Logins
	o := login.Options{
		Hostname: cfg.Node, Separator: cfg.Routing.Separator, MasterSeparators: l.MasterSeparators,
		Wait: l.Wait, Waiters: l.Waiters, Spread: l.Spread, Suspend: l.Suspend,
		SessionsPerMailbox: l.SessionsPerMailbox, SessionsPerAddress: l.SessionsPerAddress,
		Failures: login.Failures{
			Delay: l.Failures.Delay, MaxDelay: l.Failures.MaxDelay, PerName: l.Failures.PerName, PerNet: l.Failures.PerNet, Window: l.Failures.Window,
		},
	}
	for _, one := range l.Domains {
		o.Domains = append(o.Domains, login.Domain{Name: one.Name, Suffix: one.Suffix})
	}
	return o
}

// loginListenerOptions returns a listener's settings in the terms of proxy/login.
func loginListenerOptions(l *config.LoginListener) login.Listener {
	n := &l.Limits
	return login.Listener{
		ID: l.ID, Dialogue: dialogueOf(l.Protocol),
		Implicit: l.TLS.Mode == config.ListenerTLSImplicit, RequireTLS: l.TLS.Required,
		ProxyNets: l.ProxyNets, TrustedNets: l.TrustedNets,
		Connections: n.Connections, ConnectionsPerAddress: n.ConnectionsPerAddress,
		LineBytes: int(n.LineBytes), TokenBytes: int(n.TokenBytes), Errors: n.Errors,
		Login: n.Login, Write: n.Write, Handshake: n.Handshake, Idle: n.Idle,
	}
}

// loginEndpoint returns a platform's endpoint for a protocol in the terms of proxy/login.
func loginEndpoint(p routing.PlatformID, protocol config.LoginProtocol, e *config.LoginEndpoint) (login.Endpoint, error) {
	out := login.Endpoint{
		Platform: p, Protocol: string(protocol), Greeting: e.Timeouts.Greeting, Answer: e.Timeouts.Command, Login: e.Timeouts.Login, Delegate: e.Delegate,
		Way: dial.Endpoint{
			Platform: string(p), Hosts: e.Hosts, DialTimeout: e.Timeouts.Dial, HandshakeTimeout: e.Timeouts.Command,
			AttemptTime: e.Timeouts.Greeting + e.Timeouts.Login,
			TLS:         dial.TLS{Implicit: e.TLS.Implicit, ServerName: e.TLS.ServerName},
		},
	}
	switch e.TLS.Policy {
	case config.LoginTLSNone:
		out.Way.TLS.Policy = dial.TLSNone
	case config.LoginTLSRequired:
		out.Way.TLS.Policy = dial.TLSRequired
	default:
		out.Way.TLS.Policy = dial.TLSVerified
	}
	for _, pin := range e.TLS.Pins {
		out.Way.TLS.Pins = append(out.Way.TLS.Pins, pin)
	}
	switch e.ClientIdentity {
	case config.LoginIdentityID:
		out.Identity = login.IdentityID
	case config.LoginIdentityXClient:
		out.Identity = login.IdentityXCLIENT
	case config.LoginIdentityProxyV2:
		out.Identity = login.IdentityProxyV2
	default:
		out.Identity = login.IdentityNone
	}
	if e.Auth.Mode == config.AuthMaster {
		out.Master = &login.Master{User: e.Auth.User, Password: e.Auth.Password.Reveal(), Separator: e.Auth.Separator}
	}
	if e.TLS.CAFile != "" {
		pool, err := certificates(e.TLS.CAFile)
		if err != nil {
			return out, fmt.Errorf("platform %s, %s: %w", p, protocol, err)
		}
		out.Way.TLS.CA = pool
	}
	return out, nil
}

// loginSessions gives the API the sessions of a proxy.
type loginSessions struct{ proxy *login.Proxy }

// filter returns q in the terms of proxy/login; exact: nothing of it is left out.
func (s loginSessions) filter(q *admin.SessionQuery) (f login.Filter, exact bool) {
	f = login.Filter{ID: q.ID, Protocol: q.Protocol, Agency: q.Agency, Mailbox: q.Mailbox, Login: q.Login, Platform: q.Platform}
	if q.Client.IsValid() && q.Client.IsSingleIP() {
		f.Address = q.Client.Addr()
	}
	return f, !q.Client.IsValid() || f.Address.IsValid()
}

// List implements admin.LoginSessions.
func (s loginSessions) List(q admin.SessionQuery) []admin.Session {
	f, exact := s.filter(&q)
	infos, _ := s.proxy.Sessions(f, 0)
	list := make([]admin.Session, 0, len(infos))
	for i := range infos {
		n := &infos[i]
		one := admin.Session{
			ID: n.ID, Protocol: n.Protocol, State: n.State.String(), Login: n.Login, Mailbox: n.Mailbox.String(), Agency: string(n.Agency),
			Epoch: n.Epoch.String(), Platform: string(n.Platform), Client: clientText(n.Client), Listener: n.Listener, Since: n.Since,
			FromClient: n.ToPlatform, FromPlatform: n.ToClient,
		}
		if exact || q.Matches(&one) {
			list = append(list, one)
		}
	}
	return list
}

func clientText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}

// Close implements admin.LoginSessions.
func (s loginSessions) Close(q admin.SessionQuery, reason string) int {
	f, exact := s.filter(&q)
	if exact {
		return s.proxy.CloseSessions(f, reason)
	}
	closed := 0
	for _, one := range s.List(q) {
		closed += s.proxy.CloseSessions(login.Filter{ID: one.ID}, reason)
	}
	return closed
}

// autoconfigServer is what tells mail programs of servers, and its socket.
type autoconfigServer struct {
	server *autoconfig.Server
	socket net.Listener
}

// autoconfigCertificate is the key of its certificate among the listeners' ones; no listener can
// have it as its id.
const autoconfigCertificate = "autoconfiguration"

// startAutoconfig opens the socket where mail programs are told of servers, if there is to be one.
func (d *Daemon) startAutoconfig(cfg *config.Config) error {
	a := &cfg.Logins.Autoconfig
	if a.Address == "" {
		return nil
	}
	o := autoconfig.Options{
		Name: a.Name, ProxyNets: a.ProxyNets, Connections: a.Connections, Requests: a.Requests, Logger: d.logger,
		Served: func(domain string) (served, known bool) {
			s := d.replica.State()
			if _, served = s.Domain(domain); served {
				return true, true
			}
			return false, s.DecideAddress(routing.Address("postmaster@"+domain), "").Reason == routing.ReasonForeign
		},
	}
	for _, one := range a.Servers {
		o.Servers = append(o.Servers, autoconfigMail(cfg, one))
	}
	socket, err := net.Listen("tcp", a.Address)
	if err != nil {
		return fmt.Errorf("autoconfiguration: %w", err)
	}
	socket = d.boundAutoconfig(socket)
	if a.CertFile != "" {
		cert := new(certificate)
		if err := cert.load(a.CertFile, a.KeyFile); err != nil {
			_ = socket.Close()
			return fmt.Errorf("autoconfiguration: %w", err)
		}
		d.certificates[autoconfigCertificate] = cert
		strict := listen.NewTLS(func() *tls.Config { return cert.config.Load() })
		socket = tls.NewListener(socket, &tls.Config{
			MinVersion:         tls.VersionTLS12,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return strict.Config(), nil },
		})
	}
	d.autoconfig = &autoconfigServer{server: autoconfig.New(o), socket: socket}
	d.logger.Info("listening", "listener", "autoconfig", "address", socket.Addr().String())
	return nil
}

// autoconfigMail is what mail programs are told of one server.
func autoconfigMail(cfg *config.Config, s config.AutoconfigServer) autoconfig.Mail {
	m := autoconfig.Mail{Host: s.Host, Port: s.Port}
	for i := range cfg.Logins.Listeners {
		l := &cfg.Logins.Listeners[i]
		if l.ID != s.Listener {
			continue
		}
		m.Implicit = l.TLS.Mode == config.ListenerTLSImplicit
		switch l.Protocol {
		case config.LoginPOP3:
			m.Protocol = autoconfig.POP3
		case config.LoginSubmission:
			m.Protocol = autoconfig.Submission
		default:
			m.Protocol = autoconfig.IMAP
		}
	}
	return m
}

// AutoconfigAddr returns where mail programs are told of servers; nil: nowhere.
func (d *Daemon) AutoconfigAddr() net.Addr {
	if d.autoconfig == nil {
		return nil
	}
	return d.autoconfig.socket.Addr()
}
