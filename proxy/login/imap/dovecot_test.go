package imap

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"

	"mailcutover/proxy/login"
	"mailcutover/test/peers"
)

// ready waits until addr listens: a Dovecot opens its ports one after the other.
func ready(t *testing.T, addr string) {
	t.Helper()
	for until := time.Now().Add(time.Minute); ; {
		nc, err := net.DialTimeout("tcp", addr, 10*time.Second)
		if err == nil {
			_ = nc.Close()
			return
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// door takes one client, logs it in at a platform and joins both, as the core does it, but
// without its questions. It returns the client's end, and what follows the platform's bytes.
func door(t *testing.T, platform string, prepare func(*login.Attempt)) (client net.Conn, tracker func() bool) {
	t.Helper()
	ready(t, platform)
	here, there := pair(t)
	var mu sync.Mutex
	follow := Dialogue{}.Tracker()
	done := make(chan struct{})
	var leg *login.Leg
	var out net.Conn
	options := login.ConnOptions{
		Net: there, Secure: true, Idle: time.Minute,
		Front: login.Front{Hostname: "mx.example", LineBytes: 8192, TokenBytes: 12288, Errors: 10},
		Login: func(a *login.Attempt) (*login.Session, login.Welcome, error) {
			a.Login = a.Name
			a.SetLast(func() error { return nil })
			prepare(a)
			var err error
			if out, err = net.DialTimeout("tcp", platform, time.Minute); err != nil {
				return nil, login.Welcome{}, &login.Refusal{Cause: login.CausePlatform, Err: err}
			}
			leg = login.NewLeg(login.LegOptions{Net: out, Answer: time.Minute, Target: login.Target{
				Identity: login.IdentityID,
				Client:   login.ClientInfo{Addr: "192.0.2.7", Port: "40000", Local: "192.0.2.1", LocalPort: "993", Session: "door-1"},
			}})
			w, err := Dialogue{}.Authenticate(leg, a)
			if err == nil {
				return new(login.Session), w, nil
			}
			_ = out.Close()
			t.Logf("Authenticate: %v", err)
			if rejection := (*login.Rejection)(nil); errors.As(err, &rejection) {
				return nil, login.Welcome{}, &login.Refusal{Cause: login.CauseWrong, Err: err, Answer: rejection.Answer}
			}
			return nil, login.Welcome{}, &login.Refusal{Cause: login.CausePlatform, Err: err}
		},
	}
	go func() {
		defer close(done)
		defer there.Close()
		c := login.NewConn(options)
		session, err := Dialogue{}.Serve(c)
		if session == nil || err != nil {
			return
		}
		defer out.Close()
		_ = there.SetDeadline(time.Time{})
		_ = out.SetDeadline(time.Time{})
		_, _ = out.Write(c.Rest())
		fromPlatform := leg.Rest()
		mu.Lock()
		follow.Observe(fromPlatform)
		mu.Unlock()
		_, _ = there.Write(fromPlatform)
		both := make(chan struct{})
		go func() {
			defer close(both)
			_, _ = io.Copy(out, there)
			_ = out.(*net.TCPConn).CloseWrite()
		}()
		p := make([]byte, 32<<10)
		for {
			n, err := out.Read(p)
			mu.Lock()
			follow.Observe(p[:n])
			mu.Unlock()
			_, _ = there.Write(p[:n])
			if err != nil {
				break
			}
		}
		_ = there.Close()
		<-both
	}()
	t.Cleanup(func() { _ = here.Close(); <-done })
	return here, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return follow.AtStart()
	}
}

// A client with a parser of its own logs in at a Dovecot in each way that it can, and
// works there.
func TestDovecot(t *testing.T) {
	d := peers.StartDovecot(t, peers.DovecotOptions{
		First: "passdb {\n driver = static\n master = yes\n args = password=master\n}\nauth_master_user_separator = *\n",
		// Without the penalty of seconds that all logins of an address pay for a wrong one.
		Extra: "auth_mechanisms = plain login\nlogin_trusted_networks = 127.0.0.0/8\nservice anvil {\n unix_listener anvil-auth-penalty {\n  mode = 0\n }\n}\n",
	})
	master := func(separator string) func(*login.Attempt) {
		return func(a *login.Attempt) {
			a.Master = &login.Master{User: "proxy", Separator: separator, Password: "master"}
		}
	}
	password := func(*login.Attempt) {}
	for i, test := range []struct {
		name    string
		prepare func(*login.Attempt)
		login   func(c *imapclient.Client, user string) error
	}{
		{"LOGIN", password, func(c *imapclient.Client, user string) error { return c.Login(user, "secret").Wait() }},
		{"PLAIN", password, func(c *imapclient.Client, user string) error {
			return c.Authenticate(sasl.NewPlainClient("", user, "secret"))
		}},
		{"SASL LOGIN", password, func(c *imapclient.Client, user string) error {
			return c.Authenticate(sasl.NewLoginClient(user, "secret"))
		}},
		{"after ID", password, func(c *imapclient.Client, user string) error {
			if _, err := c.ID(&imap.IDData{Name: "test"}).Wait(); err != nil {
				return err
			}
			return c.Login(user, "secret").Wait()
		}},
		{"after a wrong one", password, func(c *imapclient.Client, user string) error {
			err := c.Login(user, "wrong").Wait()
			answer := (*imap.Error)(nil)
			if !errors.As(err, &answer) || answer.Code != imap.ResponseCodeAuthenticationFailed {
				return fmt.Errorf("a wrong password: %v", err)
			}
			return c.Login(user, "secret").Wait()
		}},
		{"master by authzid", master(""), func(c *imapclient.Client, user string) error { return c.Login(user, "x").Wait() }},
		{"master by separator", master("*"), func(c *imapclient.Client, user string) error { return c.Login(user, "x").Wait() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			user := fmt.Sprintf("user%d@health.example", i)
			nc, certain := door(t, d.IMAP, test.prepare)
			c := imapclient.New(nc, nil)
			defer c.Close()
			if err := test.login(c, user); err != nil {
				t.Fatal(err)
			}
			peers.WaitFor(t, time.Minute, "session of the user by the client's address", func() bool { // its anvil hears of it by the way
				who := d.Doveadm(t, "who")
				return strings.Contains(who, "192.0.2.7") && strings.Contains(who, user)
			})
			if !c.Caps().Has(imap.CapCondStore) {
				t.Error("the client doesn't know the platform's capabilities")
			}
			work(t, c, user)
			if !certain() {
				t.Error("the tracker isn't at a line's start")
			}
			if err := c.Logout().Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// work appends a message and reads it again.
func work(t *testing.T, c *imapclient.Client, user string) {
	t.Helper()
	body := "Subject: " + user + "\r\n\r\n* OK {5}\r\n" + strings.Repeat("m1 OK done\r\n", 10000)
	a := c.Append("INBOX", int64(len(body)), nil)
	if _, err := io.WriteString(a, body); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	section := &imap.FetchItemBodySection{}
	messages, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	if err != nil || len(messages) != 1 || string(messages[0].FindBodySection(section)) != body {
		t.Fatalf("%d messages, or another one: %v", len(messages), err)
	}
}

// What comes in one segment with the login is answered by the platform, in order.
func TestDovecotPipelined(t *testing.T) {
	d := peers.StartDovecot(t, peers.DovecotOptions{})
	nc, certain := door(t, d.IMAP, func(*login.Attempt) {})
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(nc, "a LOGIN anna@health.example secret\r\nb SELECT INBOX\r\nc APPEND INBOX {16+}\r\nSubject: a\r\n\r\na\r\n\r\nd NOOP\r\ne IDLE\r\n"); err != nil {
		t.Fatal(err)
	}
	var got []string
	var all strings.Builder
	p := make([]byte, 1)
	for !strings.HasSuffix(all.String(), "+ idling\r\n") {
		if _, err := io.ReadFull(nc, p); err != nil {
			t.Fatalf("%v after %q", err, all.String())
		}
		all.Write(p)
	}
	for line := range strings.Lines(all.String()) {
		if tag, rest, _ := strings.Cut(line, " "); tag != "*" && tag != "+" {
			status, _, _ := strings.Cut(rest, " ")
			got = append(got, tag+" "+status)
		}
	}
	if want := "a OK b OK c OK d OK"; strings.Join(got, " ") != want {
		t.Errorf("answers %q, want %q", got, want)
	}
	if !certain() {
		t.Error("IDLE isn't a line's start")
	}
}

// A compressed session is never certain (RFC 4978).
func TestDovecotCompressed(t *testing.T) {
	d := peers.StartDovecot(t, peers.DovecotOptions{Extra: "mail_plugins = $mail_plugins\nprotocol imap {\n mail_plugins = $mail_plugins imap_zlib\n}\n"})
	nc, certain := door(t, d.IMAP, func(*login.Attempt) {})
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(nc, "a LOGIN anna@health.example secret\r\nb COMPRESS DEFLATE\r\n"); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	p := make([]byte, 1)
	for !strings.Contains(all.String(), "\r\nb ") || !strings.HasSuffix(all.String(), "\r\n") {
		if _, err := io.ReadFull(nc, p); err != nil {
			t.Fatalf("%v after %q", err, all.String())
		}
		all.Write(p)
	}
	if !strings.Contains(all.String(), "\r\nb OK") {
		t.Fatalf("no compression: %s", all.String())
	}
	if certain() {
		t.Error("certain in a compressed stream")
	}
}
