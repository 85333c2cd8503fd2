package incident

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"mailcutover/admin"
)

// Material is what an export is made of, besides the deliveries.
type Material struct {
	Agency   admin.Agency
	From, To time.Time
	Made     time.Time
	By       string // person who exports
	Reason   string
	Node     string // that was asked
	Program  string // version

	Records    admin.IncidentRecords
	Operations []admin.Operation
	Lists      admin.BatchLists
	Recalls    admin.Recalls
	Verify     *admin.Verification // nil: nothing was ever compared
	Findings   []admin.Finding
	Nodes      []admin.Node

	// Missing is what else could not be learned, in words; what the parts above say
	// themselves is added to it.
	Missing []string
}

// Moment is a line of the time line.
type Moment struct {
	Time  time.Time `json:"time"`
	Node  string    `json:"node,omitempty"`
	Who   string    `json:"who"`  // person; the node's name where nobody did it
	What  string    `json:"what"` // one word of the act
	About string    `json:"about"`
	Text  string    `json:"text,omitempty"`
	Ours  bool      `json:"ours"` // it names the agency, or its operation
}

// Box is a mailbox that was concerned.
type Box struct {
	Mailbox   string    `json:"mailbox"` // directory id
	Addresses []string  `json:"addresses"`
	Messages  int       `json:"messages"` // handed over for it, in the span of time
	Bytes     int64     `json:"bytes"`
	Platforms []string  `json:"platforms"`
	First     time.Time `json:"first,omitzero"`
	Last      time.Time `json:"last,omitzero"`
	Findings  int       `json:"findings"` // that say that content lies in it or of it elsewhere
}

// Correspondent is who sent mail to the agency.
type Correspondent struct {
	Address  string    `json:"address"` // of the envelope; empty: the null sender
	Messages int       `json:"messages"`
	Boxes    int       `json:"mailboxes"` // to so many
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
}

// Way is where mail went by one mapping.
type Way struct {
	Mapping  string    `json:"mapping"` // digest; empty: of fixed addresses
	Epoch    string    `json:"epoch"`
	Platform string    `json:"platform"`
	Result   string    `json:"result"`
	Messages int       `json:"messages"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
}

// tally counts deliveries as they come.
type tally struct {
	rows    int
	boxes   map[string]*Box
	senders map[string]*Correspondent
	reached map[[2]string]bool // sender and mailbox
	ways    map[[4]string]*Way
}

func newTally() *tally {
	return &tally{boxes: make(map[string]*Box), senders: make(map[string]*Correspondent), reached: make(map[[2]string]bool), ways: make(map[[4]string]*Way)}
}

func (t *tally) add(d *admin.Delivery) {
	t.rows++
	name := cmp.Or(d.Mailbox, d.Recipient)
	b := t.boxes[name]
	if b == nil {
		b = &Box{Mailbox: d.Mailbox, First: d.Time}
		t.boxes[name] = b
	}
	b.Messages++
	b.Bytes += d.Size
	b.Last = d.Time
	b.Addresses = with(b.Addresses, d.Recipient)
	b.Platforms = with(b.Platforms, d.Platform)

	from := strings.ToLower(d.From)
	s := t.senders[from]
	if s == nil {
		s = &Correspondent{Address: d.From, First: d.Time}
		t.senders[from] = s
	}
	s.Messages++
	s.Last = d.Time
	if pair := [2]string{from, name}; !t.reached[pair] {
		t.reached[pair] = true
		s.Boxes++
	}

	key := [4]string{d.Mapping, d.Epoch, d.Platform, d.Result}
	w := t.ways[key]
	if w == nil {
		w = &Way{Mapping: d.Mapping, Epoch: d.Epoch, Platform: d.Platform, Result: d.Result, First: d.Time}
		t.ways[key] = w
	}
	w.Messages++
	w.Last = d.Time
}

func with(all []string, one string) []string {
	if one == "" || slices.Contains(all, one) {
		return all
	}
	return append(all, one)
}

// mailboxes returns the mailboxes concerned, those with findings first.
func (t *tally) mailboxes(findings []admin.Finding) []Box {
	touch := func(id, address string) {
		if id == "" {
			return
		}
		b := t.boxes[id]
		if b == nil {
			b = &Box{Mailbox: id}
			t.boxes[id] = b
		}
		b.Findings++
		b.Addresses = with(b.Addresses, address)
	}
	for i := range findings {
		f := &findings[i]
		touch(f.Mailbox, f.Address)
		if f.Owner != f.Mailbox {
			touch(f.Owner, f.OwnerAddress)
		}
	}
	var all []Box
	for b := range maps.Values(t.boxes) {
		all = append(all, *b)
	}
	slices.SortFunc(all, func(a, b Box) int {
		return cmp.Or(cmp.Compare(b.Findings, a.Findings), slices.Compare(a.Addresses, b.Addresses), cmp.Compare(a.Mailbox, b.Mailbox))
	})
	return all
}

func (t *tally) correspondents() []Correspondent {
	var all []Correspondent
	for s := range maps.Values(t.senders) {
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b Correspondent) int {
		return cmp.Or(cmp.Compare(b.Messages, a.Messages), cmp.Compare(a.Address, b.Address))
	})
	return all
}

func (t *tally) byMapping() []Way {
	var all []Way
	for w := range maps.Values(t.ways) {
		all = append(all, *w)
	}
	slices.SortFunc(all, func(a, b Way) int {
		return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.Mapping, b.Mapping), cmp.Compare(a.Platform, b.Platform), cmp.Compare(a.Result, b.Result))
	})
	return all
}

// within reports whether a moment is in the span of time.
func (m *Material) within(t time.Time) bool { return !t.Before(m.From) && t.Before(m.To) }

// operations returns those that were under way in the span of time.
func (m *Material) operations() []admin.Operation {
	var all []admin.Operation
	for _, o := range m.Operations {
		ended := o.Ended && o.Opened != nil && o.Opened.Before(m.From)
		if o.Started.Before(m.To) && !ended {
			all = append(all, o)
		}
	}
	return all
}

// timeLine returns what happened, in the order of time.
func (m *Material) timeLine() []Moment {
	ours := []string{m.Agency.ID}
	operations := m.operations()
	for i := range operations {
		ours = append(ours, operations[i].ID)
	}
	var all []Moment
	for _, n := range m.Records.Nodes {
		for i := range n.Records {
			all = append(all, recorded(&n.Records[i], ours))
		}
		for _, a := range n.Alarms {
			if a.Since.Before(m.To) {
				all = append(all, Moment{Time: a.Since, Node: n.Node, Who: "node " + n.Node, What: "alarm", About: a.Key, Text: a.Text, Ours: names(a.Key+" "+a.Text, ours)})
			}
		}
	}
	for i := range operations {
		o := &operations[i]
		add := func(at *time.Time, what, text string) {
			if at != nil && m.within(*at) {
				all = append(all, Moment{Time: *at, Node: o.Node, Who: o.Person, What: o.Kind + " " + what, About: "operation " + o.ID, Text: text, Ours: true})
			}
		}
		add(&o.Started, "started", o.Reason)
		add(o.Closed, "closed", strings.Join(o.Agencies, " "))
		add(o.Opened, "opened", cmp.Or(o.Error, o.Step))
	}
	for i := range m.Lists.Lists {
		if l := &m.Lists.Lists[i]; m.within(l.Since) {
			all = append(all, Moment{Time: l.Since, Who: strings.Join(l.Approved, ", "), What: "list " + l.Standing, About: "list " + l.ID, Text: "digest " + l.Digest, Ours: true})
		}
	}
	for i := range m.Recalls.Recalls {
		if r := &m.Recalls.Recalls[i]; m.within(r.Begun) {
			all = append(all, Moment{Time: r.Begun, Who: r.Person, What: r.Kind, About: "run " + r.ID, Text: r.Text, Ours: true})
		}
	}
	for i := range m.Findings {
		if f := &m.Findings[i]; m.within(f.First) {
			all = append(all, Moment{Time: f.First, Who: "", What: "finding " + f.Kind, About: "finding " + f.ID, Text: f.State, Ours: true})
		}
	}
	slices.SortStableFunc(all, func(a, b Moment) int { return a.Time.Compare(b.Time) })
	return all
}

// recorded is a record of an audit log in the time line.
func recorded(r *admin.IncidentRecord, ours []string) Moment {
	var text []string
	for _, part := range []struct{ name, value string }{
		{"", r.Reason}, {"before: ", r.Before}, {"after: ", r.After}, {"epoch ", r.Epoch}, {"digests ", strings.Join(r.Digests, " ")},
		{"operation ", r.Operation}, {"proposal ", r.Proposal}, {"failed: ", r.Error},
	} {
		if part.value != "" {
			text = append(text, part.name+part.value)
		}
	}
	if r.Emergency {
		text = append(text, "emergency")
	}
	return Moment{
		Time: r.Time, Node: r.Node, Who: cmp.Or(r.Person, "node "+r.Node), What: r.What, About: r.Subject, Text: strings.Join(text, "; "),
		Ours: names(r.Subject+" "+r.Operation+" "+r.Before+" "+r.After, ours),
	}
}

// names reports whether a text has one of these as a word.
func names(text string, words []string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,;:/=", r) }), func(word string) bool { return slices.Contains(words, word) })
}

// missing returns what the export doesn't have, in words.
func (m *Material) missing(deliveries *admin.Manifest) []string {
	all := slices.Clone(m.Missing)
	add := func(what string, missing []admin.Missing) {
		for _, one := range missing {
			all = append(all, "node "+one.Node+" did not answer for "+what+": "+one.Error)
		}
	}
	add("deliveries", deliveries.Missing)
	all = append(all, deliveries.Notes...)
	add("its audit log and alarms", m.Records.Missing)
	for _, n := range m.Records.Nodes {
		if n.Damage != "" {
			all = append(all, "the audit log of node "+n.Node+" is damaged: "+n.Damage)
		}
		if n.More {
			all = append(all, "the audit log of node "+n.Node+" has more records in this time than are shown")
		}
	}
	for i := range m.Recalls.Recalls {
		add("run "+m.Recalls.Recalls[i].ID, m.Recalls.Recalls[i].Missing)
	}
	if m.Recalls.Unreadable != "" {
		all = append(all, "runs that can't be read: "+m.Recalls.Unreadable)
	}
	for _, text := range m.Lists.Unreadable {
		all = append(all, "a list that can't be read: "+text)
	}
	if m.Verify == nil || m.Verify.Last == nil {
		all = append(all, "the mailboxes of this agency were never compared: nothing is known of content in the wrong one")
	}
	slices.Sort(all)
	return slices.Compact(all)
}
