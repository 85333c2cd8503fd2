package relay

import (
	"fmt"
	"slices"
	"strings"

	"mailcutover/mail"
	"mailcutover/proxy/dial"
)

// identity is the client connection to which a connection belongs with XCLIENT and PROXY:
// those fields of a mail.Client that the platform is told. The zero value is ourselves.
type identity mail.Client

// identityOf returns whose connection a transaction for client needs.
func (p *Pool) identityOf(client mail.Client) identity {
	if !client.Addr.IsValid() {
		return identity{} // a message of our own
	}
	switch p.ep.Identity {
	case IdentityXCLIENT:
		return identity{Addr: client.Addr, Name: client.Name, Helo: client.Helo, With: client.With}
	case IdentityProxyV2:
		if client.Local.IsValid() {
			return identity{Addr: client.Addr, Local: client.Local}
		}
	}
	return identity{}
}

// xclient tells the platform whom it is to treat as its peer; it answers with a new
// greeting, as if that one had just connected. Postfix 3.7 takes it once only: afterwards
// the client's right to give it counts, not ours.
func (p *Pool) xclient(c *conn) error {
	if c.caps.xclient == nil {
		return fmt.Errorf("%w: not announced, though configured: without it the platform would take the client's mail for ours", ErrNeedsOperator)
	}
	line := string(appendAttributes([]byte("XCLIENT"), c.caps.xclient, mail.Client(c.identity), "ADDR", "NAME", "PORT", "HELO", "PROTO"))
	code, err := c.command(line, p.ep.Timeouts.Command)
	if err != nil {
		return err
	}
	if code != 220 && code != 250 {
		return p.refused(c, "XCLIENT", code)
	}
	return p.ehlo(c)
}

// appendXForward appends up to two XFORWARD commands, each within 512 bytes as Postfix
// wants it, and returns how many.
func appendXForward(b []byte, announced []string, client mail.Client) ([]byte, int) {
	n := 0
	for _, group := range [][]string{{"NAME", "ADDR", "PORT"}, {"PROTO", "HELO"}} {
		before := len(b)
		b = append(b, "XFORWARD"...)
		empty := len(b)
		b = appendAttributes(b, announced, client, group...)
		if len(b) == empty {
			b = b[:before]
			continue
		}
		b = append(b, "\r\n"...)
		n++
	}
	return b, n
}

// appendAttributes appends those attributes that the platform announced.
func appendAttributes(b []byte, announced []string, client mail.Client, names ...string) []byte {
	for _, name := range names {
		if !slices.Contains(announced, name) {
			continue
		}
		value := ""
		switch name {
		case "ADDR":
			if addr := client.Addr.Addr().Unmap().WithZone(""); addr.IsValid() {
				value = addr.String()
				if addr.Is6() {
					value = "IPV6:" + value
				}
			}
		case "PORT":
			if client.Addr.Port() != 0 {
				value = fmt.Sprint(client.Addr.Port())
			}
		case "NAME":
			value = client.Name
		case "HELO":
			value = client.Helo
		case "PROTO":
			value = "ESMTP"
			if strings.HasPrefix(client.With, "SMTP") {
				value = "SMTP"
			}
		}
		b = append(append(append(b, ' '), name...), '=')
		if value == "" {
			b = append(b, "[UNAVAILABLE]"...)
		} else {
			b = dial.AppendXtext(b, value)
		}
	}
	return b
}
