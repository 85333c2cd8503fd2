package locate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"mailcutover/mail"
	"mailcutover/rollback/locate"
	"mailcutover/rollback/mailstore"
	"mailcutover/routing"
	"mailcutover/test/peers"
)

// master lets a user of ours into every mailbox.
const master = `
auth_master_user_separator = *
passdb {
  driver = static
  master = yes
  args = password=master
}`

// filtered has Dovecot's LMTP file mail by a script for everybody.
const filtered = `
protocol lmtp {
  mail_plugins = $mail_plugins sieve
}
plugin {
  sieve_before = %s
}`

const script = `require ["fileinto", "mailbox", "imap4flags"];
if header :contains "Subject" "file me" { fileinto :create "Private.Doctor"; stop; }
if header :contains "Subject" "twice" { fileinto :create "Copies"; keep; stop; }
if header :contains "Subject" "junk me" { addflag "\\Deleted"; keep; stop; }
`

const installation = "test"

type office struct {
	*peers.Dovecot
	mailstore.Session
}

func open(t *testing.T) *office {
	t.Helper()
	dir := t.TempDir()
	for at := dir; len(at) > len(os.TempDir()); at = filepath.Dir(at) { // Dovecot reads it as another user
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "all.sieve")
	if err := os.WriteFile(path, []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	d := peers.StartDovecot(t, peers.DovecotOptions{First: master, Extra: fmt.Sprintf(filtered, path)})
	store, err := mailstore.New(mailstore.Options{
		Platform: "ox", Hosts: []string{d.IMAP}, Command: 2 * time.Minute, Installation: installation,
		Access: mailstore.Access{Mode: mailstore.ModeMaster, User: "admin", Password: "master"},
	})
	if err != nil {
		t.Fatal(err)
	}
	id, err := routing.ParseMailboxID("00000000-0000-0000-0000-000000000001")
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), routing.Row{Mailbox: id, Kind: routing.KindUser, Addresses: []routing.Address{"anna@health.example"}}, mailstore.Target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &office{d, s}
}

// deliver hands a message over by LMTP, with our Received line, and returns its transaction.
func (o *office) deliver(t *testing.T, id, subject string) mail.TransactionID {
	t.Helper()
	transaction := mail.NewTransactionID()
	received := (&mail.Trace{
		Client: mail.Client{Helo: "relay.example", With: "ESMTP"}, Node: "mx1.example", Installation: installation, Transaction: transaction, Time: time.Now(),
	}).Append(nil)
	conn, err := net.Dial("tcp", o.LMTP)
	if err != nil {
		t.Fatal(err)
	}
	c := smtp.NewClientLMTP(conn)
	defer c.Close()
	text := fmt.Sprintf("%sMessage-ID: <%s@out.example>\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\nFrom: a@out.example\r\nSubject: %s\r\n\r\nhello\r\n", received, id, subject)
	if err := c.SendMail("a@out.example", []string{"anna@health.example"}, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return transaction
}

func (o *office) find(t *testing.T, w locate.Sought) locate.Found {
	t.Helper()
	found, err := locate.Find(t.Context(), o, w)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Where filters and readers put mail.
func TestFind(t *testing.T) {
	o := open(t)
	now := time.Now()
	filed := o.deliver(t, "filed", "file me")
	twice := o.deliver(t, "twice", "twice")
	o.deliver(t, "plain", "hello")
	junk := o.deliver(t, "junk", "junk me")
	o.deliver(t, "filed.longer", "hello") // whose Message-ID a search finds too

	tests := []struct {
		name string
		w    locate.Sought
		want []string
	}{
		{"filed", locate.Sought{MessageID: "<filed@out.example>"}, []string{"Private/Doctor"}},
		{"of the transaction", locate.Sought{Transactions: []mail.TransactionID{filed}, Since: now}, []string{"Private/Doctor ours"}},
		{"of both", locate.Sought{MessageID: "filed@out.example", Transactions: []mail.TransactionID{filed}}, []string{"Private/Doctor ours"}},
		{"in two folders", locate.Sought{MessageID: "<twice@out.example>", Transactions: []mail.TransactionID{twice}}, []string{"INBOX ours", "Copies ours"}},
		{"in the inbox", locate.Sought{MessageID: "plain@out.example"}, []string{"INBOX"}},
		{"to be expunged", locate.Sought{Transactions: []mail.TransactionID{junk}, Since: now}, []string{"INBOX ours deleted"}},
		{"another transaction of the same", locate.Sought{MessageID: "plain@out.example", Transactions: []mail.TransactionID{filed + "x"}, Since: now}, []string{"INBOX"}},
		{"nowhere", locate.Sought{MessageID: "other@out.example", Since: now}, nil},
		{"part of an id", locate.Sought{MessageID: "out.example", Since: now}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			found := o.find(t, test.w)
			var got []string
			for _, p := range found.Places {
				text := p.Folder
				if p.Ours {
					text += " ours"
				}
				if p.Deleted {
					text += " deleted"
				}
				if time.Since(p.Arrived) > time.Hour || p.Role == mailstore.Inbox != (p.Folder == "INBOX") {
					t.Errorf("%+v", p)
				}
				got = append(got, text)
			}
			if strings.Join(got, "|") != strings.Join(test.want, "|") || found.Skipped != 0 || found.Cut || found.Folders != 3 {
				t.Errorf("%q, want %q: %+v", got, test.want, found)
			}
		})
	}
	if found := o.find(t, locate.Sought{MessageID: "other@out.example"}); !found.Cut {
		t.Error("without a time nobody knows whether the search's index was behind")
	}
	if _, err := locate.Find(t.Context(), o, locate.Sought{}); err == nil {
		t.Error("nothing was sought, and found")
	}
}

// A folder that can't be opened is counted, and isn't called empty; a platform that goes away
// is an error.
func TestFindNotAll(t *testing.T) {
	o := open(t)
	now := time.Now()
	id := o.deliver(t, "plain", "hello")
	raw := []byte("Message-ID: <plain@out.example>\r\n\r\nmine\r\n")
	if err := o.Create(t.Context(), "Closed", mailstore.RoleNone); err != nil {
		t.Fatal(err)
	}
	put := o.AppendMany(t.Context(), "Closed")
	err := put.Add(mailstore.Append{Size: int64(len(raw)), Body: bytes.NewReader(raw)}, func(_ mailstore.Appended, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	if err = errors.Join(err, put.Close()); err != nil {
		t.Fatal(err)
	}
	if found := o.find(t, locate.Sought{MessageID: "plain@out.example", Transactions: []mail.TransactionID{id}, Since: now}); len(found.Places) != 2 || found.Places[1].Ours {
		t.Errorf("%+v", found)
	}
	closed := refusing{o.Session}
	found, err := locate.Find(t.Context(), closed, locate.Sought{MessageID: "none@out.example", Since: now})
	if err != nil || found.Skipped != 1 || found.Folders != 1 || len(found.Places) != 0 {
		t.Errorf("%+v, %v", found, err)
	}
	o.Kill()
	if found, err := locate.Find(t.Context(), o, locate.Sought{MessageID: "plain@out.example", Since: now}); !errors.Is(err, mailstore.ErrUnavailable) {
		t.Errorf("%+v, %v", found, err)
	}
}

// refusing doesn't open the folder Closed.
type refusing struct{ mailstore.Session }

func (r refusing) Select(ctx context.Context, folder string, write bool) (mailstore.Folder, error) {
	if folder == "Closed" {
		return mailstore.Folder{}, fmt.Errorf("select: %w", mailstore.ErrRefused)
	}
	return r.Session.Select(ctx, folder, write)
}
