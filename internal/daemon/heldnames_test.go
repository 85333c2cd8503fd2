package daemon

import (
	"fmt"
	"net/smtp"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/rollback/control"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/spool"
)

// Mail is held for an address of one mailbox. The address goes to another one: that one's
// new mail goes behind it, also after a restart (P6).
func TestHeldMailGoesWithItsAddress(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	anna, ben := b.gate.Address("anna@health.example").Mailbox, routing.MailboxID{15: 2}
	rows := func(desk routing.MailboxID) routing.Digest {
		t.Helper()
		all := []routing.Row{
			{Mailbox: anna, Kind: routing.KindUser, Addresses: []routing.Address{"anna@health.example"}},
			{Mailbox: ben, Kind: routing.KindUser, Addresses: []routing.Address{"ben@health.example"}},
		}
		for i := range all {
			if all[i].Mailbox == desk {
				all[i].Addresses = append(all[i].Addresses, "desk@health.example")
			}
		}
		m, err := routing.NewMapping("health", all)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.table.PutMapping(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		return m.Digest()
	}
	remap := func(desk routing.MailboxID) {
		t.Helper()
		_, err := b.runner.Run(t.Context(), operation.Request{
			Kind: operation.Remap, Agency: "health", Who: "tester", Reason: "test", Mappings: map[routing.AgencyID]routing.Digest{"health": rows(desk)},
		})
		if err != nil {
			t.Fatal(err)
		}
		b.until("the address is open", func() bool {
			d := b.gate.Address("desk@health.example")
			return d.Deliver() && d.Mailbox == desk
		})
	}
	n := 0
	send := func(rcpt string) {
		t.Helper()
		n++
		body := fmt.Sprintf("Subject: number %d\r\n\r\nbody\r\n", n)
		var err error
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if err = smtp.SendMail(b.Addr("mx").String(), nil, "s@elsewhere.example", []string{rcpt}, []byte(body)); err == nil {
				return
			}
		}
		t.Fatal(err)
	}
	held := func(want int) {
		t.Helper()
		all := b.Spool()
		if got := all.Of(spool.StateHeld); got != want {
			t.Errorf("%d recipients are held, want %d", got, want)
		}
	}
	b.arm()
	remap(anna)
	act := control.Act{ID: "lock", Who: "tester", Reason: "test"}
	if _, err := b.control.Lock(t.Context(), act, []routing.AgencyID{"health"}, false); err != nil {
		t.Fatal(err)
	}
	send("desk@health.example")
	send("desk@health.example")
	b.a.SetScript(func(c platformtest.Command) platformtest.Reaction { // nothing goes yet
		if c.Verb == "MAIL" {
			return platformtest.Reaction{Reply: "451 4.3.2 later"}
		}
		return platformtest.Reaction{}
	})
	act.ID = "unlock"
	if _, err := b.control.Unlock(t.Context(), act, []routing.AgencyID{"health"}); err != nil {
		t.Fatal(err)
	}
	remap(ben)
	send("ben@health.example")
	b.stop(b.Daemon)
	b.start()
	b.until("a lease", func() bool { return b.gate.Ready() == nil })
	send("desk@health.example")
	held(4)
	if b.spool.Held(spool.KeyOf(anna, "")) {
		t.Error("mail is held for the mailbox that has the address no more")
	}
	b.a.SetScript(nil)
	b.until("nothing is held", func() bool { all := b.Spool(); return all.Messages == 0 })
	var got []string
	for _, m := range b.a.Stored() {
		_, rest, _ := strings.Cut(string(m.Body()), "Subject: number ")
		got = append(got, rest[:1])
	}
	if want := []string{"1", "2", "3", "4"}; !slices.Equal(got, want) {
		t.Errorf("the platform has %v, want %v", got, want)
	}
}
