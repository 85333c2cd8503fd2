package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/rollback/operation"
	"mailcutover/test/peers"
)

// realPlatforms are a Postfix as source, a Dovecot as target, and a third one whose
// answer to a message can be held back, so that an agency can be seen closed.
type realPlatforms struct {
	source *peers.PostfixPlatform
	target *peers.Dovecot
	held   *platformtest.Platform
}

func startRealPlatforms(t *testing.T) (realPlatforms, setup) {
	t.Helper()
	p := realPlatforms{
		source: peers.StartPostfixPlatform(t, peers.PostfixPlatformOptions{}),
		target: peers.StartDovecot(t, peers.DovecotOptions{}),
		held:   startPlatform(t, platformtest.Options{}),
	}
	return p, setup{platforms: []platform{
		{id: "exchange", addr: p.source.Addr},
		{id: "ox", addr: p.target.LMTP, lmtp: true},
		{id: "held", addr: p.held.Addr(), more: "connection_limit: 10m"},
	}}
}

// copies returns where each message with an id lies, by recipient: the platforms' names,
// one for each copy.
func (p realPlatforms) copies(t *testing.T) map[delivery][]string {
	t.Helper()
	all := make(map[delivery][]string)
	for name, stored := range map[string][]peers.Message{"exchange": p.source.All(t), "ox": p.target.All(t)} {
		for _, m := range stored {
			d := delivery{idOf(m.Raw), m.Mailbox}
			all[d] = append(all[d], name)
		}
	}
	for _, tx := range p.held.Stored() {
		for _, rcpt := range tx.Accepted() {
			d := delivery{idOf(tx.Body()), rcpt}
			all[d] = append(all[d], "held")
		}
	}
	for _, at := range all {
		slices.Sort(at)
	}
	return all
}

// flushing makes a condition to wait for that also flushes the queues, every three
// seconds: mail that Postfix' queue manager finds locked by a delivery just ending
// ("skipped, still being delivered") waits for minutes else.
func flushing(t *testing.T, mxs []*peers.Postfix, done func() bool) func() bool {
	last := time.Now()
	return func() bool {
		if time.Since(last) > 3*time.Second {
			for _, mx := range mxs {
				mx.Flush(t)
			}
			last = time.Now()
		}
		return done()
	}
}

// waitExactly waits until the messages lie as want says, and nothing else anywhere.
func (p realPlatforms) waitExactly(t *testing.T, want map[delivery][]string, mxs ...*peers.Postfix) {
	t.Helper()
	var got map[delivery][]string
	defer func() {
		if t.Failed() {
			for d, at := range want {
				if !slices.Equal(got[d], at) {
					t.Logf("message %d for %s: is at %v, want %v", d.id, d.rcpt, got[d], at)
				}
			}
			for d, at := range got {
				if want[d] == nil {
					t.Logf("message %d for %s: is at %v, want nowhere", d.id, d.rcpt, at)
				}
			}
		}
	}()
	waitFor(t, fmt.Sprintf("%d copies where they belong", len(want)), flushing(t, mxs, func() bool {
		got = p.copies(t)
		return maps.EqualFunc(got, want, slices.Equal[[]string])
	}))
}

// submit gives messages to the MX, each for all of rcpts.
func submit(t *testing.T, mx *peers.Postfix, first, last int, rcpts ...string) {
	t.Helper()
	w := mustDial(t, mx.Addr, "EHLO")
	defer w.conn.Close()
	for id := first; id <= last; id++ {
		w.envelope(t, rcpts...)
		if got := w.message(t, withID(id)); !strings.HasPrefix(got, "250") {
			t.Fatalf("message %d: %s", id, got)
		}
	}
}

// One message has recipients of agencies that are moved, not moved, being moved, of a
// fixed address, one that nobody knows and one in a domain that isn't ours. Postfix
// splits it and comes again; each copy arrives once, on the right platform.
func TestPostfixSplitsForSeveralAgencies(t *testing.T) {
	t.Parallel()
	peers.Need(t, "postfix", "dovecot")
	p, s := startRealPlatforms(t)
	n := startNode(t, s)

	// As an operator does it, by the commands.
	for id, source := range map[string]string{"moved": "exchange", "unmoved": "exchange", "closing": "held"} {
		n.must("agency", "add", id, "--source", source, "--target", "ox", "--domain", id+".example", "--reason", "test")
	}
	file := filepath.Join(n.dir, "list.csv")
	rows := listHeader + row("anna@moved.example", "moved") + row("ben@moved.example", "moved") +
		row("carl@unmoved.example", "unmoved") + row("dora@unmoved.example", "unmoved") + row("emil@closing.example", "closing") +
		"scanner@unmoved.example;;;application;;;;;;;ox\n"
	if err := os.WriteFile(file, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	n.must("mailbox", "import", file, "--reason", "test")
	n.must("agency", "arm", "moved", "--reason", "test")
	n.must("agency", "cutover", "moved", "--reason", "test", "--yes")

	// Started before the agency closes: an operation is given up after a minute without a drain.
	bySMTP := peers.StartMX(t, peers.MXOptions{NextHop: n.smtp})
	byLMTP := peers.StartMX(t, peers.MXOptions{NextHop: n.lmtp, LMTP: true})

	// A message whose answer is held back keeps the agency closing.
	release := make(chan struct{})
	p.held.SetScript(func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == platformtest.VerbDot {
			<-release
		}
		return platformtest.Reaction{}
	})
	t.Cleanup(func() { // also if the test ends early
		select {
		case <-release:
		default:
			close(release)
		}
	})
	w := mustDial(t, n.smtp, "EHLO")
	w.envelope(t, "emil@closing.example")
	w.want(t, "DATA", "354 ")
	if err := w.send(withID(1) + ".\r\n"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the dot on its way", func() bool {
		a, err := n.api.Agency(t.Context(), "closing")
		return err == nil && a.UnderWay.Dotted == 1
	})
	n.must("agency", "arm", "closing", "--reason", "test")
	closing := make(chan error, 1)
	go func() {
		op, err := n.switchAgency(t.Context(), operation.Cutover, "closing")
		if err == nil && op.Step != string(operation.StepDone) {
			err = fmt.Errorf("cutover ended as %s: %s", op.Step, op.Error)
		}
		closing <- err
	}()
	waitFor(t, "agency closing is closed", func() bool {
		a, err := n.api.Agency(t.Context(), "closing")
		return err == nil && !a.Open
	})

	all := []string{
		"anna@moved.example", "carl@unmoved.example", "emil@closing.example", "scanner@unmoved.example",
		"nobody@unmoved.example", "someone@foreign.example", "ben@moved.example", "dora@unmoved.example",
	}
	submit(t, bySMTP, 10, 11, all...)
	submit(t, byLMTP, 20, 21, all...)

	want := map[delivery][]string{}
	for _, id := range []int{10, 11, 20, 21} {
		for rcpt, at := range map[string]string{
			"anna@moved.example": "ox", "ben@moved.example": "ox", "scanner@unmoved.example": "ox",
			"carl@unmoved.example": "exchange", "dora@unmoved.example": "exchange",
		} {
			want[delivery{id, rcpt}] = []string{at}
		}
	}
	p.waitExactly(t, want, bySMTP, byLMTP)

	// What nobody knows waits in the MX, with the answer that it will try again for. The
	// closing agency's mail does not: it is held, and on no platform.
	for _, mx := range []*peers.Postfix{bySMTP, byLMTP} {
		waitFor(t, "one recipient of each message waiting", func() bool {
			waiting := map[string]string{}
			for _, q := range mx.Queue(t) {
				for _, r := range q.Recipients {
					waiting[r.Address] = r.Reason
				}
			}
			return len(waiting) == 1 && strings.Contains(waiting["nobody@unmoved.example"], "451 4.1.1 No record of this recipient, try again later")
		})
		// Postfix logs through a process of its own, after it has done what it logs.
		waitFor(t, "the foreign domain's refusal in Postfix' log", func() bool {
			return strings.Contains(mx.Log(), "550 5.7.1 Not a domain of ours, relaying denied")
		})
		for line := range strings.Lines(mx.Log()) {
			if strings.Contains(line, "to=<emil@closing.example>") && !strings.Contains(line, "status=sent (250 2.0.0 Message accepted)") {
				t.Errorf("mail to be held: %s", line)
			}
		}
	}
	p.waitExactly(t, want, bySMTP, byLMTP)

	// The answer comes, the agency opens on the other side, and its mail goes there.
	close(release)
	w.want(t, "", "250 ")
	if err := <-closing; err != nil {
		t.Fatal(err)
	}
	want[delivery{1, "emil@closing.example"}] = []string{"held"}
	for _, id := range []int{10, 11, 20, 21} {
		want[delivery{id, "emil@closing.example"}] = []string{"ox"}
	}
	p.waitExactly(t, want, bySMTP, byLMTP)
	if out := n.must("agency", "show", "closing"); !strings.Contains(out, "target") {
		t.Errorf("agency show: %s", out)
	}
}

// A stream of messages through Postfix, with a cutover and a rollback in between: no
// message is lost, doubled or misplaced.
func TestCutoverAndRollbackBehindPostfix(t *testing.T) {
	t.Parallel()
	peers.Need(t, "postfix", "dovecot")
	p, s := startRealPlatforms(t)
	n := startNode(t, s)
	n.addAgency("health", "anna", "ben")
	n.addAgency("roads", "carl")
	rcpts := []string{"anna@health.example", "carl@roads.example", "ben@health.example"}
	mxs := []*peers.Postfix{
		peers.StartMX(t, peers.MXOptions{NextHop: n.smtp}),
		peers.StartMX(t, peers.MXOptions{NextHop: n.lmtp, LMTP: true}),
	}

	// Each round has messages that arrive before the next switch, and messages that meet
	// the switch on their way, which may arrive on either side of it.
	want := map[delivery][]string{}
	var either []delivery
	id := 0
	round := func(home string, kind operation.Kind) {
		for _, mx := range mxs {
			submit(t, mx, id+1, id+8, rcpts...)
			for range 8 {
				id++
				want[delivery{id, rcpts[0]}] = []string{home}
				want[delivery{id, rcpts[1]}] = []string{"exchange"}
				want[delivery{id, rcpts[2]}] = []string{home}
			}
		}
		p.waitExactly(t, want, mxs...)
		if kind == "" {
			return
		}
		done := make(chan error, 1)
		go func() {
			_, err := n.switchAgency(t.Context(), kind, "health")
			done <- err
		}()
		first := id + 1
		for ended := false; !ended || id < first+10; {
			mx := mxs[id%2]
			id++
			submit(t, mx, id, id, rcpts...)
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				ended = true
			default:
			}
		}
		for ; first <= id; first++ {
			want[delivery{first, rcpts[1]}] = []string{"exchange"}
			either = append(either, delivery{first, rcpts[0]}, delivery{first, rcpts[2]})
		}
		waitFor(t, "all that met the switch", flushing(t, mxs, func() bool {
			got := p.copies(t)
			return !slices.ContainsFunc(either, func(d delivery) bool { return len(got[d]) == 0 })
		}))
		got := p.copies(t)
		for _, d := range either {
			if len(got[d]) != 1 {
				t.Errorf("message %d for %s is at %v", d.id, d.rcpt, got[d])
			}
			want[d] = got[d]
		}
		either = nil
	}
	round("exchange", operation.Cutover)
	round("ox", operation.Rollback)
	round("exchange", "")
	for _, mx := range mxs {
		waitFor(t, "Postfix to have nothing left", func() bool { return mx.QueueEmpty(t) })
		if log := mx.Log(); strings.Contains(log, "status=bounced") {
			t.Errorf("Postfix bounced something:\n%s", log)
		}
	}
	for _, m := range append(p.source.All(t), p.target.All(t)...) {
		if n := bytes.Count(m.Raw, []byte("(mailcutover mailcutover)")); n != 1 {
			t.Errorf("%d of our Received lines:\n%s", n, m.Raw)
		}
	}
	t.Logf("%d messages for 3 recipients: none lost, doubled or misplaced", id)
}
