package cluster

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// senderPatience is how long a sender waits for an answer. A node that stands still keeps
// him waiting.
const senderPatience = 15 * time.Second

// Load are senders, each with its own recipients at one node. A message that isn't answered
// 250 is sent again, to the same node, until it is. So what a node takes for a recipient
// has an order.
type Load struct {
	cancel  context.CancelFunc
	ending  atomic.Bool
	running sync.WaitGroup
	taken   atomic.Int64

	mu   sync.Mutex
	sent []*Sent
}

// Senders say who sends.
type Senders struct {
	Node  int
	Addr  string
	Rcpts []string      // in turns; no other senders have them at this node
	Pace  time.Duration // between the beginnings of two messages; a late one is not made up for
	Body  int           // bytes beside the header
	LMTP  bool          // by LMTP (RFC 2033)
	Relay bool          // Addr is a relay's, which takes all and sends it on to some node; Node is -1
	Named bool          // each message has a sender of its own: SenderOf
	Once  bool          // what isn't taken is given up

	Again time.Duration // before a message that wasn't taken is sent again; 0: 20 ms
}

// SenderOf is the envelope's sender of a message, where Senders are Named.
func SenderOf(id int) string { return fmt.Sprintf("m%d@out.example", id) }

// nextID numbers messages in this process.
var nextID atomic.Int64

// StartLoad lets senders begin. Stop ends them.
func StartLoad(ctx context.Context, all ...Senders) *Load {
	l := &Load{}
	ctx, l.cancel = context.WithCancel(ctx)
	for _, s := range all {
		l.running.Go(func() { l.send(ctx, s) })
	}
	return l
}

// Stop ends the load once all that was begun is taken, or ctx ends.
func (l *Load) Stop(ctx context.Context) error {
	l.ending.Store(true)
	stop := context.AfterFunc(ctx, l.cancel)
	defer stop()
	l.running.Wait()
	l.cancel()
	if ctx.Err() != nil {
		return fmt.Errorf("stop the senders: %w", ctx.Err())
	}
	return nil
}

// Taken returns how many messages were answered 250.
func (l *Load) Taken() int { return int(l.taken.Load()) }

// Sent returns all messages so far.
func (l *Load) Sent() []Sent {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]Sent, len(l.sent))
	for i, s := range l.sent {
		all[i] = *s
		all[i].Tries = slices.Clone(s.Tries)
	}
	return all
}

func (l *Load) send(ctx context.Context, o Senders) {
	var s *session
	defer func() {
		if s != nil {
			s.conn.Close()
		}
	}()
	again := cmp.Or(o.Again, 20*time.Millisecond)
	body := strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n", o.Body/64)
	next := time.Now().Add(rand.N(o.Pace + 1))
	for i := 0; ; i++ {
		if !sleep(ctx, time.Until(next)) || l.ending.Load() {
			return
		}
		next = later(next.Add(o.Pace), time.Now())
		m := &Sent{ID: int(nextID.Add(1)), Rcpt: o.Rcpts[i%len(o.Rcpts)], Node: o.Node, Relay: o.Relay}
		from := sender
		if o.Named {
			from = SenderOf(m.ID)
		}
		l.mu.Lock()
		l.sent = append(l.sent, m)
		l.mu.Unlock()
		for {
			t := Try{Began: time.Now()}
			var err error
			if s == nil {
				s, err = connect(ctx, o.Addr, o.LMTP)
			}
			if s != nil {
				t.Answer, t.Dotted, err = s.messageFrom(from, m.Rcpt, messageText(m.ID, body))
			}
			t.Ended = time.Now()
			if (err != nil || strings.HasPrefix(t.Answer, "421")) && s != nil {
				s.conn.Close()
				s = nil
			}
			l.mu.Lock()
			m.Tries = append(m.Tries, t)
			_, done := m.taken()
			l.mu.Unlock()
			if done {
				l.taken.Add(1)
				break
			}
			if o.Once || strings.HasPrefix(t.Answer, "5") || !sleep(ctx, again) {
				break
			}
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// sleep reports whether ctx is still there afterwards.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// idLine carries a message's id.
var idLine = regexp.MustCompile(`(?m)^X-Test-Id: (\d+)`)

func messageText(id int, body string) string {
	return fmt.Sprintf("From: sender@out.example\r\nSubject: %d\r\nMessage-ID: <%d@out.example>\r\nX-Test-Id: %d\r\n\r\n%s", id, id, id, body)
}

// idOf returns the id in a message, 0 if it has none.
func idOf(message []byte) int {
	m := idLine.FindSubmatch(message)
	if m == nil {
		return 0
	}
	id, _ := strconv.Atoi(string(m[1]))
	return id
}

// session is a sender's connection.
type session struct {
	conn net.Conn
	r    *bufio.Reader
}

// connect begins a session, by LMTP if so.
func connect(ctx context.Context, addr string, lmtp bool) (*session, error) {
	conn, err := (&net.Dialer{Timeout: senderPatience}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &session{conn, bufio.NewReader(conn)}
	hello := "EHLO"
	if lmtp {
		hello = "LHLO"
	}
	for _, command := range []string{"", hello + " out.example\r\n"} {
		if answer, err := s.ask(command); err != nil || answer[0] != '2' {
			conn.Close()
			return nil, fmt.Errorf("connect to %s: answered %q: %v", addr, answer, err)
		}
	}
	return s, nil
}

// ask sends bytes and reads an answer, of which it returns the last line.
func (s *session) ask(text string) (string, error) {
	if err := s.conn.SetDeadline(time.Now().Add(senderPatience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(s.conn, text); err != nil {
		return "", err
	}
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if line = strings.TrimRight(line, "\r\n"); len(line) < 4 || line[3] != '-' {
			if line == "" {
				return "", fmt.Errorf("an empty answer")
			}
			return line, nil
		}
	}
}

// sender is the envelope's sender of messages whose Senders aren't Named.
const sender = "sender@out.example"

// message is messageFrom the usual sender.
func (s *session) message(rcpt, text string) (answer string, dotted bool, err error) {
	return s.messageFrom(sender, rcpt, text)
}

// messageFrom sends one, to one recipient, so that LMTP answers once, too; the answer is the one that decided.
func (s *session) messageFrom(from, rcpt, text string) (answer string, dotted bool, err error) {
	for _, command := range []string{"RSET", "MAIL FROM:<" + from + ">", "RCPT TO:<" + rcpt + ">", "DATA"} {
		if answer, err = s.ask(command + "\r\n"); err != nil || answer[0] > '3' {
			return answer, false, err
		}
	}
	answer, err = s.ask(text + ".\r\n")
	return answer, true, err
}

// receivedLine has the transaction id of a node's Received line.
var receivedLine = regexp.MustCompile(`\(mailcutover mailcutover\) with \w+ id ([0-9A-Za-z-]+);`)
