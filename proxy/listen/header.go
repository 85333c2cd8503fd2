package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// header is a PROXY header (HAProxy's proxy-protocol.txt, versions 1 and 2).
type header struct {
	Client netip.AddrPort // not valid if the sender speaks for itself (UNKNOWN, LOCAL)
	Local  netip.AddrPort // the address that the client connected to
	Secure bool           // the client speaks TLS with the sender (PP2_CLIENT_SSL)
}

// What a header may take up: version 1 by its definition; version 2 has an upper bound
// of 64 KiB, and real ones have some hundred bytes of TLVs.
const (
	headerV1Bytes = 107
	headerV2Bytes = 4096
)

// SignatureV2 begins every PROXY header of version 2. No command of a protocol does.
const SignatureV2 = "\r\n\r\n\x00\r\nQUIT\n"

var (
	// errHeaderShort is for the beginning of a header.
	errHeaderShort = errors.New("PROXY header is not complete")
	// errHeader is for what is no header, or not a valid one.
	errHeader = errors.New("no valid PROXY header")
)

// parseHeader parses the header that b begins with, and returns its length. While
// more bytes could still make one it returns errHeaderShort, else errHeader.
func parseHeader(b []byte) (header, int, error) {
	if n := min(len(b), len(SignatureV2)); string(b[:n]) == SignatureV2[:n] {
		return parseV2(b)
	}
	if n := min(len(b), 6); string(b[:n]) == "PROXY "[:n] {
		return parseV1(b)
	}
	return header{}, 0, errHeader
}

func parseV1(b []byte) (header, int, error) {
	end := bytes.IndexByte(b[:min(len(b), headerV1Bytes)], '\n')
	if end < 0 {
		if len(b) >= headerV1Bytes {
			return header{}, 0, errHeader
		}
		return header{}, 0, errHeaderShort
	}
	line, ok := strings.CutSuffix(string(b[:end]), "\r")
	if !ok || strings.ContainsAny(line, "\r\x00") {
		return header{}, 0, errHeader
	}
	f := strings.Split(line, " ")
	if f[1] == "UNKNOWN" { // the rest of the line is to be ignored
		return header{}, end + 1, nil
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return header{}, 0, errHeader
	}
	var h header
	var ok1, ok2 bool
	h.Client, ok1 = parseAddr(f[1], f[2], f[4])
	h.Local, ok2 = parseAddr(f[1], f[3], f[5])
	if !ok1 || !ok2 {
		return header{}, 0, errHeader
	}
	return h, end + 1, nil
}

func parseAddr(family, addr, port string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Zone() != "" || a.Is4() != (family == "TCP4") {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || len(port) > 1 && port[0] == '0' {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), true
}

func parseV2(b []byte) (header, int, error) {
	const fixed = len(SignatureV2) + 4
	if len(b) < fixed {
		return header{}, 0, errHeaderShort
	}
	command, family := b[12], b[13]
	n := fixed + int(binary.BigEndian.Uint16(b[14:16]))
	if command != 0x20 && command != 0x21 || n > headerV2Bytes {
		return header{}, 0, errHeader
	}
	if len(b) < n {
		return header{}, 0, errHeaderShort
	}
	var h header
	body := b[fixed:n]
	width := 0
	switch {
	case command == 0x20 && family == 0: // LOCAL: what follows is to be skipped
		return h, n, nil
	case family == 0x11: // TCP over IPv4
		width = 4
	case family == 0x21: // TCP over IPv6
		width = 16
	default:
		if command == 0x20 {
			return h, n, nil
		}
		return header{}, 0, errHeader
	}
	if len(body) < 2*width+4 {
		return header{}, 0, errHeader
	}
	src, _ := netip.AddrFromSlice(body[:width])
	dst, _ := netip.AddrFromSlice(body[width : 2*width])
	ports := body[2*width:]
	if !h.readTLVs(b[:n], fixed+2*width+4) {
		return header{}, 0, errHeader
	}
	if command == 0x21 {
		h.Client = netip.AddrPortFrom(src.Unmap(), binary.BigEndian.Uint16(ports))
		h.Local = netip.AddrPortFrom(dst.Unmap(), binary.BigEndian.Uint16(ports[2:]))
	}
	return h, n, nil
}

// readTLVs reports whether the TLVs of header, from offset on, fill it exactly, and
// whether its checksum is right, if it has one (proxy-protocol.txt section 2.2.3). It takes
// from them whether the client speaks TLS (section 2.2.6).
func (h *header) readTLVs(header []byte, offset int) bool {
	const (
		typeCRC32C = 0x03
		typeSSL    = 0x20
		clientSSL  = 0x01
	)
	for offset < len(header) {
		if len(header)-offset < 3 {
			return false
		}
		kind, size := header[offset], int(binary.BigEndian.Uint16(header[offset+1:]))
		offset += 3
		if size > len(header)-offset {
			return false
		}
		if kind == typeCRC32C {
			if size != 4 {
				return false
			}
			table := crc32.MakeTable(crc32.Castagnoli)
			sum := crc32.Update(0, table, header[:offset])
			sum = crc32.Update(sum, table, make([]byte, 4))
			sum = crc32.Update(sum, table, header[offset+4:])
			if sum != binary.BigEndian.Uint32(header[offset:]) {
				return false
			}
		}
		if kind == typeSSL && size > 0 && header[offset]&clientSSL != 0 {
			h.Secure = true
		}
		offset += size
	}
	return true
}

// What a header has at least: "PROXY UNKNOWN" with its CRLF, or version 2 without addresses.
const (
	headerV1Least = 15
	headerV2Least = len(SignatureV2) + 4
)

// missing returns how many bytes more certainly belong to the header that b begins.
func missing(b []byte) int {
	switch {
	case len(b) < headerV1Least:
		return headerV1Least - len(b)
	case b[0] != SignatureV2[0]:
		return 1 // up to the line's end, which may be the next byte
	case len(b) < headerV2Least:
		return headerV2Least - len(b)
	default:
		return headerV2Least + int(binary.BigEndian.Uint16(b[14:16])) - len(b)
	}
}

// readHeader reads the header that the peer must send, and no byte beyond it: what follows
// may be a handshake.
func (c *Conn) readHeader(deadline time.Time) (header, error) {
	b := make([]byte, 0, headerV1Bytes)
	for {
		h, _, err := parseHeader(b)
		if !errors.Is(err, errHeaderShort) {
			return h, err
		}
		n := missing(b)
		b = slices.Grow(b, n)
		if err := c.nc.SetReadDeadline(deadline); err != nil {
			return header{}, err
		}
		if c.Stage() > Serving {
			return header{}, errEnding
		}
		n, err = c.nc.Read(b[len(b) : len(b)+n])
		if b = b[:len(b)+n]; n == 0 && err != nil {
			if c.Stage() > Serving {
				err = errEnding
			}
			return header{}, fmt.Errorf("read PROXY header: %w", err)
		}
	}
}
