package mailstore_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/rollback/mailstore"
)

const usualCaps = "IMAP4rev1 AUTH=PLAIN SASL-IR MOVE UIDPLUS LITERAL+ NAMESPACE"

// script answers commands by what they begin with, behind the tag. A "%" in an answer is the
// tag; an answer of "" is none. What it has no answer for is answered OK.
type script struct {
	t       *testing.T
	l       net.Listener
	answers func(command string, n int) (answer string, known bool)
	caps    string
	tls     *tls.Config // for STARTTLS, behind which capabilities are the usual ones; nil: none
	begin   func()      // the fields above don't change any more

	mu    sync.Mutex
	count map[string]int
	conns []net.Conn
	wg    sync.WaitGroup
}

func startScript(t *testing.T, answers func(command string, n int) (string, bool)) *script {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startScriptOn(t, l, answers)
}

func startScriptOn(t *testing.T, l net.Listener, answers func(command string, n int) (string, bool)) *script {
	t.Helper()
	s := &script{t: t, l: l, answers: answers, count: make(map[string]int), caps: usualCaps}
	s.begin = sync.OnceFunc(func() { s.wg.Go(s.accept) })
	t.Cleanup(func() {
		l.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		s.wg.Wait()
	})
	return s
}

// pipes connect a script and a store without the kernel, so that their time may be a bubble's.
type pipes struct {
	conns chan net.Conn
	end   chan struct{}
	once  sync.Once
}

func startScriptInside(t *testing.T, answers func(command string, n int) (string, bool)) *script {
	t.Helper()
	return startScriptOn(t, &pipes{conns: make(chan net.Conn), end: make(chan struct{})}, answers)
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.end:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.end) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 143} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.end:
		return nil, net.ErrClosed
	}
}

func (s *script) accept() {
	for {
		c, err := s.l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		s.wg.Go(func() { s.serve(c) })
	}
}

// serve speaks IMAP as far as the script goes.
func (s *script) serve(c net.Conn) {
	defer c.Close()
	caps := s.caps
	fmt.Fprintf(c, "* OK [CAPABILITY %s] ready\r\n", caps)
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		tag, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		if size, ok := strings.CutSuffix(command[strings.LastIndexByte(command, '{')+1:], "+}"); ok {
			n, err := strconv.Atoi(size)
			if err != nil {
				return
			}
			if _, err := io.CopyN(io.Discard, in, int64(n)+2); err != nil {
				return
			}
		}
		word := command
		for _, w := range []string{"UID FETCH", "UID MOVE", "UID SEARCH", "APPEND", "SELECT", "EXAMINE", "LIST", "STATUS", "AUTHENTICATE", "LOGIN", "CREATE"} {
			if strings.HasPrefix(command, w) {
				word = w
			}
		}
		s.mu.Lock()
		s.count[word]++
		n := s.count[word]
		s.mu.Unlock()
		answer, known := s.answers(command, n)
		if size, ok := strings.CutSuffix(command[strings.LastIndexByte(command, '{')+1:], "}"); ok && !known && !strings.HasSuffix(size, "+") {
			fmt.Fprint(c, "+ go on\r\n")
			n, err := strconv.Atoi(size)
			if err != nil {
				return
			}
			if _, err := io.CopyN(io.Discard, in, int64(n)+2); err != nil {
				return
			}
		}
		switch {
		case command == "STARTTLS" && s.tls != nil:
			fmt.Fprintf(c, "%s OK\r\n", tag)
			c, caps = tls.Server(c, s.tls), usualCaps
			in = bufio.NewReader(c)
		case known && answer == "":
			continue
		case known:
			fmt.Fprint(c, strings.ReplaceAll(answer, "%", tag))
			if strings.HasPrefix(answer, "* BYE") {
				return
			}
		case strings.HasPrefix(command, "NAMESPACE"):
			fmt.Fprintf(c, "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n%s OK\r\n", tag)
		case strings.HasPrefix(command, "CAPABILITY"):
			fmt.Fprintf(c, "* CAPABILITY %s\r\n%s OK\r\n", caps, tag)
		case strings.HasPrefix(command, "LOGOUT"):
			fmt.Fprintf(c, "* BYE\r\n%s OK\r\n", tag)
			return
		case strings.HasPrefix(command, "EXAMINE"), strings.HasPrefix(command, "SELECT"):
			fmt.Fprintf(c, "* 1 EXISTS\r\n* FLAGS (\\Seen)\r\n* OK [UIDVALIDITY 7] .\r\n* OK [UIDNEXT 9] .\r\n%s OK\r\n", tag)
		default:
			fmt.Fprintf(c, "%s OK\r\n", tag)
		}
	}
}

func (s *script) store(change func(*mailstore.Options)) *mailstore.IMAP {
	s.t.Helper()
	s.begin()
	o := mailstore.Options{
		Platform: "ox", Hosts: []string{s.l.Addr().String()}, Command: 2 * time.Minute, RetryFirst: 10 * time.Millisecond, RetryMax: 200 * time.Millisecond,
		Access: mailstore.Access{Mode: mailstore.ModeMaster, User: "admin", Password: "master"},
	}
	if p, ok := s.l.(*pipes); ok {
		o.Dialer = p.dial
	}
	if change != nil {
		change(&o)
	}
	p, err := mailstore.New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// calls are what can be asked of a session, each with the command that it sends.
var calls = map[string]func(ctx context.Context, s mailstore.Session) error{
	"LIST": func(ctx context.Context, s mailstore.Session) error { _, err := s.Folders(ctx); return err },
	"EXAMINE": func(ctx context.Context, s mailstore.Session) error {
		_, err := s.Select(ctx, "INBOX", false)
		return err
	},
	"CREATE": func(ctx context.Context, s mailstore.Session) error { return s.Create(ctx, "A", mailstore.RoleNone) },
	"APPEND": func(ctx context.Context, s mailstore.Session) error {
		_, err := put(ctx, s, "INBOX", mailstore.Append{Size: 10, Body: strings.NewReader("0123456789")})
		return err
	},
	"UID FETCH": func(ctx context.Context, s mailstore.Session) error {
		if _, err := s.Select(ctx, "INBOX", false); err != nil {
			return err
		}
		return s.List(ctx, 1, 0, func(mailstore.Message) error { return nil })
	},
	"UID SEARCH": func(ctx context.Context, s mailstore.Session) error {
		if _, err := s.Select(ctx, "INBOX", false); err != nil {
			return err
		}
		_, err := s.Find(ctx, "<a@b>")
		return err
	},
	"UID MOVE": func(ctx context.Context, s mailstore.Session) error {
		if _, err := s.Select(ctx, "INBOX", false); err != nil {
			return err
		}
		return s.Move(ctx, []uint32{1}, "A")
	},
}

// Whatever a platform doesn't answer, the call ends, by time or by its context, and so does
// every later one. Signs of life that bring nothing on don't prolong it.
func TestHung(t *testing.T) {
	for command, call := range calls {
		for name, answer := range map[string]string{"silent": "", "alive": "* OK still here\r\n"} {
			t.Run(command+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := startScriptInside(t, func(c string, _ int) (string, bool) { return answer, strings.HasPrefix(c, command) })
					session, err := s.store(nil).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
					if err != nil {
						t.Fatal(err)
					}
					defer session.Close()
					if err := call(t.Context(), session); !errors.Is(err, mailstore.ErrTimeout) || mailstore.Platform(err) {
						t.Errorf("%v", err)
					}
					if err := call(t.Context(), session); err == nil {
						t.Error("the session goes on")
					}
				})
			})
		}
		t.Run(command+" given up", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startScriptInside(t, func(c string, _ int) (string, bool) { return "", strings.HasPrefix(c, command) })
				session, err := s.store(func(o *mailstore.Options) { o.Command = time.Hour }).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
				if err != nil {
					t.Fatal(err)
				}
				defer session.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := call(ctx, session); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v", err)
				}
			})
		})
	}
	for _, command := range []string{"AUTHENTICATE", "NAMESPACE"} {
		t.Run(command, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startScriptInside(t, func(c string, _ int) (string, bool) { return "", strings.HasPrefix(c, command) })
				if _, err := s.store(nil).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source); !errors.Is(err, mailstore.ErrTimeout) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// A message may take longer than a command's limit, as long as it comes.
func TestSlowMessage(t *testing.T) { synctest.Test(t, slowMessage) }

func slowMessage(t *testing.T) {
	const parts, size, limit = 6, 16 << 10, 2 * time.Second
	s := startScriptInside(t, nil)
	asked := make(chan struct{})
	s.answers = func(c string, _ int) (string, bool) {
		fetch := strings.HasPrefix(c, "UID FETCH")
		if fetch {
			close(asked)
		}
		return "", fetch
	}
	session, err := s.store(func(o *mailstore.Options) { o.Command = limit }).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if _, err := session.Select(t.Context(), "INBOX", false); err != nil {
		t.Fatal(err)
	}
	s.wg.Go(func() {
		select {
		case <-asked:
		case <-t.Context().Done():
			return
		}
		peer := func() net.Conn { s.mu.Lock(); defer s.mu.Unlock(); return s.conns[0] }()
		fmt.Fprintf(peer, "* 1 FETCH (UID 1 BODY[] {%d}\r\n", parts*size)
		tick := time.NewTicker(limit / 4)
		defer tick.Stop()
		for range parts {
			<-tick.C
			fmt.Fprint(peer, strings.Repeat("x", size))
		}
		fmt.Fprint(peer, ")\r\n")
	})
	read := 0
	err = session.Bodies(t.Context(), []uint32{1}, func(_ uint32, n int64, body io.Reader) error {
		text, err := io.ReadAll(body)
		if read = len(text); n != parts*size {
			t.Errorf("it has %d bytes, want %d", n, parts*size)
		}
		return err
	})
	if read != parts*size || !errors.Is(err, mailstore.ErrTimeout) { // the script never ends the FETCH
		t.Errorf("%d bytes, %v", read, err)
	}
}

// A mailbox that a platform puts off to the end while others open is that mailbox's trouble, until it
// is so for one after the other.
func TestPutOffForGood(t *testing.T) {
	var open atomic.Bool
	s := startScript(t, func(command string, _ int) (string, bool) {
		return "% NO [UNAVAILABLE] Internal error occurred\r\n", strings.HasPrefix(command, "AUTHENTICATE") && !open.Load()
	})
	p := s.store(func(o *mailstore.Options) { o.RetryFirst, o.RetryMax = time.Millisecond, 5*time.Millisecond })
	login := func() error {
		session, err := p.Open(t.Context(), row(t, "otto@example.org"), mailstore.Source)
		if err == nil {
			err = session.Close()
		}
		return err
	}
	if err := login(); !errors.Is(err, mailstore.ErrThrottled) || !mailstore.Platform(err) {
		t.Errorf("before any mailbox opened: %v", err)
	}
	open.Store(true)
	if err := login(); err != nil {
		t.Fatal(err)
	}
	open.Store(false)
	for i := range 5 {
		if err := login(); !errors.Is(err, mailstore.ErrNoMailbox) || mailstore.Platform(err) {
			t.Errorf("mailbox %d that is put off: %v", i+1, err)
		}
	}
	if err := login(); !mailstore.Platform(err) {
		t.Errorf("after five in a row: %v", err)
	}
}

// What a platform answers has its kind, and what it puts off is tried again.
func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		kind   error
	}{
		"too large":   {"% NO [TOOBIG] no\r\n", mailstore.ErrTooLarge},
		"Exchange":    {"% NO APPEND failed. The message exceeds the maximum supported size\r\n", mailstore.ErrTooLarge},
		"quota":       {"% NO [OVERQUOTA] Quota exceeded\r\n", mailstore.ErrNoSpace},
		"no folder":   {"% NO [TRYCREATE] Mailbox doesn't exist: A\r\n", mailstore.ErrNoFolder},
		"throttled":   {"% NO Request is throttled. Suggested Backoff Time: 300000 Milliseconds\r\n", mailstore.ErrThrottled},
		"unavailable": {"% NO [UNAVAILABLE] later\r\n", mailstore.ErrThrottled},
		"bad":         {"% BAD Command Argument Error. 11\r\n", mailstore.ErrRefused},
		"unknown":     {"% NO because\r\n", mailstore.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			s := startScript(t, func(command string, _ int) (string, bool) { return c.answer, strings.HasPrefix(command, "APPEND") })
			session, err := s.store(nil).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close()
			err = calls["APPEND"](t.Context(), session)
			if !errors.Is(err, c.kind) {
				t.Errorf("%v, want %v", err, c.kind)
			}
			if c.kind != mailstore.ErrThrottled {
				return
			}
			var throttled *mailstore.ThrottledError
			if !errors.As(err, &throttled) || !mailstore.Platform(err) || name == "throttled" && throttled.After != 5*time.Minute {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("put off, then taken", func(t *testing.T) {
		s := startScript(t, func(command string, n int) (string, bool) {
			return "% NO [INUSE] busy\r\n", strings.HasPrefix(command, "EXAMINE") && n < 3
		})
		session, err := s.store(nil).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		if err := calls["EXAMINE"](t.Context(), session); err != nil || s.count["EXAMINE"] != 3 {
			t.Errorf("%v after %d", err, s.count["EXAMINE"])
		}
	})
}

// A large message that is refused before it was sent costs a connection, and not the session.
func TestRefusedLiteral(t *testing.T) {
	s := startScript(t, func(command string, n int) (string, bool) {
		return "% NO [TOOBIG] no\r\n", strings.HasPrefix(command, "APPEND")
	})
	session, err := s.store(nil).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if _, err := session.Select(t.Context(), "INBOX", true); err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("x", 100_000)
	for range 2 {
		if _, err := put(t.Context(), session, "INBOX", mailstore.Append{Size: int64(len(large)), Body: strings.NewReader(large)}); !errors.Is(err, mailstore.ErrTooLarge) {
			t.Fatalf("%v", err)
		}
	}
	if err := session.Move(t.Context(), []uint32{1}, "A"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// The rate bounds bytes, and a call that waits for it ends with its context.
func TestRate(t *testing.T) {
	s := startScript(t, func(string, int) (string, bool) { return "", false })
	const rate = 400 << 10
	session, err := s.store(func(o *mailstore.Options) { o.Bytes = rate }).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	send := func(ctx context.Context, size int) error {
		_, err := put(ctx, session, "INBOX", mailstore.Append{Size: int64(size), Body: strings.NewReader(strings.Repeat("x", size))})
		return err
	}
	begin := time.Now()
	if err := send(t.Context(), 2*rate); err != nil { // the first of it is free
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 700*time.Millisecond {
		t.Errorf("two seconds' worth took %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin = time.Now()
	if err := send(ctx, 50*rate); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 20*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
}
