package sim

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/spool"
)

// oracle sees everything that the world sees, and says what must not be. It knows nothing
// of how nodes decide. All is guarded by World.mu.
type oracle struct {
	w   *World
	run *Run

	mail     map[string]map[string]*copies // by message and recipient
	named    map[string]int                // possible duplicates of a message that somebody named
	of       map[string]string             // transaction to message
	unnamed  map[string]bool               // nodes that say that they don't know what they sent
	sent     map[string][]string           // transactions by node
	chain    map[routing.AgencyID]*chain
	answers  map[version]string // what an open record said
	marks    map[markOf]routing.Epoch
	backlog  map[boxOf][]*held
	opened   map[routing.AgencyID]int
	shut     map[routing.AgencyID]bool   // everybody was told that it is locked
	intended map[intent]intended         // the last one
	asked    map[string]time.Time        // by message: when its sender named a recipient last
	kept     map[string]bool             // transactions and recipients that a spool was to take
	version  map[routing.AgencyID]int    // of the newest list by which mail went, or that was told
	local    map[markOf]time.Time        // since when a node itself has locked an agency
	said     map[routing.AgencyID]string // platform of the last success
	accepts  int
	sessions int
	twice    int
	lastMail time.Time
}

// copies is what became of a message for one recipient.
type copies struct {
	custody  string // node that answered 250
	since    time.Time
	accepted []accepted
}

// chain is the order in which an agency's platform may have changed.
type chain struct {
	commits []committed // as written, by whatever server
	at      int         // the one in force, as far as deliveries and words show; -1: none
	current string
}

type committed struct {
	at       time.Time
	platform string
	epoch    routing.Epoch
}

// newest returns the commit with the highest epoch up to one; -1: none.
func (c *chain) newest(limit routing.Epoch) int {
	found := -1
	for i := range c.commits {
		if e := c.commits[i].epoch; e.Compare(limit) <= 0 && (found < 0 || e.Compare(c.commits[found].epoch) > 0) {
			found = i
		}
	}
	return found
}

type version struct {
	agency routing.AgencyID
	epoch  routing.Epoch
}

type markOf struct {
	node   string
	agency routing.AgencyID
}

// intent is what a node wants to bring to an agency, or to fixed addresses: a message may go in
// several pieces.
type intent struct {
	transaction string
	agency      routing.AgencyID
}

// intended is a node that is about to write a dot.
type intended struct {
	node string
	at   time.Time
}

type boxOf struct {
	node string
	key  spool.Key
}

// held is a message that waits in a node's spool for its agency.
type held struct {
	transaction mail.TransactionID
	sequence    uint64
	at          time.Time
	arrived     bool
}

func newOracle(r *Run) *oracle {
	o := &oracle{
		w: r.World, run: r,
		mail: map[string]map[string]*copies{}, named: map[string]int{}, of: map[string]string{}, unnamed: map[string]bool{},
		sent: map[string][]string{}, chain: map[routing.AgencyID]*chain{}, answers: map[version]string{}, marks: map[markOf]routing.Epoch{},
		backlog: map[boxOf][]*held{}, opened: map[routing.AgencyID]int{}, shut: map[routing.AgencyID]bool{}, said: map[routing.AgencyID]string{},
		intended: map[intent]intended{}, local: map[markOf]time.Time{}, version: map[routing.AgencyID]int{}, kept: map[string]bool{}, asked: map[string]time.Time{},
	}
	for _, a := range r.agencies {
		o.chain[a.id] = &chain{at: -1, current: a.source}
	}
	return o
}

func (o *oracle) copies(message, rcpt string) *copies {
	if o.mail[message] == nil {
		o.mail[message] = map[string]*copies{}
	}
	c := o.mail[message][rcpt]
	if c == nil {
		c = new(copies)
		o.mail[message][rcpt] = c
	}
	return c
}

// told is a sender's answer. mu is held.
func (o *oracle) told(id, rcpt, node string, code int) {
	o.w.note("%s answers %d for %s to %s", node, code, id, rcpt)
	if code/100 != 2 {
		return
	}
	c := o.copies(id, rcpt)
	c.custody, c.since = node, time.Now()
}

// names is a sender that names a message's recipients to a node. mu is held.
func (o *oracle) names(id string) { o.asked[id] = time.Now() }

// lost is a dot whose answer the sender didn't get. mu is held.
func (o *oracle) lost(id string) {
	o.w.note("sender of %s got no answer", id)
	o.named[id]++
}

// takes is a message that a platform took. mu is held.
func (o *oracle) takes(a accepted) {
	o.accepts++
	o.lastMail = a.at
	agency, rcpt, version := o.run.canonical(a.rcpt)
	if agency == nil {
		o.w.violated("I3", "%s took %s for %s, which is nobody's", a.platform, a.message, a.rcpt)
		return
	}
	if want := agency.place(rcpt, a.platform, version); want != a.rcpt {
		o.w.violated("I3", "%s took %s for %s, its address there is %s", a.platform, a.message, a.rcpt, want)
	}
	if a.platform == agency.target {
		if was := o.version[agency.id]; version < was && !o.run.lossy {
			o.w.violated("I3", "%s took %s for %s by the list of version %d after it went by that of version %d", a.platform, a.message, a.rcpt, version, was)
		}
		o.version[agency.id] = max(version, o.version[agency.id])
	}
	c := o.copies(a.message, rcpt)
	c.accepted = append(c.accepted, a)
	o.of[a.transaction] = a.message
	o.delivered(agency.id, a)
	o.arrived(agency.id, a, rcpt)
}

// delivered holds a delivery against what was written in the table (I2, I4, I5).
func (o *oracle) delivered(id routing.AgencyID, a accepted) {
	if by, known := o.intended[intent{a.transaction, id}]; known {
		if since, is := o.local[markOf{by.node, id}]; is && by.at.After(since) {
			o.w.violated("lock", "%s brought %s (transaction %s) to %s after it had locked agency %s itself", by.node, a.message, a.transaction, a.platform, id)
		}
	}
	if bad := o.moves(id, a.platform); bad != "" {
		o.w.violated("I2", "%s took %s (transaction %s) for agency %s, %s", a.platform, a.message, a.transaction, id, bad)
	}
}

// wrote is a write of a client to a server. mu is held.
func (o *oracle) wrote(server string, args []string) {
	if args[0] != "HSET" || !strings.HasSuffix(args[1], ":agency") {
		return
	}
	for i := 2; i+1 < len(args); i += 2 {
		_, text, is := strings.Cut(args[i+1], "{")
		if !is {
			continue
		}
		var rec routing.Agency
		if err := json.Unmarshal([]byte("{"+text), &rec); err != nil {
			o.w.violated("table", "record %q of %s: %v", args[i+1], server, err)
			continue
		}
		o.w.note("%s has %s: phase %s, published %t, epoch %s, %s", server, rec.ID, rec.Phase, rec.Published, rec.Epoch, rec.Tightness)
		c := o.chain[rec.ID]
		if c == nil || rec.Published || !rec.Phase.Open() {
			continue
		}
		c.commits = append(c.commits, committed{time.Now(), string(rec.Platform()), rec.Epoch})
	}
}

// success is what somebody was told of a switch that began at an epoch (I2). mu is held.
func (o *oracle) success(id routing.AgencyID, platform string, op operation.Operation) {
	c, begun := o.chain[id], op.Begun[id]
	o.w.note("success is told: %s is on %s", id, platform)
	for i := range c.commits {
		if c.commits[i].platform != platform || c.commits[i].epoch.Compare(begun) <= 0 {
			continue
		}
		if i > c.at { // else it is told late, and overtaken
			c.at, c.current, o.said[id] = i, platform, platform
		}
		return
	}
	if c.current == platform {
		o.said[id] = platform
		return // an emergency that found it there
	}
	if i := c.newest(begun); op.Emergency && len(op.Ends) > 0 && i > c.at && c.commits[i].platform == platform {
		// The commit of an operation that the emergency ended, and whose agency its begin opened.
		c.at, c.current, o.said[id] = i, platform, platform
		return
	}
	o.w.violated("I5", "success of a switch of %s to %s is told, and no commit was written after epoch %s", id, platform, begun)
}

// remapped is a success of a remap that somebody was told. mu is held.
func (o *oracle) remapped(id routing.AgencyID, version int) {
	o.version[id] = max(o.version[id], version)
}

// locked is a lock that is told as done by all nodes; opened is how often the agency may
// have been opened before it. mu is held.
func (o *oracle) locked(id routing.AgencyID, opened int) { o.shut[id] = o.opened[id] == opened }

// lockedHere is a lock that a node has told as its own. mu is held.
func (o *oracle) lockedHere(node string, id routing.AgencyID) {
	o.local[markOf{node, id}] = time.Now()
}

// opening is what may open an agency that was locked. mu is held.
func (o *oracle) opening(id routing.AgencyID) {
	o.shut[id] = false
	for m := range o.local {
		if m.agency == id {
			delete(o.local, m)
		}
	}
	o.opened[id]++
}

// believe is people who take a table as it is, since whoever may have known more has lost his
// disk: what was told before can't be held against anybody any more. mu is held.
func (o *oracle) believe(s *routing.State) {
	for _, rec := range s.Agencies() {
		if c := o.chain[rec.ID]; c != nil && c.current != string(rec.Platform()) {
			o.w.note("people believe that agency %s is on %s", rec.ID, rec.Platform())
			c.current = string(rec.Platform())
			delete(o.said, rec.ID)
		}
	}
}

// survived looks whether what was told as done is still there in the end (I7).
func (o *oracle) survived() {
	for _, id := range o.run.agencies {
		said := o.said[id.id]
		if said == "" {
			continue
		}
		for _, m := range o.run.machines {
			if m.life == nil || m.life.replica == nil {
				continue
			}
			state := m.life.replica.State()
			a, _ := state.Agency(id.id)
			if _, lost := state.Seen(id.id); lost || !a.Open() {
				continue
			}
			c := o.chain[id.id]
			later := false
			for i := c.at + 1; i < len(c.commits); i++ {
				later = later || c.commits[i].platform == string(a.Platform())
			}
			if string(a.Platform()) != said && c.current != string(a.Platform()) && !later {
				o.w.violated("I7", "%s has agency %s open on %s in the end, success was told for %s", m.name, id.id, a.Platform(), said)
			}
		}
	}
}

// published is a State that a node acts on (I6, I7). It is called by the node.
func (o *oracle) published(node string, s *routing.State) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	for _, rec := range s.Agencies() {
		if _, regressed := s.Seen(rec.ID); regressed || !rec.Open() {
			continue
		}
		v := version{rec.ID, rec.Epoch}
		said := string(rec.Platform()) + o.run.list(s, rec.ID)
		if was, known := o.answers[v]; known && was != said && s.Mapping(rec.ID) != nil {
			o.w.violated("I6", "%s has agency %s at epoch %s on %s, another node had it on %s", node, rec.ID, rec.Epoch, said, was)
		}
		o.answers[v] = said
		m := markOf{node, rec.ID}
		if was := o.marks[m]; rec.Epoch.Compare(was) < 0 {
			o.w.violated("I7", "%s opens agency %s at epoch %s, it had seen %s", node, rec.ID, rec.Epoch, was)
		}
		o.marks[m] = rec.Epoch
	}
}

// passedOn is a platform's 250 that a node passes on, for all recipients or the n-th (I4).
// A node whose clock stood still can't know better. It is called by the node.
func (o *oracle) passedOn(node string, in *ledger.Intent, n, answers int) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	for i, r := range in.Recipients {
		c := o.chain[r.Agency]
		if c == nil || answers > 1 && i != n || !o.run.clocksRun || c.current == string(in.Platform) {
			continue
		}
		o.w.violated("I4", "%s passes on the 250 of %s for %s (transaction %s) while it is on %s", node, in.Platform, r.Agency, in.Transaction, c.current)
	}
}

// forget is a node whose disk is gone. mu is held.
func (o *oracle) forget(node string) {
	for m := range o.local {
		if m.node == node {
			delete(o.local, m)
		}
	}
	for m := range o.marks {
		if m.node == node {
			delete(o.marks, m)
		}
	}
	o.loses(node)
}

// loses is a node that may have lost its spool's newest outcomes, or its ledger's. mu is held.
func (o *oracle) loses(node string) {
	for b := range o.backlog {
		if b.node == node {
			delete(o.backlog, b)
		}
	}
	for _, t := range o.sent[node] {
		o.unnamed[t] = true
	}
}

// doubt is a possible duplicate that a node names. It is called by the node.
func (o *oracle) doubt(transaction, why string) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.w.note("transaction %s: %s", transaction, why)
	o.named[transaction]++
}

// unknown is a node that says that it doesn't know what it sent. It is called by the node.
func (o *oracle) unknown(node string) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.loses(node)
}

// spooled is a recipient that a node's spool took. It is called by the node.
func (o *oracle) spooled(node string, e *spool.Entry) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.w.note("%s has %s in its spool: %s", node, e.Transaction, e.State)
	o.kept[string(e.Transaction)+" "+o.run.boxes[e.Key]] = true
	o.sent[node] = append(o.sent[node], string(e.Transaction))
	if e.State == spool.StateHeld {
		b := boxOf{node, e.Key}
		o.backlog[b] = append(o.backlog[b], &held{e.Transaction, e.Sequence, time.Now(), o.there(string(e.Transaction), o.run.boxes[e.Key])})
	}
}

// there reports whether a platform has a transaction's message for a recipient already: what
// comes of it later is a second copy.
func (o *oracle) there(transaction, rcpt string) bool {
	message, known := o.of[transaction]
	return known && slices.ContainsFunc(o.copies(message, rcpt).accepted, func(a accepted) bool { return a.transaction == transaction })
}

// arrived holds a delivery against the order of acceptance (I8, I9).
func (o *oracle) arrived(id routing.AgencyID, a accepted, rcpt string) {
	by, known := o.intended[intent{a.transaction, id}]
	for b, list := range o.backlog {
		if known && b.node == by.node && o.run.boxes[b.key] == rcpt && !o.kept[a.transaction+" "+rcpt] {
			for _, h := range list {
				if !h.arrived && h.at.Before(by.at) && h.at.Before(o.asked[a.message]) {
					o.w.violated("I9", "%s brings %s to %s, straight, while %s waits there since %.3f s", b.node, a.transaction, a.rcpt, h.transaction, h.at.Sub(o.w.began).Seconds())
				}
			}
		}
		for i, h := range list {
			if string(h.transaction) != a.transaction || h.arrived || o.run.boxes[b.key] != rcpt {
				continue
			}
			h.arrived = true
			for _, before := range list[:i] {
				if !before.arrived && before.sequence < h.sequence {
					o.w.violated("I8", "%s brings %s to %s before %s, which it took earlier", b.node, h.transaction, a.rcpt, before.transaction)
				}
			}
		}
	}
}

// finish looks at the end, when all faults are over and all nodes had time (I1, I10, I20).
func (o *oracle) finish() {
	inSpool := map[string]bool{}
	for _, m := range o.run.machines {
		if m.life == nil || m.life.spool == nil {
			continue
		}
		m.life.spool.Each(spool.Filter{}, func(e spool.Entry) bool {
			if msg, err := m.life.spool.Get(e.Transaction); err == nil {
				name, _, _ := strings.Cut(strings.TrimPrefix(msg.MessageID, "<"), "@")
				inSpool[name] = true
			}
			return true
		})
	}
	for _, id := range sorted(o.mail) {
		for _, rcpt := range sorted(o.mail[id]) {
			c := o.mail[id][rcpt]
			if len(c.accepted) == 0 {
				if c.custody != "" && !o.run.lostDisk[c.custody] && !inSpool[id] {
					o.w.violated("I1", "%s for %s: %s answered 250 at %.3f s, and nobody has it", id, rcpt, c.custody, c.since.Sub(o.w.began).Seconds())
				}
				continue
			}
			extra := len(c.accepted) - 1
			o.twice += extra
			allowed := o.named[id]
			free := false
			for _, a := range c.accepted {
				free = free || o.unnamed[a.transaction]
			}
			seen := map[string]bool{}
			for _, a := range c.accepted {
				if !seen[a.transaction] {
					seen[a.transaction] = true
					allowed += o.named[a.transaction]
				}
			}
			if extra > allowed && !free {
				o.w.violated("I10", "%s for %s arrived %d times, and %d possible duplicates were named", id, rcpt, len(c.accepted), allowed)
			}
		}
	}
}

func sorted[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
