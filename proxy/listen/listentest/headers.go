// Package listentest is the test of what comes before a protocol: PROXY headers, good and
// bad, early and late, and peers that take their time.
//
// [Run] holds any listener to it whose protocol speaks first. It promises that [Headers] has a
// row for each way in which a header can be wrong. It refuses nothing; a test that can't go on
// fails. Its callers are the tests of proxy/listen and of the protocols above it.
package listentest

import (
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// Kind is what is to be made of a header.
type Kind uint8

const (
	KindUnknown Kind = iota
	Valid
	Short   // a beginning, of which more is to be waited for
	Invalid // refused as soon as it shows
)

// Header is what a peer sends first.
type Header struct {
	Name   string
	Bytes  string
	Client string // of a valid one; empty if the sender speaks for itself
	Kind   Kind
}

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// V2 returns a header of version 2 with what follows its length.
func V2(command, family byte, body ...byte) string {
	b := append([]byte(signature), command, family)
	return string(append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...))
}

// Checksummed returns a header of version 2 with its checksum as a last TLV.
func Checksummed(header string) string {
	b := []byte(header)
	b = append(b, 0x03, 0, 4, 0, 0, 0, 0)
	binary.BigEndian.PutUint16(b[14:], uint16(len(b)-16))
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return string(b)
}

// Headers returns one of each kind that there is.
func Headers() []Header {
	return []Header{
		{"v1", "PROXY TCP4 192.0.2.1 192.0.2.2 1025 25\r\n", "192.0.2.1:1025", Valid},
		{"v1 IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 1025 25\r\n", "[2001:db8::1]:1025", Valid},
		{"v1 unknown", "PROXY UNKNOWN\r\n", "", Valid},
		{"v1 unknown with more", "PROXY UNKNOWN ff::1 ff::2 1 2\r\n", "", Valid},
		{"v1 without LF", "PROXY TCP4 192.0.2.1 192.0.2.2 1025 25", "", Short},
		{"v1 bare LF", "PROXY TCP4 192.0.2.1 192.0.2.2 1025 25\n", "", Invalid},
		{"v1 endless", "PROXY TCP4 " + strings.Repeat("1", 200), "", Invalid},
		{"v1 port too large", "PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n", "", Invalid},
		{"v1 leading zero", "PROXY TCP4 192.0.2.1 192.0.2.2 025 25\r\n", "", Invalid},
		{"v1 family and address differ", "PROXY TCP6 192.0.2.1 192.0.2.2 1025 25\r\n", "", Invalid},
		{"v1 zone", "PROXY TCP6 fe80::1%eth0 fe80::2 1025 25\r\n", "", Invalid},
		{"v1 two blanks", "PROXY TCP4  192.0.2.1 192.0.2.2 1025 25\r\n", "", Invalid},
		{"v1 missing field", "PROXY TCP4 192.0.2.1 192.0.2.2 1025\r\n", "", Invalid},
		{"v2", V2(0x21, 0x11, 192, 0, 2, 1, 192, 0, 2, 2, 4, 1, 0, 25), "192.0.2.1:1025", Valid},
		{"v2 local", V2(0x20, 0), "", Valid},
		{"v2 local with TLVs", V2(0x20, 0, 1, 2, 3), "", Valid},
		{"v2 checksum", Checksummed(V2(0x21, 0x11, 192, 0, 2, 1, 192, 0, 2, 2, 4, 1, 0, 25)), "192.0.2.1:1025", Valid},
		{"v2 wrong checksum", V2(0x21, 0x11, 192, 0, 2, 1, 192, 0, 2, 2, 4, 1, 0, 25, 3, 0, 4, 1, 2, 3, 4), "", Invalid},
		{"v2 TLV beyond the end", V2(0x21, 0x11, 192, 0, 2, 1, 192, 0, 2, 2, 4, 1, 0, 25, 4, 0, 9), "", Invalid},
		{"v2 addresses cut", V2(0x21, 0x11, 192, 0, 2, 1), "", Invalid},
		{"v2 truncated", V2(0x21, 0x11, 192, 0, 2, 1, 192, 0, 2, 2, 4, 1, 0, 25)[:20], "", Short},
		{"v2 64 KB", V2(0x21, 0x11, make([]byte, 65535)...), "", Invalid},
		{"v2 version 3", V2(0x31, 0x11, 192, 0, 2, 1, 192, 0, 2, 2, 4, 1, 0, 25), "", Invalid},
		{"v2 datagrams", V2(0x21, 0x12, 192, 0, 2, 1, 192, 0, 2, 2, 4, 1, 0, 25), "", Invalid},
		{"v2 unix", V2(0x21, 0x31, make([]byte, 216)...), "", Invalid},
		{"none", "EHLO x\r\n", "", Invalid},
		{"begin of one", "PRO", "", Short},
		{"nothing", "", "", Short},
	}
}
