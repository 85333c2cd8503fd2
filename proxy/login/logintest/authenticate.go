package logintest

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"mailcutover/proxy/login"
)

// AuthenticateOptions are for [Authenticate].
type AuthenticateOptions struct {
	// Target is the endpoint. What is zero of Platform, Host and Helo is exchange,
	// 127.0.0.1:1 and mx.example. With login.LegImplicit TLS is on from the start; with
	// login.LegStartTLS it works; with login.LegPlain it fails.
	Target login.Target

	// MaySend is asked before credentials are sent; nil: they may if TLS is on, or is not due.
	MaySend func(encrypted bool) error
	// Last is asked directly before; nil: they may.
	Last func() error

	// Answer is the longest wait for the platform; 0: 10 s.
	Answer time.Duration
	// Ended is as in login.LegOptions.
	Ended func() error
}

// Authenticated is what became of a login at a platform.
type Authenticated struct {
	Welcome login.Welcome
	Err     error
	Rest    []byte // what the platform sent beyond
	Asked   int    // how often Last was asked
}

// ErrPlain is what MaySend returns by default over a connection that isn't encrypted though
// it should be.
var ErrPlain = errors.New("not encrypted")

// Authenticate runs d.Authenticate for a on a connection whose other end script plays: it
// sends the lines that begin with S. It returns after both, and closes the connection.
func Authenticate(t testing.TB, d login.Dialogue, o AuthenticateOptions, a *login.Attempt, script func(p *Peer)) Authenticated {
	t.Helper()
	here, there := newPair(t)
	server, client := certificates(t)
	target := &o.Target
	if target.Platform == "" {
		target.Platform = "exchange"
	}
	if target.Host == "" {
		target.Host = "127.0.0.1:1"
	}
	if target.Helo == "" {
		target.Helo = "mx.example"
	}
	if o.Answer == 0 {
		o.Answer = patience
	}
	if o.MaySend == nil {
		o.MaySend = func(encrypted bool) error {
			if !encrypted && target.TLS != login.LegPlain {
				return ErrPlain
			}
			return nil
		}
	}
	var result Authenticated
	a.SetLast(func() error {
		result.Asked++
		if o.Last == nil {
			return nil
		}
		return o.Last()
	})
	options := login.LegOptions{Net: there, Target: *target, Answer: o.Answer, MaySend: o.MaySend, Ended: o.Ended}
	if target.TLS != login.LegPlain {
		options.TLS = func(nc net.Conn) *tls.Conn { return tls.Client(nc, client) }
	}
	played := make(chan struct{})
	platform := newPeer(t, here, "S", server)
	go func() {
		defer close(played)
		defer platform.Close()
		if target.TLS == login.LegImplicit && !platform.StartTLS() {
			return
		}
		script(platform)
	}()
	if target.TLS == login.LegImplicit {
		c := tls.Client(there, client)
		_ = there.SetDeadline(time.Now().Add(patience))
		if err := c.Handshake(); err != nil {
			t.Errorf("TLS handshake with the platform: %v", err)
		}
		options.Net, options.Encrypted = c, true
	}
	l := login.NewLeg(options)
	result.Welcome, result.Err = d.Authenticate(l, a)
	result.Rest = l.Rest()
	if result.Err != nil {
		_ = there.Close()
	} else if c, ok := there.(*net.TCPConn); ok {
		_ = c.CloseWrite() // the platform may still have something to say
	}
	<-played
	_ = there.Close()
	return result
}
