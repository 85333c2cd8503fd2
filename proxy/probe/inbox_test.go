package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/pop3"
	"mailcutover/proxy/login/sieve"
	"mailcutover/proxy/login/submission"
	"mailcutover/test/peers"
)

const sought = "<1@canary.example>"

// put puts a message into a folder, by a client of its own.
func put(t *testing.T, d *peers.Dovecot, user, folder, header string, flags ...imap.Flag) {
	t.Helper()
	c := dialIMAP(t, d, user)
	_ = c.Create(folder, nil).Wait() // it may be there
	text := header + "\r\nSubject: test\r\n\r\ntest\r\n"
	a := c.Append(folder, int64(len(text)), &imap.AppendOptions{Flags: flags})
	if _, err := a.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Wait(); err != nil {
		t.Fatal(err)
	}
}

func dialIMAP(t *testing.T, d *peers.Dovecot, user string) *imapclient.Client {
	t.Helper()
	nc, err := net.Dial("tcp", d.IMAP)
	if err != nil {
		t.Fatal(err)
	}
	c := imapclient.New(nc, nil)
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Login(user, "secret").Wait(); err != nil {
		t.Fatal(err)
	}
	return c
}

// inbox returns the Message-IDs in an INBOX, with an asterisk where it is marked as deleted.
func inbox(t *testing.T, d *peers.Dovecot, user string) (all []string) {
	t.Helper()
	c := dialIMAP(t, d, user)
	box, err := c.Select("INBOX", &imap.SelectOptions{ReadOnly: true}).Wait()
	if err != nil {
		t.Fatal(err)
	}
	if box.NumMessages == 0 {
		return nil
	}
	messages, err := c.Fetch(imap.SeqSet{{Start: 1}}, &imap.FetchOptions{Envelope: true, Flags: true}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		id := m.Envelope.MessageID
		if slices.Contains(m.Flags, imap.FlagDeleted) {
			id += "*"
		}
		all = append(all, id)
	}
	return all
}

// The message that was looked for is deleted, and nothing else, whatever the platform is able to; where that isn't
// possible it stays. One that isn't in the INBOX is not found, but it is said where it is.
func TestOnlyOurMessageIsDeleted(t *testing.T) {
	t.Parallel()
	plus := peers.StartDovecot(t, peers.DovecotOptions{})
	without := peers.StartDovecot(t, peers.DovecotOptions{Extra: "imap_capability = IMAP4rev1 LITERAL+ NAMESPACE"})
	type stored struct {
		folder, header string
		flags          []imap.Flag
	}
	ours, other := stored{"INBOX", "Message-ID: " + sought, nil}, stored{"INBOX", "Message-ID: <2@canary.example>", nil}
	deleted := stored{"INBOX", other.header, []imap.Flag{imap.FlagDeleted}}
	for i, c := range []struct {
		name    string
		d       *peers.Dovecot
		there   []stored
		left    string
		missing string // ErrNotThere, with this
		after   []string
	}{
		{"UIDPLUS", plus, []stored{other, ours, deleted}, "", "", []string{"2@canary.example", "2@canary.example*"}},
		{"folded", plus, []stored{{"INBOX", "Message-ID:\r\n " + sought, nil}, other}, "", "", []string{"2@canary.example"}},
		{"almost its Message-ID", plus, []stored{{"INBOX", "Message-ID: " + sought + " again", nil}}, "isn't there under its Message-ID", "", []string{"1@canary.example"}},
		{"without UIDPLUS", without, []stored{other, ours}, "", "", []string{"2@canary.example"}},
		{"without UIDPLUS, and another is marked", without, []stored{ours, deleted}, "1 other messages are marked", "", []string{"1@canary.example", "2@canary.example*"}},
		{"nowhere", plus, []stored{other}, "", "after 0s", []string{"2@canary.example"}},
		{"elsewhere", plus, []stored{other, {"Junk", "Message-ID: " + sought, nil}}, "", `in its folder "Junk"`, []string{"2@canary.example"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			peersReady(t, c.d.IMAP)
			user := fmt.Sprintf("canary%d@ox.example", i)
			for _, m := range c.there {
				put(t, c.d, user, m.folder, m.header, m.flags...)
			}
			addr, err := net.ResolveTCPAddr("tcp", c.d.IMAP)
			if err != nil {
				t.Fatal(err)
			}
			e := Entrance{Addr: addr}
			left, err := e.Login(within(t, time.Minute), Account{Login: user, Password: "secret"}, func(netip.AddrPort) {}, sought, 0)
			if c.missing != "" {
				if !errors.Is(err, ErrNotThere) || !strings.Contains(err.Error(), c.missing) {
					t.Errorf("got %v", err)
				}
			} else if err != nil || (left == "") != (c.left == "") || !strings.Contains(left, c.left) {
				t.Errorf("left %q, %v", left, err)
			}
			if got := inbox(t, c.d, user); !slices.Equal(got, c.after) {
				t.Errorf("the INBOX has %q, want %q", got, c.after)
			}
		})
	}
}

// peersReady waits until a Dovecot takes connections.
func peersReady(t *testing.T, addr string) {
	t.Helper()
	peers.WaitFor(t, 60*time.Second, "the Dovecot at "+addr, func() bool {
		nc, err := net.Dial("tcp", addr)
		if err == nil {
			_ = nc.Close()
		}
		return err == nil
	})
}

// The other protocols' logins reach a real server, and one that is refused names no password.
func TestLogInByDialogue(t *testing.T) {
	t.Parallel()
	d := peers.StartDovecot(t, peers.DovecotOptions{Logins: true, Relay: "127.0.0.1:1"})
	for at, dialogue := range map[string]Dialogue{d.POP3: pop3.Dialogue{}, d.Sieve: sieve.Dialogue{}} {
		t.Run(dialogue.Protocol(), func(t *testing.T) {
			peersReady(t, at)
			addr, err := net.ResolveTCPAddr("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			e := Entrance{Addr: addr, Helo: "mx.example"}
			seen := false
			if err := e.LogIn(within(t, time.Minute), dialogue, Account{Login: "canary@ox.example", Password: "secret"}, func(a netip.AddrPort) { seen = a.IsValid() }); err != nil || !seen {
				t.Errorf("%v, seen %v", err, seen)
			}
			err = e.LogIn(within(t, time.Minute), dialogue, Account{Login: "canary@ox.example", Password: "hunter2"}, func(netip.AddrPort) { t.Error("logged in") })
			var refused *login.Rejection
			if !errors.As(err, &refused) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a wrong password: %v", err)
			}
		})
	}
	// One that says nothing costs the caller's time, and no more.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	e := Entrance{Addr: silent.Addr()}
	err = e.LogIn(within(t, 3*time.Second), submission.Dialogue{}, Account{Login: "canary", Password: "hunter2"}, func(netip.AddrPort) { t.Error("logged in") })
	if err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("a silent listener: %v", err)
	}
}
