package verify_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/verify"
	"mailcutover/test/peers"
)

// dovecot is a Dovecot whose Maildirs are written as files, which a few thousand messages
// need. Sessions of one process are faster than a process each.
func dovecot(t *testing.T) (d *peers.Dovecot, store *mailstore.IMAP, maildirs string) {
	t.Helper()
	maildirs = t.TempDir()
	d = peers.StartDovecot(t, peers.DovecotOptions{
		First: "auth_master_user_separator = *\npassdb {\n driver = static\n master = yes\n args = password=master\n}",
		Extra: "mail_location = maildir:" + maildirs + "/%u\nmail_fsync = never\n" +
			"service imap {\n service_count = 100000\n}\nservice imap-login {\n service_count = 0\n}\nservice auth {\n client_limit = 2000\n}\n",
	})
	store, err := mailstore.New(mailstore.Options{
		Platform: "p", Hosts: []string{d.IMAP}, Command: 2 * time.Minute, Installation: installation,
		Access: mailstore.Access{Mode: mailstore.ModeMaster, User: "admin", Password: "master"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d, store, maildirs
}

// seed writes what a platform in memory has as Maildirs.
func (p *platform) seed(t *testing.T, maildirs string) {
	t.Helper()
	number := 0
	for login, box := range p.boxes {
		for name, f := range box {
			dir := filepath.Join(maildirs, login)
			if name != "INBOX" {
				dir = filepath.Join(dir, "."+strings.NewReplacer("/", ".", "Größe", "Gr&APYA3w-e").Replace(name)) // RFC 3501 section 5.1.3
			}
			for _, sub := range []string{"cur", "new", "tmp"} {
				if err := os.MkdirAll(filepath.Join(dir, sub), 0o777); err != nil {
					t.Fatal(err)
				}
			}
			for _, l := range f.letters {
				// Dovecot numbers messages by the second in their names, and several of one second in any order. Here both sides have
				// one order, so that one UID is one message where they have one UIDVALIDITY, as folders that were made in one second have.
				number++
				file := filepath.Join(dir, "cur", fmt.Sprintf("%d.M1P1.host:2,S", 1_600_000_000+number))
				if err := os.WriteFile(file, []byte(l.raw), 0o644); err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(file, l.internal, l.internal); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	// Dovecot writes its index files there as another user.
	err := filepath.WalkDir(maildirs, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o777)
		}
		return err
	})
	for dir := maildirs; err == nil && len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestTheIncident builds the crossing of 790 mailboxes: one column of the list was sorted
// without the others, so that the mover put nearly every mailbox's content into another one.
// All pairs have to be named, and with the right list there has to be no finding at all.
//
// VERIFY_MESSAGES is how many messages each mailbox has of its own; the campaign sets it.
func TestTheIncident(t *testing.T) {
	const mailboxes = 790
	messages, campaign := 2, false
	if s := os.Getenv("VERIFY_MESSAGES"); s != "" {
		campaign = true
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("VERIFY_MESSAGES=%s: %v", s, err)
		}
		messages = n
	}
	w := newWorld(t, mailboxes)
	w.fillSmall(messages)
	crossed := func(i int) []int { return []int{(i + 1 + i%2*4) % mailboxes} }
	w.copy(crossed)
	_, source, maildirs := dovecot(t)
	w.source.seed(t, maildirs)
	there, target, maildirs := dovecot(t)
	w.target.seed(t, maildirs)
	t.Log("seeded")
	o := w.options()
	for i := range o.Agencies {
		o.Agencies[i].Source, o.Agencies[i].Target = source, target
	}
	began := time.Now()
	report := w.run(o)
	t.Logf("%d mailboxes, %d messages in %v", report.Compared, report.Counts.Source+report.Counts.Target, time.Since(began))
	pairs := make(map[int][]int)
	for i := range mailboxes {
		pairs[crossed(i)[0]] = append(pairs[crossed(i)[0]], i)
	}
	want(t, w.found(report, verify.Crossed), pairs)

	// The mailboxes are put right, as files, when nobody is in them any more.
	peers.WaitFor(t, time.Minute, "end of the sessions", func() bool { return !strings.Contains(there.Doveadm(t, "who"), "imap") })
	for i := range mailboxes {
		if err := os.Rename(filepath.Join(maildirs, w.there(crossed(i)[0])), filepath.Join(maildirs, "right-"+w.there(i))); err != nil {
			t.Fatal(err)
		}
	}
	for i := range mailboxes {
		if err := os.Rename(filepath.Join(maildirs, "right-"+w.there(i)), filepath.Join(maildirs, w.there(i))); err != nil {
			t.Fatal(err)
		}
	}
	if !campaign {
		o.Sample = 60 // of each agency
	}
	if report := w.run(o); len(report.Findings) != 0 || report.Compared != report.Mailboxes && campaign || !report.Counts.Same() {
		t.Errorf("with the right list: %d compared, %+v, findings %v", report.Compared, report.Counts, w.found(report, verify.Kinds()...))
	}
}
