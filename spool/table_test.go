package spool

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"mailcutover/mail"
)

// A message takes the bytes that docs/performance.md says.
func TestRowSize(t *testing.T) {
	if n := unsafe.Sizeof(message{}); n > 104 {
		t.Errorf("%d bytes for a message", n)
	}
}

// The index finds exactly what was put in and not taken out, in order of acceptance, and
// gives back the memory when most is gone. Of the ids some want the same slots.
func TestIndex(t *testing.T) {
	type one struct {
		id    [16]byte
		seq   uint64
		rcpts int
	}
	for seed := range uint64(3) {
		rng := rand.New(rand.NewPCG(seed, 1))
		x, seq := newIndex(), uint64(0)
		var want []one
		for step := range 40 {
			switch {
			case rng.IntN(3) > 0:
				for range rng.IntN(600) {
					id, _ := mail.NewTransactionID().Bytes()
					if rng.IntN(4) == 0 {
						id = [16]byte{}
						binary.LittleEndian.PutUint64(id[8:], rng.Uint64N(400))
					}
					if x.find(id) != nil {
						continue
					}
					seq++
					rcpts := make([]recipient, 1+rng.IntN(3))
					for k := range rcpts {
						rc := rcpt(fmt.Sprint(k), "health", StateHeld)
						rcpts[k] = x.recipient(&rc)
					}
					x.add(&message{id: id, seq: seq, size: 3}, rcpts)
					want = append(want, one{id, seq, len(rcpts)})
				}
			default:
				most := rng.IntN(10) // tenths that go
				want = slices.DeleteFunc(want, func(w one) bool {
					if rng.IntN(10) > most {
						return false
					}
					x.remove(x.find(w.id))
					return true
				})
			}
			var got []one
			for _, row := range x.order {
				if m := x.rows.at(row); !m.gone {
					got = append(got, one{m.id, m.seq, len(x.recipients(m))})
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d step %d: %d messages in order, want %d", seed, step, len(got), len(want))
			}
			for _, w := range want {
				if m := x.find(w.id); m == nil || m.seq != w.seq {
					t.Fatalf("seed %d step %d: message %x isn't found", seed, step, w.id)
				}
			}
			if n := x.messages.len(); n != len(want) || x.counts.Messages != n || x.counts.Bytes != 3*int64(n) {
				t.Fatalf("seed %d step %d: %d messages, %v, want %d", seed, step, n, x.counts, len(want))
			}
			if rows := x.rows.len(); rows > 5*(len(want)+1300) {
				t.Fatalf("seed %d step %d: %d rows for %d messages", seed, step, rows, len(want))
			}
		}
	}
}
