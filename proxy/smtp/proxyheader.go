package smtp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"strconv"
	"strings"
)

// proxyHeader is a PROXY header (HAProxy's proxy-protocol.txt, versions 1 and 2).
type proxyHeader struct {
	client netip.AddrPort // not valid if the sender speaks for itself (UNKNOWN, LOCAL)
	local  netip.AddrPort // the address that the client connected to
}

// What a header may take up: version 1 by its definition; version 2 has an upper bound
// of 64 KiB, and real ones have some hundred bytes of TLVs.
const (
	proxyV1Bytes = 107
	proxyV2Bytes = 4096
)

const proxyV2Signature = "\r\n\r\n\x00\r\nQUIT\n"

var (
	errProxyShort  = errors.New("PROXY header is not complete")
	errProxyHeader = errors.New("no valid PROXY header")
)

// parseProxyHeader parses the header that b begins with, and returns its length. While
// more bytes could still make one it returns errProxyShort, else errProxyHeader.
func parseProxyHeader(b []byte) (proxyHeader, int, error) {
	if n := min(len(b), len(proxyV2Signature)); string(b[:n]) == proxyV2Signature[:n] {
		return parseProxyV2(b)
	}
	if n := min(len(b), 6); string(b[:n]) == "PROXY "[:n] {
		return parseProxyV1(b)
	}
	return proxyHeader{}, 0, errProxyHeader
}

func parseProxyV1(b []byte) (proxyHeader, int, error) {
	end := bytes.IndexByte(b[:min(len(b), proxyV1Bytes)], '\n')
	if end < 0 {
		if len(b) >= proxyV1Bytes {
			return proxyHeader{}, 0, errProxyHeader
		}
		return proxyHeader{}, 0, errProxyShort
	}
	line, ok := strings.CutSuffix(string(b[:end]), "\r")
	if !ok || strings.ContainsAny(line, "\r\x00") {
		return proxyHeader{}, 0, errProxyHeader
	}
	f := strings.Split(line, " ")
	if f[1] == "UNKNOWN" { // the rest of the line is to be ignored
		return proxyHeader{}, end + 1, nil
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return proxyHeader{}, 0, errProxyHeader
	}
	var h proxyHeader
	var ok1, ok2 bool
	h.client, ok1 = parseProxyAddr(f[1], f[2], f[4])
	h.local, ok2 = parseProxyAddr(f[1], f[3], f[5])
	if !ok1 || !ok2 {
		return proxyHeader{}, 0, errProxyHeader
	}
	return h, end + 1, nil
}

func parseProxyAddr(family, addr, port string) (netip.AddrPort, bool) {
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

func parseProxyV2(b []byte) (proxyHeader, int, error) {
	const fixed = len(proxyV2Signature) + 4
	if len(b) < fixed {
		return proxyHeader{}, 0, errProxyShort
	}
	command, family := b[12], b[13]
	n := fixed + int(binary.BigEndian.Uint16(b[14:16]))
	if command != 0x20 && command != 0x21 || n > proxyV2Bytes {
		return proxyHeader{}, 0, errProxyHeader
	}
	if len(b) < n {
		return proxyHeader{}, 0, errProxyShort
	}
	var h proxyHeader
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
		return proxyHeader{}, 0, errProxyHeader
	}
	if len(body) < 2*width+4 {
		return proxyHeader{}, 0, errProxyHeader
	}
	src, _ := netip.AddrFromSlice(body[:width])
	dst, _ := netip.AddrFromSlice(body[width : 2*width])
	ports := body[2*width:]
	if !checkTLVs(b[:n], fixed+2*width+4) {
		return proxyHeader{}, 0, errProxyHeader
	}
	if command == 0x21 {
		h.client = netip.AddrPortFrom(src.Unmap(), binary.BigEndian.Uint16(ports))
		h.local = netip.AddrPortFrom(dst.Unmap(), binary.BigEndian.Uint16(ports[2:]))
	}
	return h, n, nil
}

// checkTLVs reports whether the TLVs of header, from offset on, fill it exactly, and
// whether its checksum is right, if it has one (proxy-protocol.txt section 2.2.3).
func checkTLVs(header []byte, offset int) bool {
	const typeCRC32C = 0x03
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
		offset += size
	}
	return true
}
