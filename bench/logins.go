package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"mailcutover/bench/figure"
	"mailcutover/test/peers"
)

const (
	loginWorkers = 50       // clients that log in at a time
	fetchWorkers = 4        // sessions that fetch at a time
	fetchBytes   = 16 << 20 // of a message
	loginPatient = 30 * time.Second
)

// otherBuild is the name of the mailcutover that -against names.
const otherBuild = "other build"

// loginContender is one way from an IMAP client to the platform.
type loginContender struct {
	name       string
	plain, tls string // where clients connect to: in plain text, and with TLS from the first byte on
	pid        int
	scrape     func(context.Context) error // what is asked of it while nothing happens; nil: nothing

	rates, costs, fetched, fetchCosts map[bool][]float64 // by TLS
}

func (c *loginContender) addr(secure bool) string {
	if secure {
		return c.tls
	}
	return c.plain
}

// loginGround is what all of them stand on.
type loginGround struct {
	platform string // host:port
	cert     settings
	program  string // mailcutover
}

// loginContenders are how the ways are started, in their order; mailcutover is the last.
var loginContenders = []struct {
	name  string
	start func(t peers.TB, g *loginGround) *loginContender
}{
	{"HAProxy", startLoginHAProxy},
	{"nginx", startLoginNginx},
	{"Dovecot", startLoginDovecot},
	{"mailcutover", startLoginNode},
}

// logins measures logins by IMAP, what comes through sessions, and what they cost while idle.
func logins(t peers.TB, o options) figure.Part {
	peers.Need(t, "haproxy", "nginx", "dovecot")
	o.turn /= 2 // there are many
	part := figure.Part{
		Name: "Logins of one node",
		Notes: []string{
			fmt.Sprintf("IMAP: connection, LOGIN, LOGOUT and the end, %d clients at a time; FETCH of %d MiB, %d at a time; in turns of %s, all to the same platform.", loginWorkers, fetchBytes>>20, fetchWorkers, o.turn),
			"TLS from the first byte on, 1.3 with ECDSA P-256, X25519 and no resumption, on the client's side; the platform is spoken to in plain text.",
			fmt.Sprintf("Idle: %d sessions behind their login, difference of PSS, each run freshly started; the others have one run.", o.idle),
			"Ratio: mailcutover's value to this one in the same round, median of the rounds; for mailcutover's memory, to the bar.",
		},
	}
	g := &loginGround{platform: startFakeIMAP(t).addr, cert: newSettings(t, "")}
	g.cert.certificate(t)
	g.program = build(t, g.cert.dir, "./cmd/mailcutover")
	var all []*loginContender
	for _, c := range loginContenders {
		all = append(all, c.start(t, g))
	}
	if o.against != "" {
		other := *g
		other.program = o.against
		c := startLoginNode(t, &other)
		c.name = otherBuild
		all = slices.Insert(all, len(all)-1, c)
	}
	for round := range o.rounds + 1 { // the first one warms up
		for _, secure := range []bool{false, true} {
			for _, c := range all {
				c.turn(t, o, secure)
			}
			fmt.Fprintf(o.progress, "round %d of %d, %s:", round, o.rounds, way(secure))
			for _, c := range all {
				fmt.Fprintf(o.progress, " %s %.0f/s, %.0f MiB/s;", c.name, c.rates[secure][len(c.rates[secure])-1], c.fetched[secure][len(c.fetched[secure])-1])
			}
			fmt.Fprintln(o.progress)
		}
		if round == 0 {
			for _, c := range all {
				c.forget()
			}
		}
	}
	for _, secure := range []bool{false, true} {
		part.Figures = append(part.Figures, loginFigures(all, secure)...)
	}
	if o.against != "" {
		return part // of two builds their work is compared
	}
	part.Figures = append(part.Figures, idleLogins(t, o, g)...)
	return part
}

// loginFigures are those of logins and fetches.
func loginFigures(all []*loginContender, secure bool) []figure.Figure {
	ours, others := all[len(all)-1], all[:len(all)-1]
	var list []figure.Figure
	add := func(what, unit string, of func(*loginContender) []float64, hold func(f figure.Figure, name string, ratios []float64) figure.Figure) {
		for _, c := range all {
			f := figure.New(fmt.Sprintf("%s, %s, %s", c.name, what, way(secure)), unit, of(c)...)
			if c != ours {
				f = hold(f, c.name, ratios(of(ours), of(c)))
			}
			list = append(list, f)
		}
	}
	add("logins", "logins/s", func(c *loginContender) []float64 { return c.rates[secure] }, func(f figure.Figure, name string, r []float64) figure.Figure {
		if name != otherBuild && (secure || name == "nginx") {
			return f.RatioAtLeast(1, r)
		}
		return f.Against(r)
	})
	add("CPU per login", "µs", func(c *loginContender) []float64 { return c.costs[secure] }, func(f figure.Figure, name string, r []float64) figure.Figure {
		if !secure && name == "nginx" {
			return f.RatioAtMost(1, r)
		}
		return f.Against(r)
	})
	add("FETCH", "MiB/s", func(c *loginContender) []float64 { return c.fetched[secure] }, func(f figure.Figure, name string, r []float64) figure.Figure {
		if name == otherBuild {
			return f.Against(r)
		}
		return f.RatioAtLeast(1, r)
	})
	best := cheapest(others, secure)
	add("CPU per MiB of FETCH", "µs", func(c *loginContender) []float64 { return c.fetchCosts[secure] }, func(f figure.Figure, name string, r []float64) figure.Figure {
		if name == best {
			return f.RatioAtMost(1.3, r)
		}
		return f.Against(r)
	})
	return list
}

// cheapest returns who fetches most in a second: its CPU is what ours is held to.
func cheapest(others []*loginContender, secure bool) string {
	name, most := "", 0.0
	for _, c := range others {
		if c.name == otherBuild {
			continue
		}
		if m := figure.Median(c.fetched[secure]); m > most {
			name, most = c.name, m
		}
	}
	return name
}

func way(secure bool) string {
	if secure {
		return "TLS"
	}
	return "plain"
}

func (c *loginContender) forget() {
	c.rates, c.costs, c.fetched, c.fetchCosts = make(map[bool][]float64), make(map[bool][]float64), make(map[bool][]float64), make(map[bool][]float64)
}

// turn is one contender's part of a round: logins, then fetches.
func (c *loginContender) turn(t peers.TB, o options, secure bool) {
	if c.rates == nil {
		c.forget()
	}
	addr := c.addr(secure)
	measured := func(workers int, work func(until time.Time, count *atomic.Int64) error) (rate, cost float64) {
		before, err := cpu(c.pid)
		if err != nil {
			t.Fatalf("CPU time of %s: %v", c.name, err)
		}
		began := time.Now()
		until := began.Add(o.turn)
		var count atomic.Int64
		errs := make([]error, workers)
		var all sync.WaitGroup
		for i := range workers {
			all.Go(func() { errs[i] = work(until, &count) })
		}
		all.Wait()
		took := time.Since(began)
		if err := errors.Join(errs...); err != nil {
			t.Fatalf("%s, %s: %v", c.name, way(secure), err)
		}
		after, err := cpu(c.pid)
		if err != nil {
			t.Fatalf("CPU time of %s: %v", c.name, err)
		}
		return float64(count.Load()) / took.Seconds(), float64((after - before).Microseconds()) / float64(count.Load())
	}
	rate, cost := measured(loginWorkers, func(until time.Time, count *atomic.Int64) error {
		for first := true; first || time.Now().Before(until); first = false {
			if err := loginOnce(addr, secure); err != nil {
				return err
			}
			count.Add(1)
		}
		return nil
	})
	c.rates[secure], c.costs[secure] = append(c.rates[secure], rate), append(c.costs[secure], cost)
	rate, cost = measured(fetchWorkers, func(until time.Time, count *atomic.Int64) error {
		s, err := openIMAP(addr, secure, 64<<10)
		if err != nil {
			return err
		}
		defer s.conn.Close()
		for first := true; first || time.Now().Before(until); first = false {
			if err := s.fetch(); err != nil {
				return err
			}
			count.Add(fetchBytes >> 20)
		}
		return nil
	})
	c.fetched[secure], c.fetchCosts[secure] = append(c.fetched[secure], rate), append(c.fetchCosts[secure], cost)
}

// idleLogins measures what sessions add to the memory in which nothing happens.
func idleLogins(t peers.TB, o options, g *loginGround) []figure.Figure {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatalf("limit of open files: %v", err)
	}
	if need := uint64(2*o.idle + 1000); limit.Cur < need {
		t.Fatalf("limit of open files is %d, %d idle sessions need %d: ulimit -n", limit.Cur, o.idle, need)
	}
	var list []figure.Figure
	for _, secure := range []bool{false, true} {
		bar := 5.0
		if secure {
			bar = 14
		}
		idled := make(map[string][]float64)
		for run := range o.nodes {
			for _, starts := range loginContenders {
				if run > 0 && starts.name != "mailcutover" {
					continue
				}
				if err := peers.Run(t.Context(), "idle sessions, "+starts.name, o.progress, func(t peers.TB) {
					c := starts.start(t, g)
					idled[c.name] = append(idled[c.name], c.idle(t, o, secure)/1024)
				}); err != nil {
					t.Fatalf("%v", err)
				}
			}
		}
		for _, starts := range loginContenders {
			f := figure.New(fmt.Sprintf("%s, idle session, %s", starts.name, way(secure)), "KiB", idled[starts.name]...)
			if starts.name == "mailcutover" {
				f = f.AtMost(bar)
			} else {
				f = f.Against(ratios(idled["mailcutover"][:1], idled[starts.name]))
			}
			list = append(list, f)
		}
	}
	return list
}

// idle opens sessions and returns how many bytes each adds.
func (c *loginContender) idle(t peers.TB, o options, secure bool) float64 {
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	open := func(n int) {
		for range n {
			s, err := openIMAP(c.addr(secure), secure, 512)
			if err != nil {
				t.Fatalf("idle session %d by %s: %v", len(conns)+1, c.name, err)
			}
			conns = append(conns, s.socket)
		}
	}
	open(50)
	before := c.settled(t, o.settle)
	open(o.idle)
	after := c.settled(t, o.settle)
	for i, conn := range conns { // that they are all still there
		if err := conn.SetReadDeadline(time.Now()); err != nil {
			t.Fatalf("idle session %d by %s: %v", i+1, c.name, err)
		}
		var timeout net.Error
		if _, err := conn.Read(make([]byte, 1)); err == nil || !errors.As(err, &timeout) || !timeout.Timeout() {
			// With TLS a ticket may still lie there.
			if !secure || err != nil {
				t.Fatalf("idle session %d by %s was not kept: %v", i+1, c.name, err)
			}
		}
	}
	return (after - before) / float64(o.idle)
}

// settled returns the least PSS once there is no lesser one for so long.
func (c *loginContender) settled(t peers.TB, long time.Duration) float64 {
	ctx, cancel := context.WithTimeout(t.Context(), settleWithin)
	defer cancel()
	least, since := 0.0, time.Now()
	for ctx.Err() == nil {
		if c.scrape != nil {
			if err := c.scrape(ctx); err != nil {
				t.Fatalf("%v", err)
			}
		}
		now, err := proportional(c.pid)
		if err != nil {
			t.Fatalf("memory of %s: %v", c.name, err)
		}
		if least == 0 || now < least-64<<10 {
			least, since = now, time.Now()
		}
		if time.Since(since) > long {
			return least
		}
		select {
		case <-time.After(scrapeEvery):
		case <-ctx.Done():
		}
	}
	t.Fatalf("memory of %s does not settle within %s", c.name, settleWithin)
	return 0
}

// proportional returns the PSS, in bytes, of a process and its descendants.
func proportional(pid int) (float64, error) {
	pids, err := tree(pid)
	if err != nil {
		return 0, err
	}
	total := 0.0
	for _, p := range pids {
		n, err := kib(fmt.Sprintf("/proc/%d/smaps_rollup", p), "Pss:")
		if err != nil {
			if p == pid {
				return 0, err
			}
			continue // it ended meanwhile
		}
		total += n
	}
	return total, nil
}

// imapSession is a client that is logged in.
type imapSession struct {
	socket net.Conn // of the operating system
	conn   net.Conn // it, or TLS over it
	in     *bufio.Reader
}

// clientTLS is how clients speak TLS: without a cache of sessions nothing is resumed.
var clientTLS = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}}

// openIMAP connects and logs in.
func openIMAP(addr string, secure bool, buffer int) (*imapSession, error) {
	socket, err := net.DialTimeout("tcp", addr, loginPatient)
	if err != nil {
		return nil, err
	}
	s := &imapSession{socket: socket, conn: socket}
	if secure {
		s.conn = tls.Client(socket, clientTLS)
	}
	s.in = bufio.NewReaderSize(s.conn, buffer)
	err = socket.SetDeadline(time.Now().Add(loginPatient))
	if err == nil {
		err = s.ask("", "* OK")
	}
	if err == nil {
		err = s.ask("a LOGIN "+recipient+" secret\r\n", "a OK")
	}
	if err != nil {
		socket.Close()
		return nil, err
	}
	return s, nil
}

// loginOnce is a whole session without work.
func loginOnce(addr string, secure bool) error {
	s, err := openIMAP(addr, secure, 512)
	if err != nil {
		return err
	}
	defer s.socket.Close()
	if err := s.ask("b LOGOUT\r\n", "b OK"); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, s.in); err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("end of a session: %w", err)
	}
	return nil
}

// ask sends a command and reads up to the line that begins with the prefix.
func (s *imapSession) ask(command, prefix string) error {
	if command != "" {
		if _, err := io.WriteString(s.conn, command); err != nil {
			return fmt.Errorf("send %q: %w", command, err)
		}
	}
	for {
		line, err := s.in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("answer to %q: %w", command, err)
		}
		if strings.HasPrefix(string(line), prefix) {
			return nil
		}
		if !strings.HasPrefix(string(line), "*") {
			return fmt.Errorf("answer to %q is %q, want %s", command, line, prefix)
		}
	}
}

// fetch reads the message.
func (s *imapSession) fetch() error {
	if err := s.socket.SetDeadline(time.Now().Add(loginPatient)); err != nil {
		return err
	}
	if err := s.ask("c FETCH 1 BODY[]\r\n", "* 1 FETCH"); err != nil {
		return err
	}
	if n, err := s.in.Discard(fetchBytes); err != nil {
		return fmt.Errorf("message ends after %d bytes: %w", n, err)
	}
	if err := s.ask("", ")"); err != nil {
		return err
	}
	return s.ask("", "c OK")
}

// fakeIMAP is the platform: as fast as this process can, and without mail.
type fakeIMAP struct {
	addr string
	body []byte // a part of the message

	mu    sync.Mutex
	conns map[net.Conn]bool // open ones
}

// startFakeIMAP starts the platform. It ends with the test.
func startFakeIMAP(t peers.TB) *fakeIMAP {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("platform: %v", err)
	}
	f := &fakeIMAP{addr: ln.Addr().String(), conns: make(map[net.Conn]bool), body: slices.Repeat([]byte("a line of a message of 64 bytes, of which there are very many\r\n"), (1<<20)/64)}
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
				f.serve(conn)
				conn.Close()
				f.mu.Lock()
				delete(f.conns, conn)
				f.mu.Unlock()
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

const fakeCapability = "CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID IDLE AUTH=PLAIN"

// serve answers one client until it leaves.
func (f *fakeIMAP) serve(conn net.Conn) {
	in := bufio.NewReaderSize(conn, 1024)
	say := func(text string) bool {
		_, err := io.WriteString(conn, text)
		return err == nil
	}
	if !say("* OK [" + fakeCapability + "] ready\r\n") {
		return
	}
	for {
		line, err := f.command(conn, in)
		if err != nil {
			return
		}
		tag, rest, _ := strings.Cut(line, " ")
		verb, _, _ := strings.Cut(rest, " ")
		going := true
		switch strings.ToUpper(verb) {
		case "CAPABILITY":
			going = say("* " + fakeCapability + "\r\n" + tag + " OK done\r\n")
		case "ID":
			going = say("* ID NIL\r\n" + tag + " OK done\r\n")
		case "AUTHENTICATE":
			if strings.Count(rest, " ") < 2 {
				if going = say("+ \r\n"); going {
					_, err = f.command(conn, in)
				}
			}
			going = going && err == nil && say(tag+" OK ["+fakeCapability+"] logged in\r\n")
		case "LOGIN":
			going = say(tag + " OK [" + fakeCapability + "] logged in\r\n")
		case "FETCH":
			going = f.message(conn, tag)
		case "LOGOUT":
			say("* BYE bye\r\n" + tag + " OK done\r\n")
			return
		default:
			going = say(tag + " OK done\r\n")
		}
		if !going {
			return
		}
	}
}

// command reads a command with its literals.
func (f *fakeIMAP) command(conn net.Conn, in *bufio.Reader) (string, error) {
	var all strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimRight(line, "\r\n")
		all.WriteString(line)
		open := strings.LastIndexByte(line, '{')
		if open < 0 || !strings.HasSuffix(line, "}") {
			return all.String(), nil
		}
		var n int
		if _, err := fmt.Sscanf(line[open:], "{%d", &n); err != nil || n < 0 || n > 1<<16 {
			return "", fmt.Errorf("literal %q", line[open:])
		}
		if !strings.HasSuffix(line, "+}") {
			if _, err := io.WriteString(conn, "+ go on\r\n"); err != nil {
				return "", err
			}
		}
		if _, err := io.CopyN(&all, in, int64(n)); err != nil {
			return "", err
		}
	}
}

// message answers a FETCH.
func (f *fakeIMAP) message(conn net.Conn, tag string) bool {
	if _, err := fmt.Fprintf(conn, "* 1 FETCH (BODY[] {%d}\r\n", fetchBytes); err != nil {
		return false
	}
	for left := fetchBytes; left > 0; left -= len(f.body) {
		if _, err := conn.Write(f.body[:min(left, len(f.body))]); err != nil {
			return false
		}
	}
	_, err := io.WriteString(conn, ")\r\n"+tag+" OK done\r\n")
	return err == nil
}
