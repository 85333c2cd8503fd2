package routing

import (
	"fmt"
	"time"
)

// NodeID names a node: its host name, of at most 253 characters of a-z, 0-9, hyphen and
// dot, beginning with a letter or digit. Empty means none.
type NodeID string

// ParseNodeID returns s as a node's name. Capitals are refused, not folded.
func ParseNodeID(s string) (NodeID, error) {
	ok := len(s) >= 1 && len(s) <= 253 && s[0] != '-' && s[0] != '.'
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		ok = 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.'
	}
	if !ok {
		return "", fmt.Errorf("%w: node %q: want a host name of a-z, 0-9, hyphen and dot", ErrBadID, s)
	}
	return NodeID(s), nil
}

// InstanceID is one life of a node, a UUID made each time that its process starts. Empty
// means none.
type InstanceID string

// Member is a node as the table knows it for good: whoever is a member and not evicted has
// to drain before a commit (docs/architecture/switch.md, node rule 9). What a node says
// from moment to moment, its lease, is no part of it.
type Member struct {
	Node     NodeID     `json:"node"`
	Instance InstanceID `json:"instance"` // that may renew; another one has to prove that this one is gone
	Protocol int        `json:"protocol"` // of the nodes among each other; operations refuse members of another one
	Build    string     `json:"build,omitempty"`
	Address  string     `json:"address,omitempty"`  // host:port of its admin API, for the other nodes
	Draining bool       `json:"draining,omitempty"` // an operator wants it to take no new work
	Evicted  bool       `json:"evicted,omitempty"`  // no longer required, and refused
	Attested InstanceID `json:"attested,omitempty"` // the instance of which people said that it can deliver no more
	Joined   time.Time  `json:"joined"`             // when this instance was taken, by the table's clock
	Revision Revision   `json:"revision"`           // of the last change; set by the table

	// ClockRuns says that the node's monotonic clock goes on while its machine is stopped:
	// people have declared it. Only then the end of its long lease proves something.
	ClockRuns bool `json:"clock_runs,omitempty"`

	// Unconfirmed are emergencies in which one person alone attested that an instance of
	// the node is dead: a second one has to confirm each. They outlive the instance.
	Unconfirmed Emergencies `json:"unconfirmed,omitempty"`
}

// String returns the node and its instance.
func (m *Member) String() string { return fmt.Sprintf("%s (instance %s)", m.Node, m.Instance) }

// Dead reports whether enough people said that the node's instance can deliver no more: two,
// or one in an emergency that a second one has confirmed.
func (m *Member) Dead() bool { return m.Attested == m.Instance && m.Unconfirmed == "" }

// Freeze forbids operations to begin, but for emergencies, until it is lifted.
type Freeze struct {
	Agency   AgencyID  `json:"agency,omitempty"` // empty: for all agencies
	Who      string    `json:"who"`
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
	Removed  bool      `json:"removed,omitempty"` // lifted
	Revision Revision  `json:"revision"`          // of the last change; set by the table
}

// Operation is what the table knows of an operation: enough for another node to take it
// over. Package rollback/operation gives most of it its meaning.
type Operation struct {
	ID       OperationID `json:"id"`
	Kind     string      `json:"kind"`
	Agency   AgencyID    `json:"agency"`   // that it was started for
	Agencies []AgencyID  `json:"agencies"` // that change together
	Nonce    Nonce       `json:"nonce"`
	Plan     Digest      `json:"plan"` // of what was approved; zero: nothing was
	Step     string      `json:"step"`
	Runner   NodeID      `json:"runner"`
	Instance InstanceID  `json:"instance"` // of the runner
	// Base is the highest revision of the agencies' records before begin: a member that
	// had applied it knew that they were armed, and its short lease counts.
	Base      Revision  `json:"base"`
	Emergency bool      `json:"emergency,omitempty"`
	Ended     bool      `json:"ended,omitempty"` // kept in the table for a while, not in a State
	Who       string    `json:"who"`
	Reason    string    `json:"reason"`
	Started   time.Time `json:"started"`
	Deadline  time.Time `json:"deadline,omitzero"` // until commit; zero: none
	// Detail is what the runner needs to go on; the table doesn't look into it. At most
	// 64 KiB of JSON.
	Detail   string   `json:"detail,omitempty"`
	Revision Revision `json:"revision"` // of the last change; set by the table
}
