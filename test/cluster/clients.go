package cluster

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"
)

// Session is a client's try to log in, and what became of it.
type Session struct {
	Login    string
	Node     int
	Began    time.Time
	Answer   string   // to the login, without its tag; empty: none came
	Platform string   // that let it in, by its own word; empty: none did
	Markers  []string // platform and login, as each answer named them
	Opened   time.Time
	Ended    time.Time // zero: it was under way when the test ended
	By       string    // who ended it: "client", "node" (with a last word), or "" (the connection was gone)
}

// Submission is a message that a client submitted, with all tries.
type Submission struct {
	ID    int
	Login string
	Node  int
	Tries []Try
}

// taken reports whether a submission was answered 250.
func (s *Submission) taken() bool {
	return len(s.Tries) > 0 && s.Tries[len(s.Tries)-1].Dotted && strings.HasPrefix(s.Tries[len(s.Tries)-1].Answer, "250")
}

// Clients are mail programs: some read and idle by IMAP, others submit.
type Clients struct {
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu        sync.Mutex
	sessions  []*Session
	submitted []*Submission
}

// Programs say who logs in where.
type Programs struct {
	Node       int
	IMAP       string        // address of the listener
	Submission string        // likewise
	Logins     []string      // each has one that reads; the first also submits
	Stay       time.Duration // how long a session stays at most
}

// comeBack is when a mail program tries again that was told to come back.
const comeBack = 50 * time.Millisecond

// StartClients lets mail programs begin. Stop ends them.
func StartClients(ctx context.Context, all ...Programs) *Clients {
	l := &Clients{}
	ctx, l.cancel = context.WithCancel(ctx)
	for _, p := range all {
		for _, login := range p.Logins {
			l.running.Go(func() {
				for ctx.Err() == nil {
					l.read(ctx, &p, login)
				}
			})
		}
		l.running.Go(func() { l.submit(ctx, &p, p.Logins[0]) })
	}
	return l
}

// Stop ends all sessions.
func (l *Clients) Stop() {
	l.cancel()
	l.running.Wait()
}

// Logins returns how often somebody was let in.
func (l *Clients) Logins() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sessions {
		if s.Platform != "" {
			n++
		}
	}
	return n
}

// Sessions and Submitted return what was recorded; after Stop.
func (l *Clients) Sessions() (all []Session) {
	for _, s := range l.sessions {
		all = append(all, *s)
	}
	return all
}

// Submitted returns the messages that were submitted, or tried to be; after Stop.
func (l *Clients) Submitted() (all []Submission) {
	for _, s := range l.submitted {
		all = append(all, *s)
	}
	return all
}

// read is one session: a login, and idling, with a look now and then, until its time is over
// or the other side ends it.
func (l *Clients) read(ctx context.Context, p *Programs, login string) {
	s := &Session{Login: login, Node: p.Node, Began: time.Now()}
	l.mu.Lock()
	l.sessions = append(l.sessions, s)
	l.mu.Unlock()
	again := false
	defer func() {
		switch {
		case ctx.Err() == nil:
			s.Ended = time.Now()
		case s.Platform != "": // the test is over; of a login under way nothing is said
			s.Ended, s.By = time.Now(), "client"
		}
		if again {
			sleep(ctx, comeBack)
		}
	}()
	conn, err := (&net.Dialer{Timeout: senderPatience}).DialContext(ctx, "tcp", p.IMAP)
	if err != nil {
		again = true
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	// ask sends a command and returns the tagged answer, without the tag; "" and the last
	// word if the other side ends it.
	in := bufio.NewReader(conn)
	ask := func(tag, command string) string {
		if err := conn.SetDeadline(time.Now().Add(4 * senderPatience)); err != nil {
			return ""
		}
		if _, err := io.WriteString(conn, command); err != nil {
			return ""
		}
		for {
			line, err := in.ReadString('\n')
			line = strings.TrimRight(line, "\r\n")
			switch answer, tagged := strings.CutPrefix(line, tag); {
			case err != nil:
				return ""
			case strings.HasPrefix(line, "* BYE"):
				s.By = "node"
				return ""
			case tagged:
				return answer
			}
		}
	}
	if ask("* OK ", "") == "" {
		again = true
		return
	}
	s.Answer = ask("a ", "a LOGIN "+login+" secret\r\n")
	if !strings.HasPrefix(s.Answer, "OK ") {
		again = true
		return
	}
	s.Opened = time.Now()
	_, marker, _ := strings.Cut(s.Answer, "] ")
	s.Markers = append(s.Markers, marker)
	l.mu.Lock()
	s.Platform, _, _ = strings.Cut(marker, " ")
	l.mu.Unlock()
	for end := time.Now().Add(p.Stay/4 + rand.N(p.Stay/2)); time.Now().Before(end); {
		if ask("+ ", "b IDLE\r\n") == "" {
			return
		}
		// IDLE is open: whatever comes now ends it.
		if err := conn.SetReadDeadline(time.Now().Add(rand.N(p.Stay / 4))); err != nil {
			return
		}
		if line, err := in.ReadString('\n'); err == nil || !timedOut(err) {
			if strings.HasPrefix(line, "* BYE") {
				s.By = "node"
			}
			return
		}
		answer := ask("b ", "DONE\r\n")
		if answer == "" {
			return
		}
		s.Markers = append(s.Markers, strings.TrimPrefix(answer, "OK "))
	}
	s.By = "client"
	_, _ = io.WriteString(conn, "c LOGOUT\r\n")
}

func timedOut(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

// submit submits messages, one in each session, until ctx ends. One that isn't taken is
// submitted again.
func (l *Clients) submit(ctx context.Context, p *Programs, login string) {
	for sleep(ctx, rand.N(p.Stay)) {
		m := &Submission{ID: int(nextID.Add(1)), Login: login, Node: p.Node}
		l.mu.Lock()
		l.submitted = append(l.submitted, m)
		l.mu.Unlock()
		for !m.taken() {
			t := Try{Began: time.Now()}
			if s, err := connect(ctx, p.Submission, false); err == nil {
				t.Answer, t.Dotted = s.submission(login, messageText(m.ID, ""))
				s.conn.Close()
			}
			t.Ended = time.Now()
			if ctx.Err() != nil && t.Answer == "" && !t.Dotted {
				return // the test is over
			}
			l.mu.Lock()
			m.Tries = append(m.Tries, t)
			l.mu.Unlock()
			if !m.taken() && !sleep(ctx, comeBack) {
				return
			}
		}
	}
}

// submission logs in and submits a message; the answer is the one that decided, "" if none came.
func (s *session) submission(login, text string) (answer string, dotted bool) {
	auth := base64.StdEncoding.EncodeToString([]byte("\x00" + login + "\x00secret"))
	for _, command := range []string{"AUTH PLAIN " + auth, "MAIL FROM:<" + login + ">", "RCPT TO:<somebody@out.example>", "DATA"} {
		answer, err := s.ask(command + "\r\n")
		if err != nil {
			return "", false
		}
		if answer[0] > '3' {
			return answer, false
		}
	}
	answer, err := s.ask(text + ".\r\n")
	if err != nil {
		return "", true
	}
	return answer, true
}

// String says how many there were.
func (l *Clients) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%d sessions, %d submissions", len(l.sessions), len(l.submitted))
}
