package notice

import (
	"maps"
	"slices"
	"strings"
	"time"

	"mailcutover/routing"
)

// Change is one change of the table, as its log has it.
type Change struct {
	Installation string
	Incarnation  routing.Incarnation
	Position     Position
	Time         time.Time
	Who, Reason  string

	// Late says that it isn't one change: what is compared is what was known with what
	// a whole reading of the table shows. Records that it doesn't show are taken as they were.
	Late bool

	// Known returns the facts that are known of another record; nil: none.
	Known func(key string) Facts
}

// Derive returns the events of one record that a change sets. before is what was known
// of it; nil: nothing. The events are the same wherever they are derived from the same two
// facts, but for Time and Position after a Late change.
func Derive(c *Change, r *Record, before Facts) []Event {
	d := &derivation{c: c, key: r.Key, revision: r.Revision, before: before, after: r.Facts}
	kind, _, _ := strings.Cut(r.Key, "/")
	switch kind + "/" {
	case agencyKey:
		d.agency()
	case freezeKey:
		d.freeze()
	case operationKey:
		d.operation()
	case nodeKey:
		d.node()
	case proposalKey:
		d.proposal()
	case listKey:
		d.list()
	case recallKey:
		d.recall()
	case shareKey:
		d.share()
	case verifyKey:
		d.verify()
	default:
		if r.Key == stopKey {
			d.stop()
		}
	}
	return d.events
}

// Gap returns the event that changes between two positions were missed.
func Gap(c *Change, from Position, why string) Event {
	e := newEvent(Source(c.Installation, ""), TableGap, "table", c.Time, map[string]string{
		"why": why, "from": positionText(from), "to": positionText(c.Position),
	})
	e.Position = c.Position
	e.ID = identify(string(c.Incarnation), string(TableGap), e.Data)
	return e
}

func positionText(p Position) string {
	return number(int64(p.Term)) + "." + number(int64(p.Revision))
}

type derivation struct {
	c        *Change
	key      string
	revision routing.Revision
	before   Facts
	after    Facts
	events   []Event
}

// turned reports whether a fact is another now, and there.
func (d *derivation) turned(key string) bool {
	return d.after[key] != "" && d.after[key] != d.before[key]
}

// ceased reports whether a fact was there and isn't any more.
func (d *derivation) ceased(key string) bool { return d.before[key] != "" && d.after[key] == "" }

// add adds an event of what is known of the record now, or was before it went; more is added
// to that in pairs of key and value.
func (d *derivation) add(t Type, more ...string) {
	facts := d.after
	if facts == nil {
		facts = d.before
	}
	data := maps.Clone(map[string]string(facts))
	for i := 0; i+1 < len(more); i += 2 {
		data[more[i]] = more[i+1]
	}
	// Who made the change says more than who began what it belongs to.
	if d.c.Who != "" && !d.c.Late {
		data["who"] = d.c.Who
	}
	if d.c.Reason != "" && !d.c.Late {
		data["reason"] = d.c.Reason
	}
	says := append([]string{"agency", "node", "operation"}, t.about().Data...)
	maps.DeleteFunc(data, func(key, value string) bool { return value == "" || !slices.Contains(says, key) })
	e := newEvent(Source(d.c.Installation, ""), t, d.key, d.c.Time, data)
	e.Position = d.c.Position
	e.ID = identify(string(d.c.Incarnation), string(t), d.key, d.revision, d.after, data["emergency"])
	d.events = append(d.events, e)
}

func (d *derivation) agency() {
	if d.after == nil {
		return // agencies are never removed
	}
	if d.before == nil {
		d.add(AgencyAdded)
		if d.after["open"] != "" {
			return
		}
	}
	if d.before != nil && d.turned("phase") {
		d.add(AgencyPhase, "was", d.before["phase"])
	}
	switch {
	case d.turned("locked"):
		d.add(AgencyLocked)
	case d.ceased("locked"):
		d.add(AgencyUnlocked)
	}
	switch {
	case d.before["open"] != "" && d.after["open"] == "" || d.before == nil:
		d.add(AgencyClosed)
	case d.turned("open"):
		d.add(AgencyOpened)
	}
	if d.before == nil {
		return
	}
	if d.turned("tightness") {
		switch d.after["tightness"] {
		case routing.Armed.String():
			d.add(AgencyArmed)
		case routing.Settled.String():
			d.add(AgencySettled)
		}
	}
	if d.turned("finalised") {
		d.add(AgencyFinalised)
	}
	if d.turned("mapping") {
		d.add(AgencyMapping, "mapping", d.after["mapping"])
	}
	d.emergencies()
}

// emergencies tells those that began and those that were confirmed.
func (d *derivation) emergencies() {
	was, is := routing.Emergencies(d.before["unconfirmed"]), routing.Emergencies(d.after["unconfirmed"])
	for _, id := range is.All() {
		if !was.Has(id) {
			d.add(EmergencyBegun, "emergency", string(id))
		}
	}
	for _, id := range was.All() {
		if !is.Has(id) {
			d.add(EmergencyConfirmed, "emergency", string(id))
		}
	}
}

func (d *derivation) freeze() {
	switch {
	case d.before == nil && d.after != nil:
		d.add(AgencyFrozen)
	case d.before != nil && d.after == nil:
		d.add(AgencyLifted)
	}
}

func (d *derivation) operation() {
	if d.after == nil || d.before["ended"] != "" {
		return
	}
	if d.before == nil {
		d.add(OperationStarted)
	}
	if d.turned("step") && d.after["ended"] == "" {
		d.add(OperationStep)
	}
	if d.turned("waits_for") {
		d.add(OperationWaits)
	}
	if d.turned("undo") {
		d.add(OperationUndo, "waits_for", d.after["undo"])
	}
	if d.turned("ended") {
		switch d.after["step"] {
		case "done":
			d.add(OperationDone)
		case "aborted":
			d.add(OperationAborted)
		default:
			d.add(OperationRefused)
		}
	}
}

func (d *derivation) node() {
	if d.after == nil {
		return
	}
	if d.turned("instance") {
		d.add(NodeJoined)
	}
	switch {
	case d.turned("draining"):
		d.add(NodeDraining)
	case d.ceased("draining"):
		d.add(NodeReturned)
	}
	if d.turned("attested") {
		d.add(NodeFenced)
	}
	if d.turned("evicted") {
		d.add(NodeEvicted)
	}
	d.emergencies()
}

func (d *derivation) proposal() {
	if d.after == nil {
		return // long over
	}
	if d.before == nil {
		d.add(ProposalMade)
	}
	if d.turned("approvals") && d.before != nil {
		d.add(ProposalApproved)
	}
	if d.turned("end") {
		switch d.after["end"] {
		case "used":
			d.add(ProposalUsed)
		case "withdrawn":
			d.add(ProposalWithdrawn)
		case "void":
			d.add(ProposalVoid)
		}
	}
}

func (d *derivation) list() {
	if d.after == nil || !d.turned("standing") {
		return
	}
	switch d.after["standing"] {
	case "proposed":
		d.add(ListProposed)
	case "active":
		d.add(ListActive)
	case "withdrawn":
		d.add(ListWithdrawn)
	}
}

func (d *derivation) recall() {
	if d.after == nil {
		return
	}
	if d.before == nil {
		d.add(RecallBegun)
	}
	if d.turned("ended") {
		d.add(RecallEnded)
	}
	if d.turned("accepted") {
		d.add(RecallAccepted)
	}
}

// share tells that a node has brought its share of a run, whose record has the agency.
func (d *derivation) share() {
	if d.after == nil || !d.turned("time") {
		return
	}
	var run Facts
	if d.c.Known != nil {
		run = d.c.Known(recallKey + d.after["recall"])
	}
	d.add(RecallShare, "agency", run["agency"], "kind", run["kind"], "from", run["from"], "to", run["to"])
}

func (d *derivation) verify() {
	if d.after == nil {
		return
	}
	if d.turned("running") {
		d.add(VerifyBegun, "mode", d.after["running_mode"], "cause", d.after["running_cause"], "error", "")
	}
	if d.turned("last") {
		d.add(VerifyEnded, "error", "")
		if d.after["crossed"] != "" || d.after["foreign"] != "" || d.after["clash"] != "" {
			d.add(VerifyFound, "error", "")
		}
	}
	if d.turned("trouble") {
		d.add(VerifyTrouble)
	}
}

func (d *derivation) stop() {
	switch {
	case d.turned("stopped"):
		d.add(PlanStopped)
	case d.ceased("stopped"):
		d.add(PlanLifted)
	}
}
