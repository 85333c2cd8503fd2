package queue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/spool"
)

// book is a Ledger that keeps what it was told, in words.
type book struct {
	mu   sync.Mutex
	said map[mail.TransactionID][]string
	err  error
}

// Note implements Ledger.
func (b *book) Note(i *ledger.Intent, answers ...ledger.Answer) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n := range i.Recipients {
		a := answers[min(n, len(answers)-1)]
		line := fmt.Sprintf("%s %s", i.Recipients[n].Address, a.Result)
		if i.Platform != "" {
			line += " by " + string(i.Platform)
		}
		if a.Code != 0 {
			line += fmt.Sprintf(" %d", a.Code)
		}
		if a.Text != "" {
			line += ": " + a.Text
		}
		b.said[i.Transaction] = append(b.said[i.Transaction], line)
	}
	return b.err
}

// Whatever ends without a platform's acceptance is in the ledger when the spool has forgotten
// it (P10): why, and what became of it then.
func TestHistory(t *testing.T) {
	notify := func(w gosmtp.DSNNotify) gosmtp.RcptOptions { return gosmtp.RcptOptions{Notify: []gosmtp.DSNNotify{w}} }
	refused := Result{Status: Refused, Reply: mail.NewReply(550, 5, 1, 1, "no such user")}
	noted := refused
	noted.Noted = true
	later := Result{Status: Deferred, Reply: mail.NewReply(452, 4, 2, 2, "over quota")}
	drop := func(q *Queue, s Subject) (Acted, error) { return q.Drop(s, "spam (Anna Berg)") }
	hold := func(q *Queue, s Subject) (Acted, error) { return q.Hold(s, "odd (Anna Berg)") }
	release := func(q *Queue, s Subject) (Acted, error) { return q.Release(s, "not so (Ben Abt)") }
	for _, c := range []struct {
		name  string
		from  string
		o     gosmtp.RcptOptions
		state spool.State
		open  bool // also for held mail
		does  Result
		acts  []func(*Queue, Subject) (Acted, error)
		want  []string
	}{
		{name: "delivered", from: "a@out.example"},
		{name: "refused", from: "a@out.example", does: refused, want: []string{"refused by ox 550: 5.1.1 no such user", "notice sent: failed notice, transaction NOTICE"}},
		{name: "refused after the dot", from: "a@out.example", does: noted, want: []string{"notice sent: failed notice, transaction NOTICE"}},
		{name: "refused, and nobody wants to know", from: "a@out.example", o: notify(gosmtp.DSNNotifyNever), does: refused, want: []string{"refused by ox 550: 5.1.1 no such user", "no notice by ox"}},
		{name: "refused, of a null sender", does: refused, want: []string{"refused by ox 550: 5.1.1 no such user", "quarantined by ox: 5.1.1 no such user"}},
		{name: "came in as refused", from: "a@out.example", state: spool.StateFailed, want: []string{"notice sent: failed notice, transaction NOTICE"}},
		{name: "came in as refused, and nobody wants to know", from: "a@out.example", o: notify(gosmtp.DSNNotifyNever), state: spool.StateFailed, want: []string{"no notice"}},
		{name: "too old", from: "a@out.example", does: later, want: []string{"put off by ox 452: 4.2.2 over quota", "expired by ox 452: 4.2.2 over quota", "notice sent: failed notice, transaction NOTICE"}},
		{name: "too old, and nobody wants to know", from: "a@out.example", o: notify(gosmtp.DSNNotifyNever), does: later, want: []string{"put off by ox 452: 4.2.2 over quota", "expired by ox 452: 4.2.2 over quota", "no notice by ox"}},
		{name: "too old, and its platform away", from: "a@out.example", does: Result{Status: Unavailable, Err: errDown}, want: []string{"put off by ox: connection refused", "expired by ox: connection refused", "notice sent: failed notice, transaction NOTICE"}},
		{name: "put off, held", from: "a@out.example", state: spool.StateHeld, open: true, does: later, want: []string{"put off by ox 452: 4.2.2 over quota", "expired by ox 452: 4.2.2 over quota", "notice sent: failed notice, transaction NOTICE"}},
		{name: "damaged", from: "a@out.example", does: Result{Status: Damaged, Err: spool.ErrDamaged}, want: []string{"quarantined by ox: " + spool.ErrDamaged.Error()}},
		{name: "relayed", from: "a@out.example", o: notify(gosmtp.DSNNotifySuccess), does: Result{Status: Delivered, Silent: true}, want: []string{"notice sent: relayed notice, transaction NOTICE"}},
		{
			name: "dropped", from: "a@out.example", state: spool.StateHeld, acts: []func(*Queue, Subject) (Acted, error){hold, release, hold, drop},
			want: []string{"quarantined: odd (Anna Berg)", "released: not so (Ben Abt)", "quarantined: odd (Anna Berg)", "dropped: spam (Anna Berg)"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &book{said: make(map[mail.TransactionID][]string), err: errors.New("disk full")} // which keeps nothing from happening
				w := newWorld(t, func(o *Options) { o.Ledger, o.Retry.Life = b, 12*time.Hour })
				w.open("ox", "health", 1)
				if c.state == spool.StateUnknown {
					c.state = spool.StateWaiting
				}
				if c.state == spool.StateHeld && !c.open {
					w.shut("health", 1)
				}
				w.behave = func(d *Delivery, _ *Recipient) Result {
					if d.Notice {
						return Result{}
					}
					return c.does
				}
				id := w.putWith(c.state, c.from, c.o, 1)
				w.run()
				time.Sleep(time.Minute)
				for _, act := range c.acts {
					if a, err := act(w.q, Subject{Transaction: id}); err != nil || a.Changed != 1 {
						t.Fatalf("%+v, %v", a, err)
					}
				}
				time.Sleep(24 * time.Hour)
				w.stop()
				var notice string
				for _, m := range w.store.notices() {
					notice = string(m.Transaction)
					kind, _, _ := strings.Cut(m.Recipients[0].Reason, " ")
					if got, want := b.said[m.Transaction], c.from+" accepted: waiting: "+kind+" notice about "+string(id); m.Recipients[0].State == spool.StateWaiting && !slices.Contains(got, want) {
						t.Errorf("of the notice the ledger has %q, want %q", got, want)
					}
				}
				var want []string
				for _, line := range c.want {
					want = append(want, string(address(1))+" "+strings.ReplaceAll(line, "NOTICE", notice))
				}
				if got := b.said[id]; !slices.Equal(got, want) {
					t.Errorf("the ledger has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			})
		})
	}
}

// The alarm about the quarantine ends with the last that is in it.
func TestQuarantineAlarmEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1, 2)
		w.behave = func(*Delivery, *Recipient) Result { return Result{Status: Damaged, Err: spool.ErrDamaged} }
		first, second := w.put(spool.StateWaiting, "a@out.example", 1), w.put(spool.StateWaiting, "a@out.example", 2)
		w.run()
		time.Sleep(time.Minute)
		for _, c := range []struct {
			id   mail.TransactionID
			left bool
		}{{first, true}, {second, false}} {
			if w.alarm("spool-quarantine") == "" {
				t.Errorf("before %s is dropped there is no alarm", c.id)
			}
			if a, err := w.q.Drop(Subject{Transaction: c.id}, "a test"); err != nil || a.Changed != 1 {
				t.Fatalf("%+v, %v", a, err)
			}
		}
		if text := w.alarm("spool-quarantine"); text != "" {
			t.Errorf("with nothing in quarantine the alarm says %q", text)
		}
		w.stop()
	})
}
