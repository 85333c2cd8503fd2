package routing

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Document is a small text that all nodes share and that no decision rests on: a proposal
// with its approvals, the heads of a node's audit log. Who writes one gives its text a
// meaning; the table compares only its revision, as for every record.
type Document struct {
	Key      string   `json:"key"`  // KIND/NAME, at most 200 bytes of printable ASCII
	Text     string   `json:"text"` // at most 64 KiB of UTF-8
	Removed  bool     `json:"removed,omitempty"`
	Revision Revision `json:"revision"` // of the last change; set by the table
}

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
