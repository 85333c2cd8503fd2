package platformtest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, o Options) *Platform {
	t.Helper()
	p, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// client speaks to a platform line by line.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, p *Platform) *client {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return &client{t: t, Conn: conn, r: bufio.NewReader(conn)}
}

// reply reads a reply and wants its first line to begin as given.
func (c *client) reply(want string) string {
	c.t.Helper()
	var lines []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("want %q, got %q and %v", want, lines, err)
		}
		lines = append(lines, strings.TrimSuffix(line, "\r\n"))
		if len(line) < 4 || line[3] != '-' {
			break
		}
	}
	if !strings.HasPrefix(lines[0], want) {
		c.t.Fatalf("want %q, got %q", want, lines)
	}
	return strings.Join(lines, "\n")
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatal(err)
	}
}

// talk sends each command and wants the reply behind it.
func (c *client) talk(dialogue ...string) {
	c.t.Helper()
	for i := 0; i < len(dialogue); i += 2 {
		if dialogue[i] != "" {
			c.send(dialogue[i] + "\r\n")
		}
		c.reply(dialogue[i+1])
	}
}

func (c *client) wantEnd() {
	c.t.Helper()
	if b, err := io.ReadAll(c.r); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("want the end of the connection, got %q and %v", b, err)
	}
}

func last(t *testing.T, p *Platform, n int) Transaction {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Wait(ctx, func(p *Platform) bool { return len(p.Transactions()) >= n }); err != nil {
		t.Fatal(err)
	}
	return p.Transactions()[n-1]
}

func TestRecordsTheBytesOfTheWire(t *testing.T) {
	for _, test := range []struct{ name, wire, body string }{
		{"plain", "a\r\nb\r\n.\r\n", "a\r\nb\r\n"},
		{"empty", ".\r\n", ""},
		{"doubled dots", "..\r\n..a\r\n.\r\n", ".\r\n.a\r\n"},
		{"bare LF and CR stay", "a\nb\rc\r\r\n.\r\n", "a\nb\rc\r\r\n"},
		{"LF dot LF is no end", "a\n.\nb\r\n.\r\n", "a\n.\nb\r\n"},
		{"LF dot CRLF is no end", "a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n"},
		{"CRLF dot LF is no end", "a\r\n.\nb\r\n.\r\n", "a\r\n\nb\r\n"},
		{"CR CR LF before the dot", "a\r\r\n.\r\n", "a\r\r\n"},
		{"NUL", "a\x00b\r\n.\r\n", "a\x00b\r\n"},
		{"CRLF across the buffer", strings.Repeat("x", 64<<10-1) + "\r\n.\r\n", strings.Repeat("x", 64<<10-1) + "\r\n"},
		{"dot after a long line", strings.Repeat("x", 64<<10) + ".\r\n.\r\n", strings.Repeat("x", 64<<10) + ".\r\n"},
		{"megabytes", strings.Repeat(strings.Repeat("y", 98)+"\r\n", 30000) + ".\r\n", strings.Repeat(strings.Repeat("y", 98)+"\r\n", 30000)},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := start(t, Options{})
			c := dial(t, p)
			c.talk("", "220 platform.test ESMTP", "EHLO me", "250-platform.test", "MAIL FROM:<a@out.example> BODY=8BITMIME", "250",
				"RCPT TO:<b@in.example> NOTIFY=NEVER", "250", "DATA", "354")
			c.send(test.wire + "NOOP\r\n")
			c.reply("250 2.0.0 Message accepted")
			c.reply("250 2.0.0 OK")
			tx := last(t, p, 1)
			if got := string(tx.Raw) + ".\r\n"; got != test.wire {
				t.Errorf("Raw %q", got)
			}
			if got := string(tx.Body()); got != test.body {
				t.Errorf("Body %q, want %q", got, test.body)
			}
			if tx.Size != int64(len(test.body)) || tx.SHA256 != sha256.Sum256([]byte(test.body)) {
				t.Errorf("size %d or digest wrong", tx.Size)
			}
			if !tx.Complete || !tx.Stored || !tx.Answered || !tx.StoredFor("b@in.example") || tx.Conn != 1 || tx.Helo != "me" {
				t.Errorf("transaction %+v", tx)
			}
			if tx.Port != c.LocalAddr().(*net.TCPAddr).Port {
				t.Errorf("port %d", tx.Port)
			}
		})
	}
}

func TestBareLineEnds(t *testing.T) {
	cr, lf := Transaction{Raw: []byte("\na\r\nb\rc\r\r\nd\n\r")}.BareLineEnds()
	if cr != 3 || lf != 2 {
		t.Errorf("%d bare CR and %d bare LF, want 3 and 2", cr, lf)
	}
}

func TestBareLFEndsData(t *testing.T) {
	p := start(t, Options{BareLFEndsData: true})
	c := dial(t, p)
	c.talk("", "220", "EHLO me", "250", "MAIL FROM:<a@x>", "250", "RCPT TO:<b@x>", "250", "DATA", "354")
	c.send("a\n.\r\nMAIL FROM:<smuggled@x>\r\n")
	c.reply("250 2.0.0")
	c.reply("250 2.1.0")
	if got := string(last(t, p, 1).Raw); got != "a\n" {
		t.Errorf("Raw %q", got)
	}
}

func TestChunks(t *testing.T) {
	p := start(t, Options{})
	c := dial(t, p)
	c.talk("", "220", "EHLO me", "250", "MAIL FROM:<a@x>", "250", "RCPT TO:<b@x>", "250")
	c.send("BDAT 4\r\n.a\r\nBDAT 0\r\nBDAT 3 LAST\r\n\r\n.")
	c.reply("250 2.0.0 4 octets")
	c.reply("250 2.0.0 0 octets")
	c.reply("250 2.0.0 Message accepted")
	tx := last(t, p, 1)
	if !tx.BDAT || string(tx.Body()) != ".a\r\n\r\n." || tx.Size != 7 {
		t.Errorf("chunks: %q, %d bytes", tx.Body(), tx.Size)
	}
	c.send("BDAT 4 LAST\r\nNOOPNOOP\r\n") // the chunk is no command
	c.reply("503 5.5.1")
	c.reply("250 2.0.0 OK")
}

func TestSequence(t *testing.T) {
	p := start(t, Options{Extensions: []string{"SIZE 100"}})
	c := dial(t, p)
	c.talk("", "220",
		"MAIL FROM:<a@x>", "503 5.5.1",
		"EHLO me", "250-",
		"RCPT TO:<b@x>", "503 5.5.1",
		"DATA", "503 5.5.1",
		"BDAT 1", "502 5.5.1",
		"MAIL a@x", "501 5.5.4",
		"MAIL FROM:<a@x> SMTPUTF8", "555 5.5.4",
		"MAIL FROM:<a@x> BODY=8BITMIME", "555 5.5.4",
		"MAIL FROM:<a@x> SIZE=101", "552 5.3.4",
		"MAIL FROM:<> SIZE=100", "250",
		"MAIL FROM:<>", "503 5.5.1",
		"RCPT TO:<b@x> NOTIFY=NEVER", "555 5.5.4",
		"DATA", "554 5.5.1",
		`rcpt to:<"b> c\""@x>`, "250",
		"RSET", "250",
		"STARTTLS", "502 5.5.1", "AUTH PLAIN", "502 5.5.1", "XCLIENT ADDR=1", "502 5.5.1", "XFORWARD ADDR=1", "502 5.5.1",
		"LHLO me", "500 5.5.1", "VRFY x", "252", "HELP", "214", "WHAT", "500 5.5.1",
		"MAIL FROM:<a@x>", "250", "RCPT TO:<b@x>", "250", "DATA", "354",
		strings.Repeat("x", 200)+"\r\n.", "552 5.3.4",
		"QUIT", "221")
	c.wantEnd()
	if tx := last(t, p, 1); tx.Complete || tx.From != "" || tx.Rcpts[1].Path != `"b> c\""@x` || len(tx.Accepted()) != 1 {
		t.Errorf("the reset transaction: %+v", tx)
	}
	if tx := last(t, p, 2); !tx.Complete || tx.Stored || tx.StoredFor("b@x") {
		t.Errorf("the message that is too large: %+v", tx)
	}
	if n := len(p.Commands()); n != 29 {
		t.Errorf("%d commands recorded, want 29", n)
	}
}

func TestLMTPAnswersEachRecipient(t *testing.T) {
	p := start(t, Options{LMTP: true, Script: func(c Command) Reaction {
		switch {
		case c.Verb == "RCPT" && strings.Contains(c.Line, "no@x"):
			return Reaction{Reply: "550 5.1.1 No such user"}
		case c.Verb == VerbDot && c.Rcpt == "full@x":
			return Reaction{Reply: "452 4.2.2 Full"}
		}
		return Reaction{}
	}})
	c := dial(t, p)
	c.talk("", "220 platform.test LMTP", "EHLO me", "500", "LHLO me", "250-")
	c.send("MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<no@x>\r\nRCPT TO:<full@x>\r\nDATA\r\n")
	for _, want := range []string{"250", "250", "550 5.1.1", "250", "354"} {
		c.reply(want)
	}
	c.send("a\r\n.\r\n")
	c.reply("250 2.0.0")
	c.reply("452 4.2.2 Full")
	tx := last(t, p, 1)
	if !tx.StoredFor("b@x") || tx.StoredFor("no@x") || tx.StoredFor("full@x") {
		t.Errorf("stored for the wrong ones: %+v", tx.Rcpts)
	}
	commands := p.Commands()
	if early := commands[4].Early && commands[5].Early && commands[6].Early; !early || commands[1].Early {
		t.Errorf("early: %+v", commands)
	}
}

func TestScript(t *testing.T) {
	message := []string{"MAIL FROM:<a@x>", "250", "RCPT TO:<b@x>", "250", "DATA", "354"}
	for _, test := range []struct {
		name   string
		script Script
		talk   func(*client)
		want   Transaction // Complete, Stored, Answered
		none   bool
	}{
		{name: "banner 421", script: On(VerbConnect, Reaction{Reply: "421 4.3.2 Busy"}),
			talk: func(c *client) { c.reply("421 4.3.2 Busy"); c.wantEnd() }, none: true},
		{name: "drop instead of the banner", script: On(VerbConnect, Reaction{Drop: DropBefore}),
			talk: func(c *client) { c.wantEnd() }, none: true},
		{name: "MAIL 452", script: On("MAIL", Reaction{Reply: "452 4.3.1 x"}),
			talk: func(c *client) { c.talk("", "220", "EHLO x", "250", "MAIL FROM:<a@x>", "452", "RCPT TO:<b@x>", "503") }, none: true},
		{name: "dot 452", script: On(VerbDot, Reaction{Reply: "452 4.3.1 x"}),
			talk: func(c *client) {
				c.talk(append([]string{"", "220", "EHLO x", "250"}, message...)...)
				c.talk("x\r\n.", "452")
			},
			want: Transaction{Complete: true, Answered: true}},
		{name: "answer to the dot lost", script: On(VerbDot, Reaction{Drop: ResetBefore}),
			talk: func(c *client) {
				c.talk(append([]string{"", "220", "EHLO x", "250"}, message...)...)
				c.send("x\r\n.\r\n")
				c.wantEnd()
			},
			want: Transaction{Complete: true, Stored: true}},
		{name: "drop after the dot's answer", script: On(VerbDot, Reaction{Drop: DropAfter}),
			talk: func(c *client) {
				c.talk(append([]string{"", "220", "EHLO x", "250"}, message...)...)
				c.talk("x\r\n.", "250")
				c.wantEnd()
			},
			want: Transaction{Complete: true, Stored: true, Answered: true}},
		{name: "drop in the message", script: On("DATA", Reaction{Drop: DropBefore, InBody: 1000}),
			talk: func(c *client) {
				c.talk(append([]string{"", "220", "EHLO x", "250"}, message...)...)
				c.send(strings.Repeat("0123456789\r\n", 100))
				c.wantEnd()
			}, want: Transaction{}},
		{name: "peer leaves in the message", talk: func(c *client) {
			c.talk(append([]string{"", "220", "EHLO x", "250"}, message...)...)
			c.send("half a")
			c.Close()
		}, want: Transaction{}},
		{name: "stall in the message", script: On("DATA", Reaction{Stall: true, InBody: 1}),
			talk: func(c *client) {
				c.talk(append([]string{"", "220", "EHLO x", "250"}, message...)...)
				c.send("x\r\n.\r\n")
			},
			want: Transaction{}},
		{name: "stall at the dot", script: On(VerbDot, Reaction{Stall: true}),
			talk: func(c *client) {
				c.talk(append([]string{"", "220", "EHLO x", "250"}, message...)...)
				c.send("x\r\n.\r\n")
			},
			want: Transaction{Complete: true, Stored: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := start(t, Options{Script: test.script})
			test.talk(dial(t, p))
			if test.none {
				if got := p.Transactions(); len(got) != 0 {
					t.Errorf("transactions %+v", got)
				}
				return
			}
			got := last(t, p, 1)
			if got.Complete != test.want.Complete || got.Stored != test.want.Stored || got.Answered != test.want.Answered {
				t.Errorf("complete %v, stored %v, answered %v", got.Complete, got.Stored, got.Answered)
			}
		})
	}
}

func TestFirst(t *testing.T) {
	s := First(On("MAIL", Reaction{Reply: "1"}), On("RCPT", Reaction{Reply: "2"}), On("MAIL", Reaction{Reply: "3"}))
	for verb, want := range map[string]string{"MAIL": "1", "RCPT": "2", "DATA": ""} {
		if got := s(Command{Verb: verb}).Reply; got != want {
			t.Errorf("%s: %q, want %q", verb, got, want)
		}
	}
}

func TestDelays(t *testing.T) {
	p := start(t, Options{Tarpit: 150 * time.Millisecond, Script: On("NOOP", Reaction{Delay: 100 * time.Millisecond})})
	c := dial(t, p)
	c.reply("220")
	for command, want := range map[string]time.Duration{"NOOP": 100 * time.Millisecond, "WHAT": 150 * time.Millisecond} {
		began := time.Now()
		c.send(command + "\r\n")
		c.reply("")
		if took := time.Since(began); took < want {
			t.Errorf("%s took %v, want %v", command, took, want)
		}
	}
}

func TestTimeLimits(t *testing.T) {
	idle := dial(t, start(t, Options{Idle: 50 * time.Millisecond}))
	idle.talk("", "220", "", "421 4.4.1")
	idle.wantEnd()
	old := dial(t, start(t, Options{Lifetime: 50 * time.Millisecond}))
	old.talk("", "220", "", "421 4.4.2")
	old.wantEnd()
}

func TestTLSAndAuth(t *testing.T) {
	ca, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	config, err := ca.ServerConfig("mx.test", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, Options{TLS: config, Extensions: []string{"STARTTLS", "AUTH PLAIN LOGIN"}, Users: map[string]string{"u": "p"}})
	c := dial(t, p)
	c.talk("", "220")
	c.send("EHLO me\r\n")
	if ehlo := c.reply("250"); !strings.Contains(ehlo, "STARTTLS") {
		t.Errorf("EHLO: %q", ehlo)
	}
	c.talk("STARTTLS", "220")
	s := tls.Client(c.Conn, &tls.Config{RootCAs: ca.Pool(), ServerName: "mx.test"})
	if err := s.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Conn, c.r = s, bufio.NewReader(s)
	c.talk("MAIL FROM:<a@x>", "503")
	c.send("EHLO me\r\n")
	if ehlo := c.reply("250"); strings.Contains(ehlo, "STARTTLS") {
		t.Errorf("EHLO after STARTTLS: %q", ehlo)
	}
	c.talk("AUTH PLAIN AHUAeA==", "535", "AUTH PLAIN AHUAcA==", "235", "AUTH LOGIN", "334 ", "dQ==", "334 ", "cA==", "235",
		"AUTH CRAM-MD5", "504", "MAIL FROM:<a@x>", "250", "RSET", "250")
	if tx := last(t, p, 1); !tx.TLS || tx.User != "u" {
		t.Errorf("transaction %+v", tx)
	}

	implicit := start(t, Options{TLS: config, ImplicitTLS: true})
	conn, err := tls.Dial("tcp", implicit.Addr(), &tls.Config{RootCAs: ca.Pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	(&client{t: t, Conn: conn, r: bufio.NewReader(conn)}).talk("", "220", "EHLO me", "250")

	cert, key, _, err := ca.WriteFiles(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		t.Error(err)
	}
}

func TestClientAttributes(t *testing.T) {
	p := start(t, Options{Proxy: true, Extensions: []string{"XFORWARD NAME ADDR", "XCLIENT NAME ADDR"}})
	c := dial(t, p)
	c.send("PROXY TCP4 192.0.2.1 192.0.2.2 1234 25\r\n")
	c.talk("", "220", "EHLO me", "250", "XCLIENT ADDR=192.0.2.7", "220", "MAIL FROM:<a@x>", "503", "EHLO me", "250",
		"XFORWARD NAME=x.example addr=192.0.2.9", "250", "XFORWARD HELO=h", "250", "MAIL FROM:<a@x>", "250", "EHLO me", "250")
	tx := last(t, p, 1)
	got := fmt.Sprint(tx.Proxy, tx.XClient, tx.XForward)
	if want := "192.0.2.1:1234map[ADDR:192.0.2.7] map[ADDR:192.0.2.9 HELO:h NAME:x.example]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestStore(t *testing.T) {
	fail := errors.New("disk full")
	for _, lmtp := range []bool{false, true} {
		var kept bytes.Buffer
		p := start(t, Options{LMTP: lmtp, DiscardBodies: true, Store: func(tx *Transaction) error {
			if tx.From == "full@x" {
				return fail
			}
			fmt.Fprint(&kept, tx.From, tx.Size)
			return nil
		}})
		hello := "EHLO me"
		if lmtp {
			hello = "LHLO me"
		}
		c := dial(t, p)
		c.talk("", "220", hello, "250",
			"MAIL FROM:<a@x>", "250", "RCPT TO:<b@x>", "250", "DATA", "354", "x\r\n.", "250",
			"MAIL FROM:<full@x>", "250", "RCPT TO:<b@x>", "250", "DATA", "354", "x\r\n.", "451 4.3.0")
		if kept.String() != "a@x3" || len(p.Stored()) != 1 || p.Stored()[0].Raw != nil || last(t, p, 2).StoredFor("b@x") {
			t.Errorf("LMTP %v: kept %q, stored %+v", lmtp, kept.String(), p.Stored())
		}
	}
}

func TestConnectionsWaitDropSetScript(t *testing.T) {
	p := start(t, Options{})
	a, b := dial(t, p), dial(t, p)
	a.reply("220")
	b.reply("220")
	a.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Wait(ctx, func(p *Platform) bool { return p.Connections() == (Connections{Open: 1, Peak: 2, Total: 2}) }); err != nil {
		t.Fatalf("%v: %+v", err, p.Connections())
	}
	p.SetScript(On("NOOP", Reaction{Reply: "250 new"}))
	b.talk("NOOP", "250 new")
	p.Drop()
	b.wantEnd()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.WaitStored(over, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitStored: %v", err)
	}
	p.Close()
	p.Close()
	if _, err := net.Dial("tcp", p.Addr()); err == nil {
		t.Error("a closed platform takes connections")
	}
}
