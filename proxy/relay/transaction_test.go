package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailcutover/mail"

	gosmtp "github.com/emersion/go-smtp"
)

// outcome is what became of one message, stage by stage.
type outcome struct {
	open  error
	rcpts []error
	data  error
	write error
	flush error
	dots  []error
	tx    *Transaction
}

// err returns the first error that concerns the whole message.
func (o outcome) err() error {
	for _, err := range slices.Concat([]error{o.open, o.data, o.write, o.flush}, o.dots, o.rcpts) {
		if err != nil {
			return err
		}
	}
	return nil
}

// deliver sends one message as the transfer does, and aborts it where it fails.
func deliver(ctx context.Context, t testing.TB, p *Pool, body string, to ...string) (o outcome) {
	t.Helper()
	return deliverFrom(ctx, t, p, mail.Client{}, nil, body, to...)
}

func deliverFrom(ctx context.Context, t testing.TB, p *Pool, client mail.Client, opts *gosmtp.MailOptions, body string, to ...string) (o outcome) {
	t.Helper()
	return deliverAs(ctx, t, p, false, client, opts, body, to...)
}

// deliverAs sends one message as the transfer does or, together, as the spool does.
func deliverAs(ctx context.Context, t testing.TB, p *Pool, together bool, client mail.Client, opts *gosmtp.MailOptions, body string, to ...string) (o outcome) {
	t.Helper()
	tx, err := p.Open(ctx, client, path(t, "a@out.example"), opts)
	if err != nil {
		return outcome{open: err}
	}
	o.tx = tx
	defer tx.Abort()
	var rcpts []Recipient
	for _, r := range to {
		rcpts = append(rcpts, Recipient{To: path(t, r)})
	}
	if together {
		if o.rcpts, o.data = tx.RcptsData(ctx, rcpts); o.data != nil || len(tx.given) == 0 {
			return o
		}
	} else {
		if o.rcpts = tx.Rcpts(ctx, rcpts); len(tx.given) == 0 {
			return o
		}
		if o.data = tx.Data(ctx); o.data != nil {
			return o
		}
	}
	if _, o.write = io.WriteString(tx, body); o.write != nil {
		return o
	}
	if o.flush = tx.Flush(ctx); o.flush != nil {
		return o
	}
	o.dots = tx.Dot(ctx)
	return o
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// tap records the writes of a connection and can fail it after a number of bytes.
type tap struct {
	net.Conn
	mu     *sync.Mutex
	writes *[]string
	limit  *limit // nil: none
}

// limit lets so many bytes pass in each direction; negative: any.
type limit struct{ write, read int }

func (c tap) Write(p []byte) (int, error) {
	n := len(p)
	if c.limit != nil && c.limit.write >= 0 {
		n = min(n, c.limit.write)
		c.limit.write -= n
	}
	c.mu.Lock()
	*c.writes = append(*c.writes, string(p[:n]))
	c.mu.Unlock()
	m, err := c.Conn.Write(p[:n])
	if err == nil && n < len(p) {
		err = errors.New("cable cut")
	}
	return m, err
}

func (c tap) Read(p []byte) (int, error) {
	if c.limit != nil && c.limit.read >= 0 {
		p = p[:min(len(p), c.limit.read)]
		if len(p) == 0 {
			return 0, errors.New("cable cut")
		}
	}
	n, err := c.Conn.Read(p)
	if c.limit != nil && c.limit.read >= 0 {
		c.limit.read -= n
	}
	return n, err
}

func (c tap) SetLinger(sec int) error { return c.Conn.(*net.TCPConn).SetLinger(sec) }

func (c tap) SyscallConn() (syscall.RawConn, error) { return c.Conn.(syscall.Conn).SyscallConn() }

// tapped returns a dialer that records all writes, of all connections in one list.
func tapped(l *limit) (Options, func() []string) {
	var mu sync.Mutex
	var writes []string
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return tap{Conn: nc, mu: &mu, writes: &writes, limit: l}, nil
	}
	return Options{Dial: dial}, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(writes)
	}
}

func TestWritesOnTheWire(t *testing.T) {
	for _, c := range []struct {
		name, body string
		ehlo       []string
		to         []string
		want       []string
	}{
		{"pipelined", "Subject: x\r\n\r\nhi\r\n", nil, []string{"b@x.example", "c@x.example"}, []string{
			"EHLO node.example\r\n",
			"MAIL FROM:<a@out.example>\r\nRCPT TO:<b@x.example>\r\nRCPT TO:<c@x.example>\r\n",
			"DATA\r\n", "Subject: x\r\n\r\nhi", "\r\n.\r\n"}},
		{"not pipelined", "hi\r\n", []string{"HELP"}, []string{"b@x.example", "c@x.example"}, []string{
			"EHLO node.example\r\n", "MAIL FROM:<a@out.example>\r\n", "RCPT TO:<b@x.example>\r\n", "RCPT TO:<c@x.example>\r\n",
			"DATA\r\n", "hi", "\r\n.\r\n"}},
		{"empty body", "", nil, []string{"b@x.example"}, []string{
			"EHLO node.example\r\n", "MAIL FROM:<a@out.example>\r\nRCPT TO:<b@x.example>\r\n", "DATA\r\n", ".\r\n"}},
		{"body is one empty line", "\r\n", nil, []string{"b@x.example"}, []string{
			"EHLO node.example\r\n", "MAIL FROM:<a@out.example>\r\nRCPT TO:<b@x.example>\r\n", "DATA\r\n", "\r\n.\r\n"}},
		{"last line end is missing", "hi", nil, []string{"b@x.example"}, []string{
			"EHLO node.example\r\n", "MAIL FROM:<a@out.example>\r\nRCPT TO:<b@x.example>\r\n", "DATA\r\n", "hi", "\r\n.\r\n"}},
		{"body ends in a dot", "hi\r\n.\r\n", nil, []string{"b@x.example"}, []string{
			"EHLO node.example\r\n", "MAIL FROM:<a@out.example>\r\nRCPT TO:<b@x.example>\r\n", "DATA\r\n", "hi\r\n..", "\r\n.\r\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			peer := startPeer(t, &peer{ehlo: c.ehlo})
			o, writes := tapped(nil)
			p := newPool(t, endpoint(peer.addr), o)
			out := deliver(testContext(t), t, p, c.body, c.to...)
			if err := out.err(); err != nil {
				t.Fatal(err)
			}
			if got := writes(); !slices.Equal(got, c.want) {
				t.Errorf("writes\n got %q\nwant %q", got, c.want)
			}
			if got := out.tx.Replies(); !slices.Equal(got, []string{"2.0.0 queued as X"}) {
				t.Errorf("replies %q", got)
			}
		})
	}
}

func TestLastWriteIsTheDotAloneWhateverTheSize(t *testing.T) {
	peer := startPeer(t, new(peer))
	o, writes := tapped(nil)
	p := newPool(t, endpoint(peer.addr), o)
	for n := bufferBytes - 5; n < bufferBytes+5; n++ {
		body := strings.Repeat("x", n) + "\r\n"
		if err := deliver(testContext(t), t, p, body, "b@x.example").err(); err != nil {
			t.Fatal(err)
		}
		w := writes()
		if last := w[len(w)-1]; last != "\r\n.\r\n" {
			t.Errorf("body of %d bytes: last write %q", len(body), last)
		}
		b := peer.bodies()
		if b[len(b)-1] != body {
			t.Errorf("body of %d bytes arrived with %d", len(body), len(b[len(b)-1]))
		}
	}
}

// Whatever an answer is, it comes back as the platform gave it, and the connection is good
// for the next message.
func TestRefusedAtEachVerb(t *testing.T) {
	for _, ehlo := range [][]string{{"PIPELINING"}, {"HELP"}} {
		for _, verb := range []string{"MAIL", "RCPT", "DATA", "."} {
			for _, answer := range []string{"450 4.2.1 later", "552 5.3.4 too large", "552 no enhanced code"} {
				t.Run(fmt.Sprintf("%s/%s/%s", ehlo[0], verb, answer[:3]), func(t *testing.T) {
					var refused sync.Once
					peer := startPeer(t, &peer{ehlo: ehlo, answer: func(_ *session, v, _ string) (a string) {
						if v == verb {
							refused.Do(func() { a = answer })
						}
						return a
					}})
					p := newPool(t, endpoint(peer.addr), Options{})
					ctx := testContext(t)
					out := deliver(ctx, t, p, "x\r\n", "b@x.example")
					err := out.err()
					var pr *PlatformReply
					if !errors.As(err, &pr) || errors.Is(err, ErrInDoubt) {
						t.Fatalf("got %v", err)
					}
					if pr.Verb != verb || pr.Host != peer.addr || pr.Platform != "ox" || fmt.Sprint(pr.Reply.Code) != answer[:3] {
						t.Errorf("got %+v", pr)
					}
					if r := mail.AsReply(err); r.Code != pr.Reply.Code || r.EnhancedCode[0] != r.Code/100 {
						t.Errorf("passed on as %+v", r)
					}
					if err := deliver(ctx, t, p, "y\r\n", "b@x.example").err(); err != nil {
						t.Fatal(err)
					}
					if got := peer.bodies(); got[len(got)-1] != "y\r\n" || len(got) != 1 && verb != "." {
						t.Errorf("platform has %q", got)
					}
					if n := len(peer.sessions()); n != 1 {
						t.Errorf("%d connections: %s", n, peer.commands())
					}
				})
			}
		}
	}
}

func TestMailRefusalIsEverybodys(t *testing.T) {
	peer := startPeer(t, &peer{answer: func(_ *session, verb, _ string) string {
		return map[string]string{"MAIL": "451 4.3.2 not now", "RCPT": "503 5.5.1 need MAIL"}[verb]
	}})
	p := newPool(t, endpoint(peer.addr), Options{})
	ctx := testContext(t)
	tx, err := p.Open(ctx, mail.Client{}, path(t, "a@out.example"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Abort()
	to, also := Recipient{To: path(t, "b@x.example")}, Recipient{To: path(t, "c@x.example")}
	errs := append(tx.Rcpts(ctx, []Recipient{to, also}), tx.Rcpts(ctx, []Recipient{to})...)
	for _, err := range errs {
		if r := mail.AsReply(err); r.Code != 451 || r.EnhancedCode != [3]int{4, 3, 2} {
			t.Errorf("got %v", err)
		}
	}
	if got := peer.commands(); strings.Count(got, "RCPT") != 2 {
		t.Errorf("commands %s", got)
	}
}

func TestSomeRecipientsRefused(t *testing.T) {
	peer := startPeer(t, &peer{answer: func(_ *session, verb, line string) string {
		if strings.Contains(line, "<no") {
			return "550-5.1.1 no such\r\n550 5.1.1 user"
		}
		return ""
	}})
	p := newPool(t, endpoint(peer.addr), Options{})
	out := deliver(testContext(t), t, p, "x\r\n", "no1@x.example", "b@x.example", "no2@x.example")
	if out.rcpts[1] != nil || out.dots[0] != nil {
		t.Fatal(out.err())
	}
	for _, i := range []int{0, 2} {
		if r := mail.AsReply(out.rcpts[i]); r.Code != 550 || r.EnhancedCode != [3]int{5, 1, 1} || r.Message != "no such user" {
			t.Errorf("recipient %d: %+v", i, r)
		}
	}
}

func TestManyRecipientsInBatches(t *testing.T) {
	for _, ehlo := range [][]string{{"PIPELINING"}, {"HELP"}} {
		peer := startPeer(t, &peer{ehlo: ehlo, answer: func(_ *session, verb, line string) string {
			if strings.Contains(line, "7@") {
				return "550 5.1.1 seven"
			}
			return ""
		}})
		p := newPool(t, endpoint(peer.addr), Options{})
		var to []string
		for i := range 1000 {
			to = append(to, fmt.Sprintf("user%d@x.example", i))
		}
		out := deliver(testContext(t), t, p, "x\r\n", to...)
		if len(out.dots) != 1 || out.dots[0] != nil {
			t.Fatal(out.err())
		}
		for i, err := range out.rcpts {
			if (err != nil) != strings.Contains(to[i], "7@") {
				t.Errorf("%s: %v", to[i], err)
			}
		}
		if len(out.tx.given) != 900 {
			t.Errorf("%d accepted", len(out.tx.given))
		}
	}
}

func TestPipelinedCommandsAreBounded(t *testing.T) {
	peer := startPeer(t, new(peer))
	o, writes := tapped(nil)
	p := newPool(t, endpoint(peer.addr), o)
	ctx := testContext(t)
	tx := open(ctx, t, p)
	defer tx.Abort()
	rcpts := make([]Recipient, 1000)
	for i := range rcpts {
		rcpts[i].To = path(t, fmt.Sprintf("b%03d@x.example", i))
	}
	tx.Rcpts(ctx, rcpts)
	if len(tx.given) != len(rcpts) {
		t.Errorf("%d accepted", len(tx.given))
	}
	for _, w := range writes() {
		if n := strings.Count(w, "RCPT"); n > maxPipelined {
			t.Errorf("%d RCPTs in one write", n)
		}
	}
	if n := len(writes()); n != 1+len(rcpts)/maxPipelined {
		t.Errorf("%d writes", n)
	}
}

// A recipient accepted before the connection was lost is not accepted any more, and one
// refused is not refused for good: nothing shows which answer was whose.
func TestConnectionLostBetweenRecipients(t *testing.T) {
	peer := startPeer(t, &peer{answer: func(_ *session, _, line string) string {
		switch {
		case strings.Contains(line, "<no@"):
			return "550 5.1.1 unknown"
		case strings.Contains(line, "<cut@"):
			return cut
		}
		return ""
	}})
	p := newPool(t, endpoint(peer.addr), Options{})
	ctx := testContext(t)
	tx := open(ctx, t, p)
	defer tx.Abort()
	var rcpts []Recipient
	for _, to := range []string{"b", "no", "cut", "c"} {
		rcpts = append(rcpts, Recipient{To: path(t, to+"@x.example")})
	}
	errs := tx.Rcpts(ctx, rcpts)
	for i, code := range []int{451, 451, 451, 451} {
		if errs[i] == nil || mail.AsReply(errs[i]).Code != code {
			t.Errorf("recipient %d: %v", i, errs[i])
		}
	}
	if err := tx.Data(ctx); !errors.Is(err, errs[0]) {
		t.Errorf("DATA after the loss: %v", err)
	}
}

// An interrupt that comes before the deadline of a read or write is set must not be undone by it.
func TestInterruptIsNotLost(t *testing.T) {
	client, server := net.Pipe()
	defer server.Close()
	c := newConn(client, new(host), time.Minute, 0)
	reason := errors.New("agency is closing")
	c.interrupt(reason)
	if err := c.write([]byte(".\r\n")); !errors.Is(err, reason) || c.raw.written != 0 {
		t.Errorf("write: %v", err)
	}
	if _, err := c.read(time.Minute); !errors.Is(err, reason) {
		t.Errorf("read: %v", err)
	}
}

func TestAbort(t *testing.T) {
	for _, c := range []struct {
		name     string
		upTo     int // Rcpts, Data, Write, Flush
		commands string
		open     int
	}{
		{"nothing sent", 0, "EHLO", 1},
		{"after RCPT", 1, "EHLO MAIL RCPT RSET", 1},
		{"after DATA", 2, "EHLO MAIL RCPT DATA", 0},
		{"in the body", 3, "EHLO MAIL RCPT DATA", 0},
		{"before the dot", 4, "EHLO MAIL RCPT DATA", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			peer := startPeer(t, new(peer))
			p := newPool(t, endpoint(peer.addr), Options{})
			ctx := testContext(t)
			tx, err := p.Open(ctx, mail.Client{}, path(t, "a@out.example"), nil)
			if err != nil {
				t.Fatal(err)
			}
			for i, step := range []func() error{
				func() error { return tx.Rcpts(ctx, []Recipient{{To: path(t, "b@x.example")}})[0] },
				func() error { return tx.Data(ctx) },
				func() error { _, err := io.WriteString(tx, "hi\r\n"); return err },
				func() error { return tx.Flush(ctx) },
			} {
				if i < c.upTo {
					if err := step(); err != nil {
						t.Fatal(err)
					}
				}
			}
			tx.Abort()
			tx.Abort()
			if s := p.Stats(); s.Open != c.open || s.Idle != c.open {
				t.Errorf("%+v", s)
			}
			if errs := tx.Dot(ctx); errs[0] == nil || errors.Is(errs[0], ErrInDoubt) || !errors.Is(errs[0], ErrState) {
				t.Errorf("dot after abort: %v", errs)
			}
			if c.open == 0 {
				eventually(t, "platform sees the end", func() bool {
					s := peer.sessions()[0]
					s.mu.Lock()
					defer s.mu.Unlock()
					return s.ended
				})
			}
			var verbs []string
			for _, l := range strings.Split(peer.commands(), ";") {
				v, _, _ := strings.Cut(l, " ")
				verbs = append(verbs, v)
			}
			if got := strings.Join(verbs, " "); got != c.commands || len(peer.bodies()) != 0 {
				t.Errorf("platform saw %s and %q, want %s", got, peer.bodies(), c.commands)
			}
		})
	}
}

func TestBareLineEndsNeverPass(t *testing.T) {
	for _, body := range []string{"a\nb\r\n", "a\rb\r\n", "a\r\r\n", "\n", "\r", "a\r", "a\r\n\n", "x\r\n.\n", "x\n.\r\n", "\r\n\r", "a\r\n\r\r\n"} {
		for cut := range len(body) {
			peer := startPeer(t, new(peer))
			o, writes := tapped(nil)
			p := newPool(t, endpoint(peer.addr), o)
			ctx := testContext(t)
			tx, err := p.Open(ctx, mail.Client{}, path(t, "a@out.example"), nil)
			if err != nil {
				t.Fatal(err)
			}
			tx.Rcpts(ctx, []Recipient{{To: path(t, "b@x.example")}})
			if err := tx.Data(ctx); err != nil {
				t.Fatal(err)
			}
			_, err = io.WriteString(tx, body[:cut])
			if err == nil {
				_, err = io.WriteString(tx, body[cut:])
			}
			if err == nil {
				err = tx.Flush(ctx)
			}
			if !errors.Is(err, ErrBareLineEnd) {
				t.Errorf("%q cut at %d: %v", body, cut, err)
			}
			if r := mail.AsReply(err); r.Code != 451 {
				t.Errorf("passed on as %v", r)
			}
			tx.Abort()
			w := writes()
			if last := w[len(w)-1]; last != "DATA\r\n" {
				t.Errorf("%q cut at %d: last write %q", body, cut, last)
			}
			if s := p.Stats(); !s.Hosts[0].Healthy || s.Open != 0 {
				t.Errorf("content is not the host's fault: %+v", s)
			}
			p.Close()
		}
	}
}

// The oracle for in doubt: whatever the moment at which the connection breaks, for bytes in
// either direction, an error that is not in doubt means that the platform has no message.
func TestInDoubtExactlyIfThePlatformMayHaveIt(t *testing.T) {
	const body = "Subject: x\r\n\r\n.hi\r\n"
	for n := range 4 {
		lmtp, together := n&1 > 0, n&2 > 0
		run := func(l *limit) (delivered, doubt, ok bool) {
			peer := startPeer(t, &peer{lmtp: lmtp})
			ep := endpoint(peer.addr)
			if lmtp {
				ep.Protocol = ProtocolLMTP
			}
			o, _ := tapped(l)
			p := newPool(t, ep, o)
			out := deliverAs(testContext(t), t, p, together, mail.Client{}, nil, body, "b@x.example", "b@x.example")
			p.Close()
			eventually(t, "platform sees the end", func() bool {
				for _, s := range peer.sessions() {
					s.mu.Lock()
					ended := s.ended
					s.mu.Unlock()
					if !ended {
						return false
					}
				}
				return true
			})
			ok = len(out.dots) > 0 && out.dots[0] == nil
			for _, err := range out.dots {
				doubt = doubt || errors.Is(err, ErrInDoubt)
			}
			if err := out.err(); err != nil {
				if errors.Is(err, ErrInDoubt) && len(out.dots) == 0 {
					t.Errorf("limit %+v: in doubt before the dot: %v", l, err)
				}
				if r := mail.AsReply(err); !mail.IsTemporary(r) {
					t.Errorf("limit %+v: %v is passed on as %v", l, err, r)
				}
			}
			return len(peer.bodies()) > 0, doubt, ok
		}
		seen := map[string]int{}
		for n := 0; ; n++ {
			delivered, doubt, ok := run(&limit{write: n, read: -1})
			seen[fmt.Sprint("write ", delivered, doubt, ok)]++
			if delivered && !ok || !delivered && ok {
				t.Errorf("%d bytes out: delivered %t, ok %t", n, delivered, ok)
			}
			if ok {
				break
			}
		}
		for n := 0; ; n++ {
			delivered, doubt, ok := run(&limit{write: -1, read: n})
			seen[fmt.Sprint("read ", delivered, doubt, ok)]++
			if delivered && !doubt && !ok || !delivered && (doubt || ok) {
				t.Errorf("%d bytes in: delivered %t, in doubt %t, ok %t", n, delivered, doubt, ok)
			}
			if ok && !doubt {
				break
			}
		}
		t.Logf("lmtp %t: %v", lmtp, seen)
		// Of the five bytes of the dot, four cuts leave some of it on the way.
		if seen["write false true false"] != 4 || seen["read true true false"] == 0 {
			t.Errorf("lmtp %t: the cases at the dot are missing: %v", lmtp, seen)
		}
	}
}

func TestCutByThePlatform(t *testing.T) {
	for _, c := range []struct {
		at    string
		doubt bool
	}{{"greeting", false}, {"EHLO", false}, {"MAIL", false}, {"RCPT", false}, {"DATA", false}, {"body", false}, {".", true}} {
		for _, how := range []string{cut, hang, "421 4.3.2 going down", "garbage"} {
			if c.at == "body" && how == hang {
				continue // it is not heard of before the dot
			}
			t.Run(c.at+"/"+how, func(t *testing.T) {
				peer := startPeer(t, &peer{answer: func(_ *session, verb, _ string) string {
					if verb == c.at {
						return how
					}
					return ""
				}})
				ep := endpoint(peer.addr)
				if how == hang { // nothing else is to be over
					of := map[string]*time.Duration{
						"greeting": &ep.Timeouts.Greeting, "EHLO": &ep.Timeouts.Command, "MAIL": &ep.Timeouts.Mail,
						"RCPT": &ep.Timeouts.Rcpt, "DATA": &ep.Timeouts.Data, ".": &ep.Timeouts.Dot,
					}
					*of[c.at] = 200 * time.Millisecond
				}
				p := newPool(t, ep, Options{})
				ctx := testContext(t)
				attempt := func() error {
					if c.at == "body" {
						return slowBody(ctx, t, p, peer)
					}
					return deliver(ctx, t, p, "x\r\n", "b@x.example").err()
				}
				err := attempt()
				var ce *ConnectionError
				if !errors.As(err, &ce) || ce.Platform != "ox" {
					t.Fatalf("got %v", err)
				}
				if want := c.doubt && how[0] != '4'; errors.Is(err, ErrInDoubt) != want {
					t.Errorf("in doubt is %t, want %t: %v", !want, want, err)
				}
				if r := mail.AsReply(err); r.Code != 451 {
					t.Errorf("passed on as %v", r)
				}
				if how == hang && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("want a timeout: %v", err)
				}
				// A connection that worked and broke doesn't speak for its host, two in a
				// row do.
				worked := !slices.Contains([]string{"greeting", "EHLO", "MAIL"}, c.at)
				if s := p.Stats(); s.Open != 0 || s.Hosts[0].Healthy != worked {
					t.Errorf("after one: %+v", s)
				}
				if worked && attempt() == nil {
					t.Error("the second was delivered")
				}
				if s := p.Stats(); s.Open != 0 || s.Hosts[0].Healthy || s.Hosts[0].Error == "" {
					t.Errorf("at last: %+v", s)
				}
			})
		}
	}
}

// slowBody sends a body and flushes it only when the platform has reacted to it.
func slowBody(ctx context.Context, t *testing.T, p *Pool, peer *peer) error {
	tx, err := p.Open(ctx, mail.Client{}, path(t, "a@out.example"), nil)
	if err != nil {
		return err
	}
	defer tx.Abort()
	if err := tx.Rcpts(ctx, []Recipient{{To: path(t, "b@x.example")}})[0]; err != nil {
		return err
	}
	if err := tx.Data(ctx); err != nil {
		return err
	}
	if _, err := io.WriteString(tx, strings.Repeat("x\r\n", bufferBytes)); err != nil {
		return err
	}
	eventually(t, "platform reacts to the body", tx.conn.stale)
	if err := tx.Flush(ctx); err != nil {
		return err
	}
	return tx.Dot(ctx)[0]
}

// A refusal in the middle of the body is passed on, and no dot follows it.
func TestRefusedEarly(t *testing.T) {
	for _, answer := range []string{"552 5.3.4 too big", "452 4.3.1 full"} {
		peer := startPeer(t, &peer{answer: func(s *session, verb, _ string) string {
			if verb != "body" {
				return ""
			}
			s.say(answer)
			return hang
		}})
		o, writes := tapped(nil)
		p := newPool(t, endpoint(peer.addr), o)
		err := slowBody(testContext(t), t, p, peer)
		if r := mail.AsReply(err); fmt.Sprint(r.Code) != answer[:3] || errors.Is(err, ErrInDoubt) {
			t.Errorf("got %v", err)
		}
		w := writes()
		if strings.HasSuffix(w[len(w)-1], ".\r\n") || p.Stats().Open != 0 {
			t.Errorf("last write %q, %+v", w[len(w)-1], p.Stats())
		}
	}
}

func TestLMTPAnswersByPosition(t *testing.T) {
	peer := startPeer(t, &peer{lmtp: true, answer: func(_ *session, verb, line string) string {
		switch {
		case verb == "RCPT" && strings.Contains(line, "<no@"):
			return "550 5.1.1 unknown"
		case verb == "." && line == "1":
			return "452 4.2.2 over quota"
		}
		return ""
	}})
	ep := endpoint(peer.addr)
	ep.Protocol = ProtocolLMTP
	p := newPool(t, ep, Options{})
	out := deliver(testContext(t), t, p, "x\r\n", "b@x.example", "no@x.example", "c@x.example", "d@x.example")
	if out.rcpts[1] == nil || len(out.dots) != 3 {
		t.Fatalf("%+v", out)
	}
	if out.dots[0] != nil || out.dots[2] != nil || mail.AsReply(out.dots[1]).Code != 452 {
		t.Errorf("got %v", out.dots)
	}
	if got := out.tx.Replies(); !slices.Equal(got, []string{"2.0.0 delivered 0", "4.2.2 over quota", "2.0.0 delivered 2"}) {
		t.Errorf("replies %q", got)
	}
	if got := peer.commands(); !strings.HasPrefix(got, "LHLO node.example;") {
		t.Errorf("commands %s", got)
	}
	if s := p.Stats(); s.Idle != 1 {
		t.Errorf("%+v", s)
	}
}

func TestLMTPLostBetweenAnswers(t *testing.T) {
	peer := startPeer(t, &peer{lmtp: true, answer: func(_ *session, verb, line string) string {
		if verb == "." && line == "1" {
			return cut
		}
		return ""
	}})
	ep := endpoint(peer.addr)
	ep.Protocol = ProtocolLMTP
	out := deliver(testContext(t), t, newPool(t, ep, Options{}), "x\r\n", "b@x.example", "c@x.example", "d@x.example")
	if out.dots[0] != nil || !errors.Is(out.dots[1], ErrInDoubt) || !errors.Is(out.dots[2], ErrInDoubt) {
		t.Errorf("got %v", out.dots)
	}
}

// A context's end is felt at once at each stage, and decides by itself about doubt.
func TestContextEnds(t *testing.T) {
	for _, c := range []struct {
		at    string
		doubt bool
	}{{"greeting", false}, {"EHLO", false}, {"MAIL", false}, {"RCPT", false}, {"DATA", false}, {".", true}} {
		t.Run(c.at, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(testContext(t))
			reason := errors.New("agency is closing")
			peer := startPeer(t, &peer{answer: func(_ *session, verb, _ string) string {
				if verb == c.at {
					cancel(reason)
					return hang
				}
				return ""
			}})
			p := newPool(t, endpoint(peer.addr), Options{})
			start := time.Now()
			err := deliver(ctx, t, p, "x\r\n", "b@x.example").err()
			if !errors.Is(err, reason) || errors.Is(err, ErrInDoubt) != c.doubt {
				t.Errorf("got %v", err)
			}
			if took := time.Since(start); took > time.Minute {
				t.Errorf("took %s", took)
			}
			if s := p.Stats(); s.Open != 0 || !s.Hosts[0].Healthy {
				t.Errorf("the caller's context is not the host's fault: %+v", s)
			}
		})
	}
}

func TestContextEndsBetweenCalls(t *testing.T) {
	peer := startPeer(t, new(peer))
	p := newPool(t, endpoint(peer.addr), Options{})
	for upTo := range 4 {
		ctx, cancel := context.WithCancel(testContext(t))
		tx, err := p.Open(ctx, mail.Client{}, path(t, "a@out.example"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, step := range []func() error{
			func() error { return tx.Rcpts(ctx, []Recipient{{To: path(t, "b@x.example")}})[0] },
			func() error { return tx.Data(ctx) },
			func() error { io.WriteString(tx, "hi\r\n"); return tx.Flush(ctx) },
			func() error { return tx.Dot(context.WithoutCancel(ctx))[0] },
		} {
			if i == upTo {
				cancel()
			}
			err = step()
			if i >= upTo && (err == nil || errors.Is(err, ErrInDoubt)) {
				t.Errorf("cancelled before step %d: step %d: %v", upTo, i, err)
			}
		}
		tx.Abort()
		cancel()
	}
	if b := peer.bodies(); len(b) != 0 {
		t.Errorf("platform has %q", b)
	}
	if s := p.Stats(); s.Open != 0 {
		t.Errorf("%+v", s)
	}
}
