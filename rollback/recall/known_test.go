package recall

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
	"mailcutover/routing"
)

func writeAll(t *testing.T, j *Journals, id routing.MailboxID, records ...record) {
	t.Helper()
	w, err := j.take(id)
	if err == nil {
		err = errors.Join(w.write(records...), w.close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What a killed process wrote counts for the next one, which makes it durable first: a power cut
// takes nothing of it.
func TestJournalAfterAKillAndAPowerCut(t *testing.T) {
	id := routing.MailboxID{15: 1}
	intent := record{Kind: kindIntent}
	intent.UID = 7
	for _, loss := range memdisk.Losses() {
		disk := memdisk.New()
		j, err := OpenJournalsOn(disk, "/recall")
		if err != nil {
			t.Fatal(err)
		}
		w, err := j.take(id)
		if err == nil {
			err = w.write(intent)
		}
		if err != nil {
			t.Fatal(err)
		}
		disk = disk.Restart(memdisk.LoseNothing)
		for _, cut := range []memdisk.Loss{loss, memdisk.LoseNothing} {
			if j, err = OpenJournalsOn(disk, "/recall"); err == nil {
				w, err = j.take(id)
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(w.intents) != 1 {
				t.Errorf("%s: %d intents are known, want 1", loss, len(w.intents))
			}
			disk = disk.Restart(cut)
		}
	}
}

// What one node knows of a mailbox counts at another as if it had been written there, however often
// it is taken and whatever both have; and it can be handed on.
func TestJournalOfAnotherNode(t *testing.T) {
	id := testID(t)
	open := func() *Journals {
		j, err := OpenJournalsOn(memdisk.New(), "/recall")
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	key := func(i byte) (k msgkey.Key) { k[0] = i; return k }
	at := func(uid uint32) origin { return origin{"INBOX", 7, uid} }
	first, second, third := open(), open(), open()
	if text, err := first.Export(id); err != nil || text != nil {
		t.Errorf("a journal that isn't there: %q, %v", text, err)
	}
	m := mail.NewTransactionID()
	writeAll(t, first, id,
		record{Kind: kindIntent, origin: at(1), Key: key(1)}, record{Kind: kindBack, origin: at(1), Key: key(1), Ours: true},
		record{Kind: kindThere, origin: origin{Folder: "INBOX", Validity: 7}, Set: "4:6"},
		record{Kind: kindNotBack, origin: at(9), Key: key(9), Class: ClassTooLarge})
	writeAll(t, second, id,
		record{Kind: kindNotBack, origin: at(1), Key: key(1), Ours: true, Class: ClassDropped},
		record{Kind: kindBack, origin: at(9), Key: key(9)}, record{Kind: kindBack, origin: at(1), Key: key(1), Ours: true})
	if err := first.Sent(id, m); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		text, err := first.Export(id)
		if err == nil {
			err = second.Take(id, "mx1", text)
		}
		if err == nil {
			text, err = second.Export(id)
		}
		if err == nil {
			err = third.Take(id, "mx2", text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, j := range map[string]*Journals{"second": second, "third": third} {
		a, next, err := j.load(id)
		if err != nil {
			t.Fatal(err)
		}
		r := a.result(nil)
		if len(a.brought) != 2 || a.byKey[key(1)] != 1 || a.byKey[key(9)] != 1 || r.Copied != 3 || r.ByUsers != 1 || r.DeliveredBack != 1 || len(r.NotBack) != 0 || !a.sent[msgkey.TransactionKey(m)] || a.damaged != 0 {
			t.Errorf("%s knows %+v, damaged %d", name, r, a.damaged)
		}
		if name == "third" && next != 0 {
			t.Errorf("its own journal goes on at %d", next)
		}
		all, err := j.Mailboxes()
		if err != nil || !slices.Equal(all, []routing.MailboxID{id}) {
			t.Errorf("%s has journals of %v, %v", name, all, err)
		}
	}
	if err := third.Take(id, "mx9", []byte("no journal")); err == nil {
		t.Error("something that isn't a journal was taken")
	}
	w, err := third.take(id)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := first.Export(id)
	if err := third.Take(id, "mx1", text); !errors.Is(err, ErrBusy) {
		t.Errorf("taken while the mailbox is worked on: %v", err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
}

// box is a mailbox in memory, as far as these tests need one.
type box struct {
	mailstore.Session
	folder  mailstore.Folder
	stored  []string // by UID - 1
	appends int
	selects func(b *box) // before a folder is selected
}

func (b *box) Folders(ctx context.Context) ([]mailstore.Folder, error) {
	f := b.folder
	f.Messages, f.UIDNext = uint32(len(b.stored)), uint32(len(b.stored)+1)
	return []mailstore.Folder{f}, nil
}

func (b *box) Select(_ context.Context, _ string, _ bool) (mailstore.Folder, error) {
	if b.selects != nil {
		b.selects(b)
	}
	f := b.folder
	f.Messages, f.UIDNext = uint32(len(b.stored)), uint32(len(b.stored)+1)
	return f, nil
}

func (b *box) List(_ context.Context, from, _ uint32, f func(mailstore.Message) error) error {
	for i, text := range b.stored {
		uid := uint32(i + 1)
		if uid < from || text == "" {
			continue
		}
		header, _, _ := strings.Cut(text, "\r\n\r\n")
		facts := msgkey.Parse([]byte(header+"\r\n"), "test")
		if err := f(mailstore.Message{UID: uid, Size: int64(len(text)), Internal: time.Unix(1_760_000_000, 0), Facts: facts}); err != nil {
			return err
		}
	}
	return nil
}

func (b *box) ListSince(ctx context.Context, _ time.Time, f func(mailstore.Message) error) error {
	return b.List(ctx, 1, 0, f)
}

func (b *box) Bodies(_ context.Context, uids []uint32, f func(uint32, int64, io.Reader) error) error {
	for _, uid := range uids {
		text := b.stored[uid-1]
		if err := f(uid, int64(len(text)), bytes.NewReader([]byte(text))); err != nil {
			return err
		}
	}
	return nil
}

func (b *box) Create(context.Context, string, mailstore.Role) error { return nil }

func (b *box) Close() error { return nil }

func (b *box) AppendMany(context.Context, string) mailstore.Appender { return (*boxAppender)(b) }

type boxAppender box

func (a *boxAppender) Add(m mailstore.Append, done func(mailstore.Appended, error)) error {
	text, err := io.ReadAll(m.Body)
	if err != nil {
		return err
	}
	a.stored = append(a.stored, string(text))
	a.appends++
	done(mailstore.Appended{UIDValidity: a.folder.UIDValidity, UID: uint32(len(a.stored))}, nil)
	return nil
}

func (a *boxAppender) Close() error { return nil }

func (b *box) Open(context.Context, routing.Row, mailstore.Side) (mailstore.Session, error) {
	return b, nil
}

func newBox(texts ...string) *box {
	return &box{folder: mailstore.Folder{Name: "INBOX", Role: mailstore.Inbox, UIDValidity: 1, AnyKeyword: true}, stored: texts}
}

// text is a message; with a transaction it is one that we delivered.
func text(id string, ours mail.TransactionID) string {
	received := ""
	if ours != "" {
		received = "Received: from out.test by mx.test (mailcutover test) with ESMTP id " + string(ours) + "; Fri, 10 Oct 2025 10:00:00 +0200\r\n"
	}
	return received + "Message-ID: <" + id + "@test>\r\nDate: Fri, 10 Oct 2025 10:00:00 +0200\r\nFrom: a@test\r\n\r\n" + id + "\r\n"
}

// bring brings one mailbox from one box to another.
func bringBox(t *testing.T, j *Journals, from, to *box, change func(*Job)) (Result, error) {
	t.Helper()
	e, err := New(Options{From: from, To: to, Journals: j, Settle: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	job := Job{Agency: "health", Direction: Direction{From: "ox", To: "exchange", Side: mailstore.Target}, Row: routing.Row{Mailbox: testID(t)}}
	if change != nil {
		change(&job)
	}
	return e.Mailbox(t.Context(), job)
}

// A copy that was delivered by SMTP while the mailbox couldn't be read, and that its user has
// deleted since, isn't brought; one that is on its way is waited for; and one that was given up is brought.
func TestCopies(t *testing.T) {
	j, err := OpenJournalsOn(memdisk.New(), "/recall")
	if err != nil {
		t.Fatal(err)
	}
	deleted, coming := mail.NewTransactionID(), mail.NewTransactionID()
	from, to := newBox(text("deleted", deleted), text("coming", coming), text("sent", "")), newBox()
	if err := j.Sent(testID(t), deleted); err != nil {
		t.Fatal(err)
	}
	delivered := func(job *Job) { job.Delivered = slices.Values([]mail.TransactionID{deleted, coming}) }
	r, err := bringBox(t, j, from, to, func(job *Job) {
		delivered(job)
		job.Held = slices.Values([]mail.TransactionID{coming})
	})
	if err != nil || r.Done || to.appends != 1 || r.DeliveredBack != 1 || r.ByUsers != 1 || len(r.NotBack) != 0 {
		t.Errorf("while one is on its way: %d appended, %+v, %v", to.appends, r, err)
	}
	r, err = bringBox(t, j, from, to, delivered)
	if err != nil || !r.Done || to.appends != 2 || r.DeliveredBack != 2 || len(r.NotBack) != 0 {
		t.Errorf("when it was given up: %d appended, %+v, %v", to.appends, r, err)
	}
	// Its user deletes what came; another run, and one by a node that has the journal from here.
	to.stored[0], to.stored[1] = "", ""
	exported, err := j.Export(testID(t))
	if err != nil {
		t.Fatal(err)
	}
	other, err := OpenJournalsOn(memdisk.New(), "/recall")
	if err == nil {
		err = other.Take(testID(t), "mx1", exported)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, journals := range map[string]*Journals{"here": j, "another node": other} {
		r, err = bringBox(t, journals, from, to, delivered)
		if err != nil || !r.Done || to.appends != 2 || r.DeliveredBack != 2 || r.ByUsers != 1 {
			t.Errorf("deleted again, %s: %d appended, %+v, %v", name, to.appends, r, err)
		}
	}
}

// A folder that is made anew while a pass looks at it has other messages under its UIDs: nothing is
// taken for what it was, and the next look brings all.
func TestReplacedFolder(t *testing.T) {
	j, err := OpenJournalsOn(memdisk.New(), "/recall")
	if err != nil {
		t.Fatal(err)
	}
	from, to := newBox(text("one", ""), text("two", "")), newBox(text("old", ""))
	n := 0
	from.selects = func(b *box) {
		if n++; n == 1 {
			b.folder.UIDValidity, b.stored = 2, []string{text("three", ""), text("one", ""), text("two", "")}
		}
	}
	if _, err := bringBox(t, j, from, to, nil); !errors.Is(err, errReplaced) || mailstore.Platform(err) || to.appends != 0 {
		t.Fatalf("%d appended, %v", to.appends, err)
	}
	r, err := bringBox(t, j, from, to, nil)
	if err != nil || !r.Done || r.ByUsers != 3 || to.appends != 3 {
		t.Errorf("%d appended, %+v, %v", to.appends, r, err)
	}
	for _, id := range []string{"one", "two", "three"} {
		if !slices.Contains(to.stored, text(id, "")) {
			t.Errorf("%s isn't there", id)
		}
	}
}
