package routing

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Term is where one term of a table began. Two terms are the same, with all that went
// before them, only if all three are equal: two servers that know nothing of each other may
// begin terms of the same number, even at the same revision.
type Term struct {
	Number uint32    `json:"term"`
	Base   Revision  `json:"base"`  // where the table stood in the term before
	Began  time.Time `json:"began"` // by the table's clock, in whole microseconds
}

// Lineage is the terms through which a table came to where it stands, the oldest first: at
// most the last MaxLineage of them. With a revision it names one history, and two of them tell
// what they have in common. It is not altered once it is made.
type Lineage []Term

// MaxLineage is how many terms a lineage goes back. Of a copy that is older than all of them
// it isn't known what it has in common with the table, which counts as nothing.
const MaxLineage = 256

// With returns the lineage after another term began.
func (l Lineage) With(t Term) Lineage {
	next := make(Lineage, 0, len(l)+1)
	next = append(append(next, l...), t)
	return next[max(0, len(next)-MaxLineage):]
}

// Last returns the present term; the zero Term if l is empty.
func (l Lineage) Last() Term {
	if len(l) == 0 {
		return Term{}
	}
	return l[len(l)-1]
}

// Equal reports whether both are the same.
func (l Lineage) Equal(o Lineage) bool {
	if len(l) != len(o) {
		return false
	}
	for i := range l {
		if !l[i].equal(o[i]) {
			return false
		}
	}
	return true
}

func (t Term) equal(o Term) bool {
	return t.Number == o.Number && t.Base == o.Base && t.Began.Equal(o.Began)
}

// Has reports whether this term is among those of l.
func (l Lineage) Has(t Term) bool { _, ok := l.find(t); return ok }

// find returns the index of a term.
func (l Lineage) find(t Term) (int, bool) {
	for i := len(l) - 1; i >= 0 && l[i].Number >= t.Number; i-- {
		if l[i].equal(t) {
			return i, true
		}
	}
	return 0, false
}

// end is up to where the i-th term's history goes, in a table that stands at a revision.
func (l Lineage) end(i int, at Revision) Revision {
	if i+1 < len(l) {
		return l[i+1].Base
	}
	return at
}

// Common returns the last revision up to which two histories are one: that of l up to the
// revision at, and that of o up to other. 0: nothing is known to be.
func (l Lineage) Common(at Revision, o Lineage, other Revision) Revision {
	for i := len(l) - 1; i >= 0; i-- {
		if j, ok := o.find(l[i]); ok {
			return min(l.end(i, at), o.end(j, other))
		}
	}
	return 0
}

// String returns l as the table keeps it: TERM:BASE:BEGAN with blanks between, moments in
// microseconds since 1970.
func (l Lineage) String() string {
	words := make([]string, len(l))
	for i, t := range l {
		words[i] = fmt.Sprintf("%d:%d:%d", t.Number, t.Base, t.Began.UnixMicro())
	}
	return strings.Join(words, " ")
}

// ParseLineage parses what String returns.
func ParseLineage(s string) (Lineage, error) {
	var l Lineage
	for word := range strings.FieldsSeq(s) {
		parts := strings.Split(word, ":")
		if len(parts) != 3 {
			return nil, fmt.Errorf("lineage: %.80q: want TERM:BASE:BEGAN", word)
		}
		number, err1 := strconv.ParseUint(parts[0], 10, 32)
		base, err2 := strconv.ParseUint(parts[1], 10, 53)
		began, err3 := strconv.ParseInt(parts[2], 10, 64)
		if err1 != nil || err2 != nil || err3 != nil || len(l) > 0 && uint32(number) <= l[len(l)-1].Number || len(l) == MaxLineage {
			return nil, fmt.Errorf("lineage: %.80q: want numbers, growing terms, and at most %d of them", word, MaxLineage)
		}
		l = append(l, Term{Number: uint32(number), Base: Revision(base), Began: time.UnixMicro(began).UTC()})
	}
	return l, nil
}
