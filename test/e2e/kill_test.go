package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/alarm"
	"mailcutover/internal/platformtest"
	"mailcutover/rollback/operation"
	"mailcutover/test/peers"
)

// killAt starts a switch and kills the node as soon as its journal says that the step has
// begun. It returns the step that the journal ended with.
func (n *node) killAt(t *testing.T, kind operation.Kind, agency, step string) (last string) {
	t.Helper()
	journal := filepath.Join(n.dir, "data", "operations")
	known := make(map[string]bool)
	newest := func() string {
		entries, _ := os.ReadDir(journal)
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") && !known[e.Name()] {
				return e.Name()
			}
		}
		return ""
	}
	for name := newest(); name != ""; name = newest() {
		known[name] = true
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = n.switchAgency(ctx, kind, agency) // the node is killed meanwhile
	}()
	defer func() {
		cancel()
		<-ended
	}()
	order := []string{"begin", "drain", "commit", "publish", "done"}
	reached := func(at string) bool {
		if at == "" {
			return false
		}
		for _, s := range order {
			if s == step {
				return true
			}
			if s == at {
				return false
			}
		}
		return true // aborted
	}
	read := func() string {
		var o struct{ Step string }
		b, err := os.ReadFile(filepath.Join(journal, newest()))
		if err != nil || json.Unmarshal(b, &o) != nil {
			return ""
		}
		return o.Step
	}
	for deadline := time.Now().Add(patience); !reached(read()); {
		if time.Now().After(deadline) {
			t.Fatalf("%s of %s never came to %s", kind, agency, step)
		}
	}
	n.Kill()
	return read()
}

// settled waits until the node has settled what a kill left, and returns the agency.
func (n *node) settled(t *testing.T, agency string) (a admin.Agency) {
	t.Helper()
	waitFor(t, "agency "+agency+" to be open", func() bool {
		ops, err := n.api.Operations(t.Context(), agency)
		if err != nil || slices.ContainsFunc(ops.Operations, func(op admin.Operation) bool { return !op.Ended }) {
			return false
		}
		a, err = n.api.Agency(t.Context(), agency)
		return err == nil && a.Open && a.Operation == ""
	})
	return a
}

// A kill -9 at any step of a cutover or rollback, under traffic: after a restart the
// agency is open on one side, and every message that was answered 250 is where its
// mailbox was.
func TestKilledDuringSwitch(t *testing.T) {
	t.Parallel()
	exchange, ox := startPlatform(t, platformtest.Options{}), startPlatform(t, platformtest.Options{})
	// What was on its way at a kill may arrive until the platform ends the connection, so
	// long the next switch waits.
	n := startNode(t, setup{spool: "retry: {first: 1s, max: 2s}", platforms: []platform{ // a start spreads waiting mail over the first delay
		{id: "exchange", addr: exchange.Addr(), more: "connection_limit: 500ms", limits: "backoff: 50ms, backoff_max: 100ms, max_age: 250ms"},
		{id: "ox", addr: ox.Addr(), more: "connection_limit: 500ms", limits: "backoff: 50ms, backoff_max: 100ms, max_age: 250ms"},
	}})
	n.addAgency("health", "anna", "ben")
	n.addAgency("roads", "carl")
	// Dots take a moment, so that a switch has something to wait for.
	slow := platformtest.On(platformtest.VerbDot, platformtest.Reaction{Delay: 5 * time.Millisecond})
	exchange.SetScript(slow)
	ox.SetScript(slow)
	const workers = 4
	ctx, cancel := context.WithTimeout(t.Context(), 10*patience) // each wait below has a limit of its own
	defer cancel()
	s := startStream(ctx, n.smtp, workers, "anna@health.example", "ben@health.example", "carl@roads.example")
	kills, interrupted := 0, make(map[string]int)
	for _, step := range []string{"begin", "drain", "commit", "publish", "done", "commit", "begin", "publish", "drain"} {
		s.waitMore(t, 10)
		a := n.settled(t, "health")
		kind := operation.Cutover
		if a.Phase == "target" {
			kind = operation.Rollback
		}
		last := n.killAt(t, kind, "health", step)
		kills++
		interrupted[last]++
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		after := n.settled(t, "health")
		moved := after.Phase != a.Phase
		if committed := last == "publish" || last == "done"; committed && !moved || (last == "begin" || last == "drain") && moved {
			t.Errorf("killed at %s: was in %s, is in %s", last, a.Phase, after.Phase)
		}
	}
	s.waitMore(t, 10)
	s.finish()

	ops, err := n.api.Operations(t.Context(), "health")
	if err != nil {
		t.Fatal(err)
	}
	if len(ops.Operations) != kills {
		t.Errorf("%d operations are listed, want %d", len(ops.Operations), kills)
	}
	for _, op := range ops.Operations {
		if !op.Ended || op.Step != "done" && op.Step != "aborted" && op.Step != "refused" {
			t.Errorf("operation %s: %+v", op.ID, op)
		}
	}
	if out := n.must("operation", "list"); strings.Count(out, "health") != kills {
		t.Errorf("operation list:\n%s", out)
	}
	copies := s.waitDelivered(t, map[string]*platformtest.Platform{"exchange": exchange, "ox": ox})
	s.check(t, copies, kills*workers, movesWith("health", ops.Operations...))
	t.Logf("killed at %v", interrupted)
}

// The same with Redis, where a step can be held: Redis does not answer while the node is
// killed in begin, and in drain, which no report of a node can reach then.
func TestKilledWhileRedisIsSilent(t *testing.T) {
	t.Parallel()
	peers.Need(t, "redis")
	redis := peers.StartRedis(t, peers.RedisOptions{})
	n, exchange, ox := startPair(t, setup{redis: redis.URL()})
	n.addAgency("health", "anna")
	a := n.settled(t, "health")
	if _, err := n.api.Arm(t.Context(), "health", a.Epoch, "test"); err != nil {
		t.Fatal(err)
	}
	id := 0
	for _, step := range []string{"begin", "drain"} {
		before := n.settled(t, "health")
		kind := operation.Cutover
		if before.Phase == "target" {
			kind = operation.Rollback
		}
		if step == "begin" {
			if err := redis.Pause(); err != nil {
				t.Fatal(err)
			}
			// A table that is silent takes no begin: what can be told is the step before it.
			if last := n.killAt(t, kind, "health", step); last != step && last != "watermarks" {
				t.Errorf("killed at %s, want %s", last, step)
			}
		} else { // the drain waits for a dot, until Redis is silent
			release := make(chan struct{})
			hold := func(c platformtest.Command) platformtest.Reaction {
				if c.Verb == platformtest.VerbDot {
					<-release
				}
				return platformtest.Reaction{}
			}
			exchange.SetScript(hold)
			ox.SetScript(hold)
			w := mustDial(t, n.smtp, "EHLO")
			w.envelope(t, "anna@health.example")
			w.want(t, "DATA", "354 ")
			if err := w.send(withID(1000) + ".\r\n"); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the dot on its way", func() bool {
				a, err := n.api.Agency(t.Context(), "health")
				return err == nil && a.UnderWay.Dotted == 1
			})
			switching, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_, _ = n.switchAgency(switching, kind, "health") // the node is killed meanwhile
			}()
			waitFor(t, "the drain waiting for the dot", func() bool {
				ops, err := n.api.Operations(t.Context(), "health")
				return err == nil && slices.ContainsFunc(ops.Operations, func(op admin.Operation) bool {
					return op.Step == "drain" && op.Waiting != "" && op.Running
				})
			})
			if err := redis.Pause(); err != nil {
				t.Fatal(err)
			}
			close(release)
			n.Kill()
			cancel()
			<-ended
		}
		exchange.SetScript(nil)
		ox.SetScript(nil)
		if err := redis.Resume(); err != nil {
			t.Fatal(err)
		}
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		after := n.settled(t, "health")
		if after.Phase != before.Phase {
			t.Errorf("killed at %s: was in %s, is in %s", step, before.Phase, after.Phase)
		}
		at := map[string]*platformtest.Platform{"source": exchange, "target": ox}[after.Phase]
		id++
		waitFor(t, "a message to be taken", func() bool {
			return strings.HasPrefix(sendOne(n.smtp, id, "anna@health.example"), "250 ")
		})
		waitFor(t, fmt.Sprintf("message %d on the side that is in force, %s", id, after.Phase), func() bool {
			return slices.Contains(idsOf(at, "anna@health.example"), id)
		})
		t.Logf("killed at %s: from %s to %s", step, before.Phase, after.Phase)
	}
	ops, err := n.api.Operations(t.Context(), "health")
	if err != nil || len(ops.Operations) != 2 || !ops.Operations[0].Ended || !ops.Operations[1].Ended {
		t.Errorf("operations: %+v, %v", ops, err)
	}
}

// Redis away: settled agencies go on for their lease, armed ones for theirs; then their
// mail is put off, never refused; and when Redis is back all flows.
func TestRedisIsAway(t *testing.T) {
	t.Parallel()
	peers.Need(t, "redis")
	redis := peers.StartRedis(t, peers.RedisOptions{})
	n, exchange, _ := startPair(t, setup{redis: redis.URL(), lease: "settled: 15500ms, armed: 3500ms, margin: 500ms"})
	n.addAgency("settled", "anna")
	n.addAgency("armed", "ben", "early", "late")
	a, err := n.api.Agency(t.Context(), "armed")
	if err == nil {
		_, err = n.api.Arm(t.Context(), "armed", a.Epoch, "test")
	}
	if err != nil {
		t.Fatal(err)
	}
	const away = "451 4.4.3 Routing table unavailable, try again later"
	id := 0
	taken := func(rcpt string) bool {
		t.Helper()
		id++
		switch got := sendOne(n.smtp, id, rcpt); {
		case strings.HasPrefix(got, "250 "):
			return true
		case got != away: // at RCPT, or at the dot if the lease ended in between
			t.Fatalf("%s: %s", rcpt, got)
		}
		return false
	}
	flows := func(rcpt string) func() bool { return func() bool { return taken(rcpt) } }
	stays := func(rcpt string) func() bool { return func() bool { return !taken(rcpt) } }
	const settled, armed = "anna@settled.example", "ben@armed.example"
	waitFor(t, "mail for the settled agency", flows(settled))
	waitFor(t, "mail for the armed agency", flows(armed))

	// Two messages are on their way when Redis goes: one that has no dot yet, and one
	// whose answer comes late.
	early := mustDial(t, n.smtp, "EHLO")
	early.envelope(t, "early@armed.example")
	early.want(t, "DATA", "354 ")
	release := make(chan struct{})
	exchange.SetScript(func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == platformtest.VerbDot && c.Transaction.Accepted()[0] == "late@armed.example" {
			<-release
		}
		return platformtest.Reaction{}
	})
	late := mustDial(t, n.smtp, "EHLO")
	late.envelope(t, "late@armed.example")
	late.want(t, "DATA", "354 ")
	if err := late.send(withID(1_000_001) + ".\r\n"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the dot on its way", func() bool {
		a, err := n.api.Agency(t.Context(), "armed")
		return err == nil && a.UnderWay.Dotted == 1
	})

	if err := redis.Pause(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if !taken(settled) {
		t.Error("the settled agency stops at once")
	}
	// Without the table's answer to a check no dot of an armed agency is sent (node rule 3).
	waitFor(t, "the armed agency's mail to be put off", stays(armed))
	lapsed := time.Since(began)
	waitFor(t, "the end of the short lease", func() bool {
		alarms, err := n.api.Alarms(t.Context())
		return err == nil && slices.ContainsFunc(alarms, func(a alarm.Alarm) bool { return a.Key == "node-lease-armed" })
	})
	// Without the right to decide no 250 is passed on (node rule 4).
	if err := early.send(withID(1_000_000) + ".\r\n"); err != nil {
		t.Fatal(err)
	}
	early.want(t, "", "451 4.4.3 ")
	close(release)
	late.want(t, "", "451 4.4.3 ")
	for _, tx := range exchange.Stored() {
		if tx.StoredFor("early@armed.example") {
			t.Error("a dot was sent after the lease had ended")
		}
	}
	waitFor(t, "the log to name the copy", func() bool {
		return strings.Contains(n.Output(), `"msg":"message not acknowledged: a copy is on the platform"`)
	})
	if !taken(settled) {
		t.Errorf("the settled agency is put off after %s, with the armed one", lapsed)
	}
	waitFor(t, "the settled agency's mail to be put off", stays(settled))
	t.Logf("without Redis the armed agency went on for %s, the settled one for %s", lapsed, time.Since(began))
	if n.ready(t.Context()) == nil {
		t.Error("/readyz says that the node may decide")
	}
	// Nothing is refused for good now: we know of no domain whether it is ours.
	for _, rcpt := range []string{"someone@foreign.example", "nobody@settled.example", "postmaster"} {
		if got := sendOne(n.smtp, 0, rcpt); got != away {
			t.Errorf("%s: %s, want %s", rcpt, got, away)
		}
	}
	if err := redis.Resume(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "mail for the settled agency", flows(settled))
	waitFor(t, "mail for the armed agency", flows(armed))
	waitFor(t, "a foreign domain to be refused", func() bool { // unless the table is too slow to say
		got := sendOne(n.smtp, 0, "someone@foreign.example")
		if got != away && !strings.HasPrefix(got, "550 5.7.1 ") {
			t.Fatalf("foreign domain: %s", got)
		}
		return got != away
	})

	// Killed and started again, with its data: nobody notices who isn't armed.
	redis.Kill()
	if !taken(settled) {
		t.Error("the settled agency stops when Redis is killed")
	}
	if err := redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "mail for the armed agency", flows(armed))
	n.mustSwitch(operation.Cutover, "armed")
	n.mustSwitch(operation.Rollback, "armed")

	// A node that restarts while Redis is away starts, and decides nothing.
	n.Kill()
	redis.Kill()
	started := make(chan error, 1)
	go func() { started <- n.Start(t.Context()) }()
	waitFor(t, "an answer", func() bool {
		got := sendOne(n.smtp, 0, settled)
		if strings.HasPrefix(got, "250") || got[0] == '5' {
			t.Errorf("a node without table says %s", got)
		}
		return got == away
	})
	if err := redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	waitFor(t, "mail for the settled agency", flows(settled))
	seen := make(map[int]int)
	for _, tx := range exchange.Stored() {
		seen[idOf(tx.Body())]++
	}
	for id, copies := range seen {
		if copies != 1 {
			t.Errorf("message %d is there %d times", id, copies)
		}
	}
}
