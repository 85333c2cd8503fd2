package daemon

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// A kill may come between any two of the writes by which a message goes from an adopted
// spool into ours and on to its platform. The adoption that goes on repeats nothing but
// what the ledger has in doubt, and loses nothing.
func TestAdoptionIsInterrupted(t *testing.T) {
	for _, c := range []struct {
		name   string
		after  []func(*interrupted) // the writes before the kill
		arrive int                  // of two messages, after the start
		held   int                  // in our spool in the end
	}{
		{"before the copy", nil, 2, 0},
		{"after the copy", []func(*interrupted){(*interrupted).commit}, 2, 0},
		{"after its states", []func(*interrupted){(*interrupted).commit, (*interrupted).states}, 2, 0},
		{"after the intent", []func(*interrupted){(*interrupted).commit, (*interrupted).states, (*interrupted).intend}, 0, 2},
		{"after the spool's outcome", []func(*interrupted){(*interrupted).commit, (*interrupted).states, (*interrupted).intend, (*interrupted).delivered}, 0, 2},
		{"after the ledger's outcome", []func(*interrupted){(*interrupted).commit, (*interrupted).states, (*interrupted).intend, (*interrupted).delivered, (*interrupted).outcome}, 1, 0},
		{"after the end of the old one", []func(*interrupted){(*interrupted).commit, (*interrupted).states, (*interrupted).end}, 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.stop(b.Daemon)
			dir, data := oldSpool(t, 3), b.config.Load().Data
			if _, err := spool.Adopt(nil, dir, "mx2.example", "mx1.example"); err != nil {
				t.Fatal(err)
			}
			i := &interrupted{T: t}
			i.open(dir, data)
			for _, write := range c.after {
				write(i)
			}
			i.close()
			list := filepath.Join(data, adoptingFile)
			if err := os.WriteFile(list, []byte(dir+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			b.start()
			b.until("the adoption has ended", func() bool {
				text, err := os.ReadFile(list)
				return err == nil && len(text) == 0
			})
			b.until("what may go has gone", func() bool {
				st, err := b.api.Spool(t.Context())
				return err == nil && st.Total.Held == c.held && len(b.a.Stored()) >= c.arrive
			})
			if n := len(b.a.Stored()); n != c.arrive {
				t.Errorf("%d messages arrived, want %d", n, c.arrive)
			}
		})
	}
}

// interrupted makes the writes of an adoption, and of the queue, for one message.
type interrupted struct {
	*testing.T
	from, to *spool.Store
	ledger   *ledger.Ledger
	m        *spool.Message
	ticket   ledger.Ticket
}

func (i *interrupted) ok(err error) {
	i.Helper()
	if err != nil {
		i.Fatal(err)
	}
}

// open opens the spools and the ledger. The first message of the old spool was moved
// before and is gone; the second is what the adoption is at.
func (i *interrupted) open(dir, data string) {
	var err error
	i.from, err = spool.Open(spool.Options{Dir: dir, Node: "mx1.example"})
	i.ok(err)
	i.to, err = spool.Open(spool.Options{Dir: filepath.Join(data, "spool"), Node: "mx1.example"})
	i.ok(err)
	i.ledger, err = ledger.Open(ledger.Options{Dir: filepath.Join(data, "ledger")})
	i.ok(err)
	var ids []mail.TransactionID
	i.from.Each(spool.Filter{}, func(e spool.Entry) bool { ids = append(ids, e.Transaction); return true })
	i.ok(i.from.Set(spool.Outcome{Transaction: ids[0], State: spool.StateDropped}))
	i.m, err = i.from.Get(ids[1])
	i.ok(err)
}

func (i *interrupted) close() {
	i.ok(i.from.Close())
	i.ok(i.to.Close())
	i.ok(i.ledger.Close())
}

func (i *interrupted) set(s *spool.Store, to spool.State) {
	i.Helper()
	i.ok(s.Set(spool.Outcome{Transaction: i.m.Transaction, State: to, Reason: "test"}))
}

func (i *interrupted) commit() {
	body, err := i.from.Open(i.m.Transaction)
	i.ok(err)
	defer body.Close()
	in, err := i.to.Begin(i.m.Envelope)
	i.ok(err)
	defer in.Discard()
	_, err = io.Copy(in, body)
	i.ok(err)
	i.ok(in.Commit(i.Context(), i.m.Recipients))
}

func (i *interrupted) states()    { i.set(i.to, spool.StateHeld) }
func (i *interrupted) delivered() { i.set(i.to, spool.StateDelivered) }
func (i *interrupted) end()       { i.set(i.from, spool.StateDropped) }

func (i *interrupted) intend() {
	r := &i.m.Recipients[0]
	var err error
	i.ticket, err = i.ledger.Intend(&ledger.Intent{
		Transaction: i.m.Transaction, Platform: "exchange", Size: i.m.Size,
		Recipients: []ledger.Recipient{{Address: r.Address, Agency: r.Agency, Mailbox: r.Mailbox, Epoch: routing.Epoch{Number: 1}}},
	})
	i.ok(err)
}

func (i *interrupted) outcome() {
	i.ledger.Outcome(i.ticket, ledger.Answer{Result: ledger.ResultDelivered, Code: 250})
}
