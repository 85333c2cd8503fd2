package verify

import (
	"strings"

	"mailcutover/rollback/msgkey"
	"mailcutover/routing"
)

// Names says whose an address is, from this node's copy of the table.
type Names interface {
	// Whose returns the mailbox that has an address, canonical or nearly. many is true for
	// what may stand for several people: a group or another fixed address, or an address in a
	// served domain that nobody is known to have.
	Whose(address string) (id routing.MailboxID, agency routing.AgencyID, many bool)

	// Primary returns a mailbox's primary address; empty if the table doesn't have it.
	Primary(agency routing.AgencyID, id routing.MailboxID) routing.Address
}

// people fills in who is named by a message. holder reports whether its own mailbox is: then
// nothing needs an explanation.
func (r *run) people(f *msgkey.Facts, holder uint32, s *suspect) (holderNamed bool) {
	for i := range s.named {
		s.named[i] = none
	}
	if f.List != "" {
		s.marks |= markMany
	}
	n := 0
	look := func(field string, recipients bool) {
		if len(field) >= msgkey.MaxField {
			s.marks |= markMany // whom the rest names isn't known
		}
		for address := range addresses(field) {
			id, agency, many := r.o.Names.Whose(address)
			if many {
				s.marks |= markMany
			}
			if id.IsZero() {
				continue
			}
			i := r.book.index(id, agency)
			switch {
			case i == holder:
				holderNamed = true
			case s.names(i):
			case n == maxNamed:
				s.marks |= markMany
			default:
				s.named[n] = i
				n++
			}
			if recipients && i != holder {
				s.marks |= markInside
			}
		}
	}
	look(f.To, true)
	look(f.Cc, true)
	look(f.From, false)
	look(f.Sender, false)
	return holderNamed
}

// addresses yields what looks like an address in a header field, in lower case. It doesn't
// go by the grammar: a name that only looks like one is nobody's.
func addresses(field string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for rest := field; ; {
			at := strings.IndexByte(rest, '@')
			if at < 0 {
				return
			}
			start := strings.LastIndexFunc(rest[:at], outside) + 1
			end := strings.IndexFunc(rest[at+1:], outside)
			if end < 0 {
				end = len(rest) - at - 1
			}
			end += at + 1
			if start < at && end > at+1 && !yield(strings.ToLower(rest[start:end])) {
				return
			}
			rest = rest[end:]
		}
	}
}

// outside reports whether a character can't be part of an address as platforms have them.
func outside(c rune) bool {
	return c <= ' ' || strings.ContainsRune(`<>()[]:;,"\@`, c)
}
