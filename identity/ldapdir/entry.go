package ldapdir

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"mailcutover/identity/directory"
	"mailcutover/routing"
)

func lower(s string) string { return strings.ToLower(s) }

// object returns an entry in our terms.
func (c *Client) object(e *ldap.Entry) *directory.Object {
	m := &c.o.Map
	values := make(map[string][]string, len(e.Attributes))
	for _, a := range e.Attributes {
		values[lower(a.Name)] = a.Values
	}
	one := func(name string) string {
		if v := values[lower(name)]; name != "" && len(v) > 0 {
			return v[0]
		}
		return ""
	}
	o := &directory.Object{
		DN: e.DN, UPN: one(m.UPN), Account: one(m.Account), Domain: c.o.Domain, Enabled: true,
		Target: address(one(m.Target)), Forward: one(m.Forward), Redirect: strings.EqualFold(one(m.Redirect), "TRUE") || one(m.Redirect) == "1",
	}
	problem := func(format string, args ...any) { o.Problems = append(o.Problems, fmt.Sprintf(format, args...)) }
	c.identify(o, e, problem)
	if all := values[lower(m.Mail)]; m.Mail != "" && len(all) > 0 {
		addAddress(o, m.Mail, all[0], true, problem)
		if len(all) > 1 {
			// A server returns them in any order (RFC 4511 section 4.1.7), and another one in another.
			problem("it has %d values of %s: nothing says which one is the primary address", len(all), m.Mail)
			for _, s := range all[1:] {
				addAddress(o, m.Mail, s, false, problem)
			}
		}
	}
	for _, name := range []string{m.UPN, m.Account} {
		if n := len(values[lower(name)]); name != "" && n > 1 {
			problem("it has %d values of %s: only one of them is used", n, name)
		}
	}
	for _, name := range m.Aliases {
		for _, s := range values[lower(name)] {
			addProxy(o, name, s, problem)
		}
	}
	if s := one(m.LegacyDN); s != "" && !slices.Contains(o.X500, s) {
		o.X500 = append(o.X500, s)
	}
	if flags, err := strconv.ParseInt(one(m.Control), 10, 64); err == nil {
		const disabled = 2 // ADS_UF_ACCOUNTDISABLE
		o.Enabled = flags&disabled == 0
	}
	if strings.Contains(one(m.SambaFlags), "D") {
		o.Enabled = false
	}
	o.Kind = kindOfClasses(values["objectclass"])
	if s := one(m.RecipientType); s != "" {
		kind, known := kindsOfExchange[s]
		if !known {
			problem("%s %s isn't known", m.RecipientType, s)
		}
		o.Kind = kind
	}
	if s := one(m.Kind); s != "" {
		kind, err := directory.ParseKind(lower(s))
		if err != nil {
			problem("%s: %v", m.Kind, err)
		}
		o.Kind = kind
	}
	if m.Groups != "" {
		o.Groups = slices.Clone(values[lower(m.Groups)])
	}
	for _, name := range m.Members {
		o.Members = append(o.Members, values[lower(name)]...)
	}
	for _, name := range m.Forwards {
		for _, s := range values[lower(name)] {
			o.Forwards = append(o.Forwards, address(s))
		}
	}
	for _, name := range c.o.Extra {
		if v := values[lower(name)]; len(v) > 0 {
			if o.Attributes == nil {
				o.Attributes = make(map[string][]string, len(c.o.Extra))
			}
			o.Attributes[lower(name)] = slices.Clone(v)
		}
	}
	return o
}

// identify reads the directory id.
func (c *Client) identify(o *directory.Object, e *ldap.Entry, problem func(string, ...any)) {
	m := &c.o.Map
	raw := e.GetEqualFoldRawAttributeValues(m.ID)
	var err error
	switch {
	case len(raw) == 0:
		problem("it has no %s", m.ID)
	case len(raw) > 1:
		problem("it has %d values of %s", len(raw), m.ID)
	case m.IDForm == IDBinary:
		o.ID, err = directory.ParseBytes(raw[0])
	case m.IDForm == IDPlain:
		o.ID, err = directory.ParsePlain(string(raw[0]))
	default:
		o.ID, err = routing.ParseMailboxID(string(raw[0]))
	}
	if err != nil {
		problem("%s: %v", m.ID, err)
	}
}

// addProxy notes a value of proxyAddresses, or a bare address: SMTP: in capitals is the primary
// one, smtp: another; X500: names the object itself. Other kinds, such as SIP:, are no mail's.
func addProxy(o *directory.Object, name, s string, problem func(string, ...any)) {
	prefix, rest, ok := strings.Cut(s, ":")
	switch {
	case !ok:
		addAddress(o, name, s, false, problem)
	case prefix == "SMTP":
		addAddress(o, name, rest, true, problem)
	case strings.EqualFold(prefix, "smtp"):
		addAddress(o, name, rest, false, problem)
	case strings.EqualFold(prefix, "x500"):
		o.X500 = append(o.X500, rest)
	}
}

func addAddress(o *directory.Object, name, s string, primary bool, problem func(string, ...any)) {
	a, err := routing.ParseAddress(s)
	if err != nil {
		problem("%s: %v", name, err)
		return
	}
	if i := slices.Index(o.Addresses, a); i >= 0 {
		if primary {
			o.Addresses = slices.Delete(o.Addresses, i, i+1)
		} else {
			return
		}
	}
	if primary {
		o.Addresses = slices.Insert(o.Addresses, 0, a)
	} else {
		o.Addresses = append(o.Addresses, a)
	}
}

// address returns the address of a value such as SMTP:a@example.org.
func address(s string) string {
	if prefix, rest, ok := strings.Cut(s, ":"); ok && strings.EqualFold(prefix, "smtp") {
		return rest
	}
	return s
}
