package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailcutover/admin"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/test/mailboxes"
	"mailcutover/test/peers"
)

// masterUser lets one account into all mailboxes of a Dovecot.
const masterUser = `
auth_master_user_separator = *
passdb {
  driver = static
  master = yes
  args = password=master
}`

// Folders as two platforms have them: an Outlook in German, which says what its folders are
// for, and one that says nothing and separates levels by dots.
const (
	germanFolders = `
namespace inbox {
  inbox = yes
  separator = /
  mailbox "Gesendete Elemente" {
    special_use = \Sent
  }
  mailbox "Gelöschte Elemente" {
    special_use = \Trash
  }
}
mail_max_userip_connections = 100`
	dottedFolders = `
namespace inbox {
  inbox = yes
  separator = .
}
mail_max_userip_connections = 100`
)

// onExchange is what the source calls a folder of the target.
func onExchange(folder string) string {
	switch folder {
	case mailboxes.Sent:
		return "Gesendete Elemente"
	case mailboxes.Trash:
		return "Gelöschte Elemente"
	}
	return folder
}

// way is a node between two Dovecots with the same mailboxes, whose mover has been there.
type way struct {
	*node
	exchange, ox *peers.Dovecot
	locals       []string
}

// readable is a platform whose mailboxes the node reads.
func readable(id string, d *peers.Dovecot, secret, more string) platform {
	return platform{
		id: id, addr: d.LMTP, lmtp: true,
		more: fmt.Sprintf("connection_limit: 1s\n    mailboxes: {hosts: [%q], tls: {policy: none}, auth: {user: admin, password_file: %q}, retry: {first: 100ms, max: 1s}%s}", d.IMAP, secret, more),
	}
}

func startWay(t *testing.T, messages int, recall, more string, locals ...string) *way {
	t.Helper()
	w := &way{
		exchange: peers.StartDovecot(t, peers.DovecotOptions{First: masterUser, Extra: germanFolders}),
		ox:       peers.StartDovecot(t, peers.DovecotOptions{First: masterUser, Extra: dottedFolders}),
		locals:   locals,
	}
	secret := filepath.Join(peers.TempDir(t, "secret"), "password")
	if err := os.WriteFile(secret, []byte("master\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, local := range locals {
		address := local + "@health.example"
		m := mailboxes.Make(address, mailboxes.Options{Seed: 3, Messages: messages})
		source := &mailboxes.Mailbox{Address: address}
		for _, f := range m.Folders {
			source.Folders = append(source.Folders, mailboxes.Folder{Name: onExchange(f.Name), Messages: f.Messages})
		}
		for d, one := range map[*peers.Dovecot]*mailboxes.Mailbox{w.exchange: source, w.ox: m} {
			if err := one.WriteMaildir(filepath.Join(d.Dir(), address)); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.node = startNode(t, setup{
		platforms: []platform{readable("exchange", w.exchange, secret, ""), readable("ox", w.ox, secret, "")},
		more:      "recall: {" + recall + "}\n" + more,
	})
	w.addAgency("health", locals...)
	return w
}

// message is one as it lies in a mailbox.
type message struct {
	folder string
	sum    [sha256.Size]byte
	flags  string
	date   int64
}

func (m message) String() string {
	return fmt.Sprintf("%s %x [%s] %s", m.folder, m.sum[:4], m.flags, time.Unix(m.date, 0).UTC().Format(time.DateTime))
}

// contents reads a whole mailbox, and counts what is alike. What we note ourselves, that no read
// receipt is to be sent again, is left out.
func (w *way) contents(t *testing.T, d *peers.Dovecot, local string, name func(string) string) map[message]int {
	t.Helper()
	store, err := mailstore.New(mailstore.Options{
		Platform: "test", Hosts: []string{d.IMAP}, Installation: "test",
		Access: mailstore.Access{Mode: mailstore.ModeMaster, User: "admin", Password: "master"},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), routing.Row{Addresses: []routing.Address{routing.Address(local + "@health.example")}}, mailstore.Source)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	folders, err := s.Folders(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[message]int)
	for _, f := range folders {
		if f.NoSelect {
			continue
		}
		if _, err := s.Select(t.Context(), f.Name, false); err != nil {
			t.Fatal(err)
		}
		listed := make(map[uint32]message)
		err := s.List(t.Context(), 1, 0, func(m mailstore.Message) error {
			flags := slices.DeleteFunc(m.Flags, func(f string) bool { return f == "$MDNSent" })
			listed[m.UID] = message{folder: name(f.Name), flags: strings.Join(flags, " "), date: m.Internal.Unix()}
			return nil
		})
		if err == nil && len(listed) > 0 {
			err = s.Bodies(t.Context(), slices.Sorted(maps.Keys(listed)), func(uid uint32, _ int64, body io.Reader) error {
				h := sha256.New()
				if _, err := io.Copy(h, body); err != nil {
					return err
				}
				m := listed[uid]
				copy(m.sum[:], h.Sum(nil))
				all[m]++
				return nil
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// differ says what two mailboxes have differently; empty: nothing.
func differ(got, want map[message]int) string {
	var lines []string
	for m, n := range want {
		if got[m] != n {
			lines = append(lines, fmt.Sprintf("%d, want %d: %s", got[m], n, m))
		}
	}
	for m, n := range got {
		if want[m] == 0 {
			lines = append(lines, fmt.Sprintf("%d, want 0: %s", n, m))
		}
	}
	slices.Sort(lines)
	if len(lines) > 10 {
		lines = append(lines[:10], fmt.Sprintf("... %d in all", len(lines)))
	}
	return strings.Join(lines, "\n")
}

// asUser lets a mail program do something in a mailbox.
func (w *way) asUser(t *testing.T, d *peers.Dovecot, local string, do func(c *imapclient.Client) error) {
	t.Helper()
	c, err := imapclient.DialInsecure(d.IMAP, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login(local+"@health.example", "secret").Wait(); err != nil {
		t.Fatal(err)
	}
	if err := do(c); err != nil {
		t.Fatalf("%s: %v", local, err)
	}
}

func put(c *imapclient.Client, folder string, m mailboxes.Message) error {
	cmd := c.Append(folder, int64(len(m.Raw)), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen}, Time: m.Internal})
	if _, err := cmd.Write(m.Raw); err != nil {
		return err
	}
	if err := cmd.Close(); err != nil {
		return err
	}
	_, err := cmd.Wait()
	return err
}

// deliver sends messages through the node to every mailbox.
func (w *way) deliver(t *testing.T, from, n int) {
	t.Helper()
	for i, local := range w.locals {
		for k := range n {
			if got := sendAgain(w.smtp, from+i*n+k, local+"@health.example"); !strings.HasPrefix(got, "250 ") {
				t.Fatalf("message %d for %s: %s", from+i*n+k, local, got)
			}
		}
	}
}

// lastRun returns the agency's last run.
func (w *way) lastRun(t *testing.T) admin.Recall {
	t.Helper()
	all, err := w.api.Recalls(t.Context(), "health")
	if err != nil || len(all.Recalls) == 0 {
		t.Fatalf("runs of the agency: %+v, %v", all, err)
	}
	return all.Recalls[len(all.Recalls)-1]
}

// ends waits until a run is done.
func (w *way) ends(t *testing.T, id string) (r admin.Recall) {
	t.Helper()
	peers.WaitFor(t, 3*patience, "run "+id+" to be done", func() bool {
		var err error
		r, err = w.api.Recall(t.Context(), id, true)
		return err == nil && r.State == "done"
	})
	return r
}

// A day on the target, a rollback, and the node killed three times while the mail is brought
// back: all of it is on the source, once each, with folder, flags and date, and what users
// moved or deleted is as they left it. A second run adds nothing.
func TestRecallAfterARollback(t *testing.T) {
	t.Parallel()
	const each = 12
	w := startWay(t, 40, "settle: 100ms, messages_per_second: 40", "", "anna", "ben", "carla", "dora")
	began := time.Now().Unix()
	w.deliver(t, 1, 2) // before the watermarks
	w.must("agency", "arm", "health", "--reason", "test")
	plan := w.must("operation", "plan", "cutover", "--agency", "health")
	for _, want := range []string{"1. watermarks: ", "the state of 4 mailboxes on exchange and ox is noted", "a sweep brings what reached exchange"} {
		if !strings.Contains(plan, want) {
			t.Errorf("the plan of the cutover lacks %q:\n%s", want, plan)
		}
	}
	w.mustSwitch(operation.Cutover, "health")
	// What reached the source before is copied to the target by the sweep, as a mover would.
	sweep := w.ends(t, w.lastRun(t).ID)
	if sweep.Kind != "sweep" || sweep.Watermarks == "" || sweep.Totals.Done != len(w.locals) || sweep.Totals.NotBack != 0 {
		t.Errorf("the sweep ended as %+v", sweep)
	}

	w.deliver(t, 1000, each)
	now := time.Now().Truncate(time.Second)
	kept := make(map[string][]message) // deleted on the target, and so on the source still
	for _, local := range w.locals {
		before := w.contents(t, w.ox, local, onExchange)
		w.asUser(t, w.ox, local, func(c *imapclient.Client) error {
			if err := put(c, mailboxes.Sent, mailboxes.Text("sent-"+local, local+"@health.example", "out@out.example", now, "Gesendet")); err != nil {
				return err
			}
			if err := c.Create("Neu.Größe & Maß", nil).Wait(); err != nil {
				return err
			}
			if err := put(c, "Neu.Größe & Maß", mailboxes.Text("draft-"+local, local+"@health.example", "out@out.example", now, "Entwurf")); err != nil {
				return err
			}
			if _, err := c.Select("INBOX", nil).Wait(); err != nil {
				return err
			}
			if _, err := c.Move(imap.SeqSetNum(1), "Neu.Größe & Maß").Wait(); err != nil {
				return err
			}
			if err := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
				return err
			}
			return c.Expunge().Close()
		})
		after := w.contents(t, w.ox, local, onExchange)
		for m, n := range before {
			moved := m
			moved.folder = "Neu/Größe & Maß"
			if after[m] < n && after[moved] == 0 {
				kept[local] = append(kept[local], m)
			}
		}
		if len(kept[local]) != 1 {
			t.Fatalf("%s deleted %v", local, kept[local])
		}
	}
	plan = w.must("operation", "plan", "rollback", "--agency", "health")
	for _, want := range []string{"a recall brings back what reached ox since the cutover of", fmt.Sprintf("by the ledgers %d messages were delivered to ox", each*len(w.locals))} {
		if !strings.Contains(plan, want) {
			t.Errorf("the plan of the rollback lacks %q:\n%s", want, plan)
		}
	}
	want := make(map[string]map[message]int)
	asIs := func(folder string) string { return folder }
	for _, local := range w.locals {
		want[local] = w.contents(t, w.ox, local, onExchange)
		for m := range w.contents(t, w.exchange, local, asIs) {
			if m.date >= began && m.folder == "INBOX" {
				kept[local] = append(kept[local], m) // came before the watermarks, and no mover was there since
			}
		}
		for _, m := range kept[local] {
			want[local][m]++
		}
	}
	w.mustSwitch(operation.Rollback, "health")
	id := w.lastRun(t).ID
	for kill := range 3 {
		peers.WaitFor(t, 3*patience, "some mail to be back", func() bool {
			brought := 0
			for _, local := range w.locals {
				for m := range w.contents(t, w.exchange, local, asIs) {
					if m.date >= now.Unix()-600 {
						brought++
					}
				}
			}
			return brought > kill*each
		})
		w.Kill()
		if err := w.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r := w.ends(t, id)
	check := func() {
		t.Helper()
		for _, local := range w.locals {
			if lines := differ(w.contents(t, w.exchange, local, asIs), want[local]); lines != "" {
				t.Errorf("mailbox of %s on the source:\n%s", local, lines)
			}
		}
	}
	check()
	n := len(w.locals)
	if got := r.Totals; got.Delivered != n*each || got.DeliveredBack != n*each || got.ByUsers != 2*n || got.Moved != n || got.NotBack+got.Gone+got.Aside != 0 || got.Done != n {
		t.Errorf("the run says %+v: %s", got, r.Text)
	}
	if len(r.Missing) != 0 || len(r.Nodes) != 1 || r.Nodes[0].State != "brought" {
		t.Errorf("nodes %+v, missing %v", r.Nodes, r.Missing)
	}

	out := w.must("recall", "plan", "--agency", "health")
	if !strings.Contains(out, "recall of agency health: ox -> exchange") {
		t.Errorf("recall plan says:\n%s", out)
	}
	out = w.must("recall", "run", "--agency", "health", "--watch", "--reason", "again")
	if text := fmt.Sprintf("delivered by us: %d of %d back; made by users: %d;", n*each, n*each, 2*n); !strings.Contains(out, text) || !strings.Contains(out, "nothing is left") {
		t.Errorf("the second run says, without %q:\n%s", text, out)
	}
	check()
	if out := w.must("recall", "list", "--agency", "health"); strings.Count(out, "done") != 3 {
		t.Errorf("recall list:\n%s", out)
	}
}

// ids counts the messages of a mailbox's INBOX by the id that the test gave them.
func (w *way) ids(t *testing.T, d *peers.Dovecot, local string) map[int]int {
	t.Helper()
	all := make(map[int]int)
	w.asUser(t, d, local, func(c *imapclient.Client) error {
		if _, err := c.Select("INBOX", nil).Wait(); err != nil {
			return err
		}
		section := &imap.FetchItemBodySection{Peek: true}
		messages, err := c.Fetch(imap.SeqSet{{Start: 1}}, &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{section}}).Collect()
		for _, m := range messages {
			if id := idOf(m.FindBodySection(section)); id >= 1000 {
				all[id]++
			}
		}
		return err
	})
	return all
}

// The target is dead when its agency is brought back: what the node delivered there comes to the
// source from the retained copies. When the target is up again, what users made there comes too, and
// nothing comes twice.
func TestRecallFromADeadTarget(t *testing.T) {
	t.Parallel()
	const each = 5
	w := startWay(t, 10, "settle: 100ms", "", "anna", "ben")
	w.mustSwitch(operation.Cutover, "health")
	w.deliver(t, 1000, each)
	now := time.Now().Truncate(time.Second)
	for _, local := range w.locals {
		w.asUser(t, w.ox, local, func(c *imapclient.Client) error {
			return put(c, mailboxes.Sent, mailboxes.Text("sent-"+local, local+"@health.example", "out@out.example", now, "Gesendet"))
		})
	}
	waitFor(t, "the retained copies", func() bool {
		copies, err := w.api.RetainedCopies(t.Context(), admin.RetainedQuery{Agency: "health"})
		return err == nil && len(copies.Copies) == each*len(w.locals)
	})
	w.ox.Kill()
	plan := w.must("operation", "plan", "rollback", "--agency", "health", "--emergency", "--target-dead")
	if !strings.Contains(plan, fmt.Sprintf("has %d retained copies", each*len(w.locals))) {
		t.Errorf("the plan lacks the copies:\n%s", plan)
	}
	w.must("agency", "rollback", "health", "--emergency", "--target-dead", "--yes", "--reason", "it is lost")
	id := w.lastRun(t).ID
	once := func(i int, local string) error {
		got := w.ids(t, w.exchange, local)
		for k := range each {
			if n := got[1000+i*each+k]; n != 1 {
				return fmt.Errorf("message %d of %s is there %d times", 1000+i*each+k, local, n)
			}
		}
		return nil
	}
	peers.WaitFor(t, 3*patience, "the retained copies to be on the source", func() bool {
		for i, local := range w.locals {
			if once(i, local) != nil {
				return false
			}
		}
		return true
	})
	// They are on the source before the run has counted them.
	var r admin.Recall
	waitFor(t, "the run to have counted them", func() bool {
		var err error
		r, err = w.api.Recall(t.Context(), id, false)
		return err == nil && r.Copies && r.Totals.Copies == each*len(w.locals)
	})
	if r.State != "running" {
		t.Errorf("while the target is dead: %+v", r)
	}
	if err := w.ox.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = w.ends(t, id)
	for i, local := range w.locals {
		if err := once(i, local); err != nil {
			t.Error(err)
		}
		sent := 0
		for m, n := range w.contents(t, w.exchange, local, func(s string) string { return s }) {
			if m.folder == "Gesendete Elemente" && m.date == now.Unix() {
				sent += n
			}
		}
		if sent != 1 {
			t.Errorf("%s has %d of 1 sent message back", local, sent)
		}
	}
	n := len(w.locals)
	if got := r.Totals; got.Delivered != n*each || got.DeliveredBack != n*each || got.ByUsers != n || got.NotBack+got.Gone+got.Aside != 0 {
		t.Errorf("the run says %+v: %s", got, r.Text)
	}
}
