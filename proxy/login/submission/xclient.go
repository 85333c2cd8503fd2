package submission

import (
	"errors"
	"net/netip"
	"strings"
)

// xclient tells the platform whom it is to treat as its peer, as Postfix 3.7 and Dovecot
// 2.3 take it; it answers with a new greeting, as if that one had just connected. LOGIN
// is not said: the client logs in itself.
func (p *platform) xclient(helo string) error {
	if !p.caps.has("XCLIENT") {
		return p.fail("XCLIENT", errors.New("not announced, though configured: the platform would take its clients for this node"))
	}
	if !isPlain(helo) {
		helo = ""
	}
	client := p.to.Client
	if !isPlain(client.Session) {
		client.Session = ""
	}
	line := "XCLIENT"
	for _, attribute := range [...]struct{ name, value string }{
		{"NAME", ""},
		{"ADDR", xclientAddr(client.Addr)},
		{"PORT", client.Port},
		{"PROTO", "ESMTP"},
		{"HELO", helo},
		{"DESTADDR", xclientAddr(client.Local)},
		{"DESTPORT", client.LocalPort},
		{"SESSION", client.Session},
	} {
		if !p.caps.word("XCLIENT", attribute.name) {
			continue
		}
		value := attribute.value
		switch {
		case value == "" && attribute.name == "SESSION":
			continue // Dovecot's own; it knows no [UNAVAILABLE] here
		case value == "":
			value = "[UNAVAILABLE]"
		}
		line += " " + attribute.name + "=" + value
	}
	if _, err := p.command(line, 220, 250); err != nil {
		return err
	}
	if helo == "" {
		helo = p.to.Helo
	}
	return p.ehlo(helo)
}

// xclientAddr returns an address as XCLIENT has it; empty if it is none.
func xclientAddr(s string) string {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return ""
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		return "IPV6:" + addr.String()
	}
	return addr.String()
}

// isPlain reports whether what a client called itself, or a session's id, can be told to a
// platform as it is: as a domain or an address literal, of bytes that need no encoding.
func isPlain(s string) bool {
	return s != "" && len(s) <= 255 &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]") == ""
}
