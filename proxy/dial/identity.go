package dial

import (
	"net"
	"net/netip"
	"strings"
)

// AppendProxyV2 appends a header of the PROXY protocol, version 2 (proxy-protocol.txt section
// 2.2), for a client and the address that it connected to. If either isn't valid it becomes
// LOCAL: a connection of our own, as for probes.
func AppendProxyV2(b []byte, client, local netip.AddrPort) []byte {
	b = append(b, "\r\n\r\n\x00\r\nQUIT\n"...)
	if !client.IsValid() || !local.IsValid() {
		return append(b, 0x20, 0x00, 0, 0)
	}
	src, dst := client.Addr().Unmap(), local.Addr().Unmap()
	if src.Is4() && dst.Is4() {
		b = append(b, 0x21, 0x11, 0, 12)
		s, d := src.As4(), dst.As4()
		b = append(append(b, s[:]...), d[:]...)
	} else {
		b = append(b, 0x21, 0x21, 0, 36)
		s, d := src.As16(), dst.As16()
		b = append(append(b, s[:]...), d[:]...)
	}
	sp, dp := client.Port(), local.Port()
	return append(b, byte(sp>>8), byte(sp), byte(dp>>8), byte(dp))
}

// AppendXtext appends s as RFC 3461 section 4 encodes it, at most 200 bytes of it: for the
// attributes of XCLIENT and XFORWARD.
func AppendXtext(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range min(len(s), 200) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '+' || c == '=' {
			b = append(b, '+', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

// Loopback reports whether a is an address of this machine alone.
func Loopback(a net.Addr) bool {
	if a == nil {
		return false
	}
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// LoopbackHost reports the same of a configured host:port, without looking its name up.
func LoopbackHost(hostport string) bool {
	host, _, _ := net.SplitHostPort(hostport)
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback() || strings.EqualFold(host, "localhost")
}
