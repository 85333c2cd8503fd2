package probe

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/pires/go-proxyproto"

	"mailcutover/internal/platformtest"
)

// ways are how a listener may want its clients.
var ways = map[string]struct{ tls, implicit, header bool }{
	"plain":           {},
	"STARTTLS":        {tls: true},
	"implicit TLS":    {tls: true, implicit: true},
	"PROXY":           {header: true},
	"PROXY, STARTTLS": {tls: true, header: true},
	"PROXY, implicit": {tls: true, implicit: true, header: true},
}

func certificates(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	if server, err = ca.ServerConfig(); err != nil {
		t.Fatal(err)
	}
	return server, &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
}

// A message comes in, however the listener wants its clients.
func TestSend(t *testing.T) {
	t.Parallel()
	server, client := certificates(t)
	for name, way := range ways {
		for protocol, lmtp := range map[string]bool{"SMTP": false, "LMTP": true} {
			if lmtp && way.tls && !way.implicit {
				continue
			}
			t.Run(name+" "+protocol, func(t *testing.T) {
				t.Parallel()
				o := platformtest.Options{LMTP: lmtp, Proxy: way.header, ImplicitTLS: way.implicit}
				if way.tls {
					o.TLS = server
					o.Extensions = append([]string{"STARTTLS"}, platformtest.DefaultExtensions...)
				}
				p, err := platformtest.Start(o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(p.Close)
				addr, err := net.ResolveTCPAddr("tcp", p.Addr())
				if err != nil {
					t.Fatal(err)
				}
				e := Entrance{Addr: addr, Header: way.header, Implicit: way.implicit, LMTP: lmtp, Helo: "mx.example"}
				if way.tls {
					e.TLS = client
				}
				if err := e.Send(within(t, time.Minute), "canary@health.example", []byte("Subject: canary\r\n\r\n.test\r\n")); err != nil {
					t.Fatal(err)
				}
				got := p.Stored()
				if len(got) != 1 || got[0].From != "" || got[0].Rcpts[0].Path != "canary@health.example" || !strings.Contains(string(got[0].Raw), "\r\n..test") || got[0].TLS != way.tls {
					t.Errorf("%+v", got)
				}
				p.SetScript(platformtest.On("RCPT", platformtest.Reaction{Reply: "451 4.3.0 later"}))
				if err := e.Send(within(t, time.Minute), "canary@health.example", []byte("\r\n")); err == nil || !strings.Contains(err.Error(), "RCPT") || !strings.Contains(err.Error(), "later") {
					t.Errorf("put off: %v", err)
				}
			})
		}
	}
}

// A login comes in, however the listener wants its clients.
func TestLoginThroughAListener(t *testing.T) {
	t.Parallel()
	server, client := certificates(t)
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mem := imapmemserver.New()
			user := imapmemserver.NewUser("canary", "secret")
			if err := user.Create("INBOX", nil); err != nil {
				t.Fatal(err)
			}
			mem.AddUser(user)
			o := &imapserver.Options{
				NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
					return mem.NewSession(), nil, nil
				},
				Caps: imap.CapSet{imap.CapIMAP4rev1: {}}, InsecureAuth: true,
			}
			if way.tls && !way.implicit {
				o.TLSConfig = server
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			e := Entrance{Addr: ln.Addr(), Header: way.header, Implicit: way.implicit}
			if way.header {
				ln = &proxyproto.Listener{Listener: ln, ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return proxyproto.REQUIRE, nil }}
			}
			if way.implicit {
				ln = tls.NewListener(ln, server)
			}
			if way.tls {
				e.TLS = client
			}
			s := imapserver.New(o)
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = s.Serve(ln)
			}()
			t.Cleanup(func() {
				_ = s.Close()
				<-done
			})
			var from netip.AddrPort
			if _, err := e.Login(within(t, time.Minute), Account{Login: "canary", Password: "secret"}, func(a netip.AddrPort) { from = a }, "", 0); err != nil || !from.IsValid() {
				t.Errorf("from %s: %v", from, err)
			}
			if _, err := e.Login(within(t, time.Minute), Account{Login: "canary", Password: "secret"}, func(netip.AddrPort) {}, "<none@x>", 0); !errors.Is(err, ErrNotThere) {
				t.Errorf("a message that isn't there: %v", err)
			}
			if _, err := e.Login(within(t, time.Minute), Account{Login: "canary", Password: "hunter2"}, func(netip.AddrPort) { t.Error("logged in") }, "", 0); err == nil {
				t.Error("a wrong password")
			}
		})
	}
}
