package login

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailcutover/node"
	"mailcutover/proxy/dial"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute // of tests in which it isn't the point; the machine may be busy

// toy is a dialogue of few words, the same on both sides: after "hello" a client says
// "LOGIN name secret", and hears "yes" or "no cause".
type toy struct {
	ending Ending

	// told, if not nil, is called after the platform's yes and before the client hears of it.
	told func()
}

func (*toy) Protocol() string { return "toy" }

func (d *toy) Serve(c *Conn) (*Session, error) {
	c.Print("hello\r\n")
	for {
		line, err := c.ReadLine(c.Front().LineBytes)
		if errors.Is(err, ErrLineTooLong) {
			c.Print("bye long\r\n")
			return nil, errors.Join(err, c.Flush())
		}
		if err != nil {
			return nil, err
		}
		words := strings.Split(string(line), " ")
		if len(words) < 3 || words[0] != "LOGIN" {
			return nil, ErrQuit
		}
		a := &Attempt{Name: words[1], Mechanism: MechanismPassword, Secret: []byte(words[2])}
		if len(words) > 3 {
			a.Authorize = words[3]
		}
		s, _, err := c.Login(a)
		var refused *Refusal
		if errors.As(err, &refused) {
			c.Print("no ", refused.Cause.String(), "\r\n")
			continue
		}
		if err != nil {
			return nil, err
		}
		if d.told != nil {
			d.told()
		}
		c.Print("yes\r\n")
		return s, c.Flush()
	}
}

func (*toy) Authenticate(l *Leg, a *Attempt) (Welcome, error) {
	if _, err := l.ReadLine(100); err != nil {
		return Welcome{}, err
	}
	if err := l.MaySend(); err != nil {
		return Welcome{}, err
	}
	if err := a.Last(); err != nil {
		return Welcome{}, err
	}
	l.Print("LOGIN ", a.Login, " ", string(a.Secret), "\r\n")
	line, err := l.ReadLine(1000)
	switch {
	case err != nil:
		return Welcome{}, err
	case bytes.HasPrefix(line, []byte("no")):
		return Welcome{}, &Rejection{Answer: bytes.Clone(line)}
	case !bytes.HasPrefix(line, []byte("yes")):
		return Welcome{}, fmt.Errorf("platform answered %q", line)
	}
	return Welcome{Final: bytes.Clone(line)}, nil
}

func (*toy) Farewell(c Cause, logged bool) []byte {
	return fmt.Appendf(nil, "bye %s %v\r\n", c, logged)
}

func (*toy) Tracker() Tracker { return &lines{start: true} }
func (d *toy) Ending() Ending { return d.ending }

// lines is a tracker of lines.
type lines struct{ start bool }

func (l *lines) Observe(p []byte) { l.start = bytes.HasSuffix(p, []byte("\n")) }
func (l *lines) AtStart() bool    { return l.start }

// platform is a fake one: it says hello, takes one LOGIN, and then echoes lines.
type platform struct {
	name string
	ln   net.Listener
	done sync.WaitGroup

	mu sync.Mutex
	// step, if not nil, is called at "accept" and "login", when it was read; what it returns is
	// said instead of the usual.
	step   func(at, line string) string
	conns  map[net.Conn]bool
	logins []string // "login secret"
	heard  []string // lines after the login
	opened atomic.Int64
}

func newPlatform(t testing.TB, name string) *platform {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &platform{name: name, ln: ln, conns: make(map[net.Conn]bool)}
	p.done.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns[nc] = true
			p.mu.Unlock()
			p.opened.Add(1)
			p.done.Go(func() {
				p.serve(nc)
				_ = nc.Close()
				p.mu.Lock()
				delete(p.conns, nc)
				p.mu.Unlock()
				p.opened.Add(-1)
			})
		}
	})
	t.Cleanup(p.close)
	return p
}

func (p *platform) close() {
	_ = p.ln.Close()
	p.mu.Lock()
	for nc := range p.conns {
		_ = nc.Close()
	}
	p.mu.Unlock()
	p.done.Wait()
}

func (p *platform) say(nc net.Conn, at, line, usual string) bool {
	p.mu.Lock()
	step := p.step
	p.mu.Unlock()
	if step != nil {
		if s := step(at, line); s != "" {
			usual = s
		}
	}
	_, err := io.WriteString(nc, usual+"\r\n")
	return err == nil
}

func (p *platform) serve(nc net.Conn) {
	if !p.say(nc, "accept", "", "hello") {
		return
	}
	r := bufio.NewReader(nc)
	line, err := r.ReadString('\n')
	if err != nil {
		return
	}
	line = strings.TrimRight(line, "\r\n")
	who, _, _ := strings.Cut(strings.TrimPrefix(line, "LOGIN "), " ")
	p.mu.Lock()
	p.logins = append(p.logins, strings.TrimPrefix(line, "LOGIN "))
	p.mu.Unlock()
	answer := "yes"
	if strings.HasSuffix(line, " wrong") {
		answer = "no"
	}
	if !p.say(nc, "login", line, answer) {
		return
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		p.mu.Lock()
		p.heard = append(p.heard, strings.TrimRight(line, "\r\n"))
		p.mu.Unlock()
		said := p.name + ": " + line
		if line == "whoami\r\n" {
			said = who + "\r\n"
		}
		if _, err := io.WriteString(nc, said); err != nil {
			return
		}
	}
}

func (p *platform) setStep(step func(at, line string) string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step = step
}

func (p *platform) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.logins...)
}

// source is a copy of the table that a test moves by hand.
type source struct {
	mu    sync.Mutex
	state *routing.State
}

func (s *source) State() *routing.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *source) Fresh() (time.Time, bool) { return time.Now(), true }

// rights are given as a test wants them.
type rights struct {
	mu    sync.Mutex
	right node.Right
	check error
	rest  bool
}

func (r *rights) Right(time.Time) node.Right {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.right
}

// Names implements Rights.
func (*rights) Names(context.Context, routing.Position) error { return nil }

func (r *rights) Check(context.Context, ...table.AgencyEpoch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.check
}

func (r *rights) Draining() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rest
}

func (r *rights) set(change func(*rights)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

// world is a proxy over one agency, health, which moves from exchange to ox.
type world struct {
	t        testing.TB
	proxy    *Proxy
	server   *Server
	gate     *node.Gate
	source   *source
	rights   *rights
	exchange *platform
	ox       *platform
	dialogue *toy
	addr     string
	log      *safeBuffer
	observed *observer
	alarms   *alarms

	mu  sync.Mutex
	rec routing.Agency
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

type observer struct {
	mu              sync.Mutex
	causes          map[string]int
	opened, ended   int
	suspended       int
	lastEnd         string
	bytesToPlatform int64
}

func (o *observer) LoginEnded(_, cause string, _ routing.PlatformID, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.causes[cause]++
}

func (o *observer) SessionOpened(string, routing.PlatformID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.opened++
}

func (o *observer) SessionEnded(_ string, _ routing.PlatformID, by string, up, _ int64, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended++
	o.lastEnd = by
	o.bytesToPlatform += up
}

func (o *observer) SessionSuspended(string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.suspended++
}

func (o *observer) get(f func(*observer) int) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return f(o)
}

type alarms struct {
	mu  sync.Mutex
	set map[string]string
}

func (a *alarms) Raise(key, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.set[key] = text
}

func (a *alarms) Clear(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.set[key]
	delete(a.set, key)
	return ok
}

func (a *alarms) keys() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	for k := range a.set {
		all = append(all, k)
	}
	return strings.Join(all, " ")
}

// rows are the mailboxes of health.
func rows() []routing.Row {
	return []routing.Row{
		{
			Mailbox: routing.MailboxID{1}, Kind: routing.KindUser,
			Addresses: []routing.Address{"anna@health.example", "a.berg@health.example"},
			Logins:    []routing.Login{"anna", `amt\anna`},
			Source:    routing.Place{Login: `AMT\anna`}, Target: routing.Place{Login: "anna@ox.example"},
		},
		{
			Mailbox: routing.MailboxID{2}, Kind: routing.KindShared,
			Addresses: []routing.Address{"info@health.example"},
			Source:    routing.Place{Login: `AMT\info`}, Target: routing.Place{Login: "info@ox.example"},
		},
		{
			Mailbox: routing.MailboxID{3}, Kind: routing.KindUser,
			Addresses: []routing.Address{"bert@health.example"}, Logins: []routing.Login{"bert"},
		},
	}
}

func newState(t testing.TB) (*routing.State, routing.Agency) {
	t.Helper()
	rec, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	m, err := routing.NewMapping("health", rows())
	if err != nil {
		t.Fatal(err)
	}
	rec.Mapping = m.Digest()
	rec = rec.Arm()
	state, err := routing.NewState(routing.Position{}).Apply(routing.Update{
		Position: routing.Position{Incarnation: "i", Revision: 1, Term: 1},
		Agencies: []routing.Agency{rec}, Mappings: []*routing.Mapping{m},
		Domains: []routing.Domain{{Name: "health.example"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return state, rec
}

// newWorld starts a proxy. change may alter what it is made of.
func newWorld(t testing.TB, change func(*Options, *Listener, []Endpoint)) *world {
	t.Helper()
	w := &world{
		t: t, exchange: newPlatform(t, "exchange"), ox: newPlatform(t, "ox"), dialogue: &toy{},
		rights: &rights{right: node.Right{Settled: true, Armed: true, SettledLife: 1, ArmedLife: 1}},
		log:    &safeBuffer{}, observed: &observer{causes: make(map[string]int)}, alarms: &alarms{set: make(map[string]string)},
	}
	state, rec := newState(t)
	w.rec = rec
	w.source = &source{state: state}
	w.gate = node.NewGate(w.source, w.rights, "+")
	o := Options{
		Gate: w.gate, Hostname: "mx.example", Separator: "+", MasterSeparators: "*%",
		Wait: patience, Waiters: 100, Suspend: patience,
		Alarms: w.alarms, Observer: w.observed, Logger: slog.New(slog.NewTextHandler(w.log, nil)),
	}
	l := Listener{ID: "toy", Dialogue: w.dialogue}
	endpoints := []Endpoint{
		{Platform: "exchange", Protocol: "toy", Way: dial.Endpoint{Hosts: []string{w.exchange.ln.Addr().String()}, TLS: dial.TLS{Policy: dial.TLSNone}}},
		{Platform: "ox", Protocol: "toy", Way: dial.Endpoint{Hosts: []string{w.ox.ln.Addr().String()}, TLS: dial.TLS{Policy: dial.TLSNone}}},
	}
	if change != nil {
		change(&o, &l, endpoints)
	}
	var err error
	if w.proxy, err = New(o); err != nil {
		t.Fatal(err)
	}
	if err := w.proxy.SetEndpoints(endpoints); err != nil {
		t.Fatal(err)
	}
	if w.server, err = w.proxy.NewServer(l); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = w.server.Shutdown(ended)
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		w.proxy.Close()
		if l := w.gate.Load("health"); l.Open+l.Dotted != 0 {
			t.Errorf("tickets are left: %+v", l)
		}
		if n := len(w.proxy.all(&Filter{})); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
		for _, secret := range []string{"s3cret", "wrong"} {
			if strings.Contains(strings.ReplaceAll(w.log.String(), "reason=wrong", ""), secret) {
				t.Errorf("%q is in the log:\n%s", secret, w.log)
			}
		}
	})
	return w
}

// change puts the agency's next record into force.
func (w *world) change(next func(routing.Agency) (routing.Agency, error)) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	rec, err := next(w.rec)
	if err != nil {
		w.t.Error(err)
		return
	}
	w.rec = rec
	old := w.source.State()
	now, err := old.Apply(routing.Update{Agencies: []routing.Agency{rec}})
	if err != nil {
		w.t.Error(err)
		return
	}
	w.gate.Update(old, now) // as the replica does: before it is in force
	w.source.mu.Lock()
	w.source.state = now
	w.source.mu.Unlock()
	w.gate.Update(old, now)
}

func (w *world) begin() {
	w.change(func(a routing.Agency) (routing.Agency, error) { return a.Begin("op", 7, routing.EventBegin) })
}

func (w *world) abort() {
	w.change(func(a routing.Agency) (routing.Agency, error) { return a.Abort("op", 7) })
}

func (w *world) publish() {
	w.change(func(a routing.Agency) (routing.Agency, error) { return a.Commit("op", 7) })
	w.change(func(a routing.Agency) (routing.Agency, error) { return a.Publish("op") })
}

func (w *world) lock() {
	w.change(func(a routing.Agency) (routing.Agency, error) { return a.Lock() })
}

// until waits for a condition.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: not within %s\n%s", what, patience, w.log)
		}
	}
}

// peer is a client.
type peer struct {
	t  testing.TB
	nc net.Conn
	r  *bufio.Reader
}

func (w *world) dial() *peer {
	w.t.Helper()
	p := w.connect()
	p.want("hello")
	return p
}

// connect is dial without the greeting.
func (w *world) connect() *peer {
	w.t.Helper()
	nc, err := net.DialTimeout("tcp", w.addr, patience)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return &peer{t: w.t, nc: nc, r: bufio.NewReader(nc)}
}

func (p *peer) send(s string) {
	if _, err := io.WriteString(p.nc, s+"\r\n"); err != nil {
		p.t.Errorf("send %q: %v", s, err)
	}
}

func (p *peer) line() string {
	s, err := p.r.ReadString('\n')
	if err != nil {
		return "(" + err.Error() + ")"
	}
	return strings.TrimRight(s, "\r\n")
}

func (p *peer) want(line string) {
	p.t.Helper()
	if got := p.line(); got != line {
		p.t.Errorf("got %q, want %q", got, line)
	}
}

// ends reads to the end, returns what came, and closes.
func (p *peer) ends() string {
	b, _ := io.ReadAll(p.r)
	_ = p.nc.Close()
	return string(b)
}

// logIn returns a client that has logged in, and is joined.
func (w *world) logIn(name string) *peer {
	w.t.Helper()
	p := w.dial()
	p.send("LOGIN " + name + " s3cret")
	p.want("yes")
	w.until("it is joined", func() bool {
		list, _ := w.proxy.Sessions(Filter{}, 0)
		for _, s := range list {
			if s.Client.String() == p.nc.LocalAddr().String() {
				return s.State != StateOpening
			}
		}
		return false
	})
	return p
}

func TestLogin(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	if _, err := io.WriteString(p.nc, "LOGIN anna@health.example s3cret\r\nfirst\r\nsecond\r\n"); err != nil {
		t.Fatal(err)
	}
	p.want("yes")
	p.want("exchange: first")
	p.want("exchange: second")
	p.send("third")
	p.want("exchange: third")
	if got := w.exchange.seen(); len(got) != 1 || got[0] != `AMT\anna s3cret` {
		t.Errorf("the platform was told %q", got)
	}
	list, total := w.proxy.Sessions(Filter{Login: `amt\ANNA`}, 0)
	if total != 1 || len(list) != 1 || list[0].State != StateJoined || list[0].Agency != "health" || list[0].Platform != "exchange" || list[0].ToPlatform != 22 {
		t.Errorf("sessions: %+v", list)
	}
	if l := w.gate.Load("health"); l.Dotted != 1 {
		t.Errorf("the drain waits for %+v", l)
	}
	_ = p.nc.Close()
	w.until("the session's end", func() bool { return w.gate.Load("health").Dotted == 0 })
	w.until("the session's place", func() bool { return w.proxy.Counts() == Counts{} })
	w.until("the platform's end", func() bool { return w.exchange.opened.Load() == 0 })
	w.until("the line of the session's end", func() bool { return strings.Contains(w.log.String(), `msg="session ended"`) })
	if !strings.Contains(w.log.String(), "reason=ok") {
		t.Errorf("log:\n%s", w.log)
	}
}

func TestWrongPassword(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	p.send("LOGIN anna wrong")
	p.want("no wrong")
	p.send("LOGIN anna s3cret")
	p.want("yes")
}
