package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeIMAP is a platform for logins by IMAP whose every byte a test can choose. Its mailboxes
// have the password "pw-" and their login.
type fakeIMAP struct {
	id   string
	addr string
	tls  *tls.Config // for STARTTLS

	// play, unless nil, takes the place of honest.
	play atomic.Pointer[func(*fakeLeg)]

	mu    sync.Mutex
	conns map[net.Conn]bool
	heard bytes.Buffer // all that came since the last forget, of all connections
	late  []string     // commands behind a refused login
	taken []fakeLogin

	secret func(login string) string // nil: "pw-" and the login
}

// fakeLogin is a login, right or wrong, as the platform saw it.
type fakeLogin struct {
	at    time.Time
	login string
}

// since returns the logins of an agency from a time on.
func (f *fakeIMAP) since(at time.Time, agency string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []string
	for _, l := range f.taken {
		if l.at.After(at) && (strings.HasSuffix(l.login, "@"+agency+".example") || strings.HasSuffix(l.login, "."+agency)) {
			found = append(found, l.login)
		}
	}
	return found
}

// established reports whether a connection is up on both sides, as far as the kernel knows.
func established(conn net.Conn) bool {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return false
	}
	const up = 1 // TCP_ESTABLISHED, include/net/tcp_states.h
	state := uint8(0)
	if err := raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	}); err != nil {
		return false
	}
	return state == up
}

// fakeLeg is a connection to a fakeIMAP.
type fakeLeg struct {
	f    *fakeIMAP
	conn net.Conn
	in   *bufio.Reader
}

// startFakeIMAP starts an honest one. It ends with the test.
func startFakeIMAP(t testing.TB, id string, config *tls.Config) *fakeIMAP {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeIMAP{id: id, addr: ln.Addr().String(), tls: config, conns: make(map[net.Conn]bool)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns[conn] = true
			f.mu.Unlock()
			serving.Go(func() {
				defer func() {
					conn.Close()
					f.mu.Lock()
					delete(f.conns, conn)
					f.mu.Unlock()
				}()
				l := &fakeLeg{f: f, conn: conn}
				l.in = bufio.NewReader(l)
				if play := f.play.Load(); play != nil {
					(*play)(l)
					return
				}
				l.honest()
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		f.mu.Lock()
		for conn := range f.conns {
			conn.Close()
		}
		f.mu.Unlock()
		serving.Wait()
	})
	return f
}

// heardMost is how much of what came is kept.
const heardMost = 1 << 20

// Read keeps what comes.
func (l *fakeLeg) Read(p []byte) (int, error) {
	n, err := l.conn.Read(p)
	l.f.mu.Lock()
	if l.f.heard.Len() < heardMost {
		l.f.heard.Write(p[:n])
	}
	l.f.mu.Unlock()
	return n, err
}

// forget begins a new record, and returns the old one.
func (f *fakeIMAP) forget() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	heard := f.heard.String()
	f.heard.Reset()
	return heard
}

func (l *fakeLeg) say(format string, args ...any) bool {
	_, err := fmt.Fprintf(l.conn, format, args...)
	return err == nil
}

// line reads a command without its literals.
func (l *fakeLeg) line() (tag, verb, rest string, ok bool) {
	line, err := l.in.ReadString('\n')
	if err != nil {
		return "", "", "", false
	}
	tag, rest, _ = strings.Cut(strings.TrimRight(line, "\r\n"), " ")
	verb, rest, _ = strings.Cut(rest, " ")
	return tag, strings.ToUpper(verb), rest, true
}

// startTLS is the platform's side of it.
func (l *fakeLeg) startTLS(config *tls.Config) bool {
	conn := tls.Server(l.conn, config)
	if conn.Handshake() != nil {
		return false
	}
	l.conn = conn
	l.in = bufio.NewReader(l)
	return true
}

// upToLogin answers everything up to LOGIN or AUTHENTICATE, and returns its tag and rest.
func (l *fakeLeg) upToLogin() (tag, rest string, ok bool) {
	for {
		tag, verb, rest, ok := l.line()
		if !ok {
			return "", "", false
		}
		switch verb {
		case "LOGIN", "AUTHENTICATE":
			return tag, verb + " " + rest, true
		case "CAPABILITY":
			l.say("* CAPABILITY %s\r\n%s OK done\r\n", l.capability(), tag)
		case "STARTTLS":
			if !l.say("%s OK begin\r\n", tag) || !l.startTLS(l.f.tls) {
				return "", "", false
			}
		case "LOGOUT":
			l.say("* BYE bye\r\n%s OK done\r\n", tag)
			return "", "", false
		default:
			l.say("%s OK done\r\n", tag)
		}
	}
}

func (l *fakeLeg) capability() string {
	caps := "IMAP4rev1 SASL-IR LITERAL+ ID IDLE AUTH=PLAIN"
	if _, secure := l.conn.(*tls.Conn); l.f.tls != nil && !secure {
		caps = "IMAP4rev1 SASL-IR LITERAL+ ID IDLE STARTTLS LOGINDISABLED"
	}
	return caps
}

// credentials takes name and password of AUTHENTICATE PLAIN and of LOGIN.
func (l *fakeLeg) credentials(rest string) (name, password string) {
	words := strings.Fields(rest)
	if words[0] == "LOGIN" && len(words) == 3 {
		return strings.Trim(words[1], `"`), strings.Trim(words[2], `"`)
	}
	if len(words) == 3 {
		raw, _ := base64.StdEncoding.DecodeString(words[2])
		if parts := strings.Split(string(raw), "\x00"); len(parts) == 3 {
			return parts[1], parts[2]
		}
	}
	return "", ""
}

// honest serves as a platform should. A FETCH brings the platform's id and the login.
func (l *fakeLeg) honest() {
	if !l.say("* OK [CAPABILITY %s] ready\r\n", l.capability()) {
		return
	}
	tag, rest, ok := l.upToLogin()
	if !ok {
		return
	}
	name, password := l.credentials(rest)
	name = strings.ReplaceAll(name, `\\`, `\`)
	// On a machine that is busy it may be read long after the node has sent it, and cut the
	// connection: then it was in the kernel already, and nothing can be answered to it.
	if at := time.Now(); established(l.conn) {
		l.f.mu.Lock()
		l.f.taken = append(l.f.taken, fakeLogin{at, name})
		l.f.mu.Unlock()
	}
	secret := "pw-" + name
	if l.f.secret != nil {
		secret = l.f.secret(name)
	}
	if password != secret {
		l.say("%s NO [AUTHENTICATIONFAILED] that is not it\r\n", tag)
		for {
			tag, verb, _, ok := l.line()
			if !ok {
				return
			}
			if verb != "LOGOUT" {
				l.f.mu.Lock()
				l.f.late = append(l.f.late, verb)
				l.f.mu.Unlock()
			}
			l.say("%s BAD not now\r\n", tag)
		}
	}
	l.say("%s OK [CAPABILITY IMAP4rev1 IDLE] logged in\r\n", tag)
	for {
		tag, verb, _, ok := l.line()
		switch {
		case !ok:
			return
		case verb == "FETCH":
			l.say("* 1 FETCH (BODY[] {%d}\r\n%s %s)\r\n%s OK done\r\n", len(l.f.id)+1+len(name), l.f.id, name, tag)
		case verb == "IDLE":
			l.say("+ idling\r\n")
		case verb == "LOGOUT":
			l.say("* BYE bye\r\n%s OK done\r\n", tag)
			return
		default:
			l.say("%s OK done\r\n", tag)
		}
	}
}

// until waits until the node has ended the connection, at most for a while.
func (l *fakeLeg) until() {
	_ = l.conn.SetReadDeadline(time.Now().Add(patience))
	_, _ = io.Copy(io.Discard, l)
}

// endless says the same until nobody listens.
func (l *fakeLeg) endless(text string) {
	block := []byte(strings.Repeat(text, max(1, 64<<10/len(text))))
	_ = l.conn.SetWriteDeadline(time.Now().Add(patience))
	for sent := 0; sent < 64<<20; sent += len(block) {
		if _, err := l.conn.Write(block); err != nil {
			return
		}
	}
	l.until()
}
