package ledger

import (
	"strings"
	"testing"
)

// A digest is of the bytes, however they come, and stays what it is: it stands in files.
func TestDigest(t *testing.T) {
	text := strings.Repeat("Received: from mx.example\r\n", 100)
	var d Digester
	d.Reset()
	_, _ = d.Write([]byte(text))
	whole := d.Digest()
	d.Reset()
	for _, part := range strings.SplitAfter(text, " ") {
		_, _ = d.Write([]byte(part))
	}
	if d.Digest() != whole {
		t.Errorf("in parts %x, whole %x", d.Digest(), whole)
	}
	_, _ = d.Write([]byte{'x'})
	if d.Digest() == whole {
		t.Error("a byte more has the same digest")
	}
	d.Reset()
	if got := d.Digest(); got != 0xef46db3751d8e999 { // xxHash64 of nothing, seed 0
		t.Errorf("nothing has %x", uint64(got))
	}
}

// A record with flags that this program doesn't know is not guessed at.
func TestUnknownFlagOfAnIntent(t *testing.T) {
	e := encoder{header: header{salt: 1}, names: map[string]uint64{}}
	b, at := e.intent(nil, kindIntent, &Intent{Platform: "ox", Recipients: []Recipient{{Address: "a@x.example"}}})
	_, payload, _ := readFrame(b[at:], 1)
	d := decoder{names: map[uint64]string{}}
	var i Intent
	if !d.intent(string(payload), &i) {
		t.Fatal("not read at all")
	}
	flags := 1 // the flags follow the time, a varint
	for payload[flags-1]&0x80 != 0 {
		flags++
	}
	payload[flags] |= 1 << 4
	if d.intent(string(payload), &i) {
		t.Error("read")
	}
}
