package spool

import (
	"fmt"
	"hash/crc32"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/mail"
)

func checksum(s string) uint32 { return crc32.Checksum([]byte(s), castagnoli) }

// TestOrderOfAcceptance plays accepts, outcomes, compactions, kills and restarts drawn at
// random: Each gives what is left in the order in which it was acknowledged, for all and
// for each mailbox, and Held says whether there is any.
func TestOrderOfAcceptance(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		o := Options{Disk: memdisk.New(), SegmentBytes: int64(rapid.IntRange(headerBytes, 4000).Draw(r, "segment")), InlineBytes: 200, manual: true}
		s := openStore(t, o)
		defer func() { s.Close() }()
		type one struct {
			id   mail.TransactionID
			rcpt string
		}
		var held []one
		r.Repeat(map[string]func(*rapid.T){
			"accept": func(r *rapid.T) {
				name := rapid.SampledFrom([]string{"anna", "bert", "cleo"}).Draw(r, "rcpt")
				size := rapid.IntRange(0, 400).Draw(r, "size")
				held = append(held, one{accept(t, s, string(make([]byte, size)), rcpt(name, "health", StateHeld)), name})
			},
			"deliver": func(r *rapid.T) {
				if len(held) == 0 {
					return
				}
				i := rapid.IntRange(0, len(held)-1).Draw(r, "which")
				if err := s.Set(Outcome{Transaction: held[i].id, State: StateDelivered}); err != nil {
					r.Fatal(err)
				}
				held = slices.Delete(held, i, i+1)
			},
			"compact": func(r *rapid.T) {
				if n := s.worth(); n != 0 {
					if err := s.compactSegment(n); err != nil {
						r.Fatal(err)
					}
				}
			},
			"kill": func(r *rapid.T) {
				o.Disk = o.Disk.(*memdisk.Disk).Restart(memdisk.LoseNothing)
				s = openStore(t, o)
			},
			"restart": func(r *rapid.T) {
				if err := s.Close(); err != nil {
					r.Fatal(err)
				}
				s = openStore(t, o)
			},
			"": func(r *rapid.T) {
				for _, name := range []string{"", "anna", "bert", "cleo"} {
					var want, got []string
					f := Filter{State: StateHeld}
					if name != "" {
						f.Key = func() Key { r := rcpt(name, "health", StateHeld); return r.Key() }()
					}
					for _, h := range held {
						if name == "" || h.rcpt == name {
							want = append(want, string(h.id))
						}
					}
					last := uint64(0)
					s.Each(f, func(e Entry) bool {
						if e.Sequence <= last {
							r.Fatalf("sequence %d after %d", e.Sequence, last)
						}
						last = e.Sequence
						got = append(got, string(e.Transaction))
						return true
					})
					if !slices.Equal(got, want) {
						r.Fatal(fmt.Sprintf("of %q there is %q, want %q", name, got, want))
					}
					if name != "" && s.Held(f.Key) != (len(want) > 0) {
						r.Fatalf("held mail of %q: %t", name, s.Held(f.Key))
					}
				}
			},
		})
	})
}
