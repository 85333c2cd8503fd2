package mailstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/routing"
	"mailcutover/test/peers"
)

// masterPassdb has a master user with the password "master" for every mailbox.
const masterPassdb = `
auth_master_user_separator = *
passdb {
  driver = static
  master = yes
  args = password=master
}`

// special has Dovecot say which folder is for what, and make none of them.
const special = `
namespace inbox {
  inbox = yes
  separator = /
  mailbox "Gesendete Objekte" {
    special_use = \Sent
  }
  mailbox Papierkorb {
    special_use = \Trash
  }
}`

func row(t *testing.T, address string) routing.Row {
	t.Helper()
	a, err := routing.ParseAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	id, err := routing.ParseMailboxID("00000000-0000-0000-0000-000000000001")
	if err != nil {
		t.Fatal(err)
	}
	return routing.Row{Mailbox: id, Kind: routing.KindUser, Addresses: []routing.Address{a}}
}

func store(t *testing.T, d *peers.Dovecot, change func(*mailstore.Options)) *mailstore.IMAP {
	t.Helper()
	o := mailstore.Options{
		Platform: "ox", Hosts: []string{d.IMAP}, Command: 2 * time.Minute, Installation: "test",
		Access: mailstore.Access{Mode: mailstore.ModeMaster, User: "admin", Password: "master"},
	}
	if change != nil {
		change(&o)
	}
	s, err := mailstore.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func open(t *testing.T, s *mailstore.IMAP, address string) mailstore.Session {
	t.Helper()
	session, err := s.Open(t.Context(), row(t, address), mailstore.Target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return session
}

func message(id string, size int) []byte {
	return fmt.Appendf(nil, "Message-ID: <%s@example.org>\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\nFrom: a@example.org\r\nSubject: %s\r\n\r\n%s\r\n",
		id, id, strings.Repeat("x", size))
}

// put puts one message into a folder, and returns when the platform has answered.
func put(ctx context.Context, s mailstore.Session, folder string, m mailstore.Append) (at mailstore.Appended, err error) {
	var answer error
	a := s.AppendMany(ctx, folder)
	err = errors.Join(a.Add(m, func(got mailstore.Appended, err error) { at, answer = got, err }), a.Close())
	if answer != nil {
		err = answer
	}
	return at, err
}

func appendOne(t *testing.T, s mailstore.Session, folder string, raw []byte, at time.Time, flags ...string) mailstore.Appended {
	t.Helper()
	got, err := put(t.Context(), s, folder, mailstore.Append{Flags: flags, Internal: at, Size: int64(len(raw)), Body: bytes.NewReader(raw)})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func list(t *testing.T, s mailstore.Session, from, to uint32) []mailstore.Message {
	t.Helper()
	var all []mailstore.Message
	if err := s.List(t.Context(), from, to, func(m mailstore.Message) error { all = append(all, m); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// What is put in comes out: bytes, flags, keywords and dates, in folders with any name.
func TestDovecot(t *testing.T) {
	d := peers.StartDovecot(t, peers.DovecotOptions{First: masterPassdb, Extra: special})
	s := open(t, store(t, d, nil), "anna@example.org")
	at := time.Date(2025, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	for _, folder := range []string{"INBOX", "Gesendete Objekte", "Projekte/Größe & Maß/2026"} {
		t.Run(folder, func(t *testing.T) {
			if folder != "INBOX" {
				if err := s.Create(t.Context(), folder, mailstore.RoleNone); err != nil {
					t.Fatal(err)
				}
			}
			small, large := message("small", 10), message("large", 300_000)
			appendOne(t, s, folder, small, at, `\Seen`, "$Label1", "Wichtig")
			got := appendOne(t, s, folder, large, at.Add(time.Hour))
			if got.UID == 0 || got.UIDValidity == 0 {
				t.Errorf("appended %+v", got)
			}
			f, err := s.Select(t.Context(), folder, false)
			if err != nil || f.Messages != 2 || f.UIDNext != got.UID+1 {
				t.Fatalf("selected %+v, %v", f, err)
			}
			all := list(t, s, 1, 0)
			if len(all) != 2 {
				t.Fatalf("%d messages", len(all))
			}
			if m := all[0]; !m.Internal.Equal(at) || !slices.Equal(m.Flags, []string{"$Label1", "Wichtig", `\Seen`}) || m.Size != int64(len(small)) || m.Facts.MessageID != "<small@example.org>" {
				t.Errorf("listed %+v", m)
			}
			if rest := list(t, s, got.UID, 0); len(rest) != 1 || rest[0].UID != got.UID {
				t.Errorf("from %d: %+v", got.UID, rest)
			}
			if none := list(t, s, got.UID+1, 0); len(none) != 0 {
				t.Errorf("above the last: %+v", none)
			}
			err = s.Bodies(t.Context(), []uint32{got.UID}, func(uid uint32, size int64, body io.Reader) error {
				raw, err := io.ReadAll(body)
				if uid != got.UID || size != int64(len(large)) || !bytes.Equal(raw, large) {
					t.Errorf("read %d bytes of %d of message %d, %v", len(raw), size, uid, err)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			err = s.Bodies(t.Context(), []uint32{1, got.UID, 77}, func(uid uint32, size int64, body io.Reader) error {
				n++
				return nil // what isn't read is skipped
			})
			if err != nil || n != 2 {
				t.Errorf("%d bodies, %v", n, err)
			}
			if uids, err := s.Find(t.Context(), "<large@example.org>"); err != nil || !slices.Equal(uids, []uint32{got.UID}) {
				t.Errorf("found %v, %v", uids, err)
			}
			n = 0
			if err := s.ListSince(t.Context(), at.AddDate(0, 0, -1), func(mailstore.Message) error { n++; return nil }); err != nil || n != 2 {
				t.Errorf("%d since, %v", n, err)
			}
			if err := s.ListSince(t.Context(), at.AddDate(0, 0, 2), func(mailstore.Message) error { n++; return nil }); err != nil || n != 2 {
				t.Errorf("%d more later, %v", n-2, err)
			}
		})
	}
	folders, err := s.Folders(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, f := range folders {
		told = append(told, fmt.Sprintf("%s %v %d", f.Name, f.Role, f.Messages))
	}
	want := []string{"Gesendete Objekte sent 2", "INBOX inbox 2", "Projekte none 0", "Projekte/Größe & Maß none 0", "Projekte/Größe & Maß/2026 none 2"}
	if !slices.Equal(told, want) {
		t.Errorf("folders %q, want %q", told, want)
	}
	if _, err := s.Select(t.Context(), "INBOX", true); err != nil {
		t.Fatal(err)
	}
	if err := s.Move(t.Context(), []uint32{1}, "Projekte/Größe & Maß/2026"); err != nil {
		t.Fatal(err)
	}
	if f, err := s.Select(t.Context(), "Projekte/Größe & Maß/2026", false); err != nil || f.Messages != 3 {
		t.Errorf("after the move %+v, %v", f, err)
	}
	if _, err := s.Select(t.Context(), "nirgends", false); !errors.Is(err, mailstore.ErrNoFolder) {
		t.Errorf("a folder that isn't there: %v", err)
	}
}

// Many messages go without waiting for each.
func TestAppendMany(t *testing.T) {
	d := peers.StartDovecot(t, peers.DovecotOptions{First: masterPassdb})
	s := open(t, store(t, d, nil), "anna@example.org")
	a := s.AppendMany(t.Context(), "INBOX")
	last, n := uint32(0), 0
	for i := range 100 {
		raw := message(fmt.Sprint(i), i*200)
		err := a.Add(mailstore.Append{Size: int64(len(raw)), Body: bytes.NewReader(raw)}, func(at mailstore.Appended, err error) {
			if n++; err != nil || at.UID <= last {
				t.Errorf("message %d: UID %d after %d, %v", i, at.UID, last, err)
			}
			last = at.UID
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil || n != 100 {
		t.Errorf("%d answers, %v", n, err)
	}
}

// Half a message is never stored, and the session says that it is over.
func TestAppendCutOff(t *testing.T) {
	d := peers.StartDovecot(t, peers.DovecotOptions{First: masterPassdb})
	p := store(t, d, nil)
	s := open(t, p, "anna@example.org")
	raw := message("half", 100_000)
	if _, err := put(t.Context(), s, "INBOX", mailstore.Append{Size: int64(len(raw)), Body: bytes.NewReader(raw[:50_000])}); err == nil {
		t.Error("no error")
	}
	if _, err := s.Folders(t.Context()); err == nil {
		t.Error("the session goes on")
	}
	f, err := open(t, p, "anna@example.org").Select(t.Context(), "INBOX", false)
	if err != nil || f.Messages != 0 {
		t.Errorf("%+v, %v", f, err)
	}
}

// Logins that fail tell whose fault it is.
func TestAccess(t *testing.T) {
	d := peers.StartDovecot(t, peers.DovecotOptions{First: masterPassdb, Extra: noPenalty, Users: map[string]string{"anna@example.org": "x"}})
	t.Run("master's name", func(t *testing.T) {
		open(t, store(t, d, func(o *mailstore.Options) { o.Access.Mode = mailstore.ModeMasterName }), "anna@example.org")
	})
	t.Run("wrong password", func(t *testing.T) {
		p := store(t, d, func(o *mailstore.Options) { o.Access.Password = "wrong-secret" })
		_, err := p.Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
		if !errors.Is(err, mailstore.ErrAuth) || !mailstore.Platform(err) {
			t.Errorf("%v", err)
		}
		if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "anna") {
			t.Errorf("told too much: %v", err)
		}
	})
	t.Run("no mailbox", func(t *testing.T) {
		p := store(t, d, func(o *mailstore.Options) { o.RetryFirst, o.RetryMax = 10*time.Millisecond, 50*time.Millisecond })
		open(t, p, "anna@example.org")
		_, err := p.Open(t.Context(), row(t, "otto@example.org"), mailstore.Source)
		if !errors.Is(err, mailstore.ErrNoMailbox) || mailstore.Platform(err) {
			t.Errorf("%v", err)
		}
	})
	t.Run("delegated", func(t *testing.T) {
		open(t, store(t, d, func(o *mailstore.Options) {
			o.Access = mailstore.Access{Mode: mailstore.ModeDelegated, User: "svc", Password: "master", Form: "{login}*{user}"}
		}), "anna@example.org")
	})
	t.Run("connections", func(t *testing.T) {
		p := store(t, d, func(o *mailstore.Options) { o.Connections = 1 })
		s := open(t, p, "anna@example.org")
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := p.Open(ctx, row(t, "anna@example.org"), mailstore.Source); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second session: %v", err)
		}
		s.Close()
		open(t, p, "anna@example.org")
	})
	t.Run("nobody there", func(t *testing.T) {
		p := store(t, d, func(o *mailstore.Options) { o.Hosts = []string{"127.0.0.1:1", "127.0.0.1:2"} })
		_, err := p.Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
		if !errors.Is(err, mailstore.ErrUnavailable) {
			t.Errorf("%v", err)
		}
	})
}
