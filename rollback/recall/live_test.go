package recall_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/recall"
	"mailcutover/rollback/watermark"
	exchange "mailcutover/test/exchangelike/imap"
	"mailcutover/test/mailboxes"
)

// user opens the first mailbox as its user does.
func (w *world) user(source bool) *client {
	w.t.Helper()
	d := w.target
	if source {
		d = w.source
	}
	c, err := w.client(d, w.rows[0])
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

func (c *client) mustPut(t *testing.T, folder string, m mailboxes.Message) {
	t.Helper()
	if err := c.put(folder, m); err != nil {
		t.Fatal(err)
	}
}

// erase deletes all messages of a folder for good.
func (c *client) erase(t *testing.T, folder string) {
	t.Helper()
	if _, err := c.Select(folder, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	all := imap.SeqSet{imap.SeqRange{Start: 1}}
	if err := c.Store(all, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Expunge().Close(); err != nil {
		t.Fatal(err)
	}
}

// recall runs the first mailbox once more.
func (w *world) recall(e *recall.Engine) recall.Result {
	w.t.Helper()
	r, err := e.Mailbox(w.t.Context(), w.job(w.rows[0]))
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// count is how many messages the first mailbox has on the source, by folder.
func (w *world) count() map[string]int {
	w.t.Helper()
	all, err := contents(w.t, w.to, w.rows[0], mailstore.Source)
	if err != nil {
		w.t.Fatal(err)
	}
	n := make(map[string]int)
	for _, s := range all {
		n[s.folder]++
	}
	return n
}

// The journal outranks presence: what its user deletes again, or moves, isn't brought twice,
// while what comes meanwhile is.
func TestUserWorksMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	row, now := w.rows[0], time.Now().UTC().Truncate(time.Second)
	target, source := w.user(false), w.user(true)
	w.mark()
	for n := range 4 {
		target.mustPut(t, "INBOX", w.ours(row, n, now))
	}
	copied := mailboxes.Text("copied", "a@out.example", string(row.Addresses[0]), now, "on both sides")
	target.mustPut(t, "INBOX", copied)
	source.mustPut(t, "INBOX", copied)
	e := w.engine(w.journals())
	if r := w.recall(e); r.DeliveredBack != 4 || r.Copied != 1 || w.count()["INBOX"] != 5 {
		t.Fatalf("%+v, %v", r, w.count())
	}
	source.erase(t, "INBOX")
	target.mustPut(t, "INBOX", w.ours(row, 5, now))
	for _, e := range []*recall.Engine{e, w.engine(w.journals())} {
		if r := w.recall(e); r.DeliveredBack != 5 || r.Copied != 1 || len(r.NotBack) > 0 {
			t.Fatalf("%+v", r)
		}
		if n := w.count()["INBOX"]; n != 1 {
			t.Fatalf("%d messages, want the new one", n)
		}
	}
	// And what is moved on From keeps its account.
	if _, err := target.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := target.Create("Später", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := target.Move(imap.SeqSetNum(1, 2, 3, 4, 6), "Später").Wait(); err != nil { // all that we delivered
		t.Fatal(err)
	}
	if r := w.recall(e); r.Messages != 0 || w.count()["INBOX"] != 1 || len(w.count()) != 1 {
		t.Errorf("%+v, %v", r, w.count())
	}
}

// A message that its user moved on both sides, or on a platform that can't move, is where he
// put it on To, and is named.
func TestMovedOnBothSides(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	row, now := w.rows[0], time.Now().UTC().Truncate(time.Second)
	target, source := w.user(false), w.user(true)
	old := mailboxes.Text("old", "a@out.example", string(row.Addresses[0]), now.AddDate(0, 0, -9), "old")
	for _, c := range []*client{target, source} {
		c.mustPut(t, "INBOX", old)
		for _, name := range []string{"Eins", "Zwei"} {
			if err := c.Create(name, nil).Wait(); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.mark()
	for c, folder := range map[*client]string{target: "Eins", source: "Zwei"} {
		if _, err := c.Select("INBOX", nil).Wait(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Move(imap.SeqSetNum(1), folder).Wait(); err != nil {
			t.Fatal(err)
		}
	}
	e := w.engine(w.journals())
	for range 2 {
		r := w.recall(e)
		if len(r.NotBack) != 1 || r.NotBack[0].Class != recall.ClassMoved || r.Moved != 0 || r.ByUsers != 0 || !r.Done {
			t.Errorf("%+v", r)
		}
		if n := w.count(); n["Zwei"] != 1 || len(n) != 1 {
			t.Errorf("%v", n)
		}
	}
}

// Exchange without MOVE: nothing is copied and deleted instead.
func TestNoMove(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	row, now := w.rows[0], time.Now().UTC().Truncate(time.Second)
	login := string(row.Addresses[0])
	s := exchange.Start(t, exchange.Quirks{NoMove: true}, login)
	w.to = exchangeStore(t, s, 2*time.Minute)
	old := mailboxes.Text("old", "a@out.example", login, now.AddDate(0, 0, -9), "old")
	target := w.user(false)
	target.mustPut(t, "INBOX", old)
	if err := s.Put(login, "INBOX", old.Raw, nil, old.Internal); err != nil {
		t.Fatal(err)
	}
	if err := target.Create("Eins", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	w.mark()
	if _, err := target.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := target.Move(imap.SeqSetNum(1), "Eins").Wait(); err != nil {
		t.Fatal(err)
	}
	r := w.recall(w.engine(w.journals()))
	if len(r.NotBack) != 1 || r.NotBack[0].Class != recall.ClassMoved || !r.Done || w.count()["INBOX"] != 1 {
		t.Errorf("%+v, %v", r, w.count())
	}
}

// A mover that uses other folders, and doesn't keep dates, copies after the watermark: nothing
// is brought twice, and nothing is moved because of it.
func TestMoverWithItsOwnFolders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	login := string(w.rows[0].Addresses[0])
	m := mailboxes.Make(login, mailboxes.Options{Seed: 5, Messages: 60})
	if err := m.WriteMaildir(filepath.Join(w.source.Dir(), login)); err != nil {
		t.Fatal(err)
	}
	target := w.user(false)
	if err := target.Create("Import", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	w.mark()
	want := w.count()
	for _, f := range m.Folders {
		if f.Name == mailboxes.Drafts {
			continue // a draft is known by its folder, too
		}
		for _, msg := range f.Messages {
			msg.Internal = time.Now()
			target.mustPut(t, "Import", msg)
		}
	}
	r := w.recall(w.engine(w.journals()))
	if r.ByUsers != 0 || r.Moved != 0 || len(r.NotBack) != 0 || r.Copied != m.Count()-len(m.Folder(mailboxes.Drafts).Messages) || !r.Done {
		t.Errorf("%+v of %d", r, m.Count())
	}
	if got := w.count(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// The target is dead from the start: its mail came from retained copies. Then it is back, and
// recall brings what is missing, and nothing twice. The source goes down in between.
func TestTargetIsDead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	row, now := w.rows[0], time.Now().UTC().Truncate(time.Second)
	target := w.user(false)
	w.mark()
	var ours []mailboxes.Message
	for n := range 6 {
		m := w.ours(row, n, now)
		ours = append(ours, m)
		target.mustPut(t, "INBOX", m)
	}
	sent := mailboxes.Text("sent", string(row.Addresses[0]), "out@out.example", now, "sent")
	if err := target.Create(mailboxes.Sent, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	target.mustPut(t, mailboxes.Sent, sent)
	w.target.Kill()
	journals := w.journals()
	e := w.engine(journals)
	if _, err := e.Mailbox(t.Context(), w.job(row)); !errors.Is(err, mailstore.ErrUnavailable) || !mailstore.Platform(err) {
		t.Fatalf("dead: %v", err)
	}

	// Four copies are delivered; the user deletes one of them.
	source := w.user(true)
	for _, m := range ours[1:4] {
		source.mustPut(t, "INBOX", m)
	}
	if err := journals.Sent(row.Mailbox, w.delivered[row.Mailbox][:4]...); err != nil {
		t.Fatal(err)
	}
	if err := w.target.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.source.Kill()
	if _, err := e.Mailbox(t.Context(), w.job(row)); !errors.Is(err, mailstore.ErrUnavailable) || !mailstore.Platform(err) {
		t.Fatalf("the other side is dead: %v", err)
	}
	if err := w.source.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r := w.recall(e)
		if r.Delivered != 6 || r.DeliveredBack != 6 || r.ByUsers != 1 || len(r.NotBack) != 0 || !r.Done {
			t.Fatalf("%+v", r)
		}
		if n := w.count(); n["INBOX"] != 5 || n[mailboxes.Sent] != 1 {
			t.Fatalf("%v", n)
		}
	}
}

// What the ledgers know and the mailbox doesn't have is named; without watermarks everything is
// compared, and it ends the same.
func TestWithoutWatermarks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	d := w.seedAndMark(60, 10).live(60, 10, 10)
	clear(w.watermarks)
	e := w.engine(w.journals())
	for i, row := range w.rows {
		job := w.job(row)
		job.Delivered = slices.Values(append(w.delivered[row.Mailbox], mail.NewTransactionID()))
		r, err := e.Mailbox(t.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		gone := d.gone[i] + 1
		if r.DeliveredBack != d.ours[i] || len(r.NotBack) != gone || r.Moved != 0 {
			t.Errorf("%+v, want %d back and %d gone", r, d.ours[i], gone)
		}
		for _, n := range r.NotBack {
			if n.Class != recall.ClassGone || n.Key.IsZero() {
				t.Errorf("%+v", n)
			}
		}
	}
}

// What we delivered is brought also if the watermark came too late for it.
func TestDeliveredBelowTheWatermark(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	row, now := w.rows[0], time.Now().UTC().Truncate(time.Second)
	c := w.user(false)
	c.mustPut(t, "INBOX", w.ours(row, 1, now))
	c.mustPut(t, "INBOX", mailboxes.Text("older", "a@out.example", string(row.Addresses[0]), now, "below as well"))
	w.mark()
	c.mustPut(t, "INBOX", w.ours(row, 2, now))
	e := w.engine(w.journals())
	for range 2 {
		if r := w.recall(e); r.Delivered != 2 || r.DeliveredBack != 2 || r.ByUsers != 0 || len(r.NotBack) != 0 || !r.Done || w.count()["INBOX"] != 2 {
			t.Errorf("%+v, %v", r, w.count())
		}
	}
}

// A mark of a folder that was made anew says nothing.
func TestUIDValidityChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	row, now := w.rows[0], time.Now().UTC().Truncate(time.Second)
	w.user(false).mustPut(t, "INBOX", w.ours(row, 1, now))
	w.watermarks[row.Mailbox] = &watermark.Mailbox{Mailbox: row.Mailbox, Folders: []watermark.Folder{{Name: "INBOX", UIDValidity: 1, UIDNext: 1000}}}
	if r := w.recall(w.engine(w.journals())); r.DeliveredBack != 1 || w.count()["INBOX"] != 1 {
		t.Errorf("%+v", r)
	}
}

// Users of both platforms go on while passes are made: all is on the source in the end, once.
func TestSentMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	login := string(w.rows[0].Addresses[0])
	target, source := w.user(false), w.user(true)
	w.mark()
	const each = 40
	now := time.Now().UTC().Truncate(time.Second)
	failed := make(chan error, 2)
	for name, c := range map[string]*client{"target": target, "source": source} {
		go func() {
			var err error
			for n := 0; n < each && err == nil; n++ {
				err = c.put("INBOX", mailboxes.Text(fmt.Sprintf("%s-%d", name, n), "kollege@example.org", login, now, name))
			}
			failed <- err
		}()
	}
	e := w.engine(w.journals())
	for left := 2; left > 0; {
		w.recall(e)
		select {
		case err := <-failed:
			if err != nil {
				t.Fatal(err)
			}
			left--
		default:
		}
	}
	if r := w.recall(e); r.ByUsers != each || r.Copied != 0 || len(r.NotBack) != 0 || !r.Done {
		t.Errorf("%+v", r)
	}
	if n := w.count()["INBOX"]; n != 2*each {
		t.Errorf("%d messages, want %d", n, 2*each)
	}
}
