package admin

import (
	"fmt"
	"time"

	"mailcutover/node"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// Agency is an agency's record, and what is under way for it on this node.
type Agency struct {
	ID          string   `json:"id"`
	Source      string   `json:"source" doc:"Source platform"`
	Target      string   `json:"target" doc:"Target platform"`
	Parent      string   `json:"parent,omitempty" doc:"Agency that this pilot group belongs to"`
	Children    []string `json:"children,omitempty" doc:"Pilot groups of this agency"`
	Phase       string   `json:"phase" enum:"unknown,source,to-target,target,to-source,remap-source,remap-target"`
	Platform    string   `json:"platform" doc:"Platform that holds the mailboxes now; empty in an unknown phase"`
	Open        bool     `json:"open" doc:"Mail and logins may go to the platform"`
	Published   bool     `json:"published"`
	Locked      bool     `json:"locked"`
	Finalised   bool     `json:"finalised" doc:"There is no way back"`
	Regressed   bool     `json:"regressed,omitempty" doc:"A newer record was seen before: closed until the epoch is above that one"`
	Epoch       string   `json:"epoch" doc:"TERM.NUMBER; say it as expected_epoch to change the agency" example:"1.7"`
	Tightness   string   `json:"tightness" enum:"unknown,settled,armed,settling"`
	ArmedAt     string   `json:"armed_at,omitempty" doc:"Epoch at the last arming"`
	Operation   string   `json:"operation,omitempty" doc:"Operation that owns the agency"`
	Unconfirmed []string `json:"unconfirmed,omitempty" doc:"Emergencies that a second person has not confirmed: until then nothing else begins, and nothing is finalised"`
	Frozen      string   `json:"frozen,omitempty" doc:"By whom and why no operation may begin"`
	Mapping     string   `json:"mapping" doc:"Digest of the mapping in force"`
	Mailboxes   int      `json:"mailboxes" doc:"-1 if the mapping isn't there: the agency is closed"`
	Revision    uint64   `json:"revision" doc:"Of the table, at the record's last change"`
	UnderWay    UnderWay `json:"under_way"`
}

// UnderWay is what this node has under way for an agency.
type UnderWay struct {
	Open    int `json:"open" doc:"Transactions without a final dot"`
	Dotted  int `json:"dotted" doc:"Final dot sent, answer awaited"`
	InDoubt int `json:"in_doubt" doc:"Final dot sent, answer lost"`
}

// pilots returns the pilot groups of each agency that has some.
func pilots(all []routing.Agency) map[routing.AgencyID][]string {
	children := make(map[routing.AgencyID][]string)
	for _, a := range all {
		if a.Parent != "" {
			children[a.Parent] = append(children[a.Parent], string(a.ID))
		}
	}
	return children
}

func agencyView(s *routing.State, a routing.Agency, children []string, load node.Load) Agency {
	v := Agency{
		ID: string(a.ID), Source: string(a.Source), Target: string(a.Target), Parent: string(a.Parent), Children: children,
		Phase: a.Phase.String(), Platform: string(a.Platform()), Published: a.Published, Locked: a.Locked, Finalised: a.Finalised,
		Epoch: a.Epoch.String(), Tightness: a.Tightness.String(), Operation: string(a.Operation),
		Mapping: a.Mapping.String(), Mailboxes: -1, Revision: uint64(a.Revision),
		UnderWay: UnderWay{Open: load.Open, Dotted: load.Dotted, InDoubt: load.InDoubt},
	}
	for _, id := range a.Unconfirmed.All() {
		v.Unconfirmed = append(v.Unconfirmed, string(id))
	}
	if f, ok := s.Frozen(a.ID); ok {
		v.Frozen = f.Who + ": " + f.Reason
	}
	if a.ArmedAt != (routing.Epoch{}) {
		v.ArmedAt = a.ArmedAt.String()
	}
	if m := s.Mapping(a.ID); m != nil {
		v.Mailboxes = m.Len()
	}
	_, v.Regressed = s.Seen(a.ID)
	v.Open = a.Open() && !v.Regressed && v.Mailboxes >= 0
	return v
}

// Mailbox is a row of an agency's mapping.
type Mailbox struct {
	ID        string   `json:"directory_id"`
	Agency    string   `json:"agency"`
	Kind      string   `json:"kind" doc:"user, shared or room; of a fixed address: group, folder, contact, application or scanner"`
	Addresses []string `json:"addresses" doc:"The primary address first"`
	Logins    []string `json:"logins,omitempty"`
	Source    Place    `json:"source"`
	Target    Place    `json:"target"`
}

// Place is how a platform knows a mailbox.
type Place struct {
	Platform string `json:"platform"`
	Address  string `json:"address"`
	Login    string `json:"login,omitempty"`
}

func mailboxView(a routing.Agency, r routing.Row) Mailbox {
	v := Mailbox{ID: r.Mailbox.String(), Agency: string(a.ID), Kind: r.Kind.String(), Addresses: texts(r.Addresses), Logins: texts(r.Logins)}
	source, target := r.At(false), r.At(true)
	v.Source = Place{Platform: string(a.Source), Address: string(source.Address), Login: source.Login}
	v.Target = Place{Platform: string(a.Target), Address: string(target.Address), Login: target.Login}
	return v
}

func texts[S ~string](in []S) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = string(s)
	}
	return out
}

// Operation is one run.
type Operation struct {
	ID        string     `json:"id"`
	Kind      string     `json:"kind" enum:"cutover,rollback,remap"`
	Agency    string     `json:"agency"`
	Agencies  []string   `json:"agencies" doc:"That change together"`
	Person    string     `json:"person"`
	Reason    string     `json:"reason"`
	Step      string     `json:"step" enum:"watermarks,begin,drain,hooks,commit,publish,spread,canary,abort,done,aborted,refused"`
	Ended     bool       `json:"ended"`
	Running   bool       `json:"running" doc:"Under way on this node"`
	Started   time.Time  `json:"started"`
	Closed    *time.Time `json:"closed,omitempty" doc:"When the agencies were closed"`
	Opened    *time.Time `json:"opened,omitempty" doc:"When they were open again"`
	ClosedFor float64    `json:"closed_for_seconds" doc:"Until now, if they are still closed"`
	Waiting   string     `json:"waiting,omitempty" doc:"What is waited for"`
	Error     string     `json:"error,omitempty" doc:"Why it was aborted or refused, or is stuck"`

	Node       string          `json:"node,omitempty" doc:"That carries it out"`
	Plan       string          `json:"plan,omitempty" doc:"Digest of the plan that was approved"`
	Emergency  bool            `json:"emergency,omitempty" doc:"On one person's word"`
	TargetDead bool            `json:"target_dead,omitempty"`
	Hooks      []OperationHook `json:"hooks,omitempty"`
	Nodes      []OperationNode `json:"nodes,omitempty" doc:"What each was last seen to do for it"`
	Fenced     []string        `json:"fenced,omitempty" doc:"Nodes that it went on without"`
	Listed     []string        `json:"listed,omitempty" doc:"Messages that it did not wait for"`
	Late       []string        `json:"late,omitempty" doc:"Nodes that had not seen the opening when it ended"`

	Canaries []OperationCanary `json:"canaries,omitempty" doc:"What was tried once the agencies were open"`
}

// OperationCanary is what became of the probe message and the probe login after a switch.
type OperationCanary struct {
	Agency string    `json:"agency"`
	OK     bool      `json:"ok"`
	Mail   string    `json:"mail,omitempty" doc:"What came of the message, in words"`
	Login  string    `json:"login,omitempty" doc:"What came of the login, in words"`
	Ended  time.Time `json:"ended"`
}

// OperationHook is a hook of an operation, with its receipt.
type OperationHook struct {
	Name     string `json:"name"`
	Point    string `json:"point"`
	External bool   `json:"external,omitempty" doc:"Somebody says when it is done: mailcutover operation tell"`
	Status   string `json:"status" enum:"planned,started,done,told,without,undone,undo-failed"`
	Attempts int    `json:"attempts,omitempty"`
	Receipt  string `json:"receipt,omitempty"`
	Error    string `json:"error,omitempty"`
	Person   string `json:"person,omitempty" doc:"Who said done, or without"`
}

// OperationNode is what a node does for an operation.
type OperationNode struct {
	Node  string `json:"node"`
	State string `json:"state"`
	Text  string `json:"text,omitempty"`
}

func operationView(o operation.Operation, running bool) Operation {
	v := Operation{
		ID: string(o.ID), Kind: string(o.Kind), Agency: string(o.Agency), Agencies: texts(o.Agencies), Person: o.Who,
		Reason: o.Reason, Step: string(o.Step), Ended: o.Step.Ended(), Running: running, Started: o.Started,
		ClosedFor: o.ClosedFor().Seconds(), Waiting: o.Waiting, Error: o.Error,
		Node: string(o.Runner), Emergency: o.Emergency, TargetDead: o.TargetDead, Fenced: o.Fenced, Listed: o.Listed, Late: o.Late,
	}
	if !o.Plan.IsZero() {
		v.Plan = o.Plan.String()
	}
	for _, h := range o.Hooks {
		v.Hooks = append(v.Hooks, OperationHook{
			Name: h.Name, Point: string(h.Point), External: h.External, Status: string(h.Status), Attempts: h.Attempts, Receipt: h.Receipt, Error: h.Error, Person: h.Who,
		})
	}
	for _, c := range o.Canaries {
		v.Canaries = append(v.Canaries, OperationCanary{string(c.Agency), c.OK, c.Mail, c.Login, c.Ended})
	}
	for _, n := range o.Nodes {
		v.Nodes = append(v.Nodes, OperationNode{string(n.Node), string(n.State), n.Text})
	}
	if !o.Closed.IsZero() {
		v.Closed = &o.Closed
		if o.Opened.IsZero() && !v.Ended {
			v.ClosedFor = time.Since(o.Closed).Seconds()
		}
	}
	if !o.Opened.IsZero() {
		v.Opened = &o.Opened
	}
	return v
}

// Route is what would be done now with mail for an address, or with a login.
type Route struct {
	Name     string   `json:"name" doc:"The address or login in canonical form"`
	As       string   `json:"as" enum:"address,login"`
	Deliver  bool     `json:"deliver" doc:"It would go to the platform now"`
	Reason   string   `json:"reason" doc:"Why, in words"`
	Explain  string   `json:"explain" doc:"The record and its state, in words"`
	Answer   string   `json:"answer,omitempty" doc:"What a sender of mail to the address is answered now"`
	Claims   []string `json:"claims,omitempty" doc:"Who has the name, if it is more than one: then nobody gets anything under it"`
	Agency   string   `json:"agency,omitempty"`
	Mailbox  *Mailbox `json:"mailbox,omitempty" doc:"The record"`
	Phase    string   `json:"phase,omitempty"`
	Epoch    string   `json:"epoch,omitempty"`
	Platform string   `json:"platform,omitempty" doc:"That holds the mailbox now, or did last; mail goes there only if deliver is true"`
	Address  string   `json:"address,omitempty" doc:"The mailbox's address on that platform"`
	Login    string   `json:"login,omitempty" doc:"Its login there"`
	Armed    bool     `json:"armed" doc:"A check is due before each final dot or login"`
	Table    Table    `json:"table" doc:"The copy that was asked"`
}

// Table is where this node's copy of the table stands.
type Table struct {
	Incarnation string     `json:"incarnation"`
	Revision    uint64     `json:"revision"`
	Mapped      uint64     `json:"mapped" doc:"Last revision that changed a mapping, a fixed address or a domain"`
	Open        bool       `json:"open" doc:"The copy is trusted"`
	Reason      string     `json:"reason,omitempty" doc:"Why it isn't"`
	Contact     *time.Time `json:"contact,omitempty" doc:"Last moment at which the copy was known to be what the table says"`
	Age         float64    `json:"age_seconds" doc:"Since contact; -1 without one"`
	Decides     bool       `json:"decides" doc:"This node may decide for settled agencies"`
	Error       string     `json:"error,omitempty" doc:"Of the last attempt to reach the table"`
	Agencies    int        `json:"agencies"`
	Mailboxes   int        `json:"mailboxes"`
	Missing     []string   `json:"missing,omitempty" doc:"Agencies whose mapping couldn't be loaded"`
	Regressed   []string   `json:"regressed,omitempty" doc:"Agencies whose record is older than one seen before"`
	Conflicts   []string   `json:"conflicts,omitempty" doc:"Names that two have, at most 100: closed; route explain says who"`
	Postmaster  string     `json:"postmaster,omitempty" doc:"Why mail to <postmaster> is put off"`
	OnDisk      uint64     `json:"on_disk" doc:"Revision of the copy on disk"`
	DiskError   string     `json:"disk_error,omitempty"`
}

func (s *Server) tableView() Table {
	st := s.Replica.Status()
	v := Table{
		Incarnation: string(st.Position.Incarnation), Revision: uint64(st.Position.Revision), Mapped: uint64(st.Position.Mapped),
		Open: st.Open, Reason: st.Reason, Age: -1, Decides: s.Gate.Ready() == nil,
		Agencies: st.Agencies, Mailboxes: st.Mailboxes, Missing: texts(st.Missing), Regressed: texts(st.Regressed),
		OnDisk: uint64(st.OnDisk.Revision), Error: errorText(st.Err), DiskError: errorText(st.DiskErr),
	}
	state := s.Replica.State()
	v.Conflicts, _ = state.Conflicts(100)
	v.Postmaster = s.noPostmaster(state)
	if !st.Contact.IsZero() {
		v.Contact = &st.Contact
		v.Age = time.Since(st.Contact).Seconds()
	}
	return v
}

// noPostmaster says why mail to <postmaster> is put off; empty if it isn't, or if that
// can't be told.
func (s *Server) noPostmaster(state *routing.State) string {
	a := s.Postmaster()
	if a == "" {
		return "no address is configured (routing.postmaster)"
	}
	switch d := state.DecideAddress(a, s.Separator); d.Reason {
	case routing.ReasonNoSuchName, routing.ReasonForeign, routing.ReasonConflict:
		return fmt.Sprintf("%s (routing.postmaster): %s", a, d.Reason)
	case routing.ReasonTableUnavail:
		if state.Position().Incarnation != "" && len(state.Domains())+len(state.LostDomains()) == 0 {
			return fmt.Sprintf("%s (routing.postmaster): the table has no domain", a)
		}
	}
	return ""
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Domain is a served domain.
type Domain struct {
	Name     string `json:"name"`
	Complete bool   `json:"complete" doc:"All its addresses are in the table"`
}

// Platform is a platform as this node sees it.
type Platform struct {
	ID    string `json:"id"`
	Ready bool   `json:"ready" doc:"At least one host of each endpoint takes connections, as far as is known"`
	Error string `json:"error,omitempty" doc:"Why not"`
}

// Reloaded is what a reload of the settings did.
type Reloaded struct {
	Changed  []string `json:"changed" doc:"Settings that are in force now"`
	Warnings []string `json:"warnings,omitempty"`
}

// Version is that of the running program.
type Version struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty" doc:"Of the source"`
	Go       string `json:"go" doc:"That it was built with"`
}
