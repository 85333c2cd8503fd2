package mail

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestAsReply wants a reply to be found however it is wrapped, and what nobody foresaw
// to be temporary and silent.
func TestAsReply(t *testing.T) {
	refusal := NewReply(550, 5, 1, 1, "No such recipient here")
	var none *Reply
	for _, c := range []struct {
		err  error
		want string
	}{
		{refusal, "No such recipient here"},
		{fmt.Errorf("platform x: %w", refusal), "No such recipient here"},
		{errors.Join(errors.New("other"), refusal), "No such recipient here"},
		{errors.New("secret"), "Local error, try again later"},
		{none, "Local error, try again later"},
	} {
		r := AsReply(c.err)
		if r.Message != c.want {
			t.Errorf("%v gives %v", c.err, r)
		}
		if temporary := c.want != refusal.Message; IsTemporary(r) != temporary || IsPermanent(r) == temporary {
			t.Errorf("%v gives %v: temporary %v, permanent %v", c.err, r, IsTemporary(r), IsPermanent(r))
		}
	}
}

// TestTransactionIDs wants them to be distinct, to sort by time, and to be one spelling.
func TestTransactionIDs(t *testing.T) {
	ids := make([]TransactionID, 1000)
	for i := range ids {
		ids[i] = NewTransactionID()
		if got, err := ParseTransactionID(string(ids[i])); err != nil || got != ids[i] {
			t.Fatalf("%s is read as %q, error %v", ids[i], got, err)
		}
	}
	if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Error("ids are not in order, or one came twice")
	}
	valid := string(ids[0])
	spelled := 0
	for _, c := range "0123456789abcdefghijklmnopqrstuv" { // the last one has three bits of the id, and two of none
		id, err := ParseTransactionID(valid[:25] + string(c))
		if err != nil {
			continue
		}
		spelled++
		if b, err := id.Bytes(); err != nil || TransactionIDOf(b) != id {
			t.Errorf("%s has bytes %x of %s, error %v", id, b, TransactionIDOf(b), err)
		}
	}
	if spelled != 8 {
		t.Errorf("%d ids end in the last three bits", spelled)
	}
	for _, s := range []string{
		"", "x", valid[:25], valid + "0", strings.ToUpper(valid[:25]) + "W", valid[:25] + "\n", valid[:24] + "\r\n" + valid[24:], "../../" + valid[6:],
		valid[:25] + "v", valid[:25] + "1", "w" + valid[1:], valid[:3] + "/" + valid[4:], valid[:3] + ":" + valid[4:], valid[:3] + "`" + valid[4:],
	} {
		if got, err := ParseTransactionID(s); err == nil {
			t.Errorf("%q is read as %q", s, got)
		}
	}
}

func TestOriginWords(t *testing.T) {
	for o, want := range map[Origin]string{OriginUnknown: "unknown", OriginInside: "inside", OriginOutside: "outside", 9: "unknown"} {
		if o.String() != want {
			t.Errorf("origin %d is %q, want %q", o, o, want)
		}
	}
}

// TestCleanText wants nothing of a peer's text to forge a line, and a cut not to break a character.
func TestCleanText(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int
		want string
	}{
		{"550 No such user\r\n", 80, "550 No such user"},
		{"a\r\nb\x00c\x1b[0m\x7f", 80, "a??b?c?[0m?"},
		{"Gr\u00fc\u00dfe\u0085\xff", 80, "Gr\u00fc\u00dfe??"},
		{"abc", 2, "ab"},
		{"a\u00fcb", 2, "a"},
		{"\u00fc", 1, ""},
		{"", 0, ""},
	} {
		if got := CleanText([]byte(c.text), c.n); got != c.want {
			t.Errorf("%q in %d bytes is %q, want %q", c.text, c.n, got, c.want)
		}
	}
}
