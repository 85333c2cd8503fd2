package logintest

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"mailcutover/mail"
	"mailcutover/proxy/login"
)

// ServeOptions are for [Serve].
type ServeOptions struct {
	// Front is the listener's. With Front.TLS STARTTLS works. What is zero of Hostname,
	// LineBytes, TokenBytes, Errors and Offers is mx.example, 8192, 12288, 5 and nothing.
	Front login.Front

	// Implicit has TLS on from the start.
	Implicit bool
	// Secure says that the client's side is encrypted by what is in front of this node.
	Secure bool

	// Login answers a login; a *login.Refusal refuses it. nil: each is taken with an empty
	// Welcome.
	Login func(*login.Attempt) (login.Welcome, error)

	// Idle is the longest wait for the client; 0: 10 s.
	Idle time.Duration
	// Ended is as in login.ConnOptions.
	Ended func() error
}

// Served is a dialogue with a client.
type Served struct {
	*Peer // the client

	done     chan struct{}
	conn     *login.Conn
	session  *login.Session
	err      error
	rest     []byte
	mu       sync.Mutex
	attempts []login.Attempt
	live     []*login.Attempt
}

// Serve runs d.Serve on a connection and returns the client's end. When the test ends it
// waits for the dialogue, with the connection closed.
func Serve(t testing.TB, d login.Dialogue, o ServeOptions) *Served {
	t.Helper()
	here, there := newPair(t)
	server, client := certificates(t)
	fill(&o.Front, d)
	f := &o.Front
	if o.Idle == 0 {
		o.Idle = patience
	}
	s := &Served{Peer: newPeer(t, here, "C", client), done: make(chan struct{})}
	options := login.ConnOptions{
		Front: *f, Secure: o.Secure || o.Implicit, Idle: o.Idle, Ended: o.Ended,
		Client: mail.Client{
			Session: "s-1", Listener: f.ID,
			Peer: addrOf(here.LocalAddr()), Source: addrOf(here.LocalAddr()), Addr: addrOf(here.LocalAddr()), Local: addrOf(here.RemoteAddr()),
		},
		Login: func(a *login.Attempt) (*login.Session, login.Welcome, error) {
			s.mu.Lock()
			kept := *a
			kept.Secret, kept.ID = bytes.Clone(a.Secret), bytes.Clone(a.ID)
			s.attempts = append(s.attempts, kept)
			s.live = append(s.live, a)
			s.mu.Unlock()
			if o.Login == nil {
				return new(login.Session), login.Welcome{}, nil
			}
			w, err := o.Login(a)
			if err != nil {
				return nil, login.Welcome{}, err
			}
			return new(login.Session), w, nil
		},
	}
	if f.TLS {
		options.TLS = func(nc net.Conn) *tls.Conn { return tls.Server(nc, server) }
	}
	_ = there.SetWriteDeadline(time.Now().Add(patience))
	options.Net = there
	begin := make(chan struct{})
	go func() {
		defer close(s.done)
		defer func() { _ = there.Close() }()
		if o.Implicit {
			c := tls.Server(there, server)
			if s.err = c.Handshake(); s.err != nil {
				close(begin)
				return
			}
			options.Net = c
			options.Client.TLS = "TLS1.3 TLS_AES_128_GCM_SHA256"
		}
		close(begin)
		s.conn = login.NewConn(options)
		s.session, s.err = d.Serve(s.conn)
		if s.err != nil {
			_ = s.conn.Flush()
			return
		}
		s.rest = s.conn.Rest()
	}()
	if o.Implicit {
		s.StartTLS()
	}
	<-begin
	t.Cleanup(func() {
		_ = here.Close()
		<-s.done
	})
	return s
}

// Result waits until Serve has returned, and returns what it did, and what the client had
// sent beyond. The session is not nil if, and only if, the client has logged in.
func (s *Served) Result() (session *login.Session, rest []byte, err error) {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(patience):
		s.t.Fatal("Serve doesn't return")
	}
	return s.session, s.rest, s.err
}

// Attempts returns the logins so far, with their secrets as they came.
func (s *Served) Attempts() []login.Attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]login.Attempt(nil), s.attempts...)
}

// Wiped reports whether the secrets of all logins so far are wiped, in the dialogue's own
// memory. It is asked after Result.
func (s *Served) Wiped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.live {
		for _, b := range a.Secret {
			if b != 0 {
				return false
			}
		}
	}
	return true
}

// fill sets what a test left out of its listener.
func fill(f *login.Front, d login.Dialogue) {
	if f.ID == "" {
		f.ID = d.Protocol()
	}
	if f.Hostname == "" {
		f.Hostname = "mx.example"
	}
	if f.LineBytes == 0 {
		f.LineBytes = 8192
	}
	if f.TokenBytes == 0 {
		f.TokenBytes = 12288
	}
	if f.Errors == 0 {
		f.Errors = 5
	}
	if f.Offers == nil {
		f.Offers = func() login.Offers { return login.Offers{} }
	}
}

func addrOf(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort()
	}
	return netip.AddrPort{}
}
