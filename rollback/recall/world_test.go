package recall_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/recall"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
	"mailcutover/test/mailboxes"
	"mailcutover/test/peers"
)

const installation = "recalltest"

// master lets one account into all mailboxes.
const master = `
auth_master_user_separator = *
passdb {
  driver = static
  master = yes
  args = password=master
}`

// asSource has the folders' names of an Outlook in German, and says what they are for.
const asSource = `
namespace inbox {
  inbox = yes
  separator = /
  mailbox "Gesendete Elemente" {
    special_use = \Sent
  }
  mailbox "Gelöschte Elemente" {
    special_use = \Trash
  }
}` + fast

// asTarget separates levels by dots, below a prefix, and says nothing about its folders.
const asTarget = `
namespace inbox {
  inbox = yes
  separator = .
}` + fast

// fast keeps Dovecot's processes for further connections.
const fast = `
mail_max_userip_connections = 100
service imap-login {
  service_count = 0
}
service imap {
  service_count = 100
}`

// nameOnSource is what the source calls a folder of the target.
func nameOnSource(name string) string {
	switch name {
	case mailboxes.Sent:
		return "Gesendete Elemente"
	case mailboxes.Trash:
		return "Gelöschte Elemente"
	default:
		return name
	}
}

// world is two platforms with the mailboxes of an agency.
type world struct {
	settle         time.Duration // of engines; 0: a second
	t              *testing.T
	source, target *peers.Dovecot
	from, to       mailstore.Store // the engine's
	rows           []routing.Row
	watermarks     map[routing.MailboxID]*watermark.Mailbox // target's
	sourceMarks    map[routing.MailboxID]*watermark.Mailbox
	delivered      map[routing.MailboxID][]mail.TransactionID
	dir            string
}

func newWorld(t *testing.T, n int) *world {
	t.Helper()
	w := &world{
		t: t, dir: t.TempDir(),
		source: peers.StartDovecot(t, peers.DovecotOptions{First: master, Extra: asSource}),
		target: peers.StartDovecot(t, peers.DovecotOptions{First: master, Extra: asTarget}),

		watermarks: make(map[routing.MailboxID]*watermark.Mailbox), sourceMarks: make(map[routing.MailboxID]*watermark.Mailbox),
		delivered: make(map[routing.MailboxID][]mail.TransactionID),
	}
	w.from, w.to = storeOf(t, "ox", w.target.IMAP), storeOf(t, "exchange", w.source.IMAP)
	for i := range n {
		address, err := routing.ParseAddress(fmt.Sprintf("user%d@example.org", i))
		if err != nil {
			t.Fatal(err)
		}
		id, err := routing.ParseMailboxID(fmt.Sprintf("00000000-0000-4000-8000-%012d", i))
		if err != nil {
			t.Fatal(err)
		}
		w.rows = append(w.rows, routing.Row{Mailbox: id, Kind: routing.KindUser, Addresses: []routing.Address{address}})
	}
	return w
}

func storeOf(t *testing.T, platform routing.PlatformID, host string) *mailstore.IMAP {
	t.Helper()
	s, err := mailstore.New(mailstore.Options{
		Platform: platform, Hosts: []string{host}, Connections: atOnce, Command: 2 * time.Minute, Installation: installation,
		Access: mailstore.Access{Mode: mailstore.ModeMaster, User: "admin", Password: "master"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// parallel calls f for every mailbox, a few at a time.
func (w *world) parallel(f func(i int, row routing.Row) error) {
	w.t.Helper()
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i, row := range w.rows {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := f(i, row); err != nil {
				w.t.Errorf("mailbox %d: %v", i, err)
			}
		})
	}
	all.Wait()
	if w.t.Failed() {
		w.t.FailNow()
	}
}

// seed writes the mailboxes: on the source whole, on the target what the mover has copied so
// far, which is all but late of each.
func (w *world) seed(messages, late int) {
	w.t.Helper()
	w.parallel(func(_ int, row routing.Row) error {
		m := w.made(row, messages)
		onSource, onTarget := &mailboxes.Mailbox{Address: m.Address}, &mailboxes.Mailbox{Address: m.Address}
		share := shared(m, late)
		for _, f := range m.Folders {
			onSource.Folders = append(onSource.Folders, mailboxes.Folder{Name: nameOnSource(f.Name), Messages: f.Messages})
			onTarget.Folders = append(onTarget.Folders, mailboxes.Folder{Name: f.Name, Messages: f.Messages[share[f.Name]:]})
		}
		if err := onSource.WriteMaildir(filepath.Join(w.source.Dir(), m.Address)); err != nil {
			return err
		}
		return onTarget.WriteMaildir(filepath.Join(w.target.Dir(), m.Address))
	})
}

// shared is how many messages of each folder the mover copies late: the first ones.
func shared(m *mailboxes.Mailbox, late int) map[string]int {
	share := make(map[string]int)
	for _, f := range m.Folders {
		share[f.Name] = min(late, len(f.Messages)/2)
		late -= share[f.Name]
	}
	return share
}

// made is a mailbox as it was before the cutover: the same each time.
func (w *world) made(row routing.Row, messages int) *mailboxes.Mailbox {
	return mailboxes.Make(string(row.Addresses[0]), mailboxes.Options{Seed: 7, Messages: messages})
}

// mark takes the watermarks of both sides.
func (w *world) mark() {
	w.t.Helper()
	var mu sync.Mutex
	w.parallel(func(_ int, row routing.Row) error {
		for _, side := range []struct {
			store mailstore.Store
			side  mailstore.Side
			marks map[routing.MailboxID]*watermark.Mailbox
		}{{w.from, mailstore.Target, w.watermarks}, {w.to, mailstore.Source, w.sourceMarks}} {
			s, err := side.store.Open(w.t.Context(), row, side.side)
			if err != nil {
				return err
			}
			defer s.Close()
			folders, err := s.Folders(w.t.Context())
			if err != nil {
				return err
			}
			m := &watermark.Mailbox{Mailbox: row.Mailbox}
			for _, f := range folders {
				if !f.NoSelect {
					m.Folders = append(m.Folders, watermark.Folder{Name: f.Name, UIDValidity: f.UIDValidity, UIDNext: f.UIDNext, HighestModSeq: f.HighestModSeq, Messages: f.Messages})
				}
			}
			mu.Lock()
			side.marks[row.Mailbox] = m
			mu.Unlock()
		}
		return nil
	})
}

// client is a user's mail program.
type client struct {
	*imapclient.Client
	sent []*imapclient.AppendCommand // not answered
}

func (w *world) client(d *peers.Dovecot, row routing.Row) (*client, error) {
	c, err := imapclient.DialInsecure(d.IMAP, nil)
	if err != nil {
		return nil, err
	}
	return &client{Client: c}, c.Login(string(row.Addresses[0]), "secret").Wait()
}

// send appends a message, and doesn't wait for the answer.
func (c *client) send(folder string, m mailboxes.Message) error {
	var flags []imap.Flag
	for _, f := range m.Flags {
		flags = append(flags, imap.Flag(f))
	}
	cmd := c.Append(folder, int64(len(m.Raw)), &imap.AppendOptions{Flags: flags, Time: m.Internal})
	if _, err := cmd.Write(m.Raw); err != nil {
		return err
	}
	c.sent = append(c.sent, cmd)
	return cmd.Close()
}

// answered waits for all answers.
func (c *client) answered() error {
	for _, cmd := range c.sent {
		if _, err := cmd.Wait(); err != nil {
			return err
		}
	}
	c.sent = nil
	return nil
}

// put appends a message.
func (c *client) put(folder string, m mailboxes.Message) error {
	if err := c.send(folder, m); err != nil {
		return err
	}
	return c.answered()
}

// ours is a message as our proxy delivers it.
func (w *world) ours(row routing.Row, n int, at time.Time) mailboxes.Message {
	id := mail.NewTransactionID()
	m := mailboxes.Text(fmt.Sprintf("delivered-%d-%s", n, row.Mailbox), "out@out.example", string(row.Addresses[0]), at, strings.Repeat("Neu. ", n%200))
	trace := mail.Trace{Client: mail.Client{Helo: "mx.out.example", Addr: netip.MustParseAddrPort("192.0.2.1:25"), With: "ESMTP"}, Node: "mx1.example.org", Installation: installation, Transaction: id, Time: at}
	m.Raw = append(trace.Append(nil), m.Raw...)
	w.delivered[row.Mailbox] = append(w.delivered[row.Mailbox], id)
	return m
}

// stored is a message as it lies in a mailbox.
type stored struct {
	folder string
	sum    [32]byte
	flags  string
	date   int64
}

func (s stored) String() string {
	return fmt.Sprintf("%s %x [%s] %s", s.folder, s.sum[:4], s.flags, time.Unix(s.date, 0).UTC().Format(time.DateTime))
}

// contents reads a whole mailbox. $MDNSent is left out: it is what we add.
func contents(t *testing.T, store mailstore.Store, row routing.Row, side mailstore.Side) ([]stored, error) {
	t.Helper()
	s, err := store.Open(t.Context(), row, side)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	folders, err := s.Folders(t.Context())
	if err != nil {
		return nil, err
	}
	var all []stored
	for _, f := range folders {
		if f.NoSelect {
			continue
		}
		if _, err := s.Select(t.Context(), f.Name, false); err != nil {
			return nil, err
		}
		at := make(map[uint32]int)
		var uids []uint32
		err := s.List(t.Context(), 1, 0, func(m mailstore.Message) error {
			flags := slices.DeleteFunc(m.Flags, func(f string) bool { return f == "$MDNSent" })
			at[m.UID] = len(all)
			uids = append(uids, m.UID)
			all = append(all, stored{folder: f.Name, flags: strings.Join(flags, " "), date: m.Internal.Unix()})
			return nil
		})
		if err != nil || len(uids) == 0 {
			if err != nil {
				return nil, err
			}
			continue
		}
		err = s.Bodies(t.Context(), uids, func(uid uint32, _ int64, body io.Reader) error {
			h := sha256.New()
			if _, err := io.Copy(h, body); err != nil {
				return err
			}
			copy(all[at[uid]].sum[:], h.Sum(nil))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// model is a message as it should lie on the source.
func model(folder string, m mailboxes.Message) stored {
	flags := slices.Clone(m.Flags)
	slices.Sort(flags)
	return stored{folder: folder, sum: sha256.Sum256(m.Raw), flags: strings.Join(flags, " "), date: m.Internal.Unix()}
}

// same reports what differs between two mailboxes.
func same(got, want []stored) string {
	count := make(map[stored]int)
	for _, s := range want {
		count[s]++
	}
	for _, s := range got {
		count[s]--
	}
	var differ []string
	for s, n := range count {
		if n != 0 {
			differ = append(differ, fmt.Sprintf("%+d %s", -n, s))
		}
	}
	slices.Sort(differ)
	if len(differ) > 12 {
		differ = append(differ[:12], fmt.Sprintf("... %d in all", len(differ)))
	}
	return strings.Join(differ, "\n")
}

// job is the recall of one mailbox.
func (w *world) job(row routing.Row) recall.Job {
	return recall.Job{
		Agency: "health", Row: row, Since: w.watermarks[row.Mailbox], There: w.sourceMarks[row.Mailbox],
		Direction: recall.Direction{From: "ox", To: "exchange", Side: mailstore.Target},
		Delivered: slices.Values(w.delivered[row.Mailbox]),
	}
}

func (w *world) engine(j *recall.Journals) *recall.Engine {
	w.t.Helper()
	e, err := recall.New(recall.Options{From: w.from, To: w.to, Journals: j, Settle: cmp.Or(w.settle, time.Second), Logger: slog.New(slog.NewTextHandler(&testWriter{w.t}, nil))})
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

func (w *world) journals() *recall.Journals {
	w.t.Helper()
	j, err := recall.OpenJournals(filepath.Join(w.dir, "recall"))
	if err != nil {
		w.t.Fatal(err)
	}
	return j
}

// testWriter shows the log with the test.
type testWriter struct{ t *testing.T }

func (w *testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}
