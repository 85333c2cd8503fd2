package routing

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// sampleRows are mailboxes of every form.
func sampleRows() []Row {
	return []Row{
		{
			Mailbox: MailboxID{3: 0xb2, 15: 1}, Kind: KindRoom,
			Addresses: []Address{"room.1@health.example"},
		},
		{
			Mailbox: MailboxID{3: 0xa1, 15: 2}, Kind: KindUser,
			Addresses: []Address{"anna.berg@health.example", "a:b@health.example", `"@health.example`, "anna@xn--mnchen-3ya.example", "jos\u00e9@health.example"},
			Logins:    []Login{`amt\anna`, "anna.berg@health.example", "a:b"},
			Source:    Place{Address: "anna.tmp@exchange.internal", Login: `AMT\Anna`},
			Target:    Place{Address: "u1@ox.internal", Login: "Anna Berg"},
		},
		{
			Mailbox: MailboxID{3: 0xa1, 15: 3}, Kind: KindShared,
			Addresses: []Address{"info@health.example"},
			Target:    Place{Address: "info@health.example", Login: "info"},
		},
	}
}

func mustMapping(t testing.TB, agency AgencyID, rows ...Row) *Mapping {
	t.Helper()
	m, err := NewMapping(agency, rows)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mappingText(m *Mapping) string {
	var b strings.Builder
	m.WriteTo(&b)
	return b.String()
}

// one returns text as the only part.
func one(text string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) { yield([]byte(text), nil) }
}

func TestMappingTextAndDigest(t *testing.T) {
	m := mustMapping(t, "health", sampleRows()...)
	const want = "mailcutover mapping 1 health\n" +
		"a1000000-0000-0000-0000-000000000002\tuser\ta:anna.berg@health.example\ta:\"@health.example\ta:a:b@health.example\ta:anna@xn--mnchen-3ya.example\ta:jos\u00e9@health.example" +
		"\tl:amt\\anna\tl:anna.berg@health.example\tl:a:b\tsa:anna.tmp@exchange.internal\tsl:AMT\\Anna\tta:u1@ox.internal\ttl:Anna Berg\n" +
		"a1000000-0000-0000-0000-000000000003\tshared\ta:info@health.example\tta:info@health.example\ttl:info\n" +
		"b2000000-0000-0000-0000-000000000001\troom\ta:room.1@health.example\n"
	if got := mappingText(m); got != want {
		t.Errorf("text:\n%s\nwant:\n%s", got, want)
	}
	// The digest names mappings in tables and approvals that exist: a change of it is a
	// change of the format.
	const digest = "02dc67edac1e6aacc839fb7ab608c55403c112cb64eb87b435ff6c38cb54c59f"
	if m.Digest().String() != digest {
		t.Errorf("digest %s, want %s", m.Digest(), digest)
	}
	backwards := sampleRows()
	slices.Reverse(backwards)
	for i := range backwards {
		slices.Reverse(backwards[i].Addresses[1:])
	}
	if again := mustMapping(t, "health", backwards...); again.Digest() != m.Digest() {
		t.Error("the order of rows, and that of aliases, is in the digest")
	}
	if other := mustMapping(t, "works", sampleRows()...); other.Digest() == m.Digest() {
		t.Error("the agency isn't in the digest")
	}
}

func TestMappingRoundTrip(t *testing.T) {
	m := mustMapping(t, "health", sampleRows()...)
	for _, size := range []int{1, 40, 64, 1 << 20} {
		var text bytes.Buffer
		read, err := ReadMapping("health", m.Digest(), m.Size(), func(yield func([]byte, error) bool) {
			for p := range m.Parts(size) {
				text.Write(p)
				if size > 200 && len(p) > size || !yield(p, nil) {
					return
				}
			}
		})
		if err != nil {
			t.Fatalf("parts of %d bytes: %v", size, err)
		}
		if text.String() != mappingText(m) || read.Digest() != m.Digest() || read.Keys() != m.Keys() || read.Len() != 3 {
			t.Errorf("parts of %d bytes: %+v", size, read)
		}
		if again := mustMapping(t, "health", slices.Collect(read.Rows())...); again.Digest() != m.Digest() {
			t.Errorf("parts of %d bytes: rows make another mapping", size)
		}
	}
	for _, want := range sampleRows() {
		slices.Sort(want.Addresses[1:])
		if got, ok := m.Mailbox(want.Mailbox); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %t; want %+v", got, ok, want)
		}
	}
	if _, ok := m.Mailbox(MailboxID{3: 0xa1, 15: 9}); ok {
		t.Error("a mailbox that isn't there")
	}
	if empty := mustMapping(t, "health"); !empty.Digest().IsZero() || empty.Len() != 0 {
		t.Errorf("empty mapping: %+v", empty)
	}
	if empty, err := ReadMapping("health", Digest{}, 0, one("")); err != nil || empty.Len() != 0 {
		t.Errorf("empty mapping: %+v, %v", empty, err)
	}
}

func TestReadMappingRefusesEveryDamage(t *testing.T) {
	m := mustMapping(t, "health", sampleRows()...)
	text := mappingText(m)
	try := func(what, text string) {
		t.Helper()
		if _, err := ReadMapping("health", m.Digest(), len(text), one(text)); !errors.Is(err, ErrBadMapping) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range text {
		for _, flip := range []byte{1, 0x20, 0x80} {
			b := []byte(text)
			b[i] ^= flip
			try(fmt.Sprintf("byte %d changed", i), string(b))
		}
		try(fmt.Sprintf("cut at %d", i), text[:i])
		try(fmt.Sprintf("byte %d gone", i), text[:i]+text[i+1:])
	}
	try("a byte more", text+"\n")
	if _, err := ReadMapping("works", m.Digest(), len(text), one(text)); !errors.Is(err, ErrBadMapping) {
		t.Errorf("mapping of another agency: %v", err)
	}
	failure := errors.New("connection lost")
	_, err := ReadMapping("health", m.Digest(), 0, func(yield func([]byte, error) bool) { yield(nil, failure) })
	if !errors.Is(err, failure) || errors.Is(err, ErrBadMapping) {
		t.Errorf("a failing reader: %v", err)
	}
}

// What has the right digest, because somebody made it so, must still be canonical: the
// incident's column that was sorted on its own is another content, but one content has
// only one text.
func TestReadMappingRefusesWhatIsNotCanonical(t *testing.T) {
	const id1, id2 = "a1000000-0000-0000-0000-000000000001", "a1000000-0000-0000-0000-000000000002"
	for name, body := range map[string]string{
		"rows out of order":                     id2 + "\tuser\ta:b@x.example\n" + id1 + "\tuser\ta:a@x.example\n",
		"directory id twice":                    id1 + "\tuser\ta:b@x.example\n" + id1 + "\tuser\ta:a@x.example\n",
		"directory id in capitals":              "A1000000-0000-0000-0000-000000000001\tuser\ta:a@x.example\n",
		"directory id zero":                     "00000000-0000-0000-0000-000000000000\tuser\ta:a@x.example\n",
		"braces":                                "{" + id1 + "}\tuser\ta:a@x.example\n",
		"unknown kind":                          id1 + "\tunknown\ta:a@x.example\n",
		"no kind":                               id1 + "\ta:a@x.example\n",
		"no address":                            id1 + "\tuser\n",
		"login only":                            id1 + "\tuser\tl:a\n",
		"aliases out of order":                  id1 + "\tuser\ta:a@x.example\ta:c@x.example\ta:b@x.example\n",
		"address twice":                         id1 + "\tuser\ta:a@x.example\ta:a@x.example\n",
		"address after login":                   id1 + "\tuser\ta:a@x.example\tl:a\ta:b@x.example\n",
		"place before login":                    id1 + "\tuser\ta:a@x.example\tsa:b@x.example\tl:a\n",
		"target before source":                  id1 + "\tuser\ta:a@x.example\tta:b@x.example\tsa:b@x.example\n",
		"place twice":                           id1 + "\tuser\ta:a@x.example\tsa:b@x.example\tsa:c@x.example\n",
		"address in capitals":                   id1 + "\tuser\ta:A@x.example\n",
		"address without domain":                id1 + "\tuser\ta:postmaster\n",
		"address in U-labels":                   id1 + "\tuser\ta:a@m\u00fcnchen.example\n",
		"address in NFD":                        id1 + "\tuser\ta:e\u0301@x.example\n",
		"empty address":                         id1 + "\tuser\ta:\n",
		"empty login":                           id1 + "\tuser\ta:a@x.example\tl:\n",
		"login in capitals":                     id1 + "\tuser\ta:a@x.example\tl:A\n",
		"empty place":                           id1 + "\tuser\ta:a@x.example\tsl:\n",
		"place not canonical":                   id1 + "\tuser\ta:a@x.example\tsa:B@x.example\n",
		"unknown tag":                           id1 + "\tuser\ta:a@x.example\tx:y\n",
		"empty field":                           id1 + "\tuser\ta:a@x.example\t\tl:a\n",
		"field at the end":                      id1 + "\tuser\ta:a@x.example\t\n",
		"carriage return":                       id1 + "\tuser\ta:a@x.example\r\n",
		"NUL":                                   id1 + "\tuser\ta:a@x.example\tl:a\x00\n",
		"no rows":                               "",
		"empty line":                            "\n" + id1 + "\tuser\ta:a@x.example\n",
		"last line without end":                 id1 + "\tuser\ta:a@x.example",
		"address of two mailboxes":              id1 + "\tuser\ta:a@x.example\n" + id2 + "\tuser\ta:a@x.example\n",
		"address and another's login":           id1 + "\tuser\ta:a@x.example\n" + id2 + "\tuser\ta:b@x.example\tl:a@x.example\n",
		"login of two mailboxes":                id1 + "\tuser\ta:a@x.example\tl:n\n" + id2 + "\tuser\ta:b@x.example\tl:n\n",
		"place of two mailboxes":                id1 + "\tuser\ta:a@x.example\tta:n@x.example\n" + id2 + "\tuser\ta:b@x.example\tta:n@x.example\n",
		"address and another's place":           id1 + "\tuser\ta:a@x.example\n" + id2 + "\tuser\ta:b@x.example\tta:a@x.example\n",
		"login and another's place in capitals": id1 + "\tuser\ta:a@x.example\tl:n\n" + id2 + "\tuser\ta:b@x.example\ttl:N\n",
	} {
		text := mappingHeader + "health\n" + body
		m, err := ReadMapping("health", sha256.Sum256([]byte(text)), len(text), one(text))
		if !errors.Is(err, ErrBadMapping) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	text := mappingHeader + "health\n" + id1 + "\tuser\ta:b@x.example\ta:a@x.example\tl:z\tl:b\tsa:b@x.example\tsl:Z\n"
	if _, err := ReadMapping("health", sha256.Sum256([]byte(text)), len(text), one(text)); err != nil {
		t.Errorf("what is canonical: %v", err)
	}
}

func TestNewMappingRefuses(t *testing.T) {
	id := MailboxID{15: 1}
	for name, r := range map[string]Row{
		"no directory id":                {Kind: KindUser, Addresses: []Address{"a@x.example"}},
		"no kind":                        {Mailbox: id, Addresses: []Address{"a@x.example"}},
		"kind that isn't":                {Mailbox: id, Kind: 99, Addresses: []Address{"a@x.example"}},
		"no address":                     {Mailbox: id, Kind: KindUser},
		"empty primary address":          {Mailbox: id, Kind: KindUser, Addresses: []Address{"", "a@x.example"}},
		"empty alias":                    {Mailbox: id, Kind: KindUser, Addresses: []Address{"a@x.example", ""}},
		"empty login":                    {Mailbox: id, Kind: KindUser, Addresses: []Address{"a@x.example"}, Logins: []Login{""}},
		"an address that brings a login": {Mailbox: id, Kind: KindUser, Addresses: []Address{"a@x.example\tl:boss"}},
		"a login that brings an address": {Mailbox: id, Kind: KindUser, Addresses: []Address{"a@x.example"}, Logins: []Login{"n\ta:boss@x.example"}},
		"a place that brings another":    {Mailbox: id, Kind: KindUser, Addresses: []Address{"a@x.example"}, Source: Place{Login: "n\tta:boss@x.example"}},
		"an address of a place, too":     {Mailbox: id, Kind: KindUser, Addresses: []Address{"a@x.example"}, Source: Place{Address: "n\ta:boss@x.example"}},
		"a place that brings a row":      {Mailbox: id, Kind: KindUser, Addresses: []Address{"a@x.example"}, Target: Place{Login: "n\nffffffff-0000-0000-0000-000000000001\tuser\ta:boss@x.example"}},
		"address in capitals":            {Mailbox: id, Kind: KindUser, Addresses: []Address{"A@x.example"}},
	} {
		if m, err := NewMapping("health", []Row{r}); !errors.Is(err, ErrBadMapping) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	two := []Row{{Mailbox: id, Kind: KindUser, Addresses: []Address{"a@x.example"}}, {Mailbox: id, Kind: KindUser, Addresses: []Address{"b@x.example"}}}
	if _, err := NewMapping("health", two); !errors.Is(err, ErrBadMapping) {
		t.Errorf("directory id twice: %v", err)
	}
}

func FuzzReadMapping(f *testing.F) {
	m := mustMapping(f, "health", sampleRows()...)
	text := mappingText(m)
	f.Add(text)
	f.Add(text[:len(text)-1])
	f.Add(mappingHeader + "health\na1000000-0000-0000-0000-000000000001\tuser\ta:a@x.example\tl:n\tsl:N\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ReadMapping("health", sha256.Sum256([]byte(text)), len(text), one(text))
		if err != nil {
			if !errors.Is(err, ErrBadMapping) {
				t.Fatal(err)
			}
			return
		}
		if again, err := NewMapping("health", slices.Collect(m.Rows())); err != nil || again.Digest() != m.Digest() && m.Len() > 0 {
			t.Fatalf("%q: its rows make %v, %v", text, again, err)
		}
		a, _ := NewAgency("health", "exchange", "ox")
		a.Mapping = m.Digest()
		s, err := NewState(Position{Incarnation: "fuzz"}).Apply(Update{Agencies: []Agency{a}, Mappings: []*Mapping{m}})
		if err != nil {
			t.Fatal(err)
		}
		for r := range m.Rows() {
			for _, a := range r.Addresses {
				if d := s.DecideAddress(a, "+"); d.Reason != ReasonOpen || d.Mailbox != r.Mailbox || d.Address != r.At(false).Address || d.Login != r.At(false).Login {
					t.Fatalf("%q: %s: %+v", text, a, d)
				}
			}
			for _, l := range r.Logins {
				if d := s.DecideLogin(l); d.Reason != ReasonOpen || d.Mailbox != r.Mailbox {
					t.Fatalf("%q: %s: %+v", text, l, d)
				}
			}
		}
	})
}
