package desk

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"mailcutover/notice"
	"mailcutover/notice/outbox"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// SentKey is the key of the document that says up to where each channel was told.
const SentKey = "notice/sent"

// turnPatience bounds one look at the table.
const turnPatience = 3 * time.Second

// sent is the text of that document.
type sent struct {
	Incarnation routing.Incarnation        `json:"incarnation"` // of the positions
	Node        routing.NodeID             `json:"node"`        // that wrote it
	Channels    map[string]notice.Position `json:"channels"`    // up to which all was told, or not wanted
}

func (d *Desk) myTurn() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.turn
}

// takeTurns sees to it that one node tells of the table's events, until ctx ends.
func (d *Desk) takeTurns(ctx context.Context) {
	t := &turns{Desk: d, read: make(map[string]notice.Position), watch: watch{Desk: d, since: make(map[string]time.Time)}}
	look := time.NewTicker(d.o.Pace)
	defer look.Stop()
	for {
		t.look(ctx)
		select {
		case <-look.C:
		case <-ctx.Done():
			d.mu.Lock()
			d.turn = false
			d.mu.Unlock()
			return
		}
	}
}

type turns struct {
	*Desk
	watch watch
	mine  int                        // looks in a row by which it was our turn
	read  map[string]notice.Position // what the others were seen to have told
}

// look finds out whose turn it is. It is ours once two looks in a row say so, or if nobody
// else is there. While the table can't be asked it stays as it is.
func (t *turns) look(ctx context.Context) {
	look, cancel := context.WithTimeout(ctx, turnPatience)
	defer cancel()
	nodes, err := t.o.Table.Nodes(look)
	if err != nil {
		return
	}
	teller, alone := whose(&nodes, t.o.Node)
	if teller == t.o.Node {
		t.mine++
	} else {
		t.mine = 0
	}
	turn := teller == t.o.Node && (t.mine >= 2 || alone)
	t.take(ctx)
	t.mu.Lock()
	began := turn && !t.turn
	t.turn, t.teller, t.alone = turn, teller, alone
	t.mu.Unlock()
	if began {
		t.o.Logger.Info("this node tells of the table's events")
		t.wake()
	}
	if turn && !alone {
		t.tell(look)
	}
	t.watch.look(ctx, &glance{nodes: &nodes, teller: teller, turn: turn})
}

// whose returns the node whose turn it is: the first by name with a lease. Alone says that
// there is no other member that could tell.
func whose(n *table.Nodes, own routing.NodeID) (teller routing.NodeID, alone bool) {
	members := slices.Clone(n.Members)
	table.SortMembers(members)
	alone = true
	for i := range members {
		m := &members[i]
		if m.Evicted || m.Dead() {
			continue
		}
		l, leased := n.Leases[m.Node]
		if m.Node != own && !(leased && l.Instance == m.Instance && l.GivenUp()) {
			alone = false
		}
		if teller == "" && leased && l.Instance == m.Instance && !l.GivenUp() && l.ShortEnd.After(n.Time) {
			teller = m.Node
		}
	}
	return teller, alone
}

// take settles what another node has told.
func (t *turns) take(ctx context.Context) {
	known, ok := t.box.Known()
	s, _ := t.sent()
	if !ok || s.Incarnation != known.Incarnation {
		return
	}
	t.mu.Lock()
	channels := t.channels
	t.mu.Unlock()
	for _, c := range channels {
		p, told := s.Channels[c.Name]
		if !told || t.read[c.Name].Compare(p) >= 0 {
			continue
		}
		if !t.persist(ctx, "settle what another node has told", func() error { return t.box.SettleTo(c.Name, p) }) {
			return
		}
		t.read[c.Name] = p
	}
}

// sent returns the document as the replica has it.
func (t *turns) sent() (s sent, at routing.Revision) {
	doc, ok := t.o.Replica.State().Document(SentKey)
	if ok && json.Unmarshal([]byte(doc.Text), &s) != nil {
		s = sent{} // of another version: written anew
	}
	return s, doc.Revision
}

// tell writes what we have told, if that is more than the document says.
func (t *turns) tell(ctx context.Context) {
	known, ok := t.box.Known()
	if !ok {
		return
	}
	s, at := t.sent()
	if s.Incarnation != known.Incarnation {
		s = sent{Incarnation: known.Incarnation}
	}
	told := make(map[string]notice.Position)
	for name, p := range s.Channels {
		told[name] = p
	}
	t.mu.Lock()
	channels := t.channels
	for _, one := range t.senders {
		one.mark()
	}
	t.mu.Unlock()
	more := false
	for _, c := range channels {
		p, err := t.told(c.Name, known.Position)
		if err != nil {
			return // what reads it next says so
		}
		// Only what was really sent is worth a change of the table.
		if s.Channels[c.Name].Compare(p) < 0 && t.sentSince(c.Name) {
			told[c.Name] = p
			more = true
		}
	}
	if !more {
		return
	}
	s.Channels, s.Node = told, t.o.Node
	text, err := json.Marshal(s)
	if err != nil {
		return // positions and words: it has none
	}
	state := t.o.Replica.State()
	pos := state.Position()
	_, err = t.o.Table.Change(ctx, table.Change{
		ID: "notices/" + uuid.NewString(), Incarnation: pos.Incarnation, Term: pos.Term, Documents: []routing.Document{{Key: SentKey, Text: string(text), Revision: at}},
		Who: "node " + string(t.o.Node), What: "notices sent", Reason: "events up to here were told",
	})
	if err != nil {
		t.o.Logger.Debug("what was told is not noted yet", "error", fmt.Errorf("write document %s: %w", SentKey, err))
		return
	}
	t.mu.Lock()
	for _, one := range t.senders {
		one.note()
	}
	t.mu.Unlock()
}

// told returns up to where a channel has all events of the table.
func (t *turns) told(channel string, known notice.Position) (notice.Position, error) {
	next, err := t.box.Next(channel, outbox.Table, 1)
	if err != nil || len(next) == 0 {
		return known, err
	}
	if next[0].Damage != "" {
		return notice.Position{}, nil // its sender settles it
	}
	p := next[0].Event.Position
	p.Revision--
	return p, nil
}

// sentSince reports whether a channel was told of the table's events since that was noted.
func (t *turns) sentSince(channel string) bool {
	t.mu.Lock()
	s := t.senders[channel]
	t.mu.Unlock()
	return s != nil && s.unnoted()
}
