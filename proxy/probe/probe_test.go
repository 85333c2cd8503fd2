package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailcutover/internal/platformtest"
	"mailcutover/mail"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/login"
	"mailcutover/proxy/relay"
	"mailcutover/test/peers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// within bounds what a test waits for.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func paths(t *testing.T, all ...string) (to []mail.Path) {
	t.Helper()
	for _, s := range all {
		p, err := mail.ParsePath(s, true)
		if err != nil {
			t.Fatal(err)
		}
		to = append(to, p)
	}
	return to
}

// A platform is asked for recipients by the null sender, and nothing is left there.
func TestRecipients(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script platformtest.Script
		want   error
		says   string
	}{
		"takes them":      {nil, nil, ""},
		"refuses one":     {platformtest.On("RCPT", platformtest.Reaction{Reply: "550 5.1.1 nobody"}), ErrRefused, "2 of 2: a@ox.example"},
		"puts one off":    {platformtest.On("RCPT", platformtest.Reaction{Reply: "451 4.2.0 later"}), ErrRefused, "451"},
		"not this sender": {platformtest.On("MAIL", platformtest.Reaction{Reply: "550 5.7.1 no bounces"}), nil, "no bounces"},
		"goes away":       {platformtest.On("RCPT", platformtest.Reaction{Drop: platformtest.DropBefore}), nil, "RCPT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := platformtest.Start(platformtest.Options{Script: c.script})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Close)
			pool, err := relay.NewPool(relay.Endpoint{
				Platform: "ox", Origin: mail.OriginOutside, Protocol: relay.ProtocolSMTP, Hosts: []string{p.Addr()}, Helo: "mx.example", TLS: dial.TLS{Policy: dial.TLSNone},
			}, relay.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			host, err := Recipients(within(t, time.Minute), pool, paths(t, "a@ox.example", "b@ox.example"))
			if (err == nil) != (c.says == "") || !errors.Is(err, c.want) && c.want != nil || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.says)
			}
			if c.want == nil && errors.Is(err, ErrRefused) {
				t.Errorf("%v is about no recipient", err)
			}
			if err == nil && host != p.Addr() {
				t.Errorf("asked %s", host)
			}
			if n := len(p.Stored()); n > 0 {
				t.Errorf("%d messages are at the platform", n)
			}
			for _, one := range p.Commands() {
				if one.Verb == "DATA" {
					t.Errorf("%+v", one)
				}
			}
		})
	}
}

// server is an IMAP server that answers by its script: commands, and what it says to each;
// go-imap's client asks for capabilities when it likes.
func server(t *testing.T, greeting string, script ...[2]string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		fmt.Fprintf(nc, "%s\r\n", greeting)
		r := bufio.NewReader(nc)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			tag, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			for _, s := range script {
				if strings.HasPrefix(rest, s[0]) {
					fmt.Fprint(nc, strings.ReplaceAll(s[1], "TAG", tag))
				}
			}
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return ln.Addr().String()
}

func dialer(t *testing.T, host string) *dial.Dialer {
	t.Helper()
	d, err := dial.New(dial.Endpoint{Platform: "ox", Hosts: []string{host}, TLS: dial.TLS{Policy: dial.TLSNone}}, dial.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// What is wrong with a platform's logins is found, and no password is in an error.
func TestLoginFinds(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	ok := [2]string{"LOGIN", "TAG OK in\r\n"}
	for name, c := range map[string]struct {
		greeting string
		script   [][2]string
		want     error
		says     string
	}{
		"nothing":                         {"* OK [CAPABILITY IMAP4rev1] hi", [][2]string{ok, {"CAPABILITY", "* CAPABILITY IMAP4rev1\r\nTAG OK x\r\n"}, {"EXAMINE", "* 0 EXISTS\r\nTAG OK [READ-ONLY] x\r\n"}}, nil, ""},
		"UNAUTHENTICATE before the login": {"* OK [CAPABILITY IMAP4rev1 UNAUTHENTICATE] hi", nil, login.ErrUnauthenticate, "UNAUTHENTICATE"},
		"UNAUTHENTICATE behind it":        {"* OK [CAPABILITY IMAP4rev1] hi", [][2]string{ok, {"CAPABILITY", "* CAPABILITY IMAP4rev1 UNAUTHENTICATE\r\nTAG OK x\r\n"}}, login.ErrUnauthenticate, "UNAUTHENTICATE"},
		"a wrong password":                {"* OK [CAPABILITY IMAP4rev1] hi", [][2]string{{"LOGIN", "TAG NO [AUTHENTICATIONFAILED] not " + secret + "\r\n"}}, nil, "login of probe: answered NO [AUTHENTICATIONFAILED]"},
		"no mailbox behind it":            {"* OK [CAPABILITY IMAP4rev1] hi", [][2]string{ok, {"CAPABILITY", "* CAPABILITY IMAP4rev1\r\nTAG OK x\r\n"}, {"EXAMINE", "TAG NO [UNAVAILABLE] store is down\r\n"}}, nil, "open the INBOX of probe: answered NO [UNAVAILABLE]"},
		"no way to log in":                {"* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] hi", nil, nil, "neither"},
		"no service":                      {"* BYE closed", nil, nil, "greeting"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := dialer(t, server(t, c.greeting, c.script...))
			_, err := Login(within(t, time.Minute), d, false, Account{Login: "probe", Password: secret})
			if (err == nil) != (c.says == "") || c.want != nil && !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want %v with %q", err, c.want, c.says)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%v has the password", err)
			}
		})
	}
}

// A server that says nothing costs no more than the caller's time.
func TestLoginEndsWithItsContext(t *testing.T) {
	t.Parallel()
	d := dialer(t, server(t, "* OK [CAPABILITY IMAP4rev1] hi", [2]string{"LOGIN", ""}))
	began := time.Now()
	_, err := Login(within(t, 300*time.Millisecond), d, false, Account{Login: "probe", Password: "x"})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 30*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// Passwords leave this machine by TLS only.
func TestLoginKeepsToThePolicy(t *testing.T) {
	t.Parallel()
	d, err := dial.New(dial.Endpoint{
		Platform: "ox", Hosts: []string{server(t, "* OK [CAPABILITY IMAP4rev1] hi", [2]string{"STARTTLS", "TAG BAD no\r\n"})}, TLS: dial.TLS{Policy: dial.TLSVerified},
	}, dial.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Login(within(t, time.Minute), d, false, Account{Login: "probe", Password: "x"}); !errors.Is(err, dial.ErrTLS) {
		t.Errorf("got %v", err)
	}
}

// With a Dovecot behind it: a login proves that the mailbox opens, and finds a message in it.
func TestLoginAtDovecot(t *testing.T) {
	t.Parallel()
	d := peers.StartDovecot(t, peers.DovecotOptions{})
	peers.WaitFor(t, time.Minute, "Dovecot's IMAP", func() bool {
		nc, err := net.Dial("tcp", d.IMAP)
		if err == nil {
			_ = nc.Close()
		}
		return err == nil
	})
	if host, err := Login(within(t, time.Minute), dialer(t, d.IMAP), false, Account{Login: "probe@ox.example", Password: "secret"}); err != nil || host != d.IMAP {
		t.Fatalf("%s: %v", host, err)
	}
	addr, err := net.ResolveTCPAddr("tcp", d.IMAP)
	if err != nil {
		t.Fatal(err)
	}
	front := Entrance{Addr: addr}
	who := Account{Login: "canary@ox.example", Password: "secret"}
	const id = "<1@canary.example>"
	if _, err := front.Login(within(t, time.Minute), who, func(netip.AddrPort) {}, id, time.Second); !errors.Is(err, ErrNotThere) {
		t.Errorf("an empty mailbox: %v", err)
	}
	lmtp, err := net.ResolveTCPAddr("tcp", d.LMTP)
	if err != nil {
		t.Fatal(err)
	}
	in := Entrance{Addr: lmtp, LMTP: true, Helo: "mx.example"}
	if err := in.Send(within(t, time.Minute), "canary@ox.example", []byte("Message-ID: "+id+"\r\nSubject: canary\r\n\r\ntest\r\n")); err != nil {
		t.Fatal(err)
	}
	seen := false
	if _, err := front.Login(within(t, time.Minute), who, func(client netip.AddrPort) { seen = client.IsValid() }, id, 30*time.Second); err != nil || !seen {
		t.Errorf("%v, %v", err, seen)
	}
}
