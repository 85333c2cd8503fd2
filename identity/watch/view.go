package watch

import (
	"errors"
	"slices"
	"strings"
	"time"

	"mailcutover/identity/check"
	"mailcutover/identity/directory"
	"mailcutover/identity/model"
	"mailcutover/routing"
)

// View is a directory as it was read, in the terms of the model. It is immutable.
type View struct {
	Snapshot directory.Snapshot
	Facts    *check.Facts

	seen     []seen
	byID     map[routing.MailboxID]int32
	x500     map[string]routing.MailboxID // folded; of two mailboxes that share one: zero
	Problems []Problem                    // objects that could be mailboxes of an agency and can't be used
}

// seen is an object that has a directory id.
type seen struct {
	object directory.Object
	agency routing.AgencyID
}

// Problem is an object that the directory has wrong.
type Problem struct {
	DN     string           `json:"dn"`
	Agency routing.AgencyID `json:"agency,omitempty"`
	Text   string           `json:"text"`
}

// builder makes a View of what a directory sends.
type builder struct {
	view  *View
	model *model.Model
}

func newBuilder(name string, m *model.Model, at time.Time) *builder {
	return &builder{model: m, view: &View{
		Facts: check.NewFacts(name, at), byID: make(map[routing.MailboxID]int32), x500: make(map[string]routing.MailboxID),
	}}
}

// add notes an object.
func (b *builder) add(o *directory.Object) error {
	v := b.view
	agency := b.model.Agency(o)
	v.Facts.Add(o, agency)
	problem := func(text string) { v.Problems = append(v.Problems, Problem{DN: o.DN, Agency: agency, Text: text}) }
	if (o.Kind.Mailbox() || o.Kind == directory.KindUnknown) && agency != "" {
		for _, p := range o.Problems {
			problem(p)
		}
		if o.Kind == directory.KindUnknown && len(o.Addresses) > 0 {
			problem("the directory doesn't say what it is, so it is in no list and doesn't move")
		}
	}
	if o.ID.IsZero() {
		return nil
	}
	if _, twice := v.byID[o.ID]; twice {
		problem("another object has its directory id " + o.ID.String())
		return nil
	}
	v.byID[o.ID] = int32(len(v.seen))
	v.seen = append(v.seen, seen{object: *o, agency: agency})
	for _, name := range o.X500 {
		key := strings.ToLower(name)
		if other, taken := v.x500[key]; taken && other != o.ID {
			v.x500[key] = routing.MailboxID{}
			problem("another object has its X.500 name " + name)
			continue
		}
		v.x500[key] = o.ID
	}
	return nil
}

// errNever is for a directory that wasn't read yet.
var errNever = errors.New("the directory was not read yet")

// object returns what has a directory id.
func (v *View) object(id routing.MailboxID) (*seen, bool) {
	i, ok := v.byID[id]
	if !ok {
		return nil, false
	}
	return &v.seen[i], true
}

// Mailbox returns the object of a directory id; ok is false if the directory had none.
func (v *View) Mailbox(id routing.MailboxID) (o *directory.Object, agency routing.AgencyID, ok bool) {
	one, ok := v.object(id)
	if !ok {
		return nil, "", false
	}
	return &one.object, one.agency, true
}

// Objects returns the objects that the model counts to an agency, in the order in which
// they came. They must not be changed.
func (v *View) Objects(agency routing.AgencyID) []*directory.Object {
	var out []*directory.Object
	for i := range v.seen {
		if v.seen[i].agency == agency {
			out = append(out, &v.seen[i].object)
		}
	}
	return out
}

// X500 returns the mailbox that has an X.500 name, such as a legacyExchangeDN.
func (v *View) X500(name string) (routing.MailboxID, bool) {
	id := v.x500[strings.ToLower(name)]
	return id, !id.IsZero()
}

// Crossing is a relation between mailboxes of which one has moved and the other hasn't.
type Crossing struct {
	What string // member, or forward
	From string // DN of the group or mailbox
	To   string // DN of the other
	// Agencies of both; they are on different platforms.
	FromAgency, ToAgency routing.AgencyID
}

// Crossings returns what crosses the border between agencies on different platforms: members
// and delegates of functional mailboxes, and forwards.
func (v *View) Crossings(s *routing.State) []Crossing {
	platform := func(id routing.AgencyID) routing.PlatformID {
		if a, ok := s.Agency(id); ok {
			return a.Platform()
		}
		return ""
	}
	byDN := make(map[string]*seen, len(v.seen))
	for i := range v.seen {
		byDN[strings.ToLower(v.seen[i].object.DN)] = &v.seen[i]
	}
	var out []Crossing
	for i := range v.seen {
		from := &v.seen[i]
		if !from.object.Kind.Mailbox() || platform(from.agency) == "" {
			continue
		}
		relate := func(what, dn string) {
			to, ok := byDN[strings.ToLower(dn)]
			if !ok || !to.object.Kind.Mailbox() || platform(to.agency) == "" || platform(to.agency) == platform(from.agency) {
				return
			}
			out = append(out, Crossing{What: what, From: from.object.DN, To: dn, FromAgency: from.agency, ToAgency: to.agency})
		}
		for _, dn := range from.object.Members {
			relate("member", dn)
		}
		if from.object.Forward != "" {
			relate("forward", from.object.Forward)
		}
	}
	slices.SortFunc(out, func(a, b Crossing) int { return strings.Compare(a.From+a.To, b.From+b.To) })
	return out
}
