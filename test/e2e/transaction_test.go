package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/platformtest"
)

// A message has one transaction id on its whole way: in our Received line at the platform, in
// every line of the log that is about it, in the ledger, in its trace and of its retained copy;
// whether it was held and replayed, waited for a platform that put it off, or went through.
func TestOneTransactionID(t *testing.T) {
	t.Parallel()
	const held, through, waited = "anna@health.example", "ben@health.example", "carl@health.example"
	exchange, ox := startPlatform(t, platformtest.Options{}), startPlatform(t, platformtest.Options{LMTP: true})
	n := startNode(t, setup{
		platforms: []platform{{id: "exchange", addr: exchange.Addr()}, {id: "ox", addr: ox.Addr(), lmtp: true}},
		spool:     "retry: {first: 1s, max: 1s}",
	})
	n.addAgency("health", "anna", "ben", "carl", "keeper")
	var putOff atomic.Int32
	ox.SetScript(func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == platformtest.VerbDot && c.Transaction.Accepted()[0] == waited && putOff.CompareAndSwap(0, 1) {
			return platformtest.Reaction{Reply: "451 4.3.0 later"}
		}
		return platformtest.Reaction{}
	})
	send := func(id int, rcpt string) {
		t.Helper()
		if got := sendAgain(n.smtp, id, rcpt); !strings.HasPrefix(got, "250 ") {
			t.Fatalf("message %d for %s: %s", id, rcpt, got)
		}
	}
	closing := n.keepClosed(t, exchange, "health")
	send(1, held)
	send(2, waited)
	closing.open()
	waitFor(t, "the held message", func() bool { return slices.Contains(idsOf(ox, held), 1) })
	send(3, through)
	var copies admin.RetainedCopies
	waitFor(t, "three copies", func() bool {
		var err error
		copies, err = n.api.RetainedCopies(t.Context(), admin.RetainedQuery{Agency: "health"})
		return err == nil && len(copies.Copies) == 3
	})
	// The copy is there before ledger and log have what became of the message.
	var rows admin.Deliveries
	waitFor(t, "three deliveries in the ledger", func() bool {
		var err error
		rows, err = n.api.Deliveries(t.Context(), admin.LedgerQuery{Agency: "health", Since: time.Now().Add(-time.Hour)})
		arrived := make(map[string]bool)
		for _, row := range rows.Deliveries {
			arrived[row.Recipient] = arrived[row.Recipient] || row.Result == "delivered"
		}
		return err == nil && arrived[held] && arrived[waited] && arrived[through]
	})
	if putOff.Load() != 1 {
		t.Error("no message was put off")
	}

	// What the log has of a recipient: the words of each line, and its transaction.
	type said struct{ text, transaction string }
	logged := make(map[string][]said)
	look := func() {
		clear(logged)
		for text := range strings.Lines(n.Output()) {
			var line struct{ Msg, Rcpt, Transaction, Spool, Result string }
			if json.Unmarshal([]byte(text), &line) == nil && line.Rcpt != "" {
				logged[line.Rcpt] = append(logged[line.Rcpt], said{strings.TrimSpace(line.Msg + " " + line.Spool + line.Result), line.Transaction})
			}
		}
	}
	want := map[string][]string{
		held:    {"message held", "message from the spool delivered"},
		waited:  {"message held", "message stays in the spool deferred", "message from the spool delivered"},
		through: {"message"},
	}
	waitFor(t, "all lines of the log", func() bool {
		look()
		for rcpt, lines := range want {
			if len(logged[rcpt]) < len(lines) {
				return false
			}
		}
		return true
	})
	seen := make(map[string]string)
	for _, a := range arrivals(t, map[string]*platformtest.Platform{"ox": ox}) { // by our Received line
		id := string(a.transaction)
		if other, twice := seen[id]; twice || id == "" {
			t.Errorf("%s has the transaction %q of %s", a.rcpt, id, other)
		}
		seen[id] = a.rcpt
		lines := logged[a.rcpt]
		if len(lines) != len(want[a.rcpt]) {
			t.Errorf("the log has %q of %s, want %q", lines, a.rcpt, want[a.rcpt])
		}
		for i, line := range lines {
			if line.transaction != id || i < len(want[a.rcpt]) && !strings.HasPrefix(line.text, want[a.rcpt][i]) {
				t.Errorf("line %d of the log about %s is %q, want transaction %s and %q", i, a.rcpt, line, id, want[a.rcpt])
			}
		}
		if !slices.ContainsFunc(copies.Copies, func(c admin.RetainedCopy) bool {
			return c.Transaction == id && len(c.Recipients) == 1 && c.Recipients[0].Address == a.rcpt
		}) {
			t.Errorf("no retained copy %s for %s: %+v", id, a.rcpt, copies.Copies)
		}
		delivered := false
		for _, row := range rows.Deliveries {
			if (row.Recipient == a.rcpt) != (row.Transaction == id) {
				t.Errorf("the ledger has %s for %s, want %s for %s", row.Transaction, row.Recipient, id, a.rcpt)
			}
			delivered = delivered || row.Transaction == id && row.Result == "delivered"
		}
		if !delivered {
			t.Errorf("the ledger has no delivery of %s: %+v", id, rows.Deliveries)
		}
		traces, err := n.api.Trace(t.Context(), admin.TraceQuery{Recipient: a.rcpt})
		if err != nil || len(traces.Messages) != 1 || traces.Messages[0].Transaction != id {
			t.Errorf("the trace of %s is %+v, %v; want %s", a.rcpt, traces, err, id)
		}
		if text := n.must("trace", "--transaction", id); !strings.Contains(text, a.rcpt) || !strings.Contains(text, "delivered") {
			t.Errorf("trace of %s:\n%s", id, text)
		}
	}
	if len(seen) != 3 {
		t.Errorf("arrived: %v", seen)
	}
}
