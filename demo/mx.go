package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// retryDelay is when the MX comes again with what was put off. A real one waits longer.
const retryDelay = 250 * time.Millisecond

// job is a message, or what of its recipients is left.
type job struct {
	id    int
	rcpts []*mailbox
	due   time.Time
}

// accepted is a message and recipient that the MX saw answered with 250.
type accepted struct {
	id      int
	mailbox *mailbox
	at      time.Time
}

// mx is a sending relay: it keeps what is put off, comes again, and notes what was taken.
type mx struct {
	addr string
	all  []mailbox

	mu      sync.Mutex
	next    int // number of the next message
	waiting []job
	taken   []accepted
	putOff  int            // recipients answered 4yz
	closed  map[string]int // of them, by agency, because it was closed
	refused []string       // answers that should never come: 5yz
	idle    int            // workers without a message
}

// run sends rate messages a second over some kept connections, until stop is closed and
// all that was put off is delivered, or ctx ends.
func (m *mx) run(ctx context.Context, rate int, stop <-chan struct{}) {
	const workers = 6
	jobs := make(chan job)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() { m.work(ctx, jobs) })
	}
	random := rand.New(rand.NewPCG(1, 2))
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			continue
		}
		j, ok := m.due()
		if !ok {
			select {
			case <-stop:
				if m.done(workers) {
					close(jobs)
					wg.Wait()
					return
				}
				continue
			default:
				j = m.compose(random)
			}
		}
		select {
		case jobs <- j:
		case <-ctx.Done():
		}
	}
	close(jobs)
	wg.Wait()
}

// compose makes a message to one to three mailboxes, of any agencies.
func (m *mx) compose(random *rand.Rand) job {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	j := job{id: m.next}
	for range 1 + random.IntN(3)*random.IntN(2) {
		if r := &m.all[random.IntN(len(m.all))]; !slices.Contains(j.rcpts, r) {
			j.rcpts = append(j.rcpts, r)
		}
	}
	return j
}

// due returns a message whose time to try again has come.
func (m *mx) due() (job, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.waiting) == 0 || time.Now().Before(m.waiting[0].due) {
		return job{}, false
	}
	j := m.waiting[0]
	m.waiting = m.waiting[1:]
	return j, true
}

// done reports whether nothing is left to be sent.
func (m *mx) done(workers int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.waiting) == 0 && m.idle == workers
}

// work sends messages over one connection, and a new one after an error.
func (m *mx) work(ctx context.Context, jobs <-chan job) {
	var client *gosmtp.Client
	defer func() {
		if client != nil {
			_ = client.Quit()
		}
	}()
	for {
		m.busy(-1)
		j, ok := <-jobs
		m.busy(+1)
		if !ok {
			return
		}
		if client == nil {
			var err error
			if client, err = m.dial(ctx); err != nil {
				m.again(j.id, j.rcpts, err)
				continue
			}
		}
		if err := m.send(client, j); err != nil {
			_ = client.Close()
			client = nil
		}
	}
}

func (m *mx) busy(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.idle -= n
}

func (m *mx) dial(ctx context.Context) (*gosmtp.Client, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", m.addr)
	if err != nil {
		return nil, err
	}
	client := gosmtp.NewClient(c)
	return client, client.Hello("mx.elsewhere.example")
}

// send sends one message. Its error means that the connection can't be used again.
func (m *mx) send(client *gosmtp.Client, j job) error {
	if err := client.Mail(fmt.Sprintf("sender%d@elsewhere.example", j.id%97), nil); err != nil {
		m.again(j.id, j.rcpts, err)
		return err
	}
	var taken, left []*mailbox
	var why error
	for _, r := range j.rcpts {
		if err := client.Rcpt(r.address, nil); err != nil {
			why = err
			left = append(left, r)
		} else {
			taken = append(taken, r)
		}
	}
	if len(left) > 0 {
		m.again(j.id, left, why)
	}
	if len(taken) == 0 {
		return client.Reset()
	}
	w, err := client.Data()
	if err == nil {
		if _, err = w.Write(message(j.id)); err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		m.again(j.id, taken, err)
		var reply *gosmtp.SMTPError
		if errors.As(err, &reply) {
			return nil // answered: the connection is in order
		}
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range taken {
		m.taken = append(m.taken, accepted{id: j.id, mailbox: r, at: time.Now()})
	}
	return nil
}

// again keeps recipients that were put off, one message for each platform's answer to
// come; what was refused for good is never right here.
func (m *mx) again(id int, rcpts []*mailbox, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var reply *gosmtp.SMTPError
	if errors.As(err, &reply) && !reply.Temporary() {
		for _, r := range rcpts {
			m.refused = append(m.refused, fmt.Sprintf("message %d for %s: %v", id, r.address, err))
		}
		return
	}
	m.putOff += len(rcpts)
	if reply != nil && reply.EnhancedCode == (gosmtp.EnhancedCode{4, 3, 2}) {
		for _, r := range rcpts {
			m.closed[r.agency]++
		}
	}
	m.waiting = append(m.waiting, job{id: id, rcpts: rcpts, due: time.Now().Add(retryDelay)})
}

// message is about 2 KiB, with the id by which it is found again.
func message(id int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "From: Sender <sender%d@elsewhere.example>\r\nTo: undisclosed-recipients:;\r\nSubject: Message %d\r\n", id%97, id)
	fmt.Fprintf(&b, "Message-ID: <demo.%d@elsewhere.example>\r\n%s%d\r\n\r\n", id, idHeader, id)
	for line := range 40 {
		fmt.Fprintf(&b, "Line %d of a message that nobody has to read.\r\n", line)
	}
	return []byte(b.String())
}

// closures returns how many recipients were put off because their agency was closed: of
// the one that moves, and of the others.
func (m *mx) closures() (ofMoved, ofOthers int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for agency, n := range m.closed {
		if agency == moved {
			ofMoved += n
		} else {
			ofOthers += n
		}
	}
	return ofMoved, ofOthers
}

// progress is what the MX has done so far.
type progress struct {
	messages, taken, waiting, putOff int
}

func (m *mx) progress() progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := progress{messages: m.next, taken: len(m.taken), putOff: m.putOff}
	for _, j := range m.waiting {
		p.waiting += len(j.rcpts)
	}
	return p
}
