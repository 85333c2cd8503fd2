package main

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"mailcutover/bench/figure"
	"mailcutover/test/peers"
)

const (
	sessions     = 20       // connections of smtp-source, kept from message to message
	messageBytes = 10 << 10 // of a body
)

// contender is one way from smtp-source to smtp-sink.
type contender struct {
	name string
	addr string   // where smtp-source sends to
	pid  int      // of what stands between; 0: nothing does
	to   string   // who is written to; empty: recipient
	args []string // further ones of smtp-source

	messages int       // of one turn
	rates    []float64 // messages per second, by round
	costs    []float64 // microseconds of CPU per message, by round
	memory   []float64 // MiB, after each round
}

// contenders starts all ways, each to the same sink. mailcutover is the last.
func contenders(t peers.TB, against string) []*contender {
	peers.Need(t, "smtp-source", "smtp-sink", "haproxy", "postfix")
	sink := peers.StartSink(t)
	haproxy := peers.StartHAProxy(t, sink.Addr)
	postfix := peers.StartMX(t, peers.MXOptions{
		NextHop: sink.Addr, // not used: the filter takes everything
		Settings: map[string]string{
			"smtpd_proxy_filter":     "inet:" + sink.Addr,
			"smtpd_error_sleep_time": "0",
		},
	})
	s := newSettings(t, sink.Addr)
	node := startNode(t, s)
	all := []*contender{
		{name: "direct", addr: sink.Addr},
		{name: "HAProxy", addr: haproxy.Addr, pid: haproxy.PID()},
		{name: "Postfix", addr: postfix.Addr, pid: postfix.PID()},
	}
	if against != "" {
		other := newSettings(t, sink.Addr)
		pid, _ := other.launch(t, against)
		other.fill(t)
		all = append(all, &contender{name: "other build", addr: other.addr(), pid: pid})
	}
	return append(all, &contender{name: "mailcutover", addr: s.addr(), pid: node})
}

// send sends messages and returns how long it took.
func send(t peers.TB, addr, to string, messages int, args ...string) time.Duration {
	o := peers.SourceOptions{
		From: "sender@elsewhere.example", To: cmp.Or(to, recipient),
		Messages: messages, Sessions: sessions, Length: messageBytes, Args: args,
	}
	if len(args) > 0 { // they say what is sent
		o.Length = 0
	}
	return peers.Source(t, addr, o).Took
}

// warm sends the first messages and finds out how many make a turn.
func (c *contender) warm(t peers.TB, o options) {
	send(t, c.addr, c.to, o.warmUp, c.args...)
	rate := float64(o.warmUp) / send(t, c.addr, c.to, o.warmUp, c.args...).Seconds()
	c.messages = max(int(math.Round(rate*o.turn.Seconds()/sessions))*sessions, sessions)
}

// turn is one contender's part of a round.
func (c *contender) turn(t peers.TB) {
	before, err := c.cpu()
	if err != nil {
		t.Fatalf("CPU time of %s: %v", c.name, err)
	}
	took := send(t, c.addr, c.to, c.messages, c.args...)
	after, err := c.cpu()
	if err != nil {
		t.Fatalf("CPU time of %s: %v", c.name, err)
	}
	c.rates = append(c.rates, float64(c.messages)/took.Seconds())
	if c.pid == 0 {
		return
	}
	c.costs = append(c.costs, float64((after-before).Microseconds())/float64(c.messages))
	bytes, err := resident(c.pid)
	if err != nil {
		t.Fatalf("memory of %s: %v", c.name, err)
	}
	c.memory = append(c.memory, bytes/(1<<20))
}

func (c *contender) cpu() (time.Duration, error) {
	if c.pid == 0 {
		return 0, nil
	}
	return cpu(c.pid)
}

// throughput measures messages per second in turns.
func throughput(t peers.TB, o options) figure.Part {
	all := contenders(t, o.against)
	for _, c := range all {
		c.warm(t, o)
	}
	for round := range o.rounds {
		for _, c := range all {
			c.turn(t)
		}
		fmt.Fprintf(o.progress, "round %d of %d:", round+1, o.rounds)
		for _, c := range all {
			fmt.Fprintf(o.progress, " %s %.0f", c.name, c.rates[round])
		}
		fmt.Fprintln(o.progress, " messages/s")
	}
	ours := all[len(all)-1]
	part := figure.Part{
		Name: "Messages through one node",
		Notes: []string{
			fmt.Sprintf("smtp-source -d -s %d -l %d, in turns of %s to smtp-sink directly, or through one of the others.", sessions, messageBytes, o.turn),
			"Ratio: mailcutover's value to this one in the same round, median of the rounds.",
		},
	}
	for _, c := range all {
		f := figure.New(c.name+", throughput", "messages/s", c.rates...)
		switch r := ratios(ours.rates, c.rates); c.name {
		case "HAProxy":
			f = f.RatioAtLeast(0.75, r)
		case "Postfix":
			f = f.RatioAtLeast(2.5, r)
		case "direct", "other build":
			f = f.Against(r)
		}
		part.Figures = append(part.Figures, f)
	}
	for _, c := range all[1:] {
		f := figure.New(c.name+", CPU per message", "µs", c.costs...)
		if c != ours {
			f = f.Against(ratios(ours.costs, c.costs))
		}
		part.Figures = append(part.Figures, f)
	}
	for _, c := range all[1:] {
		part.Figures = append(part.Figures, figure.New(c.name+", memory under load", "MiB", c.memory...))
	}
	return part
}

// ratios divides round by round.
func ratios(a, b []float64) []float64 {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = a[i] / b[i]
	}
	return r
}
