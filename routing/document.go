package routing

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Document is a small text that all nodes share and that no decision rests on, but for
// [NamesLost]: a proposal with its approvals, the heads of a node's audit log. Who writes one
// gives its text a meaning; the table compares only its revision, as for every record.
type Document struct {
	Key      string   `json:"key"`  // KIND/NAME, at most 200 bytes of printable ASCII
	Text     string   `json:"text"` // at most 64 KiB of UTF-8
	Removed  bool     `json:"removed,omitempty"`
	Revision Revision `json:"revision"` // of the last change; set by the table
}

// NamesLost is the key of the document that says that the table lost names: mailboxes, fixed
// addresses or domains that nodes have seen. While it is there, of no name is it certain that
// nobody has it, and of no domain that it isn't served. The table writes it when a node tells
// of it; people remove it, once the lists are complete again.
const NamesLost = "table/names-lost"

// NamesLostDocument returns that document, as a node's word makes it.
func NamesLostDocument(node NodeID) Document {
	return Document{Key: NamesLost, Text: "node " + string(node) + " has seen names that the table lost"}
}

// UnheardDocument returns that document as it is when a rejoin ends without nodes that may have
// seen names which the table lost.
func UnheardDocument() Document {
	return Document{Key: NamesLost, Text: "the table came back, and a node that may have seen names which it lost was not heard"}
}

// RestoredDocument returns that document as it is in a table that was restored from a backup,
// since which names may have been added.
func RestoredDocument(made time.Time) Document {
	return Document{Key: NamesLost, Text: "the table was restored from a backup of " + made.UTC().Format(time.RFC3339) + "; names may have been added since"}
}

// LosesNames reports whether a table, read as a whole, lost names that this copy of it has
// had, or the word that names were lost. Names are lost that were changed above the revision
// up to which both histories are one. Of a table of another incarnation nothing is said.
func (s *State) LosesNames(whole *Update) bool {
	if s.pos.Incarnation == "" || s.pos.Incarnation != whole.Position.Incarnation {
		return false
	}
	common := s.lineage.Common(s.pos.Revision, whole.Lineage, whole.Position.Revision)
	if s.pos.Mapped > common {
		return true
	}
	told, ok := s.documents[NamesLost]
	return ok && told.Revision > common && !slices.ContainsFunc(whole.Documents, func(d Document) bool { return d.Key == NamesLost })
}

// Lineage returns how the table came to where this copy of it stands, by its last whole
// reading.
func (s *State) Lineage() Lineage { return s.lineage }

// NamesLost reports whether the table lost names, by its own word or by this copy's.
func (s *State) NamesLost() bool { return s.doubtful }

// LostNames reports whether this copy has seen names that the table lost, and the table
// doesn't say so yet.
func (s *State) LostNames() bool { return s.lostNames }

// Document returns the document of a key.
func (s *State) Document(key string) (Document, bool) {
	d, ok := s.documents[key]
	return d, ok
}

// Documents returns those whose key begins with prefix, by key.
func (s *State) Documents(prefix string) []Document {
	var all []Document
	for d := range maps.Values(s.documents) {
		if strings.HasPrefix(d.Key, prefix) {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b Document) int { return cmp.Compare(a.Key, b.Key) })
	return all
}
