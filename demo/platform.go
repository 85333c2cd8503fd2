package demo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// idHeader carries a message's number from the MX to the platforms.
const idHeader = "X-Demo-Id: "

// delivery is one message stored for one recipient.
type delivery struct {
	id       int
	rcpt     string // address on the platform
	platform string
	at       time.Time
}

// platform is a mail system that keeps what it receives.
type platform struct {
	name   string
	server *gosmtp.Server
	socket net.Listener
	done   chan error

	// lose and duplicate plant faults: every n-th message is dropped after its 250, or
	// stored twice. 0: none.
	lose, duplicate int

	mu       sync.Mutex
	received int // messages answered with 250
	stored   []delivery
	late     chan struct{} // of the next message whose answer takes slowDot; nil: none
}

// startPlatform serves SMTP, or LMTP, on a free port of the loopback interface.
func startPlatform(name string, lmtp bool) (*platform, error) {
	p := &platform{name: name, done: make(chan error, 1)}
	p.server = gosmtp.NewServer(p)
	p.server.Domain = name + ".example"
	p.server.LMTP = lmtp
	p.server.ReadTimeout, p.server.WriteTimeout = time.Minute, time.Minute
	p.server.EnableSMTPUTF8 = true
	var err error
	if p.socket, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start platform %s: %w", name, err)
	}
	go func() { p.done <- p.server.Serve(p.socket) }()
	return p, nil
}

func (p *platform) addr() string { return p.socket.Addr().String() }

func (p *platform) close() {
	_ = p.socket.Close() // Serve may not have come to know it yet
	_ = p.server.Close()
	<-p.done
}

// count returns the number of messages that the platform took.
func (p *platform) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.received
}

// deliveries returns what is stored so far.
func (p *platform) deliveries() []delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]delivery(nil), p.stored...)
}

// NewSession implements smtp.Backend.
func (p *platform) NewSession(*gosmtp.Conn) (gosmtp.Session, error) {
	return &platformSession{platform: p}, nil
}

type platformSession struct {
	platform *platform
	rcpts    []string
}

func (s *platformSession) Mail(string, *gosmtp.MailOptions) error { return nil }

func (s *platformSession) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	s.rcpts = append(s.rcpts, to)
	return nil
}

func (s *platformSession) Data(r io.Reader) error {
	header, err := bufio.NewReader(r).Peek(4 << 10)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	return s.platform.store(header, s.rcpts)
}

// LMTPData implements smtp.LMTPSession: one fate for all recipients.
func (s *platformSession) LMTPData(r io.Reader, status gosmtp.StatusCollector) error {
	err := s.Data(r)
	for _, to := range s.rcpts {
		status.SetStatus(to, err)
	}
	return nil
}

func (s *platformSession) Reset()        { s.rcpts = nil }
func (s *platformSession) Logout() error { return nil }

func (p *platform) store(header []byte, rcpts []string) error {
	_, rest, ok := bytes.Cut(header, []byte(idHeader))
	line, _, _ := bytes.Cut(rest, []byte("\r\n"))
	id, err := strconv.Atoi(strings.TrimSpace(string(line)))
	if !ok || err != nil {
		return &gosmtp.SMTPError{Code: 554, EnhancedCode: gosmtp.EnhancedCode{5, 6, 0}, Message: "Not a message of the demo"}
	}
	if late := p.keep(id, rcpts); late != nil {
		close(late)
		time.Sleep(slowDot)
	}
	return nil
}

// answerLate makes the platform's answer to the next message take slowDot. The channel is
// closed when that message is stored, and its answer due.
func (p *platform) answerLate() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late = make(chan struct{})
	return p.late
}

// keep stores a message. It returns what answerLate made, if this is the one.
func (p *platform) keep(id int, rcpts []string) (late chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.received++
	times := 1
	if p.lose > 0 && p.received%p.lose == 0 {
		times = 0
	}
	if p.duplicate > 0 && p.received%p.duplicate == 0 {
		times = 2
	}
	for range times {
		for _, to := range rcpts {
			p.stored = append(p.stored, delivery{id: id, rcpt: to, platform: p.name, at: time.Now()})
		}
	}
	late, p.late = p.late, nil
	return late
}
