package smtp

import (
	"net/netip"
	"strconv"
	"strings"

	"mailcutover/mail"
)

// xforward is what a trusted peer said about the client for whom it speaks (Postfix'
// XFORWARD_README). It lasts for one transaction.
type xforward struct {
	addr netip.Addr
	port uint16
	name string
	helo string
}

// xforwardNames are the attributes that we take, as announced.
const xforwardNames = "NAME ADDR PORT PROTO HELO SOURCE"

// parse adds the attributes of one command to f; on false f is unchanged. PROTO and
// SOURCE are checked and forgotten: the origin is never left to the peer's word.
func (f *xforward) parse(arg string) bool {
	next := *f
	if strings.TrimSpace(arg) == "" {
		return false
	}
	for attr := range strings.FieldsSeq(arg) {
		name, raw, ok := strings.Cut(attr, "=")
		if !ok {
			return false
		}
		value, ok := decodeXtext(raw)
		if !ok || len(value) > 255 {
			return false
		}
		for i := range len(value) {
			if value[i] <= ' ' || value[i] == 0x7f {
				return false
			}
		}
		if strings.EqualFold(value, "[UNAVAILABLE]") || strings.EqualFold(value, "[TEMPUNAVAIL]") {
			value = ""
		}
		switch {
		case strings.EqualFold(name, "NAME"):
			next.name = value
		case strings.EqualFold(name, "HELO"):
			next.helo = value
		case strings.EqualFold(name, "ADDR"):
			if next.addr, ok = parseXforwardAddr(value); !ok {
				return false
			}
		case strings.EqualFold(name, "PORT"):
			next.port = 0
			if value != "" {
				port, err := strconv.ParseUint(value, 10, 16)
				if err != nil {
					return false
				}
				next.port = uint16(port)
			}
		case strings.EqualFold(name, "PROTO"):
			if value != "" && !strings.EqualFold(value, "SMTP") && !strings.EqualFold(value, "ESMTP") {
				return false
			}
		case strings.EqualFold(name, "SOURCE"):
			if value != "" && !strings.EqualFold(value, "LOCAL") && !strings.EqualFold(value, "REMOTE") {
				return false
			}
		default:
			return false
		}
	}
	*f = next
	return true
}

func parseXforwardAddr(s string) (netip.Addr, bool) {
	if s == "" {
		return netip.Addr{}, true
	}
	v6 := len(s) > 5 && strings.EqualFold(s[:5], "IPV6:")
	if v6 {
		s = s[5:]
	}
	addr, err := netip.ParseAddr(s)
	return addr, err == nil && addr.Zone() == "" && (addr.Is6() || !v6)
}

// apply puts what is known of the client in the place of what we know of the peer.
func (f *xforward) apply(c *mail.Client) {
	if f.addr.IsValid() {
		c.Addr = netip.AddrPortFrom(f.addr, f.port)
		c.Name = f.name
	}
	if f.helo != "" {
		c.Helo = f.helo
	}
}
