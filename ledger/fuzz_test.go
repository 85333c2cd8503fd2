package ledger

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
)

// An index whose sum is right, whatever is in it, is read or refused, and so is a look-up.
func FuzzIndex(f *testing.F) {
	f.Add([]byte{0}, []byte{}, uint32(1))
	f.Add([]byte{0, 1, 2, 3, 4, 0, 1, 1, 1, 0, 0, 1, 1, 'a', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}, make([]byte, pageBytes), uint32(0))
	f.Add([]byte{0, 1, 2, 3, 4, 0, 1, 1, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, []byte{}, uint32(0))
	f.Fuzz(func(t *testing.T, content, pages []byte, hash uint32) {
		file := []byte(indexMagic)
		file = binary.LittleEndian.AppendUint32(file, uint32(len(content)))
		file = binary.LittleEndian.AppendUint32(file, crc32.Checksum(content, castagnoli))
		file = append(append(file, content...), pages...)
		x, err := readIndex(bytes.NewReader(file), 0)
		if err != nil {
			return
		}
		if len(x.firsts) > len(content) || len(x.Agencies) > len(content) || len(x.names) > len(content) {
			t.Fatalf("%d pages, %d agencies, %d names of %d bytes", len(x.firsts), len(x.Agencies), len(x.names), len(content))
		}
		if _, err := x.lookup(bytes.NewReader(file), hash); err != nil {
			return
		}
	})
}
