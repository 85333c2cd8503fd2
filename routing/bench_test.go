package routing

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// A million mailboxes in 200 agencies, two addresses and one login each: the size that
// the product is made for.
const (
	benchAgencies = 200
	benchRows     = 5000
)

func benchRow(agency, n int) Row {
	id := MailboxID{0: byte(n), 1: byte(n >> 8), 2: byte(agency), 3: 0x5e, 4: byte(n * 7), 5: byte(n * 13), 8: 0x8b, 15: byte(agency * 31)}
	return Row{
		Mailbox: id, Kind: KindUser,
		Addresses: []Address{
			Address(fmt.Sprintf("given%d.family%d@agency%d.example", n, n*31%9973, agency)),
			Address(fmt.Sprintf("p%07d@agency%d.example", n, agency)),
		},
		Logins: []Login{Login(fmt.Sprintf(`amt%d\p%07d`, agency, n))},
	}
}

func benchState(b testing.TB, agencies, rows int) *State {
	b.Helper()
	u := Update{Position: Position{Incarnation: "bench", Revision: 1}}
	for i := range agencies {
		id := AgencyID(fmt.Sprintf("agency%d", i))
		all := make([]Row, rows)
		for n := range all {
			all[n] = benchRow(i, n)
		}
		m, err := NewMapping(id, all)
		if err != nil {
			b.Fatal(err)
		}
		a, err := NewAgency(id, "exchange", "ox")
		if err != nil {
			b.Fatal(err)
		}
		a.Mapping = m.Digest()
		u.Agencies = append(u.Agencies, a)
		u.Mappings = append(u.Mappings, m)
		u.Domains = append(u.Domains, Domain{Name: fmt.Sprintf("agency%d.example", i)})
	}
	s, err := NewState(Position{}).Apply(u)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkDecide asks for addresses and logins of random mailboxes, so that nearly each
// look goes to memory that no cache holds.
func BenchmarkDecide(b *testing.B) {
	s := benchState(b, benchAgencies, benchRows)
	const asked = 1 << 18
	r := rand.New(rand.NewPCG(1, 2))
	addresses, logins := make([]Address, asked), make([]Login, asked)
	for i := range asked {
		row := benchRow(r.IntN(benchAgencies), r.IntN(benchRows))
		addresses[i], logins[i] = row.Addresses[r.IntN(2)], row.Logins[0]
	}
	sideBySide(addresses)
	sideBySide(logins)
	b.Run("address", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			if d := s.DecideAddress(addresses[i%asked], "+"); d.Reason != ReasonOpen {
				b.Fatalf("%s: %+v", addresses[i%asked], d)
			}
		}
	})
	b.Run("login", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			if d := s.DecideLogin(logins[i%asked]); d.Reason != ReasonOpen {
				b.Fatalf("%s: %+v", logins[i%asked], d)
			}
		}
	})
	b.Run("unknown", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if d := s.DecideAddress("nobody@agency7.example", "+"); d.Reason != ReasonNoSuchName {
				b.Fatalf("%+v", d)
			}
		}
	})
}

// sideBySide moves strings next to each other in memory: a name that comes in a command is
// in the cache when it is asked for, and only the State shall not be.
func sideBySide[S ~string](all []S) {
	var b strings.Builder
	for _, s := range all {
		b.WriteString(string(s))
	}
	rest := S(b.String())
	for i, s := range all {
		all[i], rest = rest[:len(s)], rest[len(s):]
	}
}

// BenchmarkReadMapping reads a mapping of 5,000 mailboxes from its text, as each load from
// the table or the disk does.
func BenchmarkReadMapping(b *testing.B) {
	m := benchState(b, 1, benchRows).Mapping("agency0")
	var parts [][]byte
	for p := range m.Parts(64 << 10) {
		parts = append(parts, p)
	}
	b.ReportAllocs()
	b.SetBytes(int64(m.Size()))
	for b.Loop() {
		_, err := ReadMapping("agency0", m.Digest(), m.Size(), func(yield func([]byte, error) bool) {
			for _, p := range parts {
				if !yield(p, nil) {
					return
				}
			}
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
