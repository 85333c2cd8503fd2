package recall_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/recall"
	"mailcutover/routing"
	"mailcutover/test/mailboxes"
)

// day is what happened on the target since the cutover: what the source has to look like
// afterwards, by mailbox, and what a result has to say.
type day struct {
	want  [][]stored
	moved []int
	users []int // made by users, and brought
	late  []int // copied by the mover after the watermark
	ours  []int // delivered by us, and still there
	gone  []int // delivered by us, and deleted since
}

// live has a day pass on the target: late copies of the mover, mail that we deliver, mail
// between colleagues, and users who move, copy, file, draft, send and delete.
func (w *world) live(messages, late, delivered int) *day {
	w.t.Helper()
	n := len(w.rows)
	d := &day{want: make([][]stored, n), moved: make([]int, n), users: make([]int, n), late: make([]int, n), ours: make([]int, n), gone: make([]int, n)}
	var mu sync.Mutex
	w.parallel(func(i int, row routing.Row) error {
		c, err := w.client(w.target, row)
		if err != nil {
			return err
		}
		defer c.Close()
		now := time.Now().UTC().Truncate(time.Second)
		made := w.made(row, messages)
		for _, f := range made.Folders {
			for _, m := range f.Messages {
				d.want[i] = append(d.want[i], model(nameOnSource(f.Name), m))
			}
		}
		onSource := func(folder string, m mailboxes.Message) { d.want[i] = append(d.want[i], model(folder, m)) }

		share := shared(made, late)
		for _, f := range made.Folders {
			k := share[f.Name]
			for _, m := range f.Messages[:k] {
				if err := c.send(dotted(f.Name), m); err != nil {
					return err
				}
			}
			d.late[i] += k
		}

		// Mail that we deliver: one of ten is moved into a folder, one of ten deleted.
		for _, name := range []string{"Neu.Größe", "Straße & Ähre.2026.Mai"} {
			if err := c.Create(name, nil).Wait(); err != nil {
				return err
			}
		}
		for k := range delivered {
			mu.Lock()
			m := w.ours(row, k, now)
			mu.Unlock()
			switch k % 10 {
			case 3:
				if err := c.send("Straße & Ähre.2026.Mai", m); err != nil {
					return err
				}
				onSource("Straße & Ähre/2026/Mai", m)
				d.ours[i]++
			case 7:
				d.gone[i]++
			default:
				m.Flags = []string{`\Seen`, "$Label1"}
				if err := c.send("INBOX", m); err != nil {
					return err
				}
				onSource("INBOX", m)
				d.ours[i]++
			}
		}

		// What users make: a colleague's mail, which came by a list and directly; sent mail; drafts, one
		// saved twice with one Message-ID; a message without one.
		colleague := mailboxes.Text(fmt.Sprintf("intern-%d", i), "user0@example.org", string(row.Addresses[0]), now, "Intern, an uns vorbei")
		sent := mailboxes.Text(fmt.Sprintf("sent-%d", i), string(row.Addresses[0]), "out@out.example", now.Add(-time.Hour), "Gesendet")
		sent.Flags = []string{`\Seen`}
		draft := mailboxes.Text(fmt.Sprintf("draft-%d", i), string(row.Addresses[0]), "out@out.example", now, "Entwurf")
		draft.Flags = []string{`\Draft`, `\Seen`}
		again := draft
		again.Raw = append(slices.Clone(draft.Raw), "mehr Text\r\n"...)
		bare := mailboxes.Message{Raw: []byte("From: scanner@example.org\r\nSubject: Scan\r\n\r\nohne Message-ID\r\n"), Internal: now}
		read := mailboxes.Text(fmt.Sprintf("receipt-%d", i), "out@out.example", string(row.Addresses[0]), now, "Bitte bestätigen")
		read.Raw = append([]byte("Disposition-Notification-To: <out@out.example>\r\n"), read.Raw...)
		read.Flags = []string{`\Seen`}
		for _, u := range []struct {
			folder string
			m      mailboxes.Message
		}{{"INBOX", colleague}, {"INBOX", colleague}, {mailboxes.Sent, sent}, {mailboxes.Drafts, draft}, {mailboxes.Drafts, again}, {"INBOX", bare}, {"Neu/Größe", bare}, {"INBOX", read}} {
			if err := c.send(dotted(u.folder), u.m); err != nil {
				return err
			}
			onSource(nameOnSource(u.folder), u.m)
			d.users[i]++
		}

		if err := c.answered(); err != nil {
			return err
		}

		// A copy of an old message, which stays where it was; and old ones that are moved, one of them to the trash.
		old := made.Folder(mailboxes.Project).Messages
		if _, err := c.Select(dotted(mailboxes.Project), nil).Wait(); err != nil {
			return err
		}
		last := old[len(old)-1]
		if _, err := c.Copy(imap.SeqSetNum(uint32(len(old)-share[mailboxes.Project])), "Neu.Größe").Wait(); err != nil {
			return err
		}
		onSource("Neu/Größe", last)
		d.users[i]++
		inbox := made.Folder(mailboxes.Inbox).Messages
		if _, err := c.Select("INBOX", nil).Wait(); err != nil {
			return err
		}
		first := len(inbox) - share[mailboxes.Inbox] // of those that were copied before the watermark, the last two
		for k, to := range []string{mailboxes.Trash, "Neu/Größe"} {
			m := inbox[len(inbox)-1-k]
			if _, err := c.Move(imap.SeqSetNum(uint32(first-k)), dotted(to)).Wait(); err != nil {
				return err
			}
			at := slices.Index(d.want[i], model("INBOX", m))
			d.want[i][at].folder = nameOnSource(to)
			d.moved[i]++
		}
		return nil
	})
	return d
}

// dotted is a folder's name on the target.
func dotted(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c == '/' {
			b[i] = '.'
		}
	}
	return string(b)
}

// check compares the source with what it has to be.
func (w *world) check(d *day) {
	w.t.Helper()
	w.parallel(func(i int, row routing.Row) error {
		got, err := contents(w.t, w.to, row, mailstore.Source)
		if err != nil {
			return err
		}
		if differ := same(got, d.want[i]); differ != "" {
			return fmt.Errorf("the source differs (+ too many, - missing):\n%s", differ)
		}
		return nil
	})
}

// told compares results with what happened.
func (d *day) told(i int, r recall.Result) error {
	if r.Delivered != d.ours[i]+d.gone[i] || r.DeliveredBack != d.ours[i] || r.ByUsers != d.users[i] || r.Copied != d.late[i] || r.Moved != d.moved[i] || !r.Done {
		return fmt.Errorf("told %+v, want delivered %d of %d, %d by users, %d copied, %d moved", r, d.ours[i], d.ours[i]+d.gone[i], d.users[i], d.late[i], d.moved[i])
	}
	if len(r.NotBack) != d.gone[i] {
		return fmt.Errorf("not back: %+v, want %d that are gone", r.NotBack, d.gone[i])
	}
	for _, n := range r.NotBack {
		if n.Class != recall.ClassGone {
			return fmt.Errorf("not back: %+v", n)
		}
	}
	return nil
}

// A rollback after a day on the target: every message, flag and date is on the source, what
// was moved is moved, nothing is there twice, and a second run adds nothing.
func TestRollback(t *testing.T) {
	// The campaign has 200 mailboxes with 2,000 messages each, of which 500 are copied late, and kills the run.
	n, messages, late, kills := number(t, "RECALL_MAILBOXES", 20), number(t, "RECALL_MESSAGES", 100), number(t, "RECALL_LATE", 30), number(t, "RECALL_KILLS", 0)
	w := newWorld(t, n)
	began := time.Now()
	d := w.seedAndMark(messages, late).live(messages, late, min(messages/5, 100))
	t.Logf("the day of %d mailboxes has passed after %v", n, time.Since(began).Round(time.Second))
	told := d.told
	if began = time.Now(); kills > 0 {
		told = d.afterwards
		w.killed(d, kills)
		t.Logf("killed %d times, and ended, after %v", kills, time.Since(began).Round(time.Second))
	}
	for range 2 {
		began = time.Now()
		brought, looked := w.recalled(d, told)
		took := time.Since(began)
		t.Logf("%d messages brought and %d accounted for in %v: %.0f messages/s", brought, looked, took.Round(100*time.Millisecond), float64(looked)/took.Seconds())
	}
	w.check(d)
}

// recalled recalls all mailboxes, and compares what is told of each. It returns how many messages were brought by it, and how
// many that came to the target are accounted for.
func (w *world) recalled(d *day, told func(int, recall.Result) error) (brought, accounted int) {
	w.t.Helper()
	e := w.engine(w.journals())
	var mu sync.Mutex
	w.parallel(func(i int, row routing.Row) error {
		r, err := e.Mailbox(w.t.Context(), w.job(row))
		if err != nil {
			return err
		}
		mu.Lock()
		brought += r.Messages
		accounted += r.DeliveredBack + r.ByUsers + r.Copied + r.Moved
		mu.Unlock()
		return told(i, r)
	})
	return brought, accounted
}
