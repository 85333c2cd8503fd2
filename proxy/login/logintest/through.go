package logintest

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/mail"
	"mailcutover/proxy/login"
)

// Through is a proxy that is made of a dialogue alone: every login goes to one platform,
// and behind it bytes are copied. It is for dialogues with real clients and platforms.
type Through struct {
	Addr string // where clients connect to

	mu     sync.Mutex
	errors []error
}

// ThroughOptions are for [StartThrough].
type ThroughOptions struct {
	Front    login.Front              // as in [ServeOptions]
	Platform string                   // host:port
	Target   login.Target             // as in [AuthenticateOptions]; its client is filled in unless it has an address
	Login    func(name string) string // what the platform is told; nil: the name as it came
	TLS      *tls.Config              // not nil: STARTTLS at the platform
}

// StartThrough starts a proxy, which ends with the test.
func StartThrough(t testing.TB, d login.Dialogue, o ThroughOptions) *Through {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Through{Addr: ln.Addr().String()}
	server, _ := certificates(t)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer func() { _ = nc.Close() }()
				_ = nc.SetDeadline(time.Now().Add(2 * patience))
				if err := p.serve(d, o, nc, server); err != nil && !errors.Is(err, login.ErrQuit) {
					p.note(err)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		running.Wait()
		if t.Failed() {
			t.Logf("errors of the dialogues: %v", p.Errors())
		}
	})
	return p
}

func (p *Through) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errors = append(p.errors, err)
}

// Errors returns why dialogues ended without a login, but for those that said goodbye, and
// what logins failed for at the platform, but for wrong passwords.
func (p *Through) Errors() []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]error(nil), p.errors...)
}

// serve serves one client to its end.
func (p *Through) serve(d login.Dialogue, o ThroughOptions, nc net.Conn, server *tls.Config) error {
	fill(&o.Front, d)
	addr := addrOf(nc.RemoteAddr())
	options := login.ConnOptions{
		Net: nc, Front: o.Front, Idle: patience,
		Client: mail.Client{Session: "s-1", Listener: o.Front.ID, Peer: addr, Source: addr, Addr: addr, Local: addrOf(nc.LocalAddr())},
	}
	client := nc
	if o.Front.TLS {
		options.TLS = func(nc net.Conn) *tls.Conn {
			t := tls.Server(nc, server)
			client = t
			return t
		}
	}
	var platform net.Conn
	var leg *login.Leg
	options.Login = func(a *login.Attempt) (*login.Session, login.Welcome, error) {
		var err error
		if platform, err = net.DialTimeout("tcp", o.Platform, patience); err != nil {
			return nil, login.Welcome{}, &login.Refusal{Cause: login.CausePlatform, Err: err}
		}
		_ = platform.SetDeadline(time.Now().Add(2 * patience))
		target := o.Target
		target.Platform, target.Host, target.Helo = "platform", o.Platform, o.Front.Hostname
		if target.Client.Addr == "" {
			target.Client = login.ClientInfo{
				Addr: addr.Addr().String(), Port: portOf(nc.RemoteAddr()), Session: "s-1", Helo: a.Helo,
				Local: addrOf(nc.LocalAddr()).Addr().String(), LocalPort: portOf(nc.LocalAddr()),
			}
		}
		a.SetLast(func() error { return nil })
		if a.Login = a.Name; o.Login != nil {
			a.Login = o.Login(a.Name)
		}
		legOptions := login.LegOptions{Net: platform, Target: target}
		if o.TLS != nil {
			legOptions.Target.TLS = login.LegStartTLS
			legOptions.TLS = func(nc net.Conn) *tls.Conn {
				t := tls.Client(nc, o.TLS)
				platform = t
				return t
			}
			legOptions.MaySend = mayIf
		}
		leg = login.NewLeg(legOptions)
		w, err := d.Authenticate(leg, a)
		var rejected *login.Rejection
		switch {
		case errors.As(err, &rejected):
			err = &login.Refusal{Cause: login.CauseWrong, Err: err, Answer: rejected.Answer}
		case err != nil:
			p.note(err)
			err = &login.Refusal{Cause: login.CausePlatform, Err: err}
		default:
			return new(login.Session), w, nil
		}
		_ = platform.Close()
		return nil, login.Welcome{}, err
	}
	c := login.NewConn(options)
	if _, err := d.Serve(c); err != nil {
		_ = c.Flush()
		return err
	}
	defer func() { _ = platform.Close() }()
	return join(client, platform, c.Rest(), leg.Rest())
}

func mayIf(encrypted bool) error {
	if !encrypted {
		return ErrPlain
	}
	return nil
}

// PlatformFiles makes a certificate for a real platform: the files of it and of its key, and
// what a client trusts it by.
func PlatformFiles(t testing.TB) (certFile, keyFile string, client *tls.Config) {
	t.Helper()
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile, _, err = ca.WriteFiles(t.TempDir(), "localhost")
	if err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
}

// join copies both ways, the rests first, until the platform has closed.
func join(client, platform net.Conn, toPlatform, toClient []byte) error {
	if _, err := platform.Write(toPlatform); err != nil {
		return err
	}
	if _, err := client.Write(toClient); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(platform, client)
		if c, ok := platform.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		}
	}()
	_, err := io.Copy(client, platform)
	_ = client.Close()
	<-done
	return err
}

func portOf(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}
