package mailboxlist

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"mailcutover/routing"
)

// byteOrderMark begins UTF-8 files of some programs.
var byteOrderMark = []byte("\xef\xbb\xbf")

// Read reads a list: CSV as RFC 4180 has it, with comma or semicolon, whichever the first
// line has. The error is *Problems with every row that is wrong.
func Read(text []byte) (*List, error) {
	var p Problems
	text = bytes.TrimPrefix(text, byteOrderMark)
	if !utf8.Valid(text) {
		for i, line := range bytes.Split(text, []byte("\n")) {
			if !utf8.Valid(line) {
				p.add(i+1, "not UTF-8: save the list as CSV UTF-8")
			}
		}
		return nil, p.err()
	}
	r := csv.NewReader(bytes.NewReader(text))
	r.FieldsPerRecord = -1
	r.ReuseRecord = true
	header, _, _ := bytes.Cut(text, []byte("\n"))
	if bytes.ContainsRune(header, ';') && !bytes.ContainsRune(header, ',') {
		r.Comma = ';'
	}
	names, err := r.Read()
	if err != nil {
		p.add(1, "no header: want %s", strings.Join(Columns(), ","))
		p.Header = true
		return nil, p.err()
	}
	place := columns(&p, names)
	if p.Total > 0 {
		p.Header = true
		return nil, p.err()
	}
	l := &List{}
	for {
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			line := 0
			if pe, ok := errors.AsType[*csv.ParseError](err); ok {
				line, err = pe.StartLine, pe.Err
			}
			// What follows can't be told apart any more.
			p.add(line, "not CSV: %s; the rest was not read", err)
			break
		}
		line, _ := r.FieldPos(0)
		l.row(&p, line, place, cells)
	}
	if len(l.Mailboxes)+len(l.Fixed) == 0 && p.Total == 0 {
		p.add(0, "the list has no rows")
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return l, nil
}

// columns returns where each column stands.
func columns(p *Problems, header []string) map[string]int {
	place := make(map[string]int, len(header))
	if !slices.ContainsFunc(header, func(name string) bool { return slices.Contains(Columns(), strings.TrimSpace(name)) }) {
		p.add(1, "it names no column: want a header, %s", strings.Join(Columns(), ","))
		return place
	}
	for i, name := range header {
		name = strings.TrimSpace(name)
		if _, twice := place[name]; twice {
			p.add(1, "column %q stands twice", name)
		}
		if !slices.Contains(Columns(), name) {
			p.add(1, "unknown column %q: want %s", name, strings.Join(Columns(), ","))
		}
		place[name] = i
	}
	for _, name := range Columns() {
		if _, ok := place[name]; !ok {
			p.add(1, "column %q is missing", name)
		}
	}
	return place
}

// row reads one row and reports everything that is wrong with it.
func (l *List) row(p *Problems, line int, place map[string]int, cells []string) {
	if len(cells) != len(place) {
		p.add(line, "%d cells: want %d, as the header has", len(cells), len(place))
		return
	}
	before := p.Total
	for _, c := range cells {
		if i := strings.IndexFunc(c, unicode.IsControl); i >= 0 {
			p.add(line, "cell %.60q: line break or other control character", c)
		} else if c = strings.TrimSpace(c); strings.HasPrefix(c, "=") || strings.HasPrefix(c, "@") {
			p.add(line, "cell %.60q: looks like a formula", c)
		}
	}
	if p.Total > before {
		return
	}
	cell := func(name string) string { return strings.Clone(strings.TrimSpace(cells[place[name]])) }
	kind := cell("kind")
	switch {
	case slices.Contains(routing.FixedKinds(), routing.FixedKind(kind)):
		l.fixed(p, line, kind, cell)
	default:
		l.mailbox(p, line, kind, cell)
	}
}

// checked returns what parse makes of a cell that must have a value, or reports why not.
func checked[T any](p *Problems, line int, column, text string, parse func(string) (T, error)) T {
	if text == "" {
		p.add(line, "%s: missing", column)
		var none T
		return none
	}
	return optional(p, line, column, text, parse)
}

// optional is checked for a cell that may be empty.
func optional[T any](p *Problems, line int, column, text string, parse func(string) (T, error)) T {
	var v T
	if text == "" {
		return v
	}
	v, err := parse(text)
	if err != nil {
		p.add(line, "%s: %s", column, err)
	}
	return v
}

// mailbox reads a row that names a mailbox.
func (l *List) mailbox(p *Problems, line int, kind string, cell func(string) string) {
	before := p.Total
	m := Mailbox{Line: line}
	m.Kind = checked(p, line, "kind", kind, func(s string) (routing.Kind, error) {
		k, err := routing.ParseKind(s)
		if err != nil {
			err = fmt.Errorf("%q: want user, shared or room, or a fixed address: %v", s, routing.FixedKinds())
		}
		return k, err
	})
	m.Addresses = []routing.Address{checked(p, line, "address", cell("address"), routing.ParseAddress)}
	m.Mailbox = checked(p, line, "directory_id", cell("directory_id"), routing.ParseMailboxID)
	m.Agency = checked(p, line, "agency", cell("agency"), routing.ParseAgencyID)
	for _, s := range strings.Fields(cell("aliases")) {
		if a := checked(p, line, "aliases", s, routing.ParseAddress); a != "" && slices.Contains(m.Addresses, a) {
			p.add(line, "aliases: %s stands twice", a)
		} else {
			m.Addresses = append(m.Addresses, a)
		}
	}
	for _, s := range strings.Fields(cell("logins")) {
		if login := checked(p, line, "logins", s, routing.ParseLogin); login != "" && slices.Contains(m.Logins, login) {
			p.add(line, "logins: %s stands twice", login)
		} else {
			m.Logins = append(m.Logins, login)
		}
	}
	m.Source.Address = optional(p, line, "source_address", cell("source_address"), routing.ParseAddress)
	m.Target.Address = optional(p, line, "target_address", cell("target_address"), routing.ParseAddress)
	m.Source.Login = optional(p, line, "source_login", cell("source_login"), verbatimLogin)
	m.Target.Login = optional(p, line, "target_login", cell("target_login"), verbatimLogin)
	if v := cell("platform"); v != "" {
		p.add(line, "platform: %q: a mailbox is where its agency is; only a fixed address has a platform", v)
	}
	if p.Total == before {
		l.Mailboxes = append(l.Mailboxes, m)
	}
}

// verbatimLogin checks what a platform is told at login, and leaves it as it stands.
func verbatimLogin(s string) (string, error) {
	_, err := routing.ParseLogin(s)
	return s, err
}

// fixed reads a row that names a fixed address.
func (l *List) fixed(p *Problems, line int, kind string, cell func(string) string) {
	before := p.Total
	f := Fixed{Line: line}
	f.Kind = routing.FixedKind(kind)
	f.Address = checked(p, line, "address", cell("address"), routing.ParseAddress)
	f.Platform = checked(p, line, "platform", cell("platform"), routing.ParsePlatformID)
	for _, name := range Columns() {
		if name == "address" || name == "kind" || name == "platform" {
			continue
		}
		if v := cell(name); v != "" {
			p.add(line, "%s: %q: a fixed address (%s) has none; one address in a row", name, v, kind)
		}
	}
	if p.Total == before {
		l.Fixed = append(l.Fixed, f)
	}
}
