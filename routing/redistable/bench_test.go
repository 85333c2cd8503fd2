package redistable

import (
	"fmt"
	"testing"

	"mailcutover/routing"
	"mailcutover/test/peers"
)

// BenchmarkChange is one change after another on a Redis with appendfsync always.
func BenchmarkChange(b *testing.B) {
	_, tb, pos := begun(b, Options{}, peers.RedisOptions{})
	u, err := tb.Snapshot(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	a := u.Agencies[0]
	c := add(b, pos, "health")
	for i := 0; b.Loop(); i++ {
		a.Epoch = a.Epoch.Next()
		c.ID, c.Agencies = fmt.Sprint("change ", i), []routing.Agency{a}
		after, err := tb.Change(b.Context(), c)
		if err != nil {
			b.Fatal(err)
		}
		a.Revision = after.Revision
	}
}

// BenchmarkMapping loads a mapping of 200,000 mailboxes, two addresses and a login each.
func BenchmarkMapping(b *testing.B) {
	_, tb, _ := begun(b, Options{}, peers.RedisOptions{})
	m := mapping(b, 200_000)
	if err := tb.PutMapping(b.Context(), m); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(m.Size()))
	for b.Loop() {
		got, err := tb.Mapping(b.Context(), m.Agency(), m.Digest())
		if err != nil || got.Len() != m.Len() {
			b.Fatal(err)
		}
	}
}

// BenchmarkPosition is one round trip.
func BenchmarkPosition(b *testing.B) {
	_, tb, _ := begun(b, Options{}, peers.RedisOptions{})
	for b.Loop() {
		if _, err := tb.Position(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
