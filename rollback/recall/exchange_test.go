package recall_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	goimap "github.com/emersion/go-imap/v2"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/recall"
	"mailcutover/routing"
	exchange "mailcutover/test/exchangelike/imap"
	"mailcutover/test/mailboxes"
)

// exchangeStore opens mailboxes of the Exchange-like platform.
func exchangeStore(t *testing.T, s *exchange.Server, command time.Duration) *mailstore.IMAP {
	t.Helper()
	p, err := mailstore.New(mailstore.Options{
		Platform: "exchange", Hosts: []string{s.Addr}, Command: command, Installation: installation, NotMail: []string{"Kalender", "Kontakte"},
		RetryFirst: 20 * time.Millisecond, RetryMax: 2 * time.Second,
		Access: mailstore.Access{Mode: mailstore.ModeDelegated, User: exchange.Account, Password: exchange.Password, Form: `{user}\{login}`},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// mix is a bit of everything: received, twice the same, sent, a draft, without Message-ID,
// with keywords, large, with a long line.
func mix(address string) *mailboxes.Mailbox {
	at := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	text := func(id, body string, flags ...string) mailboxes.Message {
		m := mailboxes.Text(id, "a@out.example", address, at, body)
		m.Flags = flags
		return m
	}
	twice := text("twice", "by a list, and directly")
	html := mailboxes.Make(address, mailboxes.Options{Seed: 3, Messages: 40})
	m := &mailboxes.Mailbox{Address: address}
	in := m.Folder(mailboxes.Inbox)
	in.Messages = append(in.Messages, text("one", "first", `\Seen`, "Wichtig"), twice, twice,
		text("large", strings.Repeat(strings.Repeat("x", 70)+"\r\n", 900)), text("long", strings.Repeat("y", 5000)),
		mailboxes.Message{Raw: []byte("From: scanner@example.org\r\nSubject: Scan\r\n\r\nno Message-ID\r\n"), Internal: at})
	in.Messages = append(in.Messages, html.Folder(mailboxes.Inbox).Messages...)
	m.Folder(mailboxes.Sent).Messages = []mailboxes.Message{text("sent", "sent", `\Seen`)}
	m.Folder(mailboxes.Drafts).Messages = []mailboxes.Message{text("draft", "begun", `\Draft`), text("draft", "begun, and gone on with", `\Draft`)}
	m.Folder("Größe/Maß").Messages = []mailboxes.Message{text("filed", "filed", `\Flagged`)}
	return m
}

// Each habit of Exchange: what can be brought is, and found again, and stays one after another
// run; what can't is named.
func TestExchange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	for i, c := range []struct {
		name   string
		quirks exchange.Quirks
		class  recall.Class
		not    int // not back
		check  func(recall.Result) bool
	}{
		{"no quirks", exchange.Quirks{}, "", 0, func(r recall.Result) bool { return r.Rewritten == 0 && len(r.FlagsNotTaken) == 0 }},
		{"rewrites", exchange.Quirks{Rewrite: true}, "", 0, func(r recall.Result) bool { return r.Rewritten == r.ByUsers }},
		{"rewrites, doesn't say the UID", exchange.Quirks{Rewrite: true, NoUIDPlus: true}, "", 0, func(r recall.Result) bool { return r.Rewritten == r.ByUsers }},
		{"drops duplicates", exchange.Quirks{DropDuplicates: true}, recall.ClassDropped, 2, nil}, // the copy, and the older draft
		{"limit, told", exchange.Quirks{Limit: 50_000, Told: true}, recall.ClassTooLarge, 1, nil},
		{"limit, not told", exchange.Quirks{Limit: 50_000}, recall.ClassTooLarge, 1, nil},
		{"throttles", exchange.Quirks{Throttle: 4}, "", 0, nil},
		{"lines", exchange.Quirks{LongestLine: 1000}, recall.ClassRefused, 1, nil},
		{"no keywords", exchange.Quirks{NoKeywords: true}, "", 0, func(r recall.Result) bool { return r.FlagsNotTaken["Wichtig"] > 0 }},
		{"shows late", exchange.Quirks{Delay: 300 * time.Millisecond}, "", 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			row := w.rows[0]
			row.Addresses = []routing.Address{routing.Address(fmt.Sprintf("case%d@example.org", i))}
			login := string(row.Addresses[0])
			m := mix(login)
			if err := m.WriteMaildir(filepath.Join(w.target.Dir(), login)); err != nil {
				t.Fatal(err)
			}
			s := exchange.Start(t, c.quirks, login)
			to := exchangeStore(t, s, 2*time.Minute)
			j, err := recall.OpenJournals(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			e, err := recall.New(recall.Options{From: w.from, To: to, Journals: j, Settle: 1200 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			job := w.job(row)
			job.Since, job.There, job.Delivered = nil, nil, nil
			for range 2 {
				r, err := e.Mailbox(t.Context(), job)
				if err != nil {
					t.Fatal(err)
				}
				if !r.Done || len(r.NotBack) != c.not || r.ByUsers+c.not != m.Count() || r.Copied != 0 || r.Moved != 0 {
					t.Fatalf("%d messages: %+v", m.Count(), r)
				}
				for _, n := range r.NotBack {
					if n.Class != c.class || n.UID == 0 || n.Folder == "" || n.Key.IsZero() || n.Reason == "" {
						t.Errorf("not back: %+v", n)
					}
				}
				if c.check != nil && !c.check(r) {
					t.Errorf("told %+v", r)
				}
				got, err := contents(t, to, row, mailstore.Source)
				if err != nil {
					t.Fatal(err)
				}
				if len(got) != m.Count()-c.not {
					t.Errorf("%d messages there, want %d", len(got), m.Count()-c.not)
				}
				folders := make(map[string]int)
				for _, s := range got {
					folders[s.folder]++
				}
				if folders["Gesendete Elemente"] != 1 || folders["Entwürfe"] < 1 || folders["Größe/Maß"] != 1 {
					t.Errorf("folders %v", folders)
				}
			}
		})
	}
}

// A mailbox whose server hangs costs that mailbox, within its time limit, and no other.
func TestHungMailbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	s := exchange.Start(t, exchange.Quirks{}, string(w.rows[0].Addresses[0]), string(w.rows[1].Addresses[0]))
	for _, row := range w.rows {
		login := string(row.Addresses[0])
		if err := mix(login).WriteMaildir(filepath.Join(w.target.Dir(), login)); err != nil {
			t.Fatal(err)
		}
	}
	s.Hang(string(w.rows[0].Addresses[0]))
	e, err := recall.New(recall.Options{From: w.from, To: exchangeStore(t, s, 10*time.Second), Journals: w.journals()})
	if err != nil {
		t.Fatal(err)
	}
	job := w.job(w.rows[0])
	job.Delivered = nil
	if _, err := e.Mailbox(t.Context(), job); !errors.Is(err, mailstore.ErrTimeout) || mailstore.Platform(err) {
		t.Errorf("the one that hangs: %v", err)
	}
	job.Row = w.rows[1]
	if r, err := e.Mailbox(t.Context(), job); err != nil || !r.Done {
		t.Errorf("the other: %+v, %v", r, err)
	}
}

// After a cutover the same code brings what still came to the source to the target, and
// leaves the calendar alone.
func TestSweep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	row := w.rows[0]
	login := string(row.Addresses[0])
	s := exchange.Start(t, exchange.Quirks{}, login)
	from := exchangeStore(t, s, 2*time.Minute)
	e, err := recall.New(recall.Options{From: from, To: w.from, Journals: w.journals()})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().UTC().Truncate(time.Second)
	for _, m := range []struct{ folder, id string }{{"INBOX", "late"}, {"Gesendete Elemente", "late-sent"}, {"Kalender", "meeting"}} {
		if err := s.Put(login, m.folder, mailboxes.Text(m.id, "a@out.example", login, at, "late").Raw, []goimap.Flag{goimap.FlagSeen}, at); err != nil {
			t.Fatal(err)
		}
	}
	job := recall.Job{Agency: "health", Row: row, Direction: recall.Direction{From: "exchange", To: "ox", Side: mailstore.Source}, After: time.Now().Add(time.Hour)}
	r, err := e.Mailbox(t.Context(), job)
	if err != nil || r.ByUsers != 2 || r.Done {
		t.Fatalf("%+v, %v", r, err)
	}
	// Something comes yet, within the platform's limit.
	if err := s.Put(login, "INBOX", mailboxes.Text("last", "a@out.example", login, at, "last").Raw, nil, at); err != nil {
		t.Fatal(err)
	}
	job.After = time.Now()
	if r, err = e.Mailbox(t.Context(), job); err != nil || r.ByUsers != 3 || !r.Done || r.Messages != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
}
