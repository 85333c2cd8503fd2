package spool

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/mail"
	"mailcutover/routing"
)

// TestOwn plays accepts, ends, restarts and addresses that go from one to another, drawn at
// random: each recipient's key is that of who has its address now, or had it at acceptance while
// that isn't known; Held and the entries of a key go by it, in order of acceptance, and
// Moves grows whenever held mail has another key than before.
func TestOwn(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		o := Options{Disk: memdisk.New(), manual: true}
		s := openStore(t, o)
		defer func() { s.Close() }()
		type one struct {
			id    mail.TransactionID
			rcpts []Recipient
			keys  []Key
		}
		var all []one
		owners := map[routing.Address]routing.MailboxID{} // those that are known; a fixed address has the zero one
		told := false                                     // since the start
		keyNow := func(rcpt *Recipient, was Key) Key {
			if owner, ok := owners[rcpt.Address]; ok && told {
				return KeyOf(owner, rcpt.Address)
			}
			return was
		}
		drawn := func(r *rapid.T) Recipient {
			d := rcpt(rapid.SampledFrom([]string{"anna", "bert"}).Draw(r, "address"), "health", rapid.SampledFrom([]State{StateHeld, StateHeld, StateWaiting}).Draw(r, "state"))
			d.Mailbox = rapid.SampledFrom([]routing.MailboxID{{}, {15: 1}, {15: 2}}).Draw(r, "mailbox")
			return d
		}
		r.Repeat(map[string]func(*rapid.T){
			"accept": func(r *rapid.T) {
				m := one{rcpts: []Recipient{drawn(r)}}
				if rapid.Bool().Draw(r, "two") {
					m.rcpts = append(m.rcpts, drawn(r))
				}
				m.id = accept(t, s, "body", slices.Clone(m.rcpts)...)
				all = append(all, m)
				for i := range m.rcpts {
					rcpt := &m.rcpts[i]
					was := KeyOf(rcpt.Mailbox, rcpt.Address)
					for _, o := range all { // what came by the same name has one key
						for n, k := range o.keys {
							if o.rcpts[n].Address == rcpt.Address && o.rcpts[n].Mailbox == rcpt.Mailbox {
								was = k
							}
						}
					}
					m.keys = append(m.keys, keyNow(rcpt, was))
					all[len(all)-1] = m
				}
			},
			"deliver": func(r *rapid.T) {
				if len(all) == 0 {
					return
				}
				i := rapid.IntRange(0, len(all)-1).Draw(r, "which")
				for n := range all[i].rcpts {
					if err := s.Set(Outcome{Transaction: all[i].id, Recipient: n, State: StateDelivered}); err != nil {
						r.Fatal(err)
					}
				}
				all = slices.Delete(all, i, i+1)
			},
			"own": func(r *rapid.T) {
				a := routing.Address(rapid.SampledFrom([]string{"anna", "bert"}).Draw(r, "address") + "@in.example")
				owners[a] = rapid.SampledFrom([]routing.MailboxID{{}, {15: 1}, {15: 2}}).Draw(r, "owner")
				if rapid.Bool().Draw(r, "nobody knows") {
					delete(owners, a)
				}
				known := make(map[routing.Address]routing.MailboxID)
				for a, owner := range owners {
					known[a] = owner
				}
				told = true
				before, moved := s.Moves(), false
				s.Own(func(a routing.Address) (routing.MailboxID, bool) {
					owner, ok := known[a]
					return owner, ok
				})
				for i := range all {
					for n := range all[i].rcpts {
						k := keyNow(&all[i].rcpts[n], all[i].keys[n])
						moved = moved || k != all[i].keys[n] && all[i].rcpts[n].State == StateHeld
						all[i].keys[n] = k
					}
				}
				if grown := s.Moves() > before; grown != moved {
					r.Errorf("Moves has grown: %t, held mail moved: %t", grown, moved)
				}
			},
			"restart": func(r *rapid.T) {
				o.Disk = o.Disk.(*memdisk.Disk).Restart(memdisk.LoseNothing)
				s = openStore(t, o)
				told = false
				for i := range all {
					for n := range all[i].rcpts {
						all[i].keys[n] = KeyOf(all[i].rcpts[n].Mailbox, all[i].rcpts[n].Address)
					}
				}
			},
			"": func(r *rapid.T) {
				byKey := make(map[Key][]string)
				held := make(map[Key]bool)
				for _, m := range all {
					got, err := s.Get(m.id)
					if err != nil {
						r.Fatal(err)
					}
					for n, k := range m.keys {
						if got.Recipients[n].Key() != k {
							r.Errorf("message %s for %s has the key %s, want %s", m.id, m.rcpts[n].Address, got.Recipients[n].Key(), k)
						}
						byKey[k] = append(byKey[k], fmt.Sprint(m.id, n))
						held[k] = held[k] || m.rcpts[n].State == StateHeld
					}
				}
				for _, k := range []Key{KeyOf(routing.MailboxID{15: 1}, ""), KeyOf(routing.MailboxID{15: 2}, ""), "anna@in.example", "bert@in.example"} {
					var entries []string
					s.Each(Filter{Key: k}, func(e Entry) bool {
						if e.Key != k {
							r.Errorf("entry of %s has the key %s", k, e.Key)
						}
						entries = append(entries, fmt.Sprint(e.Transaction, e.Recipient))
						return true
					})
					if !slices.Equal(entries, byKey[k]) || s.Held(k) != held[k] {
						r.Errorf("%s: %v, held %t; want %v, %t", k, entries, s.Held(k), byKey[k], held[k])
					}
				}
				if x := &s.x; len(x.names)-1-len(x.freeNames) > 6 || len(x.keyNumber) > 4 || len(all) == 0 && len(x.nameNumber)+len(x.keyNumber) > 0 {
					r.Errorf("%d messages take %d names, %d of them free, and %d keys", len(all), len(x.names), len(x.freeNames), len(x.keyNumber))
				}
			},
		})
	})
}
