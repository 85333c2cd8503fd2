package register

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailcutover/identity/list"
	"mailcutover/routing"
)

// Standing is how far a list has come.
type Standing string

const (
	Proposed  Standing = "proposed"  // a proposal is about it; without one that can still be used it is nothing
	Approved  Standing = "approved"  // others have agreed; the mapping isn't changed yet
	Pending   Standing = "pending"   // an operation is bringing it into force; it isn't yet
	Active    Standing = "active"    // it is part of the agency's mapping
	Withdrawn Standing = "withdrawn" // it counts no more; kept for comparison
)

// Entry is a list that was proposed or approved.
type Entry struct {
	List     *list.List
	Standing Standing
	Check    routing.Digest // of the check's result that the approvers saw
	Checked  time.Time      // when the directory was read for it
	Proposal string         // its id
	Approved []string       // persons
	Since    time.Time      // of the standing

	// Operation is, of one that is pending, what brings it into force; of one that such an
	// operation brought into force, that one; empty: none did.
	Operation routing.OperationID

	// Disabled are its mailboxes whose accounts were disabled then, as the approvers saw.
	Disabled []routing.MailboxID
}

// head is the first document of an entry.
type head struct {
	ID       string           `json:"id"`
	Agency   routing.AgencyID `json:"agency"`
	Number   int              `json:"number"`
	Made     time.Time        `json:"made"`
	By       string           `json:"by"`
	Foreign  bool             `json:"foreign,omitempty"`
	Source   string           `json:"source,omitempty"`
	Digest   routing.Digest   `json:"digest"`
	Rows     int              `json:"rows"`
	Standing Standing         `json:"standing"`
	Check    routing.Digest   `json:"check"`
	Checked  time.Time        `json:"checked"`
	Proposal string           `json:"proposal"`
	Approved []string         `json:"approved"`
	Since    time.Time        `json:"since"`

	Disabled  []routing.MailboxID `json:"disabled,omitempty"`
	Operation routing.OperationID `json:"operation,omitempty"`
}

const (
	prefix   = "list/"
	partRows = 400 // of some 90 bytes; a document has 64 KiB
)

// key returns the key of an entry's part; the head is part 0.
func key(agency routing.AgencyID, id string, part int) string {
	return fmt.Sprintf("%s%s/%s/%03d", prefix, agency, id, part)
}

// Documents returns an entry as the table keeps it, to be stored in the place of what it was
// read from. Rows of a list don't change, so only the head does, after the first time.
func (e *Entry) Documents(s *routing.State) ([]routing.Document, error) {
	l := e.List
	if l.ID == "" || l.Agency == "" || len(l.Rows) == 0 {
		return nil, fmt.Errorf("keep list %q of %q: it has %d rows", l.ID, l.Agency, len(l.Rows))
	}
	text, err := json.Marshal(head{
		ID: l.ID, Agency: l.Agency, Number: l.Number, Made: l.Made, By: l.By, Foreign: l.Foreign, Source: l.Source, Digest: l.Digest(), Rows: len(l.Rows),
		Standing: e.Standing, Check: e.Check, Checked: e.Checked, Proposal: e.Proposal, Approved: e.Approved, Since: e.Since,
		Disabled: e.Disabled, Operation: e.Operation,
	})
	if err != nil {
		return nil, fmt.Errorf("keep list %s: %w", l.ID, err)
	}
	out := []routing.Document{document(s, key(l.Agency, l.ID, 0), string(text))}
	part := 0
	for rows := range slices.Chunk(l.Rows, partRows) {
		part++
		var b strings.Builder
		for i := range rows {
			fmt.Fprintf(&b, "%s %s %s\n", rows[i].ID, rows[i].Address, strconv.Quote(rows[i].Account))
		}
		d := document(s, key(l.Agency, l.ID, part), b.String())
		if was, kept := s.Document(d.Key); !kept || was.Text != d.Text {
			out = append(out, d)
		}
	}
	for part++; ; part++ { // of a longer list of this id, whose proposal came to nothing
		was, kept := s.Document(key(l.Agency, l.ID, part))
		if !kept {
			return out, nil
		}
		out = append(out, routing.Document{Key: was.Key, Removed: true, Revision: was.Revision})
	}
}

// Removals returns what removes a list that was only proposed, or whose operation the table
// lost. One that is in force, or was, stays.
func (e *Entry) Removals(s *routing.State) []routing.Document {
	if _, runs := s.Operation(e.Operation); e.Standing != Proposed && (e.Standing != Pending || runs) {
		return nil
	}
	var out []routing.Document
	for _, d := range s.Documents(prefix + string(e.List.Agency) + "/" + e.List.ID + "/") {
		out = append(out, routing.Document{Key: d.Key, Removed: true, Revision: d.Revision})
	}
	return out
}

// Begun returns what marks a proposed list as pending, when an operation begins that brings it
// into force. approved are the persons who have agreed.
func Begun(s *routing.State, id string, operation routing.OperationID, approved []string, at time.Time) ([]routing.Document, error) {
	e, ok, err := Find(s, id)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("begin to bring list %s into force: it isn't in the table", id)
	case e.Standing != Proposed:
		return nil, fmt.Errorf("begin to bring list %s into force: it is %s", id, e.Standing)
	}
	e.Standing, e.Operation, e.Approved, e.Since = Pending, operation, approved, at
	return e.Documents(s)
}

// Ended returns what notes how an operation has ended that brought a list into force: the list
// is active, or as it was before. Where it isn't pending by that operation, there is nothing to
// note.
func Ended(s *routing.State, id string, operation routing.OperationID, inForce bool, at time.Time) ([]routing.Document, error) {
	e, ok, err := Find(s, id)
	if err != nil || !ok || e.Standing != Pending || e.Operation != operation {
		return nil, err
	}
	e.Standing, e.Since = Active, at
	if !inForce {
		e.Standing, e.Operation, e.Approved = Proposed, "", nil
	}
	return e.Documents(s)
}

// InForce returns the rows that lists in force have, one for each mailbox: that of the newest
// list which names it. entries are in the order of [Lists]; a mailbox that lists of two agencies
// name is the agency's whose list is newer.
func InForce(entries []Entry) []list.Row {
	active := make([]*Entry, 0, len(entries))
	for i := range entries {
		if entries[i].Standing == Active {
			active = append(active, &entries[i])
		}
	}
	slices.SortStableFunc(active, func(a, b *Entry) int { return b.List.Made.Compare(a.List.Made) })
	named := make(map[routing.MailboxID]bool)
	var out []list.Row
	for _, e := range active {
		for _, row := range e.List.Rows {
			if !named[row.ID] {
				named[row.ID] = true
				out = append(out, row)
			}
		}
	}
	return out
}

// Superseded reports whether newer lists in force name every mailbox of an entry that is in
// force itself. entries are the agency's, the newest first.
func Superseded(entries []Entry, e *Entry) bool {
	if e.Standing != Active {
		return false
	}
	named := make(map[routing.MailboxID]bool)
	for i := range entries {
		if entries[i].List.ID == e.List.ID {
			break
		}
		if entries[i].Standing == Active && entries[i].List.Agency == e.List.Agency {
			for _, r := range entries[i].List.Rows {
				named[r.ID] = true
			}
		}
	}
	for _, r := range e.List.Rows {
		if !named[r.ID] {
			return false
		}
	}
	return true
}

// document returns a document to be stored in the place of the one that s has.
func document(s *routing.State, key, text string) routing.Document {
	d := routing.Document{Key: key, Text: text}
	if was, ok := s.Document(key); ok {
		d.Revision = was.Revision
	}
	return d
}

// errEntry is for documents that are not what was stored.
var errEntry = errors.New("list can't be read")

// Lists returns an agency's entries, the newest first, and those that can't be read as errors.
// An empty agency means all.
func Lists(s *routing.State, agency routing.AgencyID) (entries []Entry, unreadable []error) {
	under := prefix
	if agency != "" {
		under += string(agency) + "/"
	}
	var parts []routing.Document
	flush := func() {
		if len(parts) == 0 {
			return
		}
		e, err := read(parts)
		if err != nil {
			unreadable = append(unreadable, err)
		} else {
			entries = append(entries, e)
		}
		parts = nil
	}
	for _, d := range s.Documents(under) {
		if strings.HasSuffix(d.Key, "/000") {
			flush()
		}
		parts = append(parts, d)
	}
	flush()
	slices.SortStableFunc(entries, func(a, b Entry) int {
		if c := cmp.Compare(a.List.Agency, b.List.Agency); c != 0 {
			return c
		}
		return cmp.Or(b.List.Made.Compare(a.List.Made), cmp.Compare(b.List.Number, a.List.Number))
	})
	return entries, unreadable
}

// Find returns the entry of a list's id; ok is false if there is none.
func Find(s *routing.State, id string) (e Entry, ok bool, err error) {
	for _, d := range s.Documents(prefix) {
		if rest, found := strings.CutSuffix(d.Key, "/"+id+"/000"); found {
			parts := s.Documents(rest + "/" + id + "/")
			e, err = read(parts)
			return e, err == nil, err
		}
	}
	return Entry{}, false, nil
}

// read returns the entry of its documents, in the order of their keys.
func read(parts []routing.Document) (Entry, error) {
	refuse := func(format string, args ...any) (Entry, error) {
		return Entry{}, fmt.Errorf("%w: %s: %s", errEntry, parts[0].Key, fmt.Sprintf(format, args...))
	}
	var h head
	if err := json.Unmarshal([]byte(parts[0].Text), &h); err != nil {
		return refuse("%v", err)
	}
	l := &list.List{ID: h.ID, Agency: h.Agency, Number: h.Number, Made: h.Made, By: h.By, Foreign: h.Foreign, Source: h.Source}
	for i, d := range parts {
		if d.Key != key(h.Agency, h.ID, i) {
			return refuse("part %d is %s", i, d.Key)
		}
		if i == 0 {
			continue
		}
		for line := range strings.Lines(d.Text) {
			row, err := readRow(strings.TrimSuffix(line, "\n"), h.Agency)
			if err != nil {
				return refuse("%v", err)
			}
			l.Rows = append(l.Rows, row)
		}
	}
	if len(l.Rows) != h.Rows || l.Digest() != h.Digest {
		return refuse("%d rows with the digest %s, want %d with %s", len(l.Rows), l.Digest(), h.Rows, h.Digest)
	}
	return Entry{
		List: l, Standing: h.Standing, Check: h.Check, Checked: h.Checked, Proposal: h.Proposal, Approved: h.Approved, Since: h.Since,
		Disabled: h.Disabled, Operation: h.Operation,
	}, nil
}

func readRow(line string, agency routing.AgencyID) (list.Row, error) {
	id, rest, _ := strings.Cut(line, " ")
	address, account, _ := strings.Cut(rest, " ")
	row := list.Row{Agency: agency}
	var err error
	if row.ID, err = routing.ParseMailboxID(id); err != nil {
		return row, err
	}
	if address != "" {
		if row.Address, err = routing.ParseAddress(address); err != nil {
			return row, err
		}
	}
	row.Account, err = strconv.Unquote(account)
	return row, err
}

// Gap is a mailbox of an agency that no approved list covers.
type Gap struct {
	Mailbox routing.MailboxID
	Address routing.Address // that it has in the mapping
	Listed  routing.Address // that the newest list gives it; empty: none names it
	List    string          // that list's id
}

// Gaps returns the mailboxes of an agency's mapping that no list in force names with one of
// their addresses, by address. The newest list that names a mailbox counts.
func Gaps(s *routing.State, agency routing.AgencyID, entries []Entry) []Gap {
	m := s.Mapping(agency)
	if m == nil {
		return nil
	}
	type listed struct {
		address routing.Address
		list    string
	}
	named := make(map[routing.MailboxID]listed)
	for i := range entries {
		e := &entries[i]
		if e.List.Agency != agency || e.Standing != Active {
			continue
		}
		for j := range e.List.Rows {
			r := &e.List.Rows[j]
			if _, newer := named[r.ID]; !newer {
				named[r.ID] = listed{address: r.Address, list: e.List.ID}
			}
		}
	}
	var out []Gap
	for row := range m.Rows() {
		l, ok := named[row.Mailbox]
		if ok && slices.Contains(row.Addresses, l.address) {
			continue
		}
		out = append(out, Gap{Mailbox: row.Mailbox, Address: row.Addresses[0], Listed: l.address, List: l.list})
	}
	slices.SortFunc(out, func(a, b Gap) int { return cmp.Compare(a.Address, b.Address) })
	return out
}
