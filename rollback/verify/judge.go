package verify

import (
	"cmp"
	"slices"
)

// What it takes for a finding. docs/architecture/verify.md says why.
const (
	// sureMessages that name the owner and not the mailbox, and came before the watermark, are
	// enough; so are sureFew if they are, with the rare ones, half of what the mailbox holds.
	sureMessages = 5
	sureFew      = 2
	// sureRare messages that stand with the owner and hardly anywhere else are enough, if they
	// are rareShare percent of what of this mailbox stands elsewhere.
	sureRare  = 10
	rareShare = 60
	// rare is on how many mailboxes' source side a rare message stands.
	rare = 2
	// With so many there may be something: less sure, or later.
	possibleMessages = 3
	possibleRare     = 10
	// addressedMessages that stand nowhere and name only the owner, and are half of all that
	// stand nowhere.
	addressedMessages = 10
	// foreignMessages that stand nowhere and belong to no finding with an owner, and are
	// foreignShare percent of what the mailbox holds.
	foreignMessages = 20
	foreignShare    = 30
	// missingShare percent of the source side are missing.
	missingShare = 50
)

// message is one suspect with all evidence that it is.
type message struct {
	evidence // of no owner in particular
	owners   []claim
	taken    bool // a finding explains it
}

// claim is that a message is somebody's.
type claim struct {
	owner  uint32
	stands bool // on the owner's source side
	named  bool
}

// score is what the messages of a mailbox say about one owner.
type score struct {
	owner                             uint32
	strong, strongLate                int
	weak, weakLate                    int
	addressed, addressedLate, standsN int
}

// holder is a mailbox whose evidence is judged.
type holder struct {
	holds int // messages on its target side
	// read reports whether an owner's source side was read to the end.
	read func(owner uint32) bool
}

// verdict is a finding by numbers.
type verdict struct {
	kind  Kind
	owner uint32 // none: not known
	score score
	n     int            // messages, without common ones
	in    map[uint32]int // messages by folder
}

// judge says what the evidence about one mailbox comes to. It takes the owner with the most
// evidence first, and then asks what of the rest is left unexplained: the colleagues of the
// true owner have some of the same messages.
func judge(h *holder, all []evidence) []verdict {
	messages := gather(all)
	var out []verdict
	for {
		best, ok := h.best(messages)
		if !ok {
			break
		}
		out = append(out, best)
	}
	if v, ok := h.foreign(messages); ok {
		out = append(out, v)
	}
	return out
}

// gather brings the evidence of each message together.
func gather(all []evidence) []message {
	slices.SortFunc(all, func(a, b evidence) int {
		return cmp.Or(cmp.Compare(a.folder, b.folder), cmp.Compare(a.uid, b.uid), cmp.Compare(a.owner, b.owner))
	})
	var messages []message
	for i := range all {
		e := &all[i]
		if n := len(messages); n == 0 || messages[n-1].folder != e.folder || messages[n-1].uid != e.uid {
			messages = append(messages, message{evidence: *e})
		}
		if m := &messages[len(messages)-1]; e.owner != none {
			m.owners = append(m.owners, claim{e.owner, e.stands > 0, e.named})
		}
	}
	return messages
}

// best returns the surest finding that messages which aren't taken give, and takes them.
func (h *holder) best(messages []message) (verdict, bool) {
	scores := make(map[uint32]*score)
	elsewhere, nowhere := 0, 0 // messages that stand with others, or with nobody
	for i := range messages {
		m := &messages[i]
		if m.taken || m.marks&markMany != 0 {
			continue
		}
		late := m.marks&markLate != 0
		switch {
		case m.stands > 0 && !late:
			elsewhere++
		case m.stands == 0:
			nowhere++
		}
		for _, c := range m.owners {
			s := scores[c.owner]
			if s == nil {
				s = &score{owner: c.owner}
				scores[c.owner] = s
			}
			s.note(m, c, late)
		}
	}
	order := make([]*score, 0, len(scores))
	for _, s := range scores {
		order = append(order, s)
	}
	slices.SortFunc(order, func(a, b *score) int { return cmp.Or(b.weight()-a.weight(), cmp.Compare(a.owner, b.owner)) })
	best := verdict{}
	for _, s := range order {
		if kind := h.kind(s, elsewhere, nowhere); kind != "" && (best.kind == "" || kind.rank() < best.kind.rank()) {
			best = verdict{kind: kind, owner: s.owner, score: *s}
		}
	}
	if best.kind == "" {
		return best, false
	}
	best.in = make(map[uint32]int)
	for i := range messages {
		m := &messages[i]
		if !m.taken && slices.ContainsFunc(m.owners, func(c claim) bool { return c.owner == best.owner }) {
			m.taken = true
			best.n++
			best.in[m.folder]++
		}
	}
	return best, true
}

// note counts a message for an owner.
func (s *score) note(m *message, c claim, late bool) {
	to := func(early, later *int) {
		if late {
			early = later
		}
		*early++
	}
	switch {
	case !c.stands:
		to(&s.addressed, &s.addressedLate)
	case c.named && m.marks&markInside != 0:
		to(&s.strong, &s.strongLate)
	case m.stands <= rare:
		to(&s.weak, &s.weakLate)
	}
	if c.stands {
		s.standsN++
	}
}

// weight orders owners: what is sure first.
func (s *score) weight() int {
	return 1000*(s.strong+s.strongLate) + 100*(s.weak+s.weakLate) + 10*(s.addressed+s.addressedLate) + s.standsN
}

// kind says which finding a score makes; empty: none.
func (h *holder) kind(s *score, elsewhere, nowhere int) Kind {
	switch {
	case s.strong >= sureMessages, s.strong >= sureFew && 2*(s.strong+s.weak) >= h.holds:
		return Crossed
	case s.weak+s.strong >= sureRare && 100*(s.weak+s.strong) >= rareShare*elsewhere:
		return Crossed
	case s.addressed >= addressedMessages && 2*s.addressed >= nowhere && !h.read(s.owner):
		return Crossed
	case s.strong+s.strongLate >= possibleMessages, s.weak+s.weakLate+s.strong+s.strongLate >= possibleRare,
		s.addressed+s.addressedLate >= addressedMessages && 2*(s.addressed+s.addressedLate) >= nowhere:
		return Possible
	}
	return ""
}

// foreign returns the finding that much is there which stands nowhere, if it is so.
func (h *holder) foreign(messages []message) (verdict, bool) {
	v := verdict{kind: Foreign, owner: none, in: make(map[uint32]int)}
	for i := range messages {
		if m := &messages[i]; !m.taken && m.stands == 0 && m.marks&(markMany|markLate) == 0 {
			v.n++
			v.in[m.folder]++
		}
	}
	return v, v.n >= foreignMessages && 100*v.n >= foreignShare*h.holds
}
