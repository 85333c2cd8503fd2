package redistable

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Renew implements table.Coordination.
func (t *Table) Renew(ctx context.Context, r table.Renewal) (table.Renewed, error) {
	if err := r.Check(); err != nil {
		return table.Renewed{}, err
	}
	args, err := t.renewArgs(&r)
	if err != nil {
		return table.Renewed{}, fmt.Errorf("renew lease of node %s: %w: %w", r.Member.Node, table.ErrBadChange, err)
	}
	answer, err := t.runRenew(ctx, args)
	if err != nil {
		return table.Renewed{}, fmt.Errorf("renew lease of node %s: %w", r.Member.Node, t.unavailable(ctx, err))
	}
	return answer, nil
}

func (t *Table) runRenew(ctx context.Context, args []any) (answer table.Renewed, err error) {
	short, cancel := context.WithTimeout(ctx, t.o.Timeout)
	defer cancel()
	words, err := t.renew.Run(short, t.writes, t.recordKeys(), args...).StringSlice()
	if err != nil {
		return answer, err
	}
	if answer.Position, err = answered(words); err != nil {
		return answer, err
	}
	if len(words) != 10 {
		return answer, fmt.Errorf("damaged: %d words in an answer", len(words))
	}
	answer.Settled, answer.Armed, answer.Why = words[5] == "1", words[6] == "1", words[7]
	answer.Server, answer.Replication = words[8], words[9]
	return answer, nil
}

// memberJSON is what no script looks at of a member.
type memberJSON struct {
	Node    routing.NodeID `json:"node"`
	Build   string         `json:"build,omitempty"`
	Address string         `json:"address,omitempty"`
}

// leaseJSON is what no script looks at of a lease.
type leaseJSON struct {
	Doubts []table.Doubt `json:"doubts,omitempty"`
	Counts []table.Count `json:"counts,omitempty"`
}

// orZero is a moment in microseconds since 1970; 0: none.
func orZero(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.UnixMicro()
}

// renewArgs lists the arguments as renew.lua describes them.
func (t *Table) renewArgs(r *table.Renewal) ([]any, error) {
	member, err := encodeMember(&r.Member)
	if err != nil {
		return nil, err
	}
	lease, err := json.Marshal(leaseJSON{Doubts: r.Doubts, Counts: r.Counts})
	if err != nil {
		return nil, err
	}
	unheard, err := json.Marshal(routing.UnheardDocument())
	if err != nil {
		return nil, fmt.Errorf("encode document %s: %w", routing.NamesLost, err)
	}
	args := []any{
		string(r.Incarnation), format, string(r.Member.Node), string(r.Member.Instance), orNone(string(r.After)),
		r.Member.Protocol, member, r.Short.Microseconds(), r.Long.Microseconds(), flag(r.Lapsed),
		decimal(r.Term), decimal(r.Applied), orNone(r.Replication), decimal(r.Sequence), lease, decimal(r.HighestTerm()),
		t.o.LogLength, table.RejoinGrace.Microseconds(),
		flag(r.Member.ClockRuns), orNone(string(r.Gone.Instance)), decimal(r.Gone.Counter), orZero(r.Began),
		routing.NamesLost, none, unheard, len(r.Above),
	}
	if r.NamesLost {
		if args[23], err = json.Marshal(routing.NamesLostDocument(r.Member.Node)); err != nil {
			return nil, fmt.Errorf("encode document %s: %w", routing.NamesLost, err)
		}
	}
	for _, a := range r.Above {
		a.Revision = 0
		b, err := json.Marshal(a)
		if err != nil {
			return nil, fmt.Errorf("encode agency %s: %w", a.ID, err)
		}
		args = append(args, string(a.ID), a.Epoch.String(), a.Answer(), b)
	}
	for _, d := range r.Drained {
		args = append(args, string(d.Agency), d.Epoch.String())
	}
	return args, nil
}

// Check implements table.Coordination.
func (t *Table) Check(ctx context.Context, c table.Check) error {
	if err := c.Check(); err != nil {
		return err
	}
	args := make([]any, 0, 7+2*len(c.Agencies))
	args = append(args, string(c.Incarnation), format, string(c.Node), string(c.Instance), decimal(c.Mapped), decimal(c.Term), routing.NamesLost)
	for _, a := range c.Agencies {
		args = append(args, string(a.Agency), a.Epoch.String())
	}
	short, cancel := context.WithTimeout(ctx, t.o.Timeout)
	defer cancel()
	if _, err := answer(t.check.Run(short, t.writes, t.recordKeys(), args...)); err != nil {
		return fmt.Errorf("check with table: %w", t.unavailable(ctx, err))
	}
	return nil
}

// Nodes implements table.Coordination.
func (t *Table) Nodes(ctx context.Context) (table.Nodes, error) {
	n, err := t.nodes(ctx)
	if err != nil {
		return n, fmt.Errorf("nodes of table: %w", t.unavailable(ctx, err))
	}
	return n, nil
}

func (t *Table) nodes(ctx context.Context) (n table.Nodes, err error) {
	short, cancel := context.WithTimeout(ctx, t.o.Timeout)
	defer cancel()
	first := t.reads.Pipeline()
	role, info, history := first.Do(short, "ROLE"), first.Info(short, "server"), first.Info(short, "replication")
	t.askMeta(short, first) // its rights, before a transaction hides what is wrong
	if err := exec(short, first); err != nil {
		return n, err
	}
	if err := checkRole(role); err != nil {
		return n, err
	}
	p := t.reads.TxPipeline() // one moment
	clock, meta := p.Time(short), t.askMeta(short, p)
	members, leases, drained := p.HVals(short, t.key("member")), p.HGetAll(short, t.key("lease")), p.HGetAll(short, t.key("drained"))
	if err := exec(short, p); err != nil {
		return n, err
	}
	b, err := decodeMeta(meta.Val())
	if err != nil {
		return n, err
	}
	b.Members, b.Leases = map[routing.NodeID]routing.Member{}, map[routing.NodeID]table.LeaseRecord{}
	for _, text := range members.Val() {
		m, err := decodeMember(text)
		if err != nil {
			return n, fmt.Errorf("damaged: %w", err)
		}
		b.Members[m.Node] = m
	}
	for node, text := range leases.Val() {
		l, err := decodeLease(routing.NodeID(node), text)
		if err != nil {
			return n, fmt.Errorf("damaged: lease of node %s: %w", node, err)
		}
		b.Leases[l.Node] = l
	}
	for field, text := range drained.Val() {
		if err := addDrained(b, field, text); err != nil {
			return n, fmt.Errorf("damaged: drained %q: %w", field, err)
		}
	}
	return b.Nodes(clock.Val(), serverOf(info.Val(), history.Val())), nil
}

// serverOf reads what the server's INFO says of itself.
func serverOf(server, replication string) table.Server {
	s := table.Server{Run: infoField(server, "run_id"), Replication: infoField(replication, "master_replid"), Former: infoField(replication, "master_replid2")}
	if strings.Trim(s.Former, "0") == "" {
		s.Former = ""
	}
	return s
}

func infoField(info, name string) string {
	for line := range strings.SplitSeq(info, "\r\n") {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return value
		}
	}
	return ""
}

// addDrained adds a record of {mc}:drained to the lease of the instance that reported it.
func addDrained(b *table.Book, field, text string) error {
	node, agency, _ := strings.Cut(field, " ")
	var instance, epochText string
	var taken uint32
	if _, err := fmt.Sscanf(text, "%s %d %s", &instance, &taken, &epochText); err != nil {
		return fmt.Errorf("%q: %w", text, err)
	}
	epoch, err := routing.ParseEpoch(epochText)
	if err != nil {
		return err
	}
	l, ok := b.Leases[routing.NodeID(node)]
	if ok && string(l.Instance) == instance && l.Taken == taken {
		l.Drained[routing.AgencyID(agency)] = epoch
	}
	return nil
}

// Operations implements table.Coordination.
func (t *Table) Operations(ctx context.Context) ([]routing.Operation, error) {
	o, err := t.operations(ctx)
	if err != nil {
		return nil, fmt.Errorf("operations of table: %w", t.unavailable(ctx, err))
	}
	return o, nil
}

func (t *Table) operations(ctx context.Context) ([]routing.Operation, error) {
	if _, err := t.position(ctx); err != nil {
		return nil, err
	}
	bulk, cancel := context.WithTimeout(ctx, t.o.BulkTimeout)
	defer cancel()
	texts, err := t.reads.HVals(bulk, t.key("operation")).Result()
	if err != nil {
		return nil, err
	}
	operations, err := all(texts, decodeOperation)
	table.SortOperations(operations)
	return operations, err
}

func encodeMember(m *routing.Member) ([]byte, error) {
	b, err := json.Marshal(memberJSON{Node: m.Node, Build: m.Build, Address: m.Address})
	if err != nil {
		return nil, fmt.Errorf("encode node %s: %w", m.Node, err)
	}
	return b, nil
}

// decodeMember parses a record of {mc}:member.
func decodeMember(s string) (m routing.Member, err error) {
	// revision, instance, state, protocol, attested, draining, joined, clock, unconfirmed, JSON
	word := strings.SplitN(s, " ", 10)
	if len(word) != 10 {
		return m, fmt.Errorf("record of a node, %.80q: want nine words and JSON", s)
	}
	var j memberJSON
	if err := json.Unmarshal([]byte(word[9]), &j); err != nil {
		return m, fmt.Errorf("record of a node: %w", err)
	}
	m = routing.Member{Node: j.Node, Build: j.Build, Address: j.Address, Instance: routing.InstanceID(word[1]),
		Evicted: word[2] == "evicted", Draining: word[5] == "1", ClockRuns: word[7] == "1"}
	if word[8] != none {
		m.Unconfirmed = routing.Emergencies(word[8])
	}
	if word[4] != none {
		m.Attested = routing.InstanceID(word[4])
	}
	var err1, err2, err3 error
	m.Revision, err1 = parseRevision(word[0])
	m.Protocol, err2 = strconv.Atoi(word[3])
	m.Joined, err3 = parseTime(word[6])
	return m, errors.Join(err1, err2, err3)
}

// decodeLease parses a record of {mc}:lease.
func decodeLease(node routing.NodeID, s string) (l table.LeaseRecord, err error) {
	word := strings.SplitN(s, " ", 13)
	if len(word) != 13 {
		return l, fmt.Errorf("%.80q: want twelve words and JSON", s)
	}
	var j leaseJSON
	if err := json.Unmarshal([]byte(word[12]), &j); err != nil {
		return l, err
	}
	var n [8]uint64
	for i := range n {
		if n[i], err = strconv.ParseUint(word[i+1], 10, 64); err != nil {
			return l, err
		}
	}
	l.Lease = table.Lease{
		Node: node, Instance: routing.InstanceID(word[0]), Counter: n[0], ShortEnd: moment(n[2]), LongEnd: moment(n[3]),
		Term: uint32(n[5]), Applied: routing.Revision(n[6]), Behind: n[7] == 1,
		Drained: map[routing.AgencyID]routing.Epoch{}, Doubts: j.Doubts, Counts: j.Counts,
	}
	if word[11] != none {
		l.Server = word[11]
	}
	l.Sequence, l.Taken, l.Proof = n[1], uint32(n[4]), word[9] == "1"
	l.Anew = word[10] == "1"
	return l, nil
}

// decodeOperation parses a record of {mc}:operation.
func decodeOperation(s string) (o routing.Operation, err error) {
	word := strings.SplitN(s, " ", 3)
	if len(word) != 3 {
		return o, fmt.Errorf("record of an operation, %.80q: want revision, state and JSON", s)
	}
	rev, err := decode(word[0]+" "+word[2], &o)
	o.Revision = rev
	return o, err
}

// decodeFreeze parses a record of {mc}:freeze.
func decodeFreeze(s string) (f routing.Freeze, err error) {
	rev, err := decode(s, &f)
	f.Revision = rev
	return f, err
}

// decodeDocument parses a record of {mc}:document.
func decodeDocument(s string) (d routing.Document, err error) {
	rev, err := decode(s, &d)
	d.Revision = rev
	return d, err
}

// decodeMeta parses what HMGET of {mc}:meta answers.
func decodeMeta(v []any) (*table.Book, error) {
	if len(v) != 13 {
		return nil, table.ErrEmpty
	}
	var b table.Book
	var err error
	if b.Position, err = decodePosition(v[:5]); err != nil {
		return nil, err
	}
	text := make([]string, len(v))
	for i, f := range v {
		text[i], _ = f.(string)
	}
	b.Server, b.Replication, b.Rejoining = text[5], text[6], text[11] == "1"
	b.Prior = text[12]
	var err1, err2, err3 error
	b.Previous, err1 = parseTerm(text[7])
	b.Base, err2 = parseRevision(text[8])
	b.Began, err3 = parseTime(text[9])
	longest, err4 := strconv.ParseInt(text[10], 10, 64)
	b.Longest = time.Duration(longest) * time.Microsecond
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	return &b, nil
}

// none stands for an empty word.
const none = "-"

func orNone(s string) string {
	if s == "" {
		return none
	}
	return s
}

// orAll is the field of a freeze; no agency has the name of all of them.
func orAll(id routing.AgencyID) string {
	if id == "" {
		return "*"
	}
	return string(id)
}

func memberState(m *routing.Member) string {
	if m.Evicted {
		return "evicted"
	}
	return "in"
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

func decimal[T ~uint32 | ~uint64](n T) string { return strconv.FormatUint(uint64(n), 10) }

// moment is the time that a record has in microseconds since 1970; 0: none.
func moment(us uint64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(us)).UTC()
}

func parseTime(s string) (time.Time, error) {
	us, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return time.Time{}, fmt.Errorf("time %.80q: want microseconds", s)
	}
	return moment(us), nil
}
