package desk

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/watch"
	"mailcutover/routing"
)

const (
	memberPrefix  = "members/"
	changedPrefix = "member-changes/"
	mostMembers   = 32 << 10 // bytes of a functional mailbox's members in the table
	mostChanges   = 48 << 10 // bytes of an agency's newest changes
)

// IsMemberChanges reports whether a document of an [Addition] has the changes of an agency's
// members. It is only to be stored over what it was made of: what another node has noted
// meanwhile stays.
func IsMemberChanges(key string) bool { return strings.HasPrefix(key, changedPrefix) }

// Membership is who is a member, or a delegate, of a functional mailbox.
type Membership struct {
	Agency  routing.AgencyID
	Mailbox routing.MailboxID
	Address routing.Address // that the table has it with; empty: it isn't routed
	Members []string        // as the directory names them, by name
}

// MemberChange is one member that came or went.
type MemberChange struct {
	At      time.Time // when the directory was read
	Agency  routing.AgencyID
	Mailbox routing.MailboxID
	Address string // that it had then
	Came    bool   // else it went
	Member  string
}

// Members returns who is a member of the functional mailboxes of an agency, or with an empty one
// of all, as the table has it from the directory.
func Members(s *routing.State, agency routing.AgencyID) []Membership {
	var out []Membership
	for _, doc := range s.Documents(under(memberPrefix, agency)) {
		of, name, _ := strings.Cut(strings.TrimPrefix(doc.Key, memberPrefix), "/")
		id, err := routing.ParseMailboxID(name)
		if err != nil {
			continue // of another version of the program
		}
		m := Membership{Agency: routing.AgencyID(of), Mailbox: id}
		if doc.Text != "" {
			m.Members = strings.Split(doc.Text, "\n")
		}
		if mapping := s.Mapping(m.Agency); mapping != nil {
			if row, ok := mapping.Mailbox(id); ok {
				m.Address = row.Addresses[0]
			}
		}
		out = append(out, m)
	}
	return out
}

// MemberChanges returns the changes since a moment of which the table still has a note: the
// newest of each agency, the oldest first. An empty agency means all.
func MemberChanges(s *routing.State, agency routing.AgencyID, since time.Time) []MemberChange {
	var out []MemberChange
	prefix := under(changedPrefix, agency)
	for _, doc := range s.Documents(strings.TrimSuffix(prefix, "/")) {
		of := routing.AgencyID(strings.TrimPrefix(doc.Key, changedPrefix))
		if agency != "" && of != agency {
			continue
		}
		for line := range strings.Lines(doc.Text) {
			if c, ok := readChange(of, strings.TrimSuffix(line, "\n")); ok && !c.At.Before(since) {
				out = append(out, c)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b MemberChange) int { return a.At.Compare(b.At) })
	return out
}

func under(prefix string, agency routing.AgencyID) string {
	if agency == "" {
		return prefix
	}
	return prefix + string(agency) + "/"
}

// line is a change as the table keeps it.
func (c *MemberChange) line() string {
	way := "-"
	if c.Came {
		way = "+"
	}
	return strings.Join([]string{c.At.UTC().Format(time.RFC3339), c.Mailbox.String(), c.Address, way + c.Member}, "\t") + "\n"
}

func readChange(agency routing.AgencyID, line string) (c MemberChange, ok bool) {
	cells := strings.SplitN(line, "\t", 4)
	if len(cells) != 4 || cells[3] == "" {
		return c, false
	}
	at, err := time.Parse(time.RFC3339, cells[0])
	if err != nil {
		return c, false
	}
	id, err := routing.ParseMailboxID(cells[1])
	if err != nil {
		return c, false
	}
	return MemberChange{At: at, Agency: agency, Mailbox: id, Address: cells[2], Came: cells[3][0] == '+', Member: cells[3][1:]}, true
}

// membership compares the members of an agency's functional mailboxes with those that the table
// has from the reading before.
func membership(source *watch.View, state *routing.State, id routing.AgencyID, at time.Time) (docs []routing.Document, changes []string) {
	var noted []MemberChange
	for _, o := range source.Objects(id) {
		if o.Kind != directory.KindShared {
			continue
		}
		now := make([]string, 0, len(o.Members))
		size := 0
		for _, m := range o.Members {
			if size += len(m) + 1; size <= mostMembers {
				now = append(now, strings.NewReplacer("\n", " ", "\t", " ").Replace(m))
			}
		}
		slices.Sort(now)
		now = slices.Compact(now)
		key := memberPrefix + string(id) + "/" + o.ID.String()
		was, known := state.Document(key)
		text := strings.Join(now, "\n")
		if known && was.Text == text || !known && text == "" {
			continue
		}
		docs = append(docs, routing.Document{Key: key, Text: text, Revision: was.Revision})
		if !known {
			continue
		}
		before := strings.Split(was.Text, "\n")
		change := MemberChange{At: at, Agency: id, Mailbox: o.ID, Address: string(o.Primary())}
		for _, m := range now {
			if !slices.Contains(before, m) {
				change.Came, change.Member = true, m
				noted = append(noted, change)
			}
		}
		for _, m := range before {
			if m != "" && !slices.Contains(now, m) {
				change.Came, change.Member = false, m
				noted = append(noted, change)
			}
		}
	}
	if len(noted) == 0 {
		return docs, nil
	}
	key := changedPrefix + string(id)
	was, _ := state.Document(key)
	text := was.Text
	for i := range noted {
		c := &noted[i]
		text += c.line()
		changes = append(changes, fmt.Sprintf("%s: %s %s", c.Address, c.Member, map[bool]string{true: "came", false: "went"}[c.Came]))
	}
	for len(text) > mostChanges {
		_, text, _ = strings.Cut(text, "\n") // the oldest
	}
	return append(docs, routing.Document{Key: key, Text: text, Revision: was.Revision}), changes
}
