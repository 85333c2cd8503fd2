package retained

import (
	"bytes"
	"testing"
)

// A frame that can be read is within the data, and is written as it stood.
func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, 7, kindCopy, []byte("head")), uint32(7))
	h := header{number: 3}
	f.Add(h.append(nil), uint32(0))
	end := totals{copies: 1, bytes: 2}
	f.Add(end.append(nil, 9), uint32(9))
	f.Add([]byte{frameSync, 1, 0xff, 0xff, 0xff}, uint32(0))
	f.Fuzz(func(t *testing.T, data []byte, seed uint32) {
		k, payload, size := readFrame(data, seed)
		if size > len(data) || size > 0 && !bytes.Equal(appendFrame(nil, seed, k, payload), data[:size]) {
			t.Fatalf("%d of %d bytes", size, len(data))
		}
		if _, n := readHeader(data); n > len(data) {
			t.Fatalf("a header of %d bytes in %d", n, len(data))
		}
		if got, ok := readTotals(data, seed); ok && !bytes.Equal(got.append(nil, seed), data[:endBytes]) {
			t.Fatalf("totals %+v of %x", got, data)
		}
	})
}
