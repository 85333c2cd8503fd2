package demo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// readerCount is how many mail programs are logged in all the time.
const readerCount = 24

// comeBack is when a mail program tries again that was told to come back.
const comeBack = 100 * time.Millisecond

// seen is a login as its mail program saw it: where the platform said that it is.
type seen struct {
	mailbox *mailbox
	at      delivery // platform, login there, and when
}

// readers are mail programs that idle, and come back when their session ends.
type readers struct {
	addr string
	all  []mailbox

	mu      sync.Mutex
	logins  []seen
	putOff  int      // told to come back instead of logged in
	sent    int      // sessions that ended with BYE UNAVAILABLE
	refused []string // answers that should never come
}

// run keeps readerCount mail programs going until stop is closed or ctx ends.
func (r *readers) run(ctx context.Context, stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var programs sync.WaitGroup
	for i := range readerCount {
		m := &r.all[i*len(r.all)/readerCount]
		programs.Go(func() {
			for ctx.Err() == nil {
				r.session(ctx, m)
			}
		})
	}
	select {
	case <-stop:
	case <-ctx.Done():
	}
	cancel()
	programs.Wait()
}

// session is one login, and idling until the other side or chance ends it.
func (r *readers) session(ctx context.Context, m *mailbox) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", r.addr)
	if err != nil {
		pause(ctx, comeBack)
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second)) // its error shows at the next read
	in := bufio.NewReader(conn)
	if _, err := in.ReadString('\n'); err != nil {
		return
	}
	fmt.Fprintf(conn, "a LOGIN %s demo\r\n", m.address)
	answer := ""
	for !strings.HasPrefix(answer, "a ") {
		if answer, err = in.ReadString('\n'); err != nil {
			pause(ctx, comeBack)
			return
		}
	}
	if !r.note(m, strings.TrimSpace(answer)) {
		pause(ctx, comeBack)
		return
	}
	_ = conn.SetDeadline(time.Now().Add(500*time.Millisecond + rand.N(2*time.Second)))
	if _, err := io.WriteString(conn, "b IDLE\r\n"); err != nil {
		return
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return // its own end, by the deadline, or the node's
		}
		if strings.HasPrefix(line, "* BYE [UNAVAILABLE]") {
			r.mu.Lock()
			r.sent++
			r.mu.Unlock()
			return
		}
	}
}

// note keeps what a login was answered, and reports whether it was taken.
func (r *readers) note(m *mailbox, answer string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	words := strings.Fields(answer)
	switch {
	case strings.HasPrefix(answer, "a NO [UNAVAILABLE]"):
		r.putOff++
		return false
	case !strings.HasPrefix(answer, "a OK [CAPABILITY") || len(words) < 3:
		r.refused = append(r.refused, fmt.Sprintf("a login for %s was answered %q", m.address, answer))
		return false
	}
	last := words[len(words)-3:]
	at, err := strconv.ParseInt(last[2], 10, 64)
	if err != nil {
		r.refused = append(r.refused, fmt.Sprintf("a login for %s was answered %q", m.address, answer))
		return false
	}
	r.logins = append(r.logins, seen{m, delivery{platform: last[0], rcpt: last[1], at: time.Unix(0, at)}})
	return true
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// compareLogins returns how many logins were right, and what is wrong with the others: a login
// is right in the mailbox that was meant, on the platform that held it then.
func compareLogins(logins []seen, switches []span) (right int, wrong []string) {
	last := map[int]time.Time{} // by switch: latest login on the losing side
	for _, l := range logins {
		for i, s := range switches {
			if l.mailbox.agency == moved && l.at.platform == s.from && !l.at.at.Before(s.began) && !l.at.at.After(s.end) && l.at.at.After(last[i]) {
				last[i] = l.at.at
			}
		}
	}
	for _, l := range logins {
		if l.mailbox.at[l.at.platform] != l.at.rcpt {
			wrong = append(wrong, fmt.Sprintf("%s was logged in to the mailbox %s on %s", l.mailbox.address, l.at.rcpt, l.at.platform))
		} else if why := misplaced(l.at, l.mailbox, switches, last); why != "" {
			wrong = append(wrong, fmt.Sprintf("login of %s: %s", l.mailbox.address, why))
		} else {
			right++
		}
	}
	return right, wrong
}

// reportLogins prints the comparison and returns whether every promise was kept.
func reportLogins(w io.Writer, r *readers, switches []span) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	right, wrong := compareLogins(r.logins, switches)
	fmt.Fprintf(w, "logins: %d of %d in the right mailbox on the right platform; %d sessions were told that their mailbox moves, %d logins to come back\n",
		right, len(r.logins), r.sent, r.putOff)
	for i, line := range append(r.refused, wrong...) {
		if i == 5 {
			fmt.Fprintf(w, "  ... and %d more\n", len(r.refused)+len(wrong)-i)
			break
		}
		fmt.Fprintln(w, "  "+line)
	}
	return len(wrong)+len(r.refused) == 0 && right > 0
}
