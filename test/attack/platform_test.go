package attack

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
)

// loginPlatform records what logins bring to a platform, and answers as an honest one: each name
// has the password "pw".
type loginPlatform struct {
	addr string

	mu    sync.Mutex
	text  bytes.Buffer
	conns map[net.Conn]bool
}

// heardMost is how much of what came is kept.
const heardMost = 1 << 20

// startLoginPlatform starts one that speaks the protocol, with STARTTLS if there is a
// configuration for it. It ends with the test.
func startLoginPlatform(t testing.TB, protocol string, config *tls.Config) *loginPlatform {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &loginPlatform{addr: ln.Addr().String(), conns: make(map[net.Conn]bool)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns[conn] = true
			p.mu.Unlock()
			serving.Go(func() {
				defer func() {
					conn.Close()
					p.mu.Lock()
					delete(p.conns, conn)
					p.mu.Unlock()
				}()
				s := &loginServer{p: p, conn: conn, tls: config}
				s.in = bufio.NewReader(s)
				s.serve(protocol)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		p.mu.Lock()
		for conn := range p.conns {
			conn.Close()
		}
		p.mu.Unlock()
		serving.Wait()
	})
	return p
}

// heard returns what came since the start.
func (p *loginPlatform) heard() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// loginServer is one connection.
type loginServer struct {
	p    *loginPlatform
	conn net.Conn
	in   *bufio.Reader
	tls  *tls.Config // nil: no STARTTLS
	safe bool
}

// Read keeps what comes.
func (s *loginServer) Read(b []byte) (int, error) {
	n, err := s.conn.Read(b)
	s.p.mu.Lock()
	if s.p.text.Len() < heardMost {
		s.p.text.Write(b[:n])
	}
	s.p.mu.Unlock()
	return n, err
}

func (s *loginServer) say(format string, args ...any) { fmt.Fprintf(s.conn, format+"\r\n", args...) }

// line returns the words of a command; ok is false at the end.
func (s *loginServer) line() (words []string, ok bool) {
	line, err := s.in.ReadString('\n')
	if err != nil {
		return nil, false
	}
	return append(strings.Fields(line), "", "", "", ""), true
}

// right reports whether a response of SASL PLAIN has the password.
func right(response string) bool {
	b, err := base64.StdEncoding.DecodeString(strings.Trim(response, `"`))
	return err == nil && bytes.HasSuffix(b, []byte("\x00pw"))
}

// startTLS is the platform's side; false if it came to nothing.
func (s *loginServer) startTLS() bool {
	conn := tls.Server(s.conn, s.tls)
	if conn.Handshake() != nil {
		return false
	}
	s.conn, s.safe = conn, true
	s.in = bufio.NewReader(s)
	return true
}

func (s *loginServer) serve(protocol string) {
	map[string]func(*loginServer){"imap": (*loginServer).imap, "submission": (*loginServer).submission, "pop3": (*loginServer).pop3, "sieve": (*loginServer).sieve}[protocol](s)
}

func (s *loginServer) imap() {
	capability := func() string {
		if s.tls != nil && !s.safe {
			return "IMAP4rev1 SASL-IR LITERAL+ ID IDLE STARTTLS LOGINDISABLED"
		}
		return "IMAP4rev1 SASL-IR LITERAL+ ID IDLE AUTH=PLAIN"
	}
	s.say("* OK [CAPABILITY %s] ready", capability())
	for {
		words, ok := s.line()
		if !ok {
			return
		}
		switch tag := words[0]; strings.ToUpper(words[1]) {
		case "CAPABILITY":
			s.say("* CAPABILITY %s\r\n%s OK done", capability(), tag)
		case "STARTTLS":
			s.say("%s OK begin", tag)
			if !s.startTLS() {
				return
			}
		case "AUTHENTICATE":
			if !right(words[3]) {
				s.say("%s NO [AUTHENTICATIONFAILED] no", tag)
				continue
			}
			s.say("%s OK [CAPABILITY IMAP4rev1 IDLE] logged in", tag)
		case "IDLE":
			s.say("+ idling")
		case "LOGOUT":
			s.say("* BYE bye\r\n%s OK done", tag)
			return
		default:
			s.say("%s OK done", tag)
		}
	}
}

func (s *loginServer) submission() {
	s.say("220 platform.example ESMTP")
	for {
		words, ok := s.line()
		if !ok {
			return
		}
		switch strings.ToUpper(words[0]) {
		case "EHLO":
			if s.tls != nil && !s.safe {
				s.say("250-platform.example\r\n250 STARTTLS")
				continue
			}
			s.say("250-platform.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250-CHUNKING\r\n250-ENHANCEDSTATUSCODES\r\n250-SIZE 104857600\r\n250 AUTH PLAIN LOGIN")
		case "STARTTLS":
			s.say("220 2.0.0 begin")
			if !s.startTLS() {
				return
			}
		case "AUTH":
			if !right(words[2]) {
				s.say("535 5.7.8 no")
				continue
			}
			s.say("235 2.7.0 welcome")
		case "QUIT":
			s.say("221 2.0.0 bye")
			return
		default:
			s.say("250 2.0.0 OK")
		}
	}
}

func (s *loginServer) pop3() {
	s.say("+OK ready")
	name := ""
	for {
		words, ok := s.line()
		if !ok {
			return
		}
		switch strings.ToUpper(words[0]) {
		case "CAPA":
			s.say("+OK\r\nUSER\r\nSASL PLAIN")
			if s.tls != nil && !s.safe {
				s.say("STLS")
			}
			s.say(".")
		case "STLS":
			s.say("+OK begin")
			if !s.startTLS() {
				return
			}
		case "USER":
			name = words[1]
			s.say("+OK")
		case "PASS":
			if name == "" || words[1] != "pw" {
				s.say("-ERR [AUTH] no")
				continue
			}
			s.say("+OK logged in")
		case "AUTH":
			response := words[2]
			if response == "" {
				s.say("+ ")
				next, ok := s.line()
				if !ok {
					return
				}
				response = next[0]
			}
			if !right(response) {
				s.say("-ERR [AUTH] no")
				continue
			}
			s.say("+OK logged in")
		case "QUIT":
			s.say("+OK bye")
			return
		default:
			s.say("+OK")
		}
	}
}

func (s *loginServer) sieve() {
	capabilities := func() {
		s.say("\"IMPLEMENTATION\" \"platform\"\r\n\"SASL\" %q\r\n\"SIEVE\" \"fileinto\"", map[bool]string{true: "", false: "PLAIN"}[s.tls != nil && !s.safe])
		if s.tls != nil && !s.safe {
			s.say(`"STARTTLS"`)
		}
		s.say(`"VERSION" "1.0"` + "\r\nOK \"ready\"")
	}
	capabilities()
	for {
		words, ok := s.line()
		if !ok {
			return
		}
		switch strings.ToUpper(words[0]) {
		case "STARTTLS":
			s.say(`OK "begin"`)
			if !s.startTLS() {
				return
			}
			capabilities()
		case "AUTHENTICATE":
			response := words[2]
			if strings.HasPrefix(response, "{") {
				next, ok := s.line()
				if !ok {
					return
				}
				response = next[0]
			}
			if !right(response) {
				s.say(`NO "no"`)
				continue
			}
			s.say(`OK "welcome"`)
		case "CAPABILITY":
			capabilities()
		case "LOGOUT":
			s.say(`OK "bye"`)
			return
		default:
			s.say(`OK "done"`)
		}
	}
}
