package main

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net"
	"strings"
	"time"

	"mailcutover/admin"
	"mailcutover/bench/figure"
	"mailcutover/internal/platformtest"
	"mailcutover/rollback/operation"
	"mailcutover/test/peers"
)

// heldNames is how many addresses smtp-source -N finds in the table: more than the
// messages of a turn.
const heldNames = 40_000

// heldRecipient is what smtp-source -N puts its numbers in front of.
const heldRecipient = "held@agency.example"

// countEvery is how often it is looked whether a replay is over; more often would cost it.
const countEvery = 50 * time.Millisecond

// drainWithin is the longest that a replay may take.
const drainWithin = 2 * time.Minute

// held measures the spool: accepting beside Postfix' queue, replay beside smtp-source,
// the start, and the memory.
func held(t peers.TB, o options) figure.Part {
	part := figure.Part{
		Name: "Mail held in the spool",
		Notes: []string{
			fmt.Sprintf("smtp-source -d -N -s %d -l %d, in turns of %s: into Postfix' hold queue, and into a node whose agency is closed by a cutover that waits for a dot; then the dot is answered, and the node replays to smtp-sink. Both queues are on the same disk.", sessions, messageBytes, o.turn),
			"Ratio: accepting to Postfix, replay to direct, in the same round, median of the rounds; else to the bar.",
		},
	}
	part.Figures = append(part.Figures, rounds(t, o)...)
	if o.against != "" {
		return part // what both builds take turns at
	}
	part.Figures = append(part.Figures, starts(t, o)...)
	part.Figures = append(part.Figures, memories(t, o)...)
	return part
}

// rounds measures accepting and replay.
func rounds(t peers.TB, o options) []figure.Figure {
	peers.Need(t, "smtp-source", "smtp-sink", "postfix")
	sink := peers.StartSink(t)
	postfix := peers.StartMX(t, peers.MXOptions{
		NextHop: sink.Addr, // not used: everything is held
		Settings: map[string]string{
			"smtpd_client_restrictions": "check_client_access static:HOLD",
			"smtpd_error_sleep_time":    "0",
		},
	})
	program := build(t, newSettings(t, sink.Addr).dir, "./cmd/mailcutover")
	ours := newSpooler(t, "mailcutover", sink.Addr, program)
	all := []*spooler{ours}
	if o.against != "" {
		all = append([]*spooler{newSpooler(t, "other build", sink.Addr, o.against)}, all...)
	}
	turn := func(rate float64) int {
		return min(max(int(math.Round(rate*o.turn.Seconds()/sessions))*sessions, sessions), heldNames)
	}
	for _, c := range all {
		c.round(t, o.warmUp)
	}
	numbered(t, postfix.Addr, o.warmUp/2)
	queued := turn(numbered(t, postfix.Addr, o.warmUp/2))
	ours.round(t, o.warmUp)
	messages := turn(ours.accepted[len(ours.accepted)-1])
	for _, c := range all {
		c.forget()
	}
	var postfixes, directs []float64
	for i := range o.rounds {
		postfixes = append(postfixes, numbered(t, postfix.Addr, queued))
		for _, c := range all {
			c.round(t, messages)
		}
		directs = append(directs, numbered(t, sink.Addr, messages))
		fmt.Fprintf(o.progress, "round %d of %d: Postfix %.0f direct %.0f", i+1, o.rounds, postfixes[i], directs[i])
		for _, c := range all {
			fmt.Fprintf(o.progress, " %s %.0f, %.0f back (CPU %.0f and %.0f µs)", c.name, c.accepted[i], c.replayed[i], c.acceptCosts[i], c.replayCosts[i])
		}
		fmt.Fprintln(o.progress, " messages/s")
	}
	figures := []figure.Figure{
		figure.New("Postfix, accepted into its queue", "messages/s", postfixes...).RatioAtLeast(5, ratios(ours.accepted, postfixes)),
		figure.New("direct, same connections", "messages/s", directs...).RatioAtLeast(0.8, ratios(ours.replayed, directs)),
	}
	for _, c := range all {
		these := []figure.Figure{
			figure.New(c.name+", accepted into the spool", "messages/s", c.accepted...),
			figure.New(c.name+", replay", "messages/s", c.replayed...),
			figure.New(c.name+", CPU per accepted message", "µs", c.acceptCosts...),
			figure.New(c.name+", CPU per replayed message", "µs", c.replayCosts...),
		}
		if c != ours {
			for i, r := range [][]float64{ratios(ours.accepted, c.accepted), ratios(ours.replayed, c.replayed), ratios(ours.acceptCosts, c.acceptCosts), ratios(ours.replayCosts, c.replayCosts)} {
				these[i] = these[i].Against(r)
			}
		}
		figures = append(figures, these...)
	}
	return figures
}

// spooler is a build of mailcutover that takes turns, and what came of them, by round.
type spooler struct {
	name                     string
	n                        *holder
	pid                      int
	accepted, replayed       []float64 // messages per second
	acceptCosts, replayCosts []float64 // microseconds of CPU per message
}

func newSpooler(t peers.TB, name, target, program string) *spooler {
	c := &spooler{name: name}
	c.n = startHolder(t, target, func(t peers.TB, s settings) {
		c.pid, _ = s.launch(t, program)
		s.fill(t)
	})
	return c
}

// forget drops what came of the turns so far.
func (c *spooler) forget() {
	c.accepted, c.replayed, c.acceptCosts, c.replayCosts = nil, nil, nil, nil
}

// round has the node accept messages, and replay them.
func (c *spooler) round(t peers.TB, messages int) {
	open := c.n.hold(t)
	before := c.cpu(t)
	c.accepted = append(c.accepted, numbered(t, c.n.s.addr(), messages))
	between := c.cpu(t)
	c.replayed = append(c.replayed, float64(messages)/c.n.replayed(t, open()).Seconds())
	after := c.cpu(t)
	c.n.back(t)
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(messages) }
	c.acceptCosts, c.replayCosts = append(c.acceptCosts, each(between-before)), append(c.replayCosts, each(after-between))
}

func (c *spooler) cpu(t peers.TB) time.Duration {
	used, err := cpu(c.pid)
	if err != nil {
		t.Fatalf("CPU time of %s: %v", c.name, err)
	}
	return used
}

// numbered sends messages to one address after the other, and returns how many a second.
func numbered(t peers.TB, addr string, messages int) float64 {
	took := peers.Source(t, addr, peers.SourceOptions{
		From: "sender@elsewhere.example", To: heldRecipient,
		Messages: messages, Sessions: sessions, Length: messageBytes, Args: []string{"-N"},
	}).Took
	return float64(messages) / took.Seconds()
}

// holder is a node whose agency opens and closes.
type holder struct {
	s      settings
	api    *admin.Client
	source *slow
}

// startHolder has start start a node, and fill its table; the node holds mail when told,
// and replays it to target.
func startHolder(t peers.TB, target string, start func(peers.TB, settings)) *holder {
	source := startSlow(t)
	s := newSettings(t, source.Addr())
	s.target, s.names = target, heldNames
	start(t, s)
	n := &holder{s: s, api: s.api(t), source: source}
	a := n.agency(t)
	if _, err := n.api.Arm(t.Context(), a.ID, a.Epoch, "bench"); err != nil {
		t.Fatalf("arm the agency: %v", err)
	}
	return n
}

func (n *holder) agency(t peers.TB) admin.Agency {
	a, err := n.api.Agency(t.Context(), "agency")
	if err != nil {
		t.Fatalf("agency: %v", err)
	}
	return a
}

// hold closes the agency: its source platform has a dot that it doesn't answer, and the
// cutover waits for it, a minute at most. open answers it, and returns when the agency was
// open on its target.
func (n *holder) hold(t peers.TB) (open func() time.Time) {
	sent := make(chan error, 1)
	go func() { sent <- oneMessage(n.s.addr()) }()
	select {
	case <-n.source.dots:
	case err := <-sent:
		t.Fatalf("a message whose dot waits: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatalf("no dot came to the source platform")
	}
	op := n.start(t, operation.Cutover)
	return func() time.Time {
		n.source.answers <- struct{}{}
		opened := n.done(t, op)
		if err := <-sent; err != nil {
			t.Fatalf("a message whose dot waited: %v", err)
		}
		return opened
	}
}

// back brings the agency back to its source.
func (n *holder) back(t peers.TB) { n.done(t, n.start(t, operation.Rollback)) }

func (n *holder) start(t peers.TB, kind operation.Kind) admin.Operation {
	a := n.agency(t)
	op, err := n.api.Start(t.Context(), kind, a.ID, a.Epoch, "bench")
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return op
}

// done waits for an operation's end, and returns when the agency opened.
func (n *holder) done(t peers.TB, op admin.Operation) time.Time {
	op, err := n.api.Watch(t.Context(), op.ID, func(admin.Operation) {})
	if err != nil || op.Step != string(operation.StepDone) || op.Opened == nil {
		t.Fatalf("%s ended with %v at step %s: %s", op.Kind, err, op.Step, op.Error)
	}
	return *op.Opened
}

// replayed waits until nothing is held any more, and returns how long that took.
func (n *holder) replayed(t peers.TB, opened time.Time) time.Duration {
	ctx, cancel := context.WithTimeout(t.Context(), drainWithin)
	defer cancel()
	for {
		held, err := n.s.sum(ctx, "mailcutover_spool_recipients")
		if err != nil {
			t.Fatalf("wait for the replay: %v", err)
		}
		if held == 0 {
			return time.Since(opened)
		}
		time.Sleep(countEvery)
	}
}

// slow is a platform that answers a dot when it is told to.
type slow struct {
	*platformtest.Platform
	dots    chan struct{} // one came
	answers chan struct{} // it may be answered
}

func startSlow(t peers.TB) *slow {
	p := &slow{dots: make(chan struct{}, 1), answers: make(chan struct{}, 1)}
	script := func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == platformtest.VerbDot {
			p.dots <- struct{}{}
			<-p.answers
		}
		return platformtest.Reaction{}
	}
	var err error
	if p.Platform, err = platformtest.Start(platformtest.Options{Script: script, DiscardBodies: true}); err != nil {
		t.Fatalf("start the source platform: %v", err)
	}
	t.Cleanup(func() {
		close(p.answers)
		p.Close()
	})
	return p
}

// oneMessage sends a message and returns when it is answered.
func oneMessage(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	for _, step := range [][2]string{
		{"", "220"}, {"EHLO client.bench.example\r\n", "250"}, {"MAIL FROM:<sender@elsewhere.example>\r\n", "250"},
		{"RCPT TO:<" + recipient + ">\r\n", "250"}, {"DATA\r\n", "354"},
		{"Subject: held\r\n\r\n" + strings.Repeat("x", 60) + "\r\n.\r\n", "250"},
	} {
		if _, err := answer(conn, in, step[0], step[1]); err != nil {
			return err
		}
	}
	return nil
}
