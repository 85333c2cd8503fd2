package audit

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// Logs that somebody wrote who knows how: each record follows the one before by its hash. What
// isn't a log of one node's chain without gaps is found all the same, and so is another's.
func TestForged(t *testing.T) {
	type forged struct {
		number      uint64
		chain, node string
	}
	good := func(n uint64) forged { return forged{n, "chain", "mx1"} }
	for _, c := range []struct {
		name    string
		records []forged
		head    func(Head) Head // of the last record, as somebody kept it
		bad     uint64          // 0: nothing is
		why     string
	}{
		{"good", []forged{good(1), good(2), good(3)}, nil, 0, ""},
		{"begins later", []forged{good(2), good(3)}, nil, 1, "record 2 stands in its place"},
		{"a gap", []forged{good(1), good(3)}, nil, 2, "record 3 stands in its place"},
		{"a number twice", []forged{good(1), good(2), good(2)}, func(Head) Head { return Head{} }, 3, "record 2 stands in its place"},
		{"no chain", []forged{{1, "", "mx1"}}, nil, 1, "it names no chain"},
		{"no node", []forged{{1, "chain", ""}}, nil, 1, "it names no chain"},
		{"goes on as another chain", []forged{good(1), {2, "another", "mx1"}}, nil, 2, "it is of chain another of node mx1, those before of chain chain of node mx1"},
		{"goes on as another node", []forged{good(1), {2, "chain", "mx2"}}, nil, 2, "it is of chain chain of node mx2"},
		{"a head of another chain", []forged{good(1), good(2)}, func(h Head) Head { h.Chain = "another"; return h }, 1, "is another's"},
		{"a head of another node", []forged{good(1), good(2)}, func(h Head) Head { h.Node = "mx2"; return h }, 1, "is another's"},
		{"a head of another record", []forged{good(1), good(2)}, func(h Head) Head { h.Hash[0]++; return h }, 2, "the log was written anew"},
		{"a later head", []forged{good(1), good(2)}, func(h Head) Head { h.Number++; return h }, 3, "it is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var text bytes.Buffer
			var head Head
			for i, f := range c.records {
				line, hash, err := encode(&Record{Number: f.number, Previous: head.Hash, Chain: f.chain, Node: f.node, Entry: entry(i)})
				if err != nil {
					t.Fatal(err)
				}
				text.Write(line)
				head = Head{Node: f.node, Chain: f.chain, Number: f.number, Hash: hash}
			}
			kept := head
			if c.head != nil {
				kept = c.head(head)
			}
			r, err := Verify(&text, kept)
			if c.bad == 0 {
				if err != nil || r.Head != head || r.Heads != 1 {
					t.Errorf("%+v, %v", r, err)
				}
				return
			}
			if bad, ok := errors.AsType[*BadRecord](err); !ok || bad.Number != c.bad || !strings.Contains(bad.Why, c.why) {
				t.Errorf("%v, want record %d: %s", err, c.bad, c.why)
			}
		})
	}
}

func TestParseHead(t *testing.T) {
	hash := strings.Repeat("0a", len(Hash{}))
	if h, err := ParseHead("mx1/chain/7/" + hash); err != nil || h.String() != "mx1/chain/7/"+hash || h.Node != "mx1" || h.Chain != "chain" || h.Number != 7 {
		t.Errorf("%v, %v", h, err)
	}
	for _, s := range []string{"", "mx1/chain/7", "/chain/7/" + hash, "mx1//7/" + hash, "mx1/chain/x/" + hash, "mx1/chain/-1/" + hash, "mx1/chain//" + hash,
		"mx1/chain/7/", "mx1/chain/7/" + hash[2:], "mx1/chain/7/" + strings.ToUpper(hash), "mx1/chain/7/" + hash + "/x", "mx1/chain/7/" + hash + "00"} {
		if h, err := ParseHead(s); !errors.Is(err, ErrBadHead) {
			t.Errorf("%q is read as %v, %v", s, h, err)
		}
	}
}
