package redistable

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
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

// BenchmarkRenew is one renewal after another, with ten armed agencies drained.
func BenchmarkRenew(b *testing.B) {
	r, tb, pos := begun(b, Options{}, peers.RedisOptions{})
	n := renewal(pos, "n1", "i1")
	for i := range 10 {
		n.Drained = append(n.Drained, table.AgencyEpoch{Agency: routing.AgencyID(fmt.Sprint("agency-", i)), Epoch: routing.Epoch{Term: 1, Number: 1}})
	}
	for b.Loop() {
		if _, err := tb.Renew(b.Context(), n); err != nil {
			b.Fatal(err)
		}
	}
	reportScript(b, r)
}

// BenchmarkCheck checks one armed agency, and as many as are in a large batch.
func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r, tb, pos := begun(b, Options{}, peers.RedisOptions{})
			c := table.Check{Incarnation: pos.Incarnation, Node: "n1", Instance: "i1"}
			all := add(b, pos, "agency-0")
			all.Agencies = nil
			for i := range n {
				id := routing.AgencyID(fmt.Sprint("agency-", i))
				all.Agencies = append(all.Agencies, add(b, pos, id).Agencies...)
				c.Agencies = append(c.Agencies, table.AgencyEpoch{Agency: id, Epoch: routing.Epoch{Term: 1, Number: 1}})
			}
			if _, err := tb.Change(b.Context(), all); err != nil {
				b.Fatal(err)
			}
			renew := renewal(pos, "n1", "i1")
			renew.Short, renew.Long = time.Hour, time.Hour
			if _, err := tb.Renew(b.Context(), renew); err != nil {
				b.Fatal(err)
			}
			r.CLI(b, "CONFIG", "RESETSTAT")
			for b.Loop() {
				if err := tb.Check(b.Context(), c); err != nil {
					b.Fatal(err)
				}
			}
			reportScript(b, r)
		})
	}
}

// reportScript reports for how long the script kept Redis from everything else.
func reportScript(b *testing.B, r *peers.Redis) {
	b.Helper()
	for line := range strings.Lines(r.CLI(b, "INFO", "commandstats")) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_evalsha:"); ok {
			_, rest, _ = strings.Cut(rest, "usec_per_call=")
			us, _, _ := strings.Cut(rest, ",")
			if v, err := strconv.ParseFloat(us, 64); err == nil {
				b.ReportMetric(v, "script-µs")
			}
		}
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
