package relay

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// peer is a platform that does what its test says.
type peer struct {
	greeting string   // default "220 peer ESMTP"
	ehlo     []string // keywords; default PIPELINING, 8BITMIME, SIZE 1000000
	lmtp     bool
	tls      *tls.Config // for STARTTLS
	implicit bool

	// answer is asked for every command, for "." and, with LMTP, for each recipient, with
	// its number as the line. An empty answer means the usual one; cut closes the
	// connection, hang says nothing until the client goes away. It may be called
	// from several connections at once.
	answer func(s *session, verb, line string) string

	addr string
	mu   sync.Mutex
	all  []*session
	open int
	peak int
	wg   sync.WaitGroup
}

const (
	cut  = "cut"
	hang = "hang"
)

// session is one connection to a peer.
type session struct {
	peer   *peer
	number int      // from 0
	raw    net.Conn // the socket
	nc     net.Conn // raw, or TLS over it
	r      *bufio.Reader

	mu     sync.Mutex
	lines  []string // commands
	bodies []string // complete messages, dots unstuffed
	part   string   // body without end
	rcpts  int
	mail   bool
	cork   *cork // below TLS
	inData bool  // the test itself has said 354
	ended  bool
}

func startPeer(t testing.TB, p *peer) *peer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	if p.greeting == "" {
		p.greeting = "220 peer ESMTP"
	}
	if p.ehlo == nil {
		p.ehlo = []string{"PIPELINING", "8BITMIME", "SIZE 1000000"}
	}
	p.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			s := &session{peer: p, number: len(p.all), raw: nc, nc: nc, r: bufio.NewReader(nc)}
			p.all = append(p.all, s)
			p.open++
			p.peak = max(p.peak, p.open)
			p.mu.Unlock()
			p.wg.Go(func() {
				s.serve()
				s.nc.Close()
				nc.Close()
				p.mu.Lock()
				p.open--
				p.mu.Unlock()
				s.mu.Lock()
				s.ended = true
				s.mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for _, s := range p.all {
			s.raw.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *peer) sessions() []*session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*session(nil), p.all...)
}

// commands returns what all sessions were told, in order, "|" between sessions.
func (p *peer) commands() string {
	var all []string
	for _, s := range p.sessions() {
		s.mu.Lock()
		all = append(all, strings.Join(s.lines, ";"))
		s.mu.Unlock()
	}
	return strings.Join(all, "|")
}

func (p *peer) bodies() (all []string) {
	for _, s := range p.sessions() {
		s.mu.Lock()
		all = append(all, s.bodies...)
		s.mu.Unlock()
	}
	return all
}

// say sends an answer; false: the session is over.
func (s *session) say(answer string) bool {
	switch answer {
	case cut:
		return false
	case hang:
		io.Copy(io.Discard, s.r)
		return false
	}
	_, err := io.WriteString(s.nc, answer+"\r\n")
	return err == nil
}

func (s *session) ask(verb, line, usual string) string {
	if s.peer.answer != nil {
		if a := s.peer.answer(s, verb, line); a != "" {
			return a
		}
	}
	return usual
}

func (s *session) startTLS() {
	s.cork = &cork{Conn: s.nc}
	s.nc = tls.Server(s.cork, s.peer.tls)
	s.r.Reset(s.nc)
}

func (s *session) serve() {
	if s.peer.implicit {
		s.startTLS()
	}
	if !s.say(s.ask("greeting", "", s.peer.greeting)) {
		return
	}
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		s.mu.Lock()
		s.lines = append(s.lines, line)
		s.mu.Unlock()
		usual := "250 2.0.0 ok"
		switch verb {
		case "EHLO", "LHLO":
			usual = "250-peer.example"
			for i, k := range s.peer.ehlo {
				usual += "\r\n250" + map[bool]string{true: " ", false: "-"}[i == len(s.peer.ehlo)-1] + k
			}
		case "MAIL":
			s.rcpts, s.mail = 0, false
		case "RCPT":
			if !s.mail {
				usual = "503 5.5.1 need MAIL"
			}
		case "HELP":
			usual = "214 2.0.0 see RFC 5321"
		case "QUIT":
			usual = "221 2.0.0 bye"
		case "DATA":
			usual = "354 go on"
		case "STARTTLS":
			usual = "220 2.0.0 go on"
		}
		a := s.ask(verb, line, usual)
		s.mail = s.mail || verb == "MAIL" && a[0] == '2'
		if verb == "RCPT" && a[0] == '2' {
			s.rcpts++
		}
		if !s.say(a) || verb == "QUIT" {
			return
		}
		if verb == "STARTTLS" && strings.HasPrefix(a, "220") {
			s.startTLS()
		}
		if verb == "DATA" && (a[0] == '3' || s.inData) && !s.data() {
			return
		}
	}
}

// data reads a message and answers it.
func (s *session) data() bool {
	var b strings.Builder
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			s.mu.Lock()
			s.part = b.String() + line
			s.mu.Unlock()
			return false
		}
		if line == ".\r\n" {
			break
		}
		b.WriteString(strings.TrimPrefix(line, "."))
		if a := s.ask("body", line, ""); a != "" && !s.say(a) {
			return false
		}
	}
	s.mu.Lock()
	s.bodies = append(s.bodies, b.String())
	s.mu.Unlock()
	if !s.peer.lmtp {
		return s.say(s.ask(".", "", "250 2.0.0 queued as X"))
	}
	for i := range s.rcpts {
		if !s.say(s.ask(".", fmt.Sprint(i), fmt.Sprintf("250 2.0.0 delivered %d", i))) {
			return false
		}
	}
	return true
}

// cork can join the next writes to one.
type cork struct {
	net.Conn
	join int // so many
	held []byte
}

func (c *cork) Write(p []byte) (int, error) {
	c.held = append(c.held, p...)
	if c.join--; c.join > 0 {
		return len(p), nil
	}
	_, err := c.Conn.Write(c.held)
	c.held = nil
	return len(p), err
}
