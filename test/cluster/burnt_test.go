package cluster

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailcutover/admin"
)

// A node burns down while it holds mail. What its disk has comes out of it by another node; of an
// agency whose mail is put off, the disk never had any: what was sent to that node is taken by
// the next. Nothing is lost, and nothing is there twice.
func TestBurntNode(t *testing.T) {
	t.Parallel()
	c := start(t, Options{More: "spool: {retry: {first: 1s, max: 2s}, put_off: [roads]}\n"})
	kept, gone := c.Nodes[0], c.Nodes[2]
	locked := make(map[string]string) // epochs
	for _, id := range []string{"health", "roads"} {
		acted, err := kept.API.Lock(t.Context(), id, "", "test")
		if err != nil {
			t.Fatalf("lock %s: %v", id, err)
		}
		locked[id] = acted.Agency.Epoch
		for _, n := range c.Nodes { // the lock is told before all have closed, if one is slow
			Until(t, n.Name+" to close "+id, func() bool {
				r, err := n.API.Route(t.Context(), "address", Mailbox(id, 1))
				return err == nil && !r.Deliver
			})
		}
	}
	const messages = 10
	open := 0 // tries without an answer: each may leave a copy
	send := func(n *Node, id int, rcpt string) (answer string) {
		t.Helper()
		Until(t, "an answer of "+n.Name, func() bool {
			s, err := connect(t.Context(), n.SMTP, false)
			if err != nil {
				return false
			}
			defer s.conn.Close()
			if answer, _, err = s.message(rcpt, messageText(id, "body\r\n")); err != nil {
				open++
			}
			return err == nil
		})
		return answer
	}
	held, putOff := Mailbox("health", 1), Mailbox("roads", 1)
	for id := range messages {
		if got := send(gone, id+1, held); !strings.HasPrefix(got, "250 ") {
			t.Fatalf("message %d to be held: %s", id+1, got)
		}
	}
	for _, n := range []*Node{gone, kept} {
		if got := send(n, messages+1, putOff); !strings.HasPrefix(got, "451 ") {
			t.Fatalf("a message to be put off, at %s: %s", n.Name, got)
		}
	}
	if n, err := gone.Held(t.Context()); err != nil || int(n) < messages || int(n) > messages+open {
		t.Fatalf("%s holds %g, %v; want %d and at most %d copies", gone.Name, n, err, messages, open)
	}

	gone.Kill()
	disk := filepath.Join(t.TempDir(), "spool")
	if err := os.Rename(filepath.Join(gone.data(), "spool"), disk); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(gone.data()); err != nil {
		t.Fatal(err)
	}
	command := func(n *Node, args ...string) {
		t.Helper()
		if out, code := n.Command(t.Context(), c.Program(), append(args, "--reason", "burnt")...); code != 0 {
			t.Fatalf("%q: exit code %d: %s", args, code, out)
		}
	}
	command(kept, "node", "fence", gone.Name, "--attested")
	command(c.Nodes[1], "spool", "adopt", disk, "--from", gone.Name)
	for id, epoch := range locked {
		p, err := kept.API.Propose(t.Context(), admin.NewProposal{Kind: "unlock", Agency: id, ExpectedEpoch: epoch, Reason: "test"})
		if err == nil {
			_, err = kept.API.StartProposal(t.Context(), p.ID)
		}
		if err != nil {
			t.Fatalf("unlock %s: %v", id, err)
		}
	}
	Until(t, "mail that was put off to be taken by another node", func() bool {
		return strings.HasPrefix(send(kept, messages+1, putOff), "250 ")
	})
	var all []Arrival
	Until(t, "all to arrive", func() bool {
		var err error
		if all, err = c.Arrivals(); err != nil {
			t.Fatal(err)
		}
		return len(all) > messages
	})
	Until(t, "the adopted spool to be done with", func() bool {
		st, err := c.Nodes[1].API.Spool(t.Context())
		return err == nil && len(st.Adoptions) == 1 && st.Adoptions[0].Ended != nil && st.Adoptions[0].Error == "" && st.Total.Held == 0
	})
	all, err := c.Arrivals()
	if err != nil {
		t.Fatal(err)
	}
	var order []int
	for _, a := range all {
		if a.Platform != Exchange {
			t.Errorf("message %d is on %s", a.ID, a.Platform)
		}
		if a.Rcpt == held {
			order = append(order, a.ID)
		}
	}
	if want := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}; !slices.Equal(slices.Compact(order), want) || len(all) > messages+1+open {
		t.Errorf("arrived: %v of %s, %d in all, with %d tries unanswered; want %v, and one of %s", order, held, len(all), open, want, putOff)
	}
	command(kept, "node", "evict", gone.Name)
	if out, code := kept.Command(t.Context(), c.Program(), "node", "list"); code != 0 || strings.Contains(out, gone.Name) && !strings.Contains(out, "evicted") {
		t.Errorf("node list: %d %s", code, out)
	}
}
