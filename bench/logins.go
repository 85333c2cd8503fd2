package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
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
	measured := func(workers int, work worker) (rate, cost float64) {
		before, err := cpu(c.pid)
		if err != nil {
			t.Fatalf("CPU time of %s: %v", c.name, err)
		}
		began := time.Now()
		n, err := together(workers, began.Add(o.turn), work)
		took := time.Since(began)
		if err != nil {
			t.Fatalf("%s, %s: %v", c.name, way(secure), err)
		}
		after, err := cpu(c.pid)
		if err != nil {
			t.Fatalf("CPU time of %s: %v", c.name, err)
		}
		return float64(n) / took.Seconds(), float64((after - before).Microseconds()) / float64(n)
	}
	rate, cost := measured(loginWorkers, logInUntil(addr, secure))
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

// worker does something again and again until a time, but once at least, and counts it.
type worker func(until time.Time, count *atomic.Int64) error

// together lets so many workers work, and returns what they counted.
func together(workers int, until time.Time, work worker) (int, error) {
	var count atomic.Int64
	errs := make([]error, workers)
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() { errs[i] = work(until, &count) })
	}
	all.Wait()
	return int(count.Load()), errors.Join(errs...)
}

// logInUntil logs in.
func logInUntil(addr string, secure bool) worker {
	return func(until time.Time, count *atomic.Int64) error {
		for first := true; first || time.Now().Before(until); first = false {
			if err := loginOnce(addr, secure); err != nil {
				return err
			}
			count.Add(1)
		}
		return nil
	}
}
