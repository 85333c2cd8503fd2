package redistable

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// noMapping stands in an agency's record in the place of a digest.
const noMapping = "-"

// records is what a change sets, as JSON. Their revisions are 0 in it: only the script
// knows the new one, and it stands before the JSON, or is the log entry's.
type records struct {
	all      []byte // the whole of a logged
	agencies [][]byte
	domains  [][]byte // empty: removed
	fixed    [][]byte

	members, operations [][]byte
	freezes, documents  [][]byte // empty: removed
}

// logged is the field "records" of a log entry.
type logged struct {
	Agencies []routing.Agency `json:"agencies,omitempty"`
	Domains  []routing.Domain `json:"domains,omitempty"`
	Fixed    []routing.Fixed  `json:"fixed,omitempty"`

	Members    []routing.Member    `json:"members,omitempty"`
	Operations []routing.Operation `json:"operations,omitempty"`
	Freezes    []routing.Freeze    `json:"freezes,omitempty"`
	Documents  []routing.Document  `json:"documents,omitempty"`
	Above      []routing.Agency    `json:"above,omitempty"`
}

func encodeRecords(c *table.Change) (*records, error) {
	var r records
	var l logged
	for _, a := range c.Agencies {
		a.Revision = 0
		l.Agencies = append(l.Agencies, a)
		b, err := json.Marshal(a)
		if err != nil {
			return nil, fmt.Errorf("encode agency %s: %w", a.ID, err)
		}
		r.agencies = append(r.agencies, b)
	}
	for _, d := range c.Domains {
		d.Revision = 0
		l.Domains = append(l.Domains, d)
		b, err := encodeUnlessRemoved(d, d.Removed)
		if err != nil {
			return nil, fmt.Errorf("encode domain %s: %w", d.Name, err)
		}
		r.domains = append(r.domains, b)
	}
	for _, f := range c.Fixed {
		f.Revision = 0
		l.Fixed = append(l.Fixed, f)
		b, err := encodeUnlessRemoved(f, f.Removed)
		if err != nil {
			return nil, fmt.Errorf("encode fixed address %s: %w", f.Address, err)
		}
		r.fixed = append(r.fixed, b)
	}
	for _, m := range c.Members {
		m.Revision = 0
		l.Members = append(l.Members, m)
		b, err := encodeMember(&m)
		if err != nil {
			return nil, err
		}
		r.members = append(r.members, b)
	}
	for _, o := range c.Operations {
		o.Revision = 0
		l.Operations = append(l.Operations, o)
		b, err := json.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("encode operation %s: %w", o.ID, err)
		}
		r.operations = append(r.operations, b)
	}
	for _, f := range c.Freezes {
		f.Revision = 0
		l.Freezes = append(l.Freezes, f)
		b, err := encodeUnlessRemoved(f, f.Removed)
		if err != nil {
			return nil, fmt.Errorf("encode freeze of %q: %w", f.Agency, err)
		}
		r.freezes = append(r.freezes, b)
	}
	for _, d := range c.Documents {
		d.Revision = 0
		l.Documents = append(l.Documents, d)
		b, err := encodeUnlessRemoved(d, d.Removed)
		if err != nil {
			return nil, fmt.Errorf("encode document %q: %w", d.Key, err)
		}
		r.documents = append(r.documents, b)
	}
	var err error
	r.all, err = json.Marshal(l)
	return &r, err
}

func encodeUnlessRemoved(v any, removed bool) ([]byte, error) {
	if removed {
		return []byte{}, nil
	}
	return json.Marshal(v)
}

// decodeAgency parses a record of {mc}:agency.
func decodeAgency(s string) (a routing.Agency, err error) {
	word := strings.SplitN(s, " ", 5) // revision, mapping, epoch, answer, JSON
	if len(word) != 5 {
		return a, fmt.Errorf("record of an agency, %.80q: want revision, digest, epoch, answer and JSON", s)
	}
	if a, err = decodeAbove(word[2] + " " + word[3] + " " + word[4]); err != nil {
		return a, err
	}
	if want := a.Mapping.String(); word[1] != want && !(word[1] == noMapping && a.Mapping.IsZero()) {
		return a, fmt.Errorf("record of agency %s: the mapping is %s before the JSON and %s in it", a.ID, word[1], want)
	}
	a.Revision, err = parseRevision(word[0])
	return a, err
}

// decodeAbove parses a record of {mc}:above.
func decodeAbove(s string) (a routing.Agency, err error) {
	word := strings.SplitN(s, " ", 3)
	if len(word) != 3 {
		return a, fmt.Errorf("record of an agency, %.80q: want epoch, answer and JSON", s)
	}
	if err := json.Unmarshal([]byte(word[2]), &a); err != nil {
		return a, fmt.Errorf("record of an agency: %w", err)
	}
	if word[0] != a.Epoch.String() || word[1] != a.Answer() {
		return a, fmt.Errorf("record of agency %s: it is %s %s before the JSON and %s %s in it", a.ID, word[0], word[1], a.Epoch, a.Answer())
	}
	return a, nil
}

// decodeDomain parses a record of {mc}:domain.
func decodeDomain(s string) (d routing.Domain, err error) {
	rev, err := decode(s, &d)
	d.Revision = rev
	return d, err
}

// decodeFixed parses a record of {mc}:fixed.
func decodeFixed(s string) (f routing.Fixed, err error) {
	rev, err := decode(s, &f)
	f.Revision = rev
	return f, err
}

// decode parses a revision and JSON.
func decode(s string, v any) (routing.Revision, error) {
	rev, text, ok := cutRevision(s)
	if !ok {
		return 0, fmt.Errorf("record %.80q: want revision and JSON", s)
	}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		return 0, fmt.Errorf("record %.80q: %w", s, err)
	}
	return rev, nil
}

func cutRevision(s string) (rev routing.Revision, rest string, ok bool) {
	text, rest, ok := strings.Cut(s, " ")
	rev, err := parseRevision(text)
	return rev, rest, ok && err == nil
}

func parseRevision(s string) (routing.Revision, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("revision %.80q: want a number", s)
	}
	return routing.Revision(n), nil
}

// decodePosition parses what HMGET of {mc}:meta answers.
func decodePosition(v []any) (pos routing.Position, err error) {
	if len(v) != 5 || v[0] == nil {
		return pos, table.ErrEmpty
	}
	text := make([]string, len(v))
	for i, f := range v {
		text[i], _ = f.(string)
	}
	if text[1] != format {
		return pos, wrongFormat(text[1])
	}
	pos.Incarnation = routing.Incarnation(text[0])
	if pos.Revision, err = parseRevision(text[2]); err != nil {
		return pos, fmt.Errorf("damaged: %w", err)
	}
	if pos.Mapped, err = parseRevision(text[3]); err != nil {
		return pos, fmt.Errorf("damaged: mapped: %w", err)
	}
	if pos.Term, err = parseTerm(text[4]); err != nil {
		return pos, fmt.Errorf("damaged: %w", err)
	}
	return pos, nil
}

func parseTerm(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("term %.80q: want a number", s)
	}
	return uint32(n), nil
}

func wrongFormat(have string) error {
	return fmt.Errorf("its format is %q, this program knows %s", have, format)
}

// decodeEntry parses an entry of the log.
func decodeEntry(m redis.XMessage) (e table.Entry, err error) {
	number, zero, ok := strings.Cut(m.ID, "-")
	if e.Position.Revision, err = parseRevision(number); err != nil || !ok || zero != "0" {
		return e, fmt.Errorf("log entry %q: want the id REVISION-0", m.ID)
	}
	field := func(name string) string {
		s, _ := m.Values[name].(string)
		return s
	}
	fail := func(err error) (table.Entry, error) { return table.Entry{}, fmt.Errorf("log entry %s: %w", m.ID, err) }
	e.Position.Incarnation = routing.Incarnation(field("incarnation"))
	if e.Position.Incarnation == "" {
		return fail(errors.New("no incarnation"))
	}
	if e.Position.Mapped, err = parseRevision(field("mapped")); err != nil {
		return fail(err)
	}
	if e.Position.Term, err = parseTerm(field("term")); err != nil {
		return fail(err)
	}
	if e.Time, err = parseTime(field("time")); err != nil {
		return fail(err)
	}
	var l logged
	if err := json.Unmarshal([]byte(field("records")), &l); err != nil {
		return fail(err)
	}
	for i := range l.Agencies {
		l.Agencies[i].Revision = e.Position.Revision
	}
	for i := range l.Domains {
		l.Domains[i].Revision = e.Position.Revision
	}
	for i := range l.Fixed {
		l.Fixed[i].Revision = e.Position.Revision
	}
	for i := range l.Members {
		l.Members[i].Revision = e.Position.Revision
	}
	for i := range l.Operations {
		l.Operations[i].Revision = e.Position.Revision
	}
	for i := range l.Freezes {
		l.Freezes[i].Revision = e.Position.Revision
	}
	for i := range l.Documents {
		l.Documents[i].Revision = e.Position.Revision
	}
	if text := field("member"); text != "" {
		node, record, _ := strings.Cut(text, " ")
		m, err := decodeMember(record)
		if err != nil || string(m.Node) != node {
			return fail(fmt.Errorf("record of node %q: %w", node, cmp.Or(err, errors.New("it is another's"))))
		}
		l.Members = append(l.Members, m)
	}
	e.Agencies, e.Domains, e.Fixed = l.Agencies, l.Domains, l.Fixed
	e.Members, e.Operations, e.Freezes, e.Above = l.Members, l.Operations, l.Freezes, l.Above
	e.Documents = l.Documents
	e.ID, e.Who, e.What, e.Reason = field("id"), field("who"), field("what"), field("reason")
	return e, nil
}
