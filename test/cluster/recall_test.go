package cluster

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailcutover/admin"
	"mailcutover/test/peers"
)

// Who lets nodes into all mailboxes of a Dovecot.
const (
	masterUser = "auth_master_user_separator = *\npassdb {\n  driver = static\n  master = yes\n  args = password=" + MasterPassword + "\n}\n"
)

// startMailboxes starts nodes between two Dovecots, with one agency.
func startMailboxes(t *testing.T, nodes, mailboxes int, more string) *Cluster {
	t.Helper()
	peers.Need(t, "redis", "dovecot") // before the program is built
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	both := make(map[string]*peers.Dovecot)
	for _, id := range []string{Exchange, OX} {
		both[id] = peers.StartDovecot(t, peers.DovecotOptions{First: masterUser, Extra: "mail_max_userip_connections = 100"})
	}
	c := Start(t, Options{Unsynced: true, Program: bin, Nodes: nodes, Direct: true, Mailboxes: both, Settled: 9 * time.Second, Armed: 6 * time.Second, Limit: time.Second, More: more})
	c.AddAgency(t, "health", mailboxes)
	return c
}

// deliverEach sends n messages to each mailbox through each node, and returns how many that are.
func (c *Cluster) deliverEach(t *testing.T, agency string, mailboxes, n int) int {
	t.Helper()
	var mu sync.Mutex
	var errs []error
	var all sync.WaitGroup
	for _, node := range c.Nodes {
		all.Go(func() {
			s, err := connect(t.Context(), node.SMTP, false)
			for i := 0; err == nil && i < mailboxes*n; i++ {
				var answer string
				id := int(nextID.Add(1))
				for end := time.Now().Add(patience); ; sleep(t.Context(), 50*time.Millisecond) {
					answer, _, err = s.message(Mailbox(agency, i%mailboxes+1), messageText(id, "text\r\n"))
					// A table that was too slow to be asked before the dot: as a relay does, it is sent again.
					if err != nil || !strings.HasPrefix(answer, "451 4.4.3 ") || time.Now().After(end) {
						break
					}
				}
				if err == nil && !strings.HasPrefix(answer, "250") {
					err = errors.New(answer)
				}
			}
			if s != nil {
				s.conn.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return len(c.Nodes) * mailboxes * n
}

// inbox does something in a mailbox's INBOX as its user.
func inbox(t *testing.T, d *peers.Dovecot, user string, do func(c *imapclient.Client) error) {
	t.Helper()
	c, err := imapclient.DialInsecure(d.IMAP, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err = c.Login(user, "secret").Wait(); err == nil {
		_, err = c.Select("INBOX", nil).Wait()
	}
	if err == nil {
		err = do(c)
	}
	if err != nil {
		t.Fatalf("mailbox %s: %v", user, err)
	}
}

// counted counts a mailbox's messages by the number that the test gave them.
func counted(t *testing.T, d *peers.Dovecot, user string) map[int]int {
	t.Helper()
	all := make(map[int]int)
	inbox(t, d, user, func(c *imapclient.Client) error {
		section := &imap.FetchItemBodySection{Peek: true}
		list, err := c.Fetch(imap.SeqSet{{Start: 1}}, &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{section}}).Collect()
		for _, m := range list {
			all[idOf(m.FindBodySection(section))]++
		}
		return err
	})
	return all
}

// expunge deletes the first message of a mailbox's INBOX, and returns its number.
func expunge(t *testing.T, d *peers.Dovecot, user string) int {
	t.Helper()
	before := counted(t, d, user)
	inbox(t, d, user, func(c *imapclient.Client) error {
		if err := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
			return err
		}
		return c.Expunge().Close()
	})
	after := counted(t, d, user)
	for id, n := range before {
		if after[id] < n {
			return id
		}
	}
	t.Fatalf("nothing was deleted in mailbox %s", user)
	return 0
}

// lastRun returns the newest run of the agency.
func lastRun(t *testing.T, n *Node) admin.Recall {
	t.Helper()
	all, err := n.API.Recalls(t.Context(), "health")
	if err != nil || len(all.Recalls) == 0 {
		t.Fatalf("runs: %+v, %v", all, err)
	}
	return all.Recalls[len(all.Recalls)-1]
}

// recallUntil waits until a run is as done says, and returns it.
func recallUntil(t *testing.T, n *Node, id, what string, done func(r *admin.Recall) bool) (r admin.Recall) {
	t.Helper()
	var err error
	defer func() {
		if t.Failed() {
			t.Logf("run %s is %+v, %v", id, r, err)
		}
	}()
	Until(t, what, func() bool {
		r, err = n.API.Recall(t.Context(), id, true)
		return err == nil && done(&r)
	})
	return r
}

func isDone(r *admin.Recall) bool { return r.State == "done" }

// differences says where mailboxes don't have each message once; those of gone are not there.
func (c *Cluster) differences(t *testing.T, mailboxes int, want map[string]map[int]int, gone map[string]int) string {
	t.Helper()
	var lines []string
	for i := range mailboxes {
		user := Mailbox("health", i+1)
		expected := maps.Clone(want[user])
		delete(expected, gone[user])
		if got := counted(t, c.o.Mailboxes[Exchange], user); !maps.Equal(got, expected) {
			lines = append(lines, fmt.Sprintf("%s has %v, want %v", user, got, expected))
		}
	}
	return strings.Join(lines, "\n")
}

// Three nodes bring an agency's mail back: the watermarks are one node's, the deliveries all
// nodes', the mailboxes are shared. One node is killed meanwhile. What users delete after it
// came back stays deleted: in the next run, and also when the others take a node's share.
// Then a node is gone for good: what it delivered and had brought is unknown, and said to be.
func TestRecallOverNodes(t *testing.T) {
	t.Parallel()
	const mailboxes, each = 12, 2
	c := startMailboxes(t, 3, mailboxes, "recall: {settle: 100ms, messages_per_second: 20}\n")
	c.Switch(t, c.Nodes[0], "health")
	sweep := recallUntil(t, c.Nodes[1], lastRun(t, c.Nodes[1]).ID, "the sweep to be done", isDone)
	if sweep.Kind != "sweep" || len(sweep.Nodes) != 3 || sweep.Watermarks == "" || sweep.Totals.Done != mailboxes {
		t.Errorf("the sweep is %+v", sweep)
	}
	n := c.deliverEach(t, "health", mailboxes, each)
	want := make(map[string]map[int]int)
	for i := range mailboxes {
		user := Mailbox("health", i+1)
		want[user] = counted(t, c.o.Mailboxes[OX], user)
		if len(want[user]) != 3*each {
			t.Fatalf("%s has %v on the target", user, want[user])
		}
	}
	c.Switch(t, c.Nodes[1], "health")
	id := lastRun(t, c.Nodes[2]).ID
	recallUntil(t, c.Nodes[0], id, "some mail to be back", func(r *admin.Recall) bool { return r.Totals.Messages > 5 })
	c.Crash(t, c.Nodes[2])()
	r := recallUntil(t, c.Nodes[0], id, "all of it to be back", isDone)
	if got := r.Totals; got.Delivered != n || got.DeliveredBack != n || got.Done != mailboxes || got.Mailboxes != mailboxes || got.NotBack+got.Gone+got.Aside != 0 {
		t.Errorf("the run says %+v: %s", got, r.Text)
	}
	for _, one := range r.Nodes {
		if one.State != "brought" || one.Totals.Mailboxes == 0 || len(one.Notes)+len(one.Silent) != 0 {
			t.Errorf("share %+v", one)
		}
	}
	if lines := c.differences(t, mailboxes, want, nil); lines != "" {
		t.Errorf("after the run:\n%s", lines)
	}

	// Each user deletes a message, and another run is shared out among the same nodes. Then the
	// others take over the third one's share, which is there and tells them what it brought.
	gone := make(map[string]int)
	for i := range mailboxes {
		user := Mailbox("health", i+1)
		gone[user] = expunge(t, c.o.Mailboxes[Exchange], user)
	}
	again := func() admin.Recall {
		t.Helper()
		r, err := c.Nodes[0].API.BeginRecall(t.Context(), admin.NewRecall{Agency: "health", Reason: "again"})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	recallUntil(t, c.Nodes[1], again().ID, "the second run to be done", isDone)
	if lines := c.differences(t, mailboxes, want, gone); lines != "" {
		t.Errorf("after the second run:\n%s", lines)
	}
	id = again().ID
	if _, err := c.Nodes[0].API.ActOnRecall(t.Context(), id, "take-over", c.Nodes[2].Name, "it is slow"); err != nil {
		t.Fatal(err)
	}
	r = recallUntil(t, c.Nodes[1], id, "the third run to be done by two nodes", isDone)
	if lines := c.differences(t, mailboxes, want, gone); lines != "" {
		t.Errorf("after two nodes took the share of the third:\n%s", lines)
	}
	if got := r.Totals; got.Delivered != n || got.DeliveredBack != n || got.Done != mailboxes || len(got.Ledgers) != 0 {
		t.Errorf("the third run says %+v: %s", got, r.Text)
	}

	// The third node is gone for good.
	c.Nodes[2].Kill()
	id = again().ID
	recallUntil(t, c.Nodes[0], id, "the shares that are there to wait for the third node", func(r *admin.Recall) bool {
		return r.Nodes[2].State == "silent" && strings.Contains(r.Nodes[0].Waiting, "take-over "+id+" --without-node "+c.Nodes[2].Name)
	})
	if _, err := c.Nodes[0].API.ActOnRecall(t.Context(), id, "take-over", c.Nodes[2].Name, "it is lost"); err != nil {
		t.Fatal(err)
	}
	r = recallUntil(t, c.Nodes[0], id, "the last run to be done", isDone)
	if got := r.Totals; got.Done != mailboxes || len(got.Ledgers) == 0 || !strings.Contains(r.Text, c.Nodes[2].Name) {
		t.Errorf("without the third node's ledger the run says %+v: %s", got, r.Text)
	}
	if notes := strings.Join(append(r.Nodes[0].Notes, r.Nodes[1].Notes...), "; "); !strings.Contains(notes, "may come back") {
		t.Errorf("nobody says that deleted messages may come back: %q", notes)
	}
	back := 0
	for i := range mailboxes {
		user := Mailbox("health", i+1)
		got := counted(t, c.o.Mailboxes[Exchange], user)
		for id, n := range got {
			if n != 1 || want[user][id] != 1 {
				t.Errorf("%s has message %d %d times", user, id, n)
			}
		}
		if got[gone[user]] == 1 {
			back++
		}
	}
	if back == mailboxes {
		t.Errorf("%d messages that users had deleted came back, of %d; those of the first two nodes' journals must not", back, mailboxes)
	}
}
